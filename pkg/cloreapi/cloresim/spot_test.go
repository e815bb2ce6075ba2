package cloresim

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/govalues/decimal"
)

func holds(r *rental, at time.Time) bool { _, ok := r.holdsAt(at); return ok }

func TestSpot_HighestBidInUSDHoldsTheServer(t *testing.T) {
	t.Parallel()
	w := worldOf(t, Config{Servers: 20, Switches: Switches{OutbidEnding: "queued"}})
	first := w.mustRent(t, noon, "a", TrapRight, bid("10.9"))
	lower := w.mustRent(t, after(time.Minute), "b", TrapRight, bid("10.8"))
	equal := w.mustRent(t, after(time.Minute), "c", TrapRight, bid("10.9"))
	at := after(2 * time.Minute)
	if !holds(first, at) || holds(lower, at) || holds(equal, at) {
		t.Error("a lower or a later equal bid took the server")
	}
	// 92 CLORE at 0.12 are 11.04 USD.
	higher := w.mustRent(t, at, "d", TrapRight, map[string]any{"type": "spot", "currency": "CLORE-Blockchain", "spotprice": 92})
	if holds(first, at) || !holds(higher, at) {
		t.Error("the higher bid in another coin did not take the server")
	}
	row := w.row(t, first, after(10*time.Minute), false)
	if string(row["spot"]) != "true" || string(row["spend"]) != "0.015138888888888889" || string(row["tcp_ports"]) != "[]" {
		t.Errorf("queued again it shows spot %s, spend %s, tcp_ports %s", row["spot"], row["spend"], row["tcp_ports"])
	}
	if _, ok := w.cancel(after(20*time.Minute), "d", fmt.Appendf(nil, `{"id":%d}`, higher.ID)); !ok {
		t.Fatal("not cancelled")
	}
	if !holds(first, after(20*time.Minute)) {
		t.Error("the next bid did not get the free server")
	}
	if first.upAt(after(20*time.Minute+time.Second)) || !first.upAt(after(21*time.Minute)) {
		t.Error("the container did not start anew")
	}
}

func TestSpot_OutbidEndings(t *testing.T) {
	t.Parallel()
	for _, ending := range []string{"expired", "queued"} {
		for _, by := range []map[string]any{bid("11"), nil} {
			w := worldOf(t, Config{Servers: 20, Switches: Switches{OutbidEnding: ending}})
			r := w.mustRent(t, noon, "a", TrapRight, bid("10.8"))
			w.mustRent(t, after(time.Minute), "b", TrapRight, by)
			later := after(time.Hour)
			listed, ended := w.row(t, r, later, false), w.row(t, r, later, true)
			if ending == "queued" {
				if listed == nil || string(listed["spend"]) != "0.0075" || listed["expired"] != nil {
					t.Errorf("queued: the list shows %v", listed)
				}
				continue
			}
			if listed != nil || string(ended["expired"]) != "true" || string(ended["spend"]) != "0.0075" || r.EndReason != "outbid" {
				t.Errorf("expired: the lists show %v and %v", listed, ended)
			}
		}
	}
}

func TestSpot_CannotDisplaceOnDemand(t *testing.T) {
	t.Parallel()
	w := worldOf(t, Config{Servers: 20})
	od := w.mustRent(t, noon, "a", TrapRight, nil)
	b := w.mustRent(t, noon, "b", TrapRight, bid("900"))
	if !holds(od, after(time.Hour)) || holds(b, after(time.Hour)) {
		t.Error("a bid displaced an on-demand rental")
	}
	if got := string(w.row(t, b, after(time.Hour), false)["spend"]); got != "0" {
		t.Errorf("a waiting bid was charged %s", got)
	}
	w.endRental(od, after(2*time.Hour), "cancelled")
	if !holds(b, after(2*time.Hour)) {
		t.Error("the bid did not get the free server")
	}
}

func TestSpot_ServerShowsAsFree(t *testing.T) {
	t.Parallel()
	w := worldOf(t, Config{Servers: 20})
	rentedAt := func(at time.Time) string {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(w.serverRow(w.servers[TrapRight], at, decimal.One), &m); err != nil {
			t.Fatal(err)
		}
		return string(m["rented"])
	}
	w.mustRent(t, noon, "a", TrapRight, bid("10.8"))
	if got := rentedAt(after(time.Minute)); got != "false" {
		t.Errorf("held on spot it shows rented %s", got)
	}
	w.mustRent(t, after(time.Minute), "b", TrapRight, nil)
	if early, late := rentedAt(after(61*time.Second)), rentedAt(after(62*time.Second)); early != "false" || late != "true" {
		t.Errorf("rented on demand it shows %s, then %s", early, late)
	}
}

