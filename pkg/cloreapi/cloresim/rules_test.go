package cloresim

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/govalues/decimal"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func after(d time.Duration) time.Time { return noon.Add(d) }

// ask carries out create_order and gives its answer as JSON with the status.
func (w *world) ask(t *testing.T, at time.Time, key string, server int64, changes map[string]any) string {
	t.Helper()
	w.advance(at)
	r, _ := w.create(at, key, []byte(order(server, changes)), nil)
	return fmt.Sprintf("%d %s", r.status, join(r.render().body))
}

func (w *world) mustRent(t *testing.T, at time.Time, key string, server int64, changes map[string]any) *rental {
	t.Helper()
	if got := w.ask(t, at, key, server, changes); got != `200 {"code":0}` {
		t.Fatalf("create_order on %d: %s", server, got)
	}
	return w.rentals[len(w.rentals)-1]
}

// row is what my_orders shows of a rental.
func (w *world) row(t *testing.T, r *rental, at time.Time, completed bool) map[string]json.RawMessage {
	t.Helper()
	w.advance(at)
	for _, raw := range w.myOrders(r.Key, at, completed, nil).members["orders"].([]json.RawMessage) {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		if string(m["id"]) == fmt.Sprint(r.ID) {
			return m
		}
	}
	return nil
}

func bid(usdPerDay string) map[string]any {
	return map[string]any{"type": "spot", "spotprice": json.Number(usdPerDay)}
}

func TestCreate_Refusals(t *testing.T) {
	t.Parallel()
	const bad = `400 {"code":2}`
	for _, c := range []struct {
		name    string
		server  int64
		changes map[string]any
		want    string
	}{
		{"no such server", 5, nil, `200 {"error":"server-dont-exist","code":6}`},
		{"somebody else has it", TrapRented, nil, `200 {"status":"error","error":"server-already-rented","code":6}`},
		{"a coin it does not take", TrapCoin, map[string]any{"currency": "CLORE-Blockchain"}, `500 {"error":"currency-not-allowed","code":6}`},
		{"a broken price", TrapNaN, nil, `500 {"error":"currency-not-allowed","code":6}`},
		{"no price", TrapNoPrice, nil, `500 {"error":"currency-not-allowed","code":6}`},
		{"an & in the environment", TrapRight, map[string]any{"env": map[string]string{"A": "1&2"}}, `500 {"code":1}`},
		{"the price has risen", TrapRight, map[string]any{"required_price": 11.75}, `500 {"code":1}`},
		{"the price has fallen", TrapRight, map[string]any{"required_price": 12}, `200 {"code":0}`},
		{"the price stands", TrapRight, map[string]any{"required_price": 11.76}, `200 {"code":0}`},
		{"a bid under the floor", TrapRight, bid("10.7"), `200 {"min_price":10.8,"error":"too_low_price","code":6}`},
		{"a bid at the floor", TrapRight, bid("10.8"), `200 {"code":0}`},
		{"no bid", TrapRight, map[string]any{"type": "spot"}, `200 {"min_price":10.8,"error":"too_low_price","code":6}`},
		{"no image", TrapRight, map[string]any{"image": nil}, bad},
		{"no coin", TrapRight, map[string]any{"currency": nil}, bad},
		{"another type", TrapRight, map[string]any{"type": "ondemand"}, bad},
		{"a long password", TrapRight, map[string]any{"ssh_password": "123456789012345678901234567890123"}, bad},
		{"a port that is none", TrapRight, map[string]any{"ports": map[string]string{"70000": "tcp"}}, bad},
		{"a port of another kind", TrapRight, map[string]any{"ports": map[string]string{"22": "udp"}}, bad},
		{"a server that is text", TrapRight, map[string]any{"renting_server": "x"}, bad},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := worldOf(t, Config{Servers: 20})
			if got := w.ask(t, noon, "k", c.server, c.changes); got != c.want {
				t.Errorf("answered %s, want %s", got, c.want)
			}
		})
	}
}

