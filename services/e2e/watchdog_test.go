package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// briefly is how long rentals of this test last: renthook has to have them and be killed before.
const briefly = 75 * time.Second

// brief rents for a short time and waits until it runs; it gives the order's id and the market's number.
func (r *renthook) brief(t *testing.T, key string) (order string, rental int64) {
	t.Helper()
	op := r.settled(t, r.hook(t, "create-order", briefAsk, "Idempotency-Key", key).TaskID)
	if op.Order.State != "RUNNING" {
		t.Fatalf("%s: %+v\n%s", key, op, r.log)
	}
	rental, err := op.Order.MarketOrderID.Int64()
	if err != nil {
		t.Fatal(err)
	}
	return op.OrderID, rental
}

var briefAsk = fmt.Sprintf(`{"gpu_type":"RTX 4090","max_price":2,"max_duration":%q}`, briefly)

// human rents a free server by hand on the same account, as renthook's image and with ports like its own.
func human(t *testing.T, address string) (rental int64) {
	t.Helper()
	var state struct {
		Servers []struct {
			ID             int64
			Rented, Online bool
		}
	}
	res, err := http.Get("http://" + address + "/sim/v1/state")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(&state); err != nil {
		t.Fatal(err)
	}
	for n := len(state.Servers) - 1; n >= 0; n-- {
		if s := state.Servers[n]; s.Online && !s.Rented {
			control(t, address, "/sim/v1/rentals", fmt.Sprintf(`{"server_id":%d,"image":"nvidia/cuda:12.8.0-base-ubuntu22.04","ports":[22,23456,34567]}`, s.ID))
			for _, r := range market(t, address).Rentals {
				if r.ServerID == s.ID {
					return r.ID
				}
			}
		}
	}
	t.Fatal("no free server")
	return 0
}

// renthook is killed with rentals that run, one that it never saw, and one whose end was just moved. The watchdog alone ends
// those that are overdue, also when cancels have no effect at first; nobody else's, and none that is not due.
func TestWatchdog_EndsWhatIsOverdueWhenAllElseIsDown(t *testing.T) {
	t.Parallel()
	sim := simulate(t)
	again := func(data string, more ...string) *renthook {
		return up(t, data, nil, append(append([]string{"--market-url", "http://" + sim.address}, killTimes...), more...)...)
	}
	neighbours := t.TempDir()
	// With two of its ports a rental would stop whoever has no journal yet.
	neighbour := again(neighbours, "--set", "order.marker_ports=1")
	_, theirs := neighbour.brief(t, "theirs")
	neighbour.kill()

	data := t.TempDir()
	r := again(data)
	moved, kept := r.brief(t, "moved")
	if out, code := r.cli(t, "extend", moved, "2h"); code != 0 {
		t.Fatalf("extend: %d %s", code, out)
	}
	byHand := human(t, sim.address)
	first, overdue := r.brief(t, "first")
	seen := waiting(sim.log.String())
	control(t, sim.address, "/sim/v1/script", `{"create_order":[{"delay_ms":20000}]}`)
	r.hook(t, "create-order", briefAsk, "Idempotency-Key", "unseen")
	eventually(t, "a create to be in flight", func() bool { return waiting(sim.log.String()) > seen })
	eventually(t, "the market to have carried it out", func() bool { return len(market(t, sim.address).Rentals) == 5 })
	r.kill()
	killed := time.Now()
	l := market(t, sim.address)
	unseen, creates := int64(0), l.calls("create_order")
	for _, rental := range l.Rentals {
		if rental.EndedAt != nil {
			t.Fatalf("a rental ended before the watchdog was there: %+v", rental)
		}
		if !slices.Contains([]int64{theirs, byHand, kept, overdue}, rental.ID) {
			unseen = rental.ID
		}
	}

	control(t, sim.address, "/sim/v1/script", `{"cancel_order":[{"apply":false},{"apply":false}]}`)
	quick := []string{"--market-url", "http://" + sim.address, "--set", "watchdog.margin=2s", "--set", "watchdog.interval=1s"}
	w := start(t, "watchdog", nil, append(quick, "--data", data)...)
	var ended []int64
	eventually(t, "two rentals to be ended", func() bool {
		ended = nil
		for _, rental := range market(t, sim.address).Rentals {
			if rental.EndedAt != nil {
				ended = append(ended, rental.ID)
				if at, err := time.Parse(time.RFC3339, *rental.EndedAt); err != nil || at.Before(killed) {
					t.Fatalf("rental %d ended at %s: %v", rental.ID, *rental.EndedAt, err)
				}
			}
		}
		return len(ended) >= 2
	})
	eventually(t, "it to say so", func() bool { return strings.Count(w.log.String(), "ended by the watchdog") == 2 })
	w.stop()
	want := []int64{overdue, unseen}
	slices.Sort(want)
	slices.Sort(ended)
	l = market(t, sim.address)
	if !slices.Equal(ended, want) || l.calls("create_order") != creates {
		t.Errorf("ended %v, want %v; %d creates, were %d", ended, want, l.calls("create_order"), creates)
	}
	cancels := map[int64]int{}
	for _, c := range l.Calls {
		var asked struct{ ID int64 }
		if c.Endpoint == "cancel_order" && json.Unmarshal(c.Request, &asked) == nil {
			cancels[asked.ID]++
		}
	}
	if len(cancels) != 2 || cancels[overdue]+cancels[unseen] != 4 {
		t.Errorf("cancels %v, want four, of %v", cancels, want)
	}

	// For a scheduler: nothing to do, something wrong, something ended.
	once := func(data string, more ...string) (string, int) {
		t.Helper()
		return r.cli(t, append(append([]string{"watchdog", "--once", "--data", data}, quick...), more...)...)
	}
	if out, code := once(data); code != 0 {
		t.Errorf("with nothing to do: %d %s", code, out)
	}
	if out, code := once(data, "--set", "account.name=other"); code != 1 || !strings.Contains(out, `of account \"main\"`) {
		t.Errorf("for another account: %d %s", code, out)
	}
	if out, code := once(neighbours); code != 5 {
		t.Errorf("at the neighbours': %d %s", code, out)
	}
	if out, code := once(t.TempDir()); code != 2 {
		t.Errorf("without a key: %d %s", code, out)
	}

	// Back again, renthook finds what was ended, and keeps what was not.
	r = again(data)
	for id, state := range map[string]string{first: "ENDED", moved: "RUNNING"} {
		var order struct{ State string }
		eventually(t, id+" to be "+state, func() bool { return r.read(t, "/v1/orders/"+id, &order) == http.StatusOK && order.State == state })
	}
	for _, rental := range market(t, sim.address).Rentals {
		if live := rental.EndedAt == nil; live != slices.Contains([]int64{byHand, kept}, rental.ID) {
			t.Errorf("at the end: %+v", rental)
		}
	}
}