func TestSpot_DoubleBidSwitch(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]string{
		"refuse": `200 {"error":"you_already_have_spot_order","code":6}`, "allow": `200 {"code":0}`,
	} {
		w := worldOf(t, Config{Servers: 20, Switches: Switches{SpotDoubleBid: setting}})
		w.mustRent(t, noon, "a", TrapRight, bid("10.8"))
		if got := w.ask(t, noon, "a", TrapRight, bid("10.9")); got != want {
			t.Errorf("%s: a second bid: %s", setting, got)
		}
		if got := w.ask(t, noon, "b", TrapRight, bid("10.9")); got != `200 {"code":0}` {
			t.Errorf("%s: another's bid: %s", setting, got)
		}
	}
}

func TestSpot_SetPrice(t *testing.T) {
	t.Parallel()
	w := worldOf(t, Config{Servers: 20})
	r := w.mustRent(t, noon, "a", TrapRight, bid("12"))
	set := func(at time.Time, id int64, price string) string {
		got, _ := w.setSpotPrice(at, "a", fmt.Appendf(nil, `{"order_id":%d,"desired_price":%s}`, id, price))
		return string(join(got.render().body))
	}
	od := w.mustRent(t, noon, "a", TrapAbove, nil)
	for _, c := range []struct {
		at          time.Time
		id          int64
		price, want string
	}{
		{noon, 5, "12", `{"error":"order_dont_exist","code":6}`},
		{noon, od.ID, "12", `{"error":"order_dont_exist","code":6}`},
		{noon, r.ID, `"x"`, `{"code":2}`},
		{noon, r.ID, "10.7", `{"min_price":10.8,"error":"too_low_price","code":6}`},
		{after(time.Hour), r.ID, "24", `{"code":0}`},
		{after(2 * time.Hour), r.ID, "13", `{"max_step":2.4,"error":"exceeded_max_step","code":6}`},
		{after(2 * time.Hour), r.ID, "22", `{"code":0}`},
		{after(2*time.Hour + time.Minute), r.ID, "21", `{"time_to_lowering":541,"error":"can_lower_every_600_seconds","code":6}`},
		{after(2*time.Hour + time.Minute), r.ID, "23", `{"code":0}`},
		{after(2*time.Hour + 10*time.Minute), r.ID, "22", `{"code":0}`},
	} {
		if got := set(c.at, c.id, c.price); got != c.want {
			t.Errorf("at %s to %s: %s, want %s", c.at.Format("15:04"), c.price, got, c.want)
		}
	}
	// An hour at 12, one at 24, a minute at 22, nine at 23, then 22 a day.
	for at, want := range map[time.Duration]string{time.Hour: "0.5", 2 * time.Hour: "1.5", 3 * time.Hour: "2.422916666666666667"} {
		if got := r.spend(after(at)).Trim(0).String(); got != want {
			t.Errorf("after %v it was charged %s, want %s", at, got, want)
		}
	}
	w.endRental(r, after(4*time.Hour), "cancelled")
	if got := set(after(4*time.Hour), r.ID, "25"); got != `{"error":"order_not_active","code":6}` {
		t.Errorf("an ended order: %s", got)
	}
}

func TestSpot_MarketplaceOfOneServer(t *testing.T) {
	t.Parallel()
	w := worldOf(t, Config{Servers: 20, Switches: Switches{OutbidEnding: "queued"}})
	a := w.mustRent(t, noon, "a", TrapRight, bid("10.8"))
	b := w.mustRent(t, noon, "b", TrapRight, bid("11"))
	want := fmt.Sprintf(`{"market":{"currency_rates_in_usd":{"bitcoin":70000,"CLORE-Blockchain":0.12,"USD-Blockchain":1},
		"offers":[{"offer_id":%d,"bid":10.8,"active":false,"my":true,"currency":"USD-Blockchain"},
			{"offer_id":%d,"bid":11,"active":true,"my":false,"currency":"USD-Blockchain"}],
		"server":{"min_pricing":{"bitcoin":0.00015429,"CLORE-Blockchain":90,"USD-Blockchain":10.8},"mrl":720,"online":true,
			"visibility":"public"}},"exists":true,"code":0}`, a.ID, b.ID)
	if got := string(join(w.spotMarket("a", TrapRight, after(time.Minute)).render().body)); !sameJSON(t, got, want) {
		t.Errorf("spot_marketplace answers %s", got)
	}
	if got := parseJSON(t, string(join(w.spotMarket("a", 5, noon).render().body))); at(got, "exists") != false {
		t.Errorf("of an unknown server it answers %v", got)
	}
}
