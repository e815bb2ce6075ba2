package cloresim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// lastCall is the newest entry of the ledger for an endpoint.
func (r *rig) lastCall(endpoint string) CallState {
	r.t.Helper()
	calls := r.sim.State(0, "").Calls
	for i := len(calls) - 1; i >= 0; i-- {
		if calls[i].Endpoint == endpoint {
			return calls[i]
		}
	}
	r.t.Fatalf("the ledger has no %s", endpoint)
	return CallState{}
}

func (r *rig) rentals() []RentalState { return r.sim.State(0, "").Rentals }

func TestScript_Create(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, step string
		status     int // 0: the connection is closed
		body       string
		applied    bool
	}{
		{"honest", `{}`, 200, `{"code":0}`, true},
		{"not applied", `{"apply":false}`, 200, `{"code":0}`, false},
		{"a status alone is a page", `{"status":502}`, 502, "<html", true},
		{"a status alone, not applied", `{"apply":false,"status":504}`, 504, "<html", false},
		{"a status with a code", `{"status":500,"code":1}`, 500, `{"code":1}`, true},
		{"a code alone is 200", `{"code":1}`, 200, `{"code":1}`, true},
		{"code 5 though applied", `{"status":429,"code":5}`, 429, `{"code":5}`, true},
		{"code 0 with an error status", `{"status":500,"code":0}`, 500, `{"code":0}`, true},
		{"an error alone is code 6", `{"apply":false,"error":"server-already-rented"}`, 200, `{"error":"server-already-rented","code":6}`, false},
		{"an error with a status", `{"apply":false,"error":"currency-not-allowed","status":500}`, 500, `{"error":"currency-not-allowed","code":6}`, false},
		{"an error with a code", `{"error":"x","code":9}`, 200, `{"error":"x","code":9}`, true},
		{"a body", `{"body":"<b>no</b>","status":520}`, 520, "<b>no</b>", true},
		{"a body alone", `{"body":"{\"code\":0,\"order_id\":7}"}`, 200, `{"code":0,"order_id":7}`, true},
		{"dropped before", `{"drop":"before"}`, 0, "", false},
		{"dropped after", `{"drop":"after"}`, 0, "", true},
		{"dropped after a wait", `{"drop":"after","delay_ms":30}`, 0, "", true},
		{"dropped after, not applied", `{"drop":"after","apply":false}`, 0, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, plain)
			r.script(`{"create_order":[` + c.step + `]}`)
			a, err := r.try("POST", "/v1/create_order", "k", order(TrapRight, nil))
			switch {
			case c.status == 0:
				if err == nil {
					t.Errorf("answered %d %s instead of closing the connection", a.status, a.body)
				}
			case err != nil:
				t.Fatal(err)
			case strings.HasPrefix(c.body, "<"):
				if a.status != c.status || !strings.Contains(a.body, c.body) {
					t.Errorf("answered %d %s", a.status, a.body)
				}
			default:
				r.want(a, c.status, c.body)
			}
			if got := len(r.rentals()) == 1; got != c.applied {
				t.Errorf("a rental was made: %v", got)
			}
			if call := r.lastCall("create_order"); call.Applied != c.applied || call.Status != c.status || call.EndedAt == nil {
				t.Errorf("the ledger says %+v", call)
			}
			// The queue is used up: what follows is honest.
			r.want(r.post("/v1/create_order", order(TrapAbove, nil)), 200, `{"code":0}`)
		})
	}
}

func TestScript_AppliesLate(t *testing.T) {
	t.Parallel()
	for _, step := range []string{`{"drop":"before","apply_after_ms":120}`, `{"status":504,"apply_after_ms":120}`} {
		r := newRig(t, plain)
		r.script(`{"create_order":[` + step + `]}`)
		began := time.Now()
		_, _ = r.try("POST", "/v1/create_order", "k", order(TrapRight, nil))
		eventually(t, "the order appears", func() bool { return len(r.orders(false)) == 1 })
		if late := r.rentals()[0].CreatedAt.Sub(began); late < 110*time.Millisecond {
			t.Errorf("it was applied after %v", late)
		}
		if !r.lastCall("create_order").Applied {
			t.Error("the ledger does not say that the late call was applied")
		}
	}
}

