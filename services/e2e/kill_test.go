package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
)

// killTimes keep what follows a crash short: the lease and the call that may be out are waited for before creates go on.
var killTimes = []string{
	"--set", "order.lease_ttl=10s", "--set", "order.call_timeout=3s", "--set", "order.confirm_window=6s", "--set", "order.confirm_window_blind=12s",
	"--set", "limits.orders_per_hour=1000", "--set", "limits.creates_per_hour=1000", "--set", "limits.live_rentals=1000", "--set", "limits.requests_per_minute=100000",
}

// inFlight are the creates that are out when renthook is killed: each answer comes long after.
var inFlight = []struct {
	name, step string
	// creates it takes to have a rental.
	creates int
}{
	{"applied", `{"delay_ms":20000}`, 1},
	{"not applied", `{"apply":false,"delay_ms":20000}`, 2},
	{"applied after the crash", `{"apply_after_ms":3000,"delay_ms":20000}`, 1},
}

// rounds is how many crashes to try: the value of RENTHOOK_ROUNDS, or few.
func rounds(t *testing.T, few int) int {
	t.Helper()
	text := os.Getenv("RENTHOOK_ROUNDS")
	if text == "" {
		return few
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("RENTHOOK_ROUNDS is %q: want a number of rounds", text)
	}
	return n
}

// simulator is marketsim as a process of its own.
type simulator struct {
	*process
	address string
}

func simulate(t *testing.T, args ...string) *simulator {
	t.Helper()
	s := &simulator{process: start(t, "marketsim", nil, append([]string{"--listen", "127.0.0.1:0", "--data", t.TempDir()}, args...)...)}
	eventually(t, "the simulator to listen", func() bool {
		for line := range strings.Lines(s.log.String()) {
			var said struct{ Msg, Address string }
			if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "the market listens" {
				s.address = said.Address
			}
		}
		return s.address != ""
	})
	return s
}

// waiting counts the creates that a log shows as come in, with their answers still to come.
func waiting(log string) (n int) {
	for line := range strings.Lines(log) {
		var said struct{ Msg, Endpoint string }
		if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "call waits" && said.Endpoint == "create_order" {
			n++
		}
	}
	return n
}

// A crash while a create is out, with the market a process of its own: whether it took effect or not, before or after,
// the order has one rental in the end, and is told so once.
// row:8 row:31
func TestKill_WhileACreateIsInFlight(t *testing.T) {
	t.Parallel()
	sim := simulate(t)
	data := t.TempDir()
	again := func() *renthook {
		return up(t, data, nil, append([]string{"--market-url", "http://" + sim.address}, killTimes...)...)
	}
	killRounds(t, rounds(t, 2), again, func(*renthook) *process { return sim.process })
}

// The same with the simulator inside: it dies too, and remembers what it had done.
// row:8
func TestKill_WithTheMarketInside(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	again := func() *renthook { return up(t, data, nil, killTimes...) }
	killRounds(t, min(rounds(t, 1), len(inFlight)), again, func(r *renthook) *process { return r.process })
}

// killRounds kills renthook n times, each time while a create is out, and compares what it says with the market's ledger.
// A log of the market says when.
func killRounds(t *testing.T, n int, again func() *renthook, marketLog func(*renthook) *process) {
	t.Helper()
	cb := listen(t)
	r := again()
	creates, running := 0, map[string]bool{}
	for i := range n {
		kind := inFlight[i%len(inFlight)]
		creates += kind.creates
		log := marketLog(r).log
		seen := waiting(log.String())
		control(t, r.Market, "/sim/v1/script", `{"create_order":[`+kind.step+`]}`)
		a := r.hook(t, "create-order", fmt.Sprintf(`{"gpu_type":"RTX 4090","max_price":2,"callback_url":%q}`, cb.URL), "Idempotency-Key", fmt.Sprint("round-", i))
		if a.code != http.StatusOK {
			t.Fatalf("round %d: %+v", i, a)
		}
		eventually(t, "the create to be in flight", func() bool { return waiting(log.String()) > seen })
		r.kill()
		r = again()
		op := r.settled(t, a.TaskID)
		if op.Stage != "succeeded" || op.Order.State != "RUNNING" {
			t.Fatalf("round %d (%s): %+v", i, kind.name, op)
		}
		running[op.Order.MarketOrderID.String()] = true

		l := market(t, r.Market)
		if l.live() != i+1 || len(running) != i+1 || l.calls("create_order") != creates {
			t.Fatalf("after round %d (%s): %d rentals live, %d known, %d creates; want %d, %d, %d", i, kind.name, l.live(), len(running), l.calls("create_order"), i+1, i+1, creates)
		}
	}
	cb.wait(t, n)
	l := market(t, r.Market)
	servers := map[int64]bool{}
	for _, rental := range l.Rentals {
		if rental.EndedAt != nil || !running[fmt.Sprint(rental.ID)] || servers[rental.ServerID] {
			t.Errorf("the market holds %+v; running are %v", rental, running)
		}
		servers[rental.ServerID] = true
	}
	if l.Violations != 0 {
		t.Errorf("%d violations of the market's rules", l.Violations)
	}
	r.stop()
	if got := len(cb.all()); got != n {
		t.Errorf("%d callbacks for %d orders", got, n)
	}
}