func TestCreate_RefusalsByState(t *testing.T) {
	t.Parallel()
	no, usd := false, decimal.MustParse("24")
	for _, c := range []struct {
		name   string
		config Config
		facts  facts
		want   string
	}{
		{"offline", Config{}, facts{Online: &no}, `200 {"error":"server-offline","code":6}`},
		{"removed", Config{}, facts{Removed: true}, `200 {"error":"server-dont-exist","code":6}`},
		{"refuses a coin it lists", Config{}, facts{RefuseCoins: []string{"USD-Blockchain"}}, `500 {"error":"currency-not-allowed","code":6}`},
		{"dearer than required", Config{}, facts{OnDemandUSD: &usd}, `500 {"code":1}`},
		{"dearer, and nobody looks", Config{Switches: Switches{RequiredPrice: "ignore"}}, facts{OnDemandUSD: &usd}, `200 {"code":0}`},
		{"an empty wallet", Config{BalanceUSD: "0.1"}, facts{}, `200 {"error":"not_enough_balance","code":6}`},
		{"too many orders", Config{OrderLimit: 1}, facts{}, `200 {"error":"order_limit_reached","code":6}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.config.Servers = 20
			w := worldOf(t, c.config)
			if c.config.OrderLimit == 1 {
				w.mustRent(t, noon, "k", TrapAbove, nil)
			}
			c.facts.Since = noon
			w.set(w.servers[TrapRight], c.facts)
			if got := w.ask(t, noon, "k", TrapRight, map[string]any{"required_price": 11.76}); got != c.want {
				t.Errorf("answered %s, want %s", got, c.want)
			}
		})
	}
}

func TestCreate_AnyMismatchSwitch(t *testing.T) {
	t.Parallel()
	w := worldOf(t, Config{Servers: 20, Switches: Switches{RequiredPrice: "any"}})
	if got := w.ask(t, noon, "k", TrapRight, map[string]any{"required_price": 12}); got != `500 {"code":1}` {
		t.Errorf("a lower price than required: %s", got)
	}
}

func TestLife_PendingRunningEnded(t *testing.T) {
	t.Parallel()
	w := worldOf(t, Config{Servers: 20, Boot: 60 * time.Second, Visible: 3 * time.Second, Ports: 10 * time.Second})
	r := w.mustRent(t, noon, "k", TrapRight, nil)
	if w.row(t, r, after(2900*time.Millisecond), true) != nil {
		t.Error("it shows before the visibility lag has passed")
	}
	early := w.row(t, r, after(5*time.Second), false)
	if string(early["mon_container"]) != "0" || string(early["tcp_ports"]) != "[]" {
		t.Errorf("after 5 s: mon_container %s, tcp_ports %s", early["mon_container"], early["tcp_ports"])
	}
	// What my_orders shows is as old as the lag.
	ports := w.row(t, r, after(14*time.Second), false)
	if string(ports["tcp_ports"]) != `["22:10001"]` || string(ports["http_port"]) != `"8888"` || string(ports["mon_container"]) != "0" {
		t.Errorf("after 14 s: tcp_ports %s, http_port %s", ports["tcp_ports"], ports["http_port"])
	}
	up := w.row(t, r, after(63*time.Second), false)
	if string(up["mon_container"]) != "2" || string(up["mrl"]) != "2592000" || string(up["spend"]) != "0.008166666666666667" {
		t.Errorf("after 63 s: mon_container %s, mrl %s, spend %s", up["mon_container"], up["mrl"], up["spend"])
	}
	if got, ok := w.cancel(after(100*time.Second), "k", fmt.Appendf(nil, `{"id":%d,"issue":""}`, r.ID)); !ok || got.code != 0 {
		t.Fatalf("cancel: %+v", got)
	}
	if w.row(t, r, after(102*time.Second), false) == nil {
		t.Error("a cancelled order does not linger in the list")
	}
	if w.row(t, r, after(104*time.Second), false) != nil {
		t.Error("a cancelled order lingers for ever")
	}
	gone := w.row(t, r, after(time.Hour), true)
	if string(gone["expired"]) != "true" || string(gone["order_end"]) != fmt.Sprint(after(100*time.Second).Unix()) ||
		string(gone["tcp_ports"]) != "[]" || string(gone["mon_container"]) != "2" || gone["pub_cluster"] != nil {
		t.Errorf("ended: %v", gone)
	}
	if string(gone["spend"]) != "0.013611111111111111" {
		t.Errorf("it was charged %s for 100 s", gone["spend"])
	}
}

func TestLife_SomeContainersNeverStart(t *testing.T) {
	t.Parallel()
	no := false
	w := worldOf(t, Config{Servers: 20})
	w.set(w.servers[TrapRight], facts{Since: noon, Boots: &no})
	stuck := w.mustRent(t, noon, "k", TrapRight, nil)
	prefixed := w.mustRent(t, noon, "k", TrapAbove, map[string]any{"image": "docker.io/nvidia/cuda"})
	for _, r := range []*rental{stuck, prefixed} {
		if got := string(w.row(t, r, after(10*time.Hour), false)["mon_container"]); got != "0" {
			t.Errorf("mon_container of %s on %d is %s after ten hours", r.Image, r.Server, got)
		}
	}
}

func TestCancel_UnknownAndEnded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ setting, unknown, ended string }{
		{"error", `{"error":"order_dont_exist","code":6}`, `{"error":"order_not_active","code":6}`},
		{"ok", `{"code":0}`, `{"code":0}`},
	} {
		w := worldOf(t, Config{Servers: 20, Switches: Switches{UnknownCancel: c.setting}})
		r := w.mustRent(t, noon, "k", TrapRight, nil)
		say := func(key string, id int64) string {
			got, _ := w.cancel(after(time.Minute), key, fmt.Appendf(nil, `{"id":%d}`, id))
			return string(join(got.render().body))
		}
		if got := say("other", r.ID); got != c.unknown || !r.Ended.IsZero() {
			t.Errorf("%s: cancelling another's order: %s", c.setting, got)
		}
		if got := say("k", 77); got != c.unknown {
			t.Errorf("%s: cancelling an unknown order: %s", c.setting, got)
		}
		if got := say("k", r.ID); got != `{"code":0}` {
			t.Errorf("%s: cancelling: %s", c.setting, got)
		}
		if got := say("k", r.ID); got != c.ended {
			t.Errorf("%s: cancelling again: %s", c.setting, got)
		}
	}
}

func TestMoney_BalanceFallsBySecondAndEndsOrders(t *testing.T) {
	t.Parallel()
	w := worldOf(t, Config{Servers: 20, BalanceUSD: "1"})
	r := w.mustRent(t, noon, "k", TrapRight, nil)
	a := w.account("k")
	// 11.76 a day with 5 % and a creation fee of 0.10: the remaining 0.90 last for 6297 s.
	if got := w.balance(a, "USD-Blockchain", after(1000*time.Second)).String(); got != "0.75708333" {
		t.Errorf("after 1000 s the balance is %s", got)
	}
	if got := w.balance(a, "bitcoin", after(1000*time.Second)); got != w.balance(a, "bitcoin", noon) {
		t.Errorf("the other wallet fell to %s", got)
	}
	w.advance(after(2 * time.Hour))
	if r.EndReason != "balance" {
		t.Fatalf("the order is %+v", r)
	}
	if got := r.Ended.Sub(noon); got < 6290*time.Second || got > 6300*time.Second {
		t.Errorf("it ended after %v", got)
	}
	if got := w.balance(a, "USD-Blockchain", after(3*time.Hour)); got.Abs().Cmp(decimal.MustParse("0.001")) > 0 {
		t.Errorf("the balance is %s at the end", got)
	}

	w = worldOf(t, Config{Servers: 20, BalanceUSD: "1", Switches: Switches{BalanceOut: "run_on"}})
	r = w.mustRent(t, noon, "k", TrapRight, nil)
	w.advance(after(2 * time.Hour))
	if !r.Ended.IsZero() || !w.balance(w.account("k"), "USD-Blockchain", after(2*time.Hour)).IsNeg() {
		t.Error("run_on did not let the balance go below zero")
	}
}

func TestMoney_SpendIsTheRecordedOne(t *testing.T) {
	t.Parallel()
	// Recorded: price 2 for 60 s, 7 for 1414 s, 1.83 for 1006 s.
	for _, c := range []struct {
		price   string
		seconds int
		want    string
	}{{"2", 60, "0.001388888888888889"}, {"7", 1414, "0.11456018518518514"}, {"1.83", 1006, "0.02130763888888889"}} {
		got := spendOf(decimal.MustParse(c.price), time.Duration(c.seconds)*time.Second)
		want := decimal.MustParse(c.want)
		if got.Round(14).Trim(0) != want.Round(14).Trim(0) {
			t.Errorf("%s a day for %d s is %s, recorded %s", c.price, c.seconds, got, want)
		}
	}
}

func TestLife_EndsAtTheHostsLimit(t *testing.T) {
	t.Parallel()
	w := worldOf(t, Config{Servers: 20})
	r := w.mustRent(t, noon, "k", TrapShort, nil)
	w.advance(after(5 * time.Hour))
	if !r.Ended.IsZero() {
		t.Error("it ended early")
	}
	w.advance(after(7 * time.Hour))
	if r.EndReason != "mrl" || !r.Ended.Equal(after(6*time.Hour)) {
		t.Errorf("it is %+v", r)
	}
}