func TestScript_LateCallIsJudgedWhenItApplies(t *testing.T) {
	t.Parallel()
	r := newRig(t, plain)
	r.script(`{"create_order":[{"drop":"before","apply_after_ms":150}]}`)
	if _, err := r.try("POST", "/v1/create_order", "late", order(TrapRight, nil)); err == nil {
		t.Fatal("it was answered")
	}
	r.want(r.post("/v1/create_order", order(TrapRight, nil)), 200, `{"code":0}`)
	eventually(t, "the late call was due", func() bool {
		r.sim.mu.Lock()
		defer r.sim.mu.Unlock()
		return len(r.sim.world.pending) == 0
	})
	if got := r.rentals(); len(got) != 1 || got[0].Key != "k" {
		t.Errorf("rentals: %+v", got)
	}
}

func TestScript_VisibleLater(t *testing.T) {
	t.Parallel()
	r := newRig(t, plain)
	r.script(`{"create_order":[{"visible_after_ms":3600000},{"visible_after_ms":100}]}`)
	r.post("/v1/create_order", order(TrapRight, nil))
	r.post("/v1/create_order", order(TrapAbove, nil))
	if len(r.rentals()) != 2 {
		t.Fatal("the orders were not made")
	}
	eventually(t, "the second order shows", func() bool { return len(r.orders(false)) == 1 })
	if got := string(r.orders(false)[0]["si"]); got != fmt.Sprint(TrapAbove) {
		t.Errorf("server %s shows", got)
	}
}

func TestScript_DelayHoldsTheAnswerNotTheEffect(t *testing.T) {
	t.Parallel()
	r := newRig(t, plain)
	r.script(`{"create_order":[{"delay_ms":600000}]}`)
	answered := make(chan struct{})
	ctx := r.t.Context()
	go func() {
		defer close(answered)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/v1/create_order", strings.NewReader(order(TrapRight, nil)))
		if err != nil {
			return
		}
		req.Header.Set("auth", "k")
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
		}
	}()
	eventually(t, "the order is made", func() bool { return len(r.rentals()) == 1 })
	if call := r.lastCall("create_order"); call.EndedAt != nil || !call.Applied {
		t.Errorf("the ledger says of the waiting call: %+v", call)
	}
	if err := r.sim.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case <-answered:
	case <-time.After(30 * time.Second):
		t.Error("stopping the market did not cut the wait short")
	}
}

func TestScript_MyOrders(t *testing.T) {
	t.Parallel()
	r := newRig(t, plain)
	r.post("/v1/create_order", order(TrapRight, nil))
	r.post("/v1/create_order", order(TrapAbove, nil))
	r.script(`{"my_orders":[{"empty":true},{"truncate":1},{"truncate":0},{"stale_ms":3600000},
		{"body":"<html>busy</html>","repeat":2},{"status":500},{"code":3,"status":401}]}`)
	for i, want := range []int{0, 1, 0, 0} {
		if got := len(r.orders(false)); got != want {
			t.Errorf("step %d shows %d orders, want %d", i, got, want)
		}
	}
	for range 2 {
		if a := r.get("/v1/my_orders"); a.body != "<html>busy</html>" || a.status != 200 {
			t.Errorf("answered %d %s", a.status, a.body)
		}
	}
	if a := r.get("/v1/my_orders"); a.status != 500 || !strings.Contains(a.body, "<html") {
		t.Errorf("answered %d %s", a.status, a.body)
	}
	r.want(r.get("/v1/my_orders"), 401, `{"code":3}`)
	if got := len(r.orders(false)); got != 2 {
		t.Errorf("honest again, it shows %d orders", got)
	}
}

func TestScript_StaleOrderStillRuns(t *testing.T) {
	t.Parallel()
	r := newRig(t, plain)
	r.post("/v1/create_order", order(TrapRight, nil))
	id := r.rentals()[0].ID
	r.want(r.post("/v1/cancel_order", fmt.Sprintf(`{"id":"%d"}`, id)), 200, `{"code":0}`)
	ended := r.rentals()[0].EndedAt
	if ended == nil || len(r.orders(false)) != 0 {
		t.Fatal("it was not cancelled")
	}
	// A list of the middle of its life shows it as running.
	created := r.rentals()[0].CreatedAt
	r.sim.mu.Lock()
	rows := r.sim.world.myOrders("k", created.Add(ended.Sub(created.Time)/2), true, nil).members["orders"].([]json.RawMessage)
	r.sim.mu.Unlock()
	if len(rows) != 1 || strings.Contains(string(rows[0]), "expired") {
		t.Errorf("the stale list shows %s", rows)
	}
}

func TestScript_Marketplace(t *testing.T) {
	t.Parallel()
	r := newRig(t, plain)
	right := func() map[string]json.RawMessage {
		t.Helper()
		var body struct {
			Servers []map[string]json.RawMessage `json:"servers"`
		}
		if err := json.Unmarshal([]byte(r.get("/v1/marketplace").body), &body); err != nil {
			t.Fatal(err)
		}
		for _, s := range body.Servers {
			if string(s["id"]) == fmt.Sprint(TrapRight) {
				return s
			}
		}
		return map[string]json.RawMessage{"rows": fmt.Append(nil, len(body.Servers))}
	}
	r.script(`{"marketplace":[{"price_factor":2},{"price_factor":1.5},{"empty":true},{"truncate":3}]}`)
	for _, want := range []string{"23.52", "17.64"} {
		if got := dig(right(), "price.on_demand.USD-Blockchain"); got != want {
			t.Errorf("the price is %s, want %s", got, want)
		}
	}
	for _, want := range []string{"0", "3"} {
		if got := string(right()["rows"]); got != want {
			t.Errorf("it lists %s rows, want %s", got, want)
		}
	}
	if got := dig(right(), "price.on_demand.USD-Blockchain"); got != "11.76" {
		t.Errorf("honest again, the price is %s", got)
	}
	before := time.Now()
	if a := r.do("PATCH", fmt.Sprintf("/sim/v1/servers/%d", TrapRight), "", `{"on_demand_usd_per_day":24,"rented":true}`); a.status != 200 {
		t.Fatal(a)
	}
	r.script(fmt.Sprintf(`{"marketplace":[{"stale_ms":%d}]}`, time.Since(before).Milliseconds()+600_000))
	if got := right(); dig(got, "price.on_demand.USD-Blockchain") != "11.76" || string(got["rented"]) != "false" {
		t.Errorf("the stale answer shows the news: %s, rented %s", dig(got, "price.on_demand.USD-Blockchain"), got["rented"])
	}
	if got := right(); dig(got, "price.on_demand.USD-Blockchain") != "24" || string(got["rented"]) != "true" {
		t.Errorf("the fresh answer shows %s, rented %s", dig(got, "price.on_demand.USD-Blockchain"), got["rented"])
	}
}

func TestScript_CancelAndWallets(t *testing.T) {
	t.Parallel()
	r := newRig(t, plain)
	r.post("/v1/create_order", order(TrapRight, nil))
	id := r.rentals()[0].ID
	cancel := func() answer { return r.post("/v1/cancel_order", fmt.Sprintf(`{"id":%d}`, id)) }
	r.script(`{"cancel_order":[{"apply":false},{"apply":false,"status":500,"code":1}],"wallets":[{"empty":true},{"truncate":1}]}`)
	r.want(cancel(), 200, `{"code":0}`)
	r.want(cancel(), 500, `{"code":1}`)
	if r.rentals()[0].EndedAt != nil {
		t.Error("a cancel without effect had one")
	}
	r.want(cancel(), 200, `{"code":0}`)
	if st := r.rentals()[0]; st.EndedAt == nil || st.EndReason != "cancelled" {
		t.Errorf("the rental is %+v", st)
	}
	for _, want := range []int{0, 1, 3} {
		if got := len(at(parseJSON(t, r.get("/v1/wallets").body), "wallets").([]any)); got != want {
			t.Errorf("it lists %d wallets, want %d", got, want)
		}
	}
}

func TestScript_PriceFactorMakesADearerRental(t *testing.T) {
	t.Parallel()
	r := newRig(t, plain)
	r.script(`{"create_order":[{"price_factor":3}]}`)
	r.post("/v1/create_order", order(TrapRight, nil))
	if got := string(r.orders(false)[0]["price"]); got != "35.28" {
		t.Errorf("it costs %s a day", got)
	}
}

func TestScript_RefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	r := newRig(t, plain)
	for _, body := range []string{
		`{"create":[]}`, `{"create_order":[{"aply":true}]}`, `{"create_order":[{"drop":"now"}]}`, `{"my_orders":[{"status":99}]}`,
		`{"my_orders":[{"stale_ms":-1}]}`, `{"marketplace":[{"price_factor":-2}]}`, `[]`, `{} {}`, ``,
	} {
		if a := r.do("POST", "/sim/v1/script", "", body); a.status != 400 {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
}
