package cloresim

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestLimits_OneCallASecondAndFiveBeforeACreate(t *testing.T) {
	t.Parallel()
	w := worldOf(t, Config{Servers: 20})
	for _, c := range []struct {
		ms       int64
		endpoint string
		early    bool
	}{
		{0, "wallets", false},
		{999, "my_orders", true},
		{1000, "my_orders", false}, // a refused call does not push the next one back
		{5999, "create_order", true},
		{6000, "create_order", false},
		{6500, "cancel_order", true},
		{7000, "cancel_order", false},
		{11999, "create_order", true},
		{12000, "marketplace", false},
		{17000, "create_order", false},
	} {
		at := after(millis(c.ms))
		w.arrive(at, c.endpoint, "k", nil)
		if got := w.early(at, c.endpoint, w.account("k")); got != c.early {
			t.Errorf("%s after %d ms is early: %v", c.endpoint, c.ms, got)
		}
	}
	if w.early(after(0), "wallets", w.account("other")) {
		t.Error("another key shares the limit")
	}
	st := w.state(noon, 0, "k")
	if st.Violations != 4 || *st.GapsMS.Any != 1 || *st.GapsMS.Create != 1 {
		t.Errorf("violations %d, gaps %d and %d", st.Violations, *st.GapsMS.Any, *st.GapsMS.Create)
	}
	if st := w.state(noon, 0, "nobody"); st.Violations != 0 || st.GapsMS.Any != nil {
		t.Errorf("of another key: violations %d, gaps %v", st.Violations, st.GapsMS.Any)
	}
}

func TestLimits_OverHTTP(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{AddressLimit: true})
	if a := r.get("/v1/wallets"); a.status != 200 {
		t.Fatalf("the first call: %d %s", a.status, a.body)
	}
	// On a slow machine a call may come late enough to pass: ask until one is early.
	early := func(call func() answer) {
		t.Helper()
		eventually(t, "a call comes too early", func() bool {
			a := call()
			return a.status == 429 && sameJSON(t, a.body, `{"code":5}`)
		})
	}
	for _, path := range []string{"/v1/wallets", "/v1/my_orders", "/v1/marketplace"} {
		early(func() answer { return r.get(path) })
	}
	early(func() answer {
		r.get("/v1/wallets")
		return r.post("/v1/create_order", order(TrapRented, nil))
	})
	early(func() answer { return r.do("GET", "/v1/marketplace", "", "") })
	if got := r.sim.State(0, ""); got.Violations == 0 || *got.GapsMS.Any > 1000 {
		t.Errorf("violations %d, smallest gap %d ms", got.Violations, *got.GapsMS.Any)
	}
}

func TestAPI_KeysAndUnknownPaths(t *testing.T) {
	t.Parallel()
	r := newRig(t, plain)
	for _, c := range []struct {
		method, path, key, body string
		status                  int
		want                    string
	}{
		{"GET", "/v1/wallets", "", "", 401, `{"code":3}`},
		{"POST", "/v1/create_order", "", "{}", 401, `{"code":3}`},
		{"GET", "/v1/nothing", "k", "", 404, `{"code":4}`},
		{"GET", "/v1/create_order", "k", "", 404, `{"code":4}`},
		{"POST", "/v1/create_order", "k", "no json", 400, `{"code":2}`},
		{"POST", "/v1/cancel_order", "k", `{"id":"x"}`, 400, `{"code":2}`},
		{"GET", "/v1/spot_marketplace?market=x", "k", "", 400, `{"code":2}`},
	} {
		r.want(r.do(c.method, c.path, c.key, c.body), c.status, c.want)
	}
	if got := r.lastCall("create_order"); string(got.Request) != `"no json"` {
		t.Errorf("the ledger keeps the request %s", got.Request)
	}
}

func TestReady_WhileCallsAreAnswered(t *testing.T) {
	t.Parallel()
	sim, err := New(plain)
	if err != nil {
		t.Fatal(err)
	}
	ask := func() int {
		w := httptest.NewRecorder()
		sim.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
		return w.Code
	}
	if code := ask(); code != http.StatusOK {
		t.Errorf("a market that answers: %d", code)
	}
	if err := sim.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	if code := ask(); code != http.StatusServiceUnavailable {
		t.Errorf("a market that answers no more: %d", code)
	}
}

func TestControl_HumanRentsOnTheSameAccount(t *testing.T) {
	t.Parallel()
	r := newRig(t, plain)
	body := fmt.Sprintf(`{"server_id":%d,"image":"my/own","ports":[22,20000]}`, TrapRight)
	if a := r.do("POST", "/sim/v1/rentals", "", body); a.status != 201 {
		t.Fatal(a)
	}
	if a := r.do("POST", "/sim/v1/rentals", "", body); a.status != 409 {
		t.Errorf("the server was rented twice: %d %s", a.status, a.body)
	}
	got := r.rentals()[0]
	if !got.Foreign || got.Key != DefaultKey || got.Image != "my/own" || !slices.Equal(got.Ports, []int{22, 20000}) || got.USDPerHour != "0.49" {
		t.Errorf("the rental is %+v", got)
	}
	if a := r.do("GET", "/v1/my_orders", DefaultKey, ""); !strings.Contains(a.body, "my/own") {
		t.Errorf("the account's list is %s", a.body)
	}
	if a := r.get("/v1/my_orders"); strings.Contains(a.body, "my/own") {
		t.Error("another account lists it")
	}
	r.want(r.post("/v1/create_order", order(TrapRight, nil)), 200, `{"status":"error","error":"server-already-rented","code":6}`)
}

func TestControl_EndsRentals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		reason string
		spot   bool
		status int
	}{{"outbid", true, 200}, {"outbid", false, 409}, {"host_offline", false, 200}, {"expired", true, 200}, {"boredom", true, 400}} {
		r := newRig(t, plain)
		var changes map[string]any
		if c.spot {
			changes = bid("10.8")
		}
		r.want(r.post("/v1/create_order", order(TrapRight, changes)), 200, `{"code":0}`)
		id := r.rentals()[0].ID
		path := fmt.Sprintf("/sim/v1/rentals/%d/end", id)
		a := r.do("POST", path, "", `{"reason":"`+c.reason+`"}`)
		if a.status != c.status {
			t.Errorf("%s, spot %v: %d %s", c.reason, c.spot, a.status, a.body)
		}
		if got := r.rentals()[0]; (got.EndedAt != nil) != (c.status == 200) || got.EndedAt != nil && got.EndReason != c.reason {
			t.Errorf("%s, spot %v: the rental is %+v", c.reason, c.spot, got)
		}
		if c.status == 200 {
			if a := r.do("POST", path, "", `{"reason":"expired"}`); a.status != 409 {
				t.Errorf("it ended twice: %d", a.status)
			}
		}
		if listed := strings.Contains(r.get("/v1/marketplace").body, fmt.Sprintf(`"id":%d,`, TrapRight)); listed == (c.reason == "host_offline") {
			t.Errorf("%s: the server is listed: %v", c.reason, listed)
		}
	}
	r := newRig(t, plain)
	if a := r.do("POST", "/sim/v1/rentals/1/end", "", `{"reason":"expired"}`); a.status != 404 {
		t.Errorf("an unknown rental: %d", a.status)
	}
}

func TestControl_OutbidInTheQueuedStyle(t *testing.T) {
	t.Parallel()
	r := newRig(t, plain)
	if a := r.do("POST", "/sim/v1/reset", "", `{"outbid_ending":"queued"}`); a.status != 200 {
		t.Fatal(a)
	}
	r.post("/v1/create_order", order(TrapRight, bid("10.8")))
	mine := r.rentals()[0]
	r.do("POST", fmt.Sprintf("/sim/v1/rentals/%d/end", mine.ID), "", `{"reason":"outbid"}`)
	rentals := r.rentals()
	if got := rentals[0]; got.EndedAt != nil || got.Holds || len(r.orders(false)) != 1 {
		t.Errorf("the bid is %+v", got)
	}
	if by := rentals[1]; !by.Foreign || !by.Holds || by.PricePerDay != "11.88" {
		t.Errorf("it was outbid by %+v", by)
	}
	r.do("POST", fmt.Sprintf("/sim/v1/rentals/%d/end", rentals[1].ID), "", `{"reason":"expired"}`)
	if got := r.rentals()[0]; !got.Holds {
		t.Errorf("the bid did not win the free server: %+v", got)
	}
}

func TestControl_Servers(t *testing.T) {
	t.Parallel()
	r := newRig(t, plain)
	a := r.do("POST", "/sim/v1/servers", "", `{"gpu":"2x NVIDIA GeForce RTX 5090","on_demand_usd_per_day":30,"reliability":0.97}`)
	var added struct{ ID int64 }
	if err := json.Unmarshal([]byte(a.body), &added); err != nil || a.status != 201 {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	find := func(id int64) *ServerState {
		for _, s := range r.sim.State(0, "").Servers {
			if s.ID == id {
				return &s
			}
		}
		return nil
	}
	got := find(added.ID)
	if got == nil || text(t, got) != fmt.Sprintf(`{"id":%d,"gpu":"2x NVIDIA GeForce RTX 5090","rented":false,"online":true,`+
		`"on_demand_usd_per_day":30,"spot_usd_per_day":21,"reliability":0.97}`, added.ID) {
		t.Errorf("the new server is %s", text(t, got))
	}
	if body := r.get("/v1/marketplace").body; !strings.Contains(body, `"gpu_array":[" RTX 5090"," RTX 5090"]`) {
		t.Error("the new server's row does not list its GPUs")
	}
	path := fmt.Sprintf("/sim/v1/servers/%d", added.ID)
	if a := r.do("PATCH", path, "", `{"on_demand_usd_per_day":24,"spot_usd_per_day":12,"reliability":0.5,"rented":true}`); a.status != 200 {
		t.Fatal(a)
	}
	if got := find(added.ID); !got.Rented || *got.OnDemandUSD != "24" || *got.SpotUSD != "12" || *got.Reliability != "0.5" {
		t.Errorf("the changed server is %s", text(t, got))
	}
	if a := r.do("PATCH", fmt.Sprintf("/sim/v1/servers/%d", TrapNaN), "", `{"on_demand_usd_per_day":7}`); a.status != 200 {
		t.Fatal(a)
	}
	mended := `"price":{"on_demand":{"bitcoin":0.0001,"USD-Blockchain":7},"spot":{"bitcoin":"NaN","USD-Blockchain":"NaN"}}`
	if !strings.Contains(r.get("/v1/marketplace").body, mended) {
		t.Error("a price that is set does not replace a broken one")
	}
	row := fmt.Sprintf(`{"id":%d,"price":{"on_demand":{"bitcoin":0.001},"spot":{"bitcoin":0.001}},"specs":{"gpu":"1x Thing"},"allowed_coins":["bitcoin"]}`, added.ID+1)
	if a := r.do("POST", "/sim/v1/servers", "", row); a.status != 201 {
		t.Fatal(a)
	}
	if got := find(added.ID + 1); got == nil || got.GPU != "1x Thing" || *got.OnDemandUSD != "70" {
		t.Errorf("the server of a whole row is %s", text(t, got))
	}
	if !strings.Contains(r.get("/v1/marketplace").body, row) {
		t.Error("the row is not listed verbatim")
	}
	if a := r.do("DELETE", path, "", ""); a.status != 200 || find(added.ID) != nil {
		t.Errorf("removed: %d, still there: %v", a.status, find(added.ID))
	}
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"DELETE", path, "", 404}, {"PATCH", path, "{}", 404}, {"PATCH", "/sim/v1/servers/x", "{}", 400},
		{"PATCH", fmt.Sprintf("/sim/v1/servers/%d", TrapRight), `{"price":1}`, 400},
		{"PATCH", fmt.Sprintf("/sim/v1/servers/%d", TrapRight), `{"reliability":-1}`, 400},
		{"POST", "/sim/v1/servers", row, 409}, {"POST", "/sim/v1/servers", `{"gpu":"x"}`, 400},
		{"POST", "/sim/v1/rentals", `{"server_id":1}`, 404},
		{"POST", "/sim/v1/rentals", fmt.Sprintf(`{"server_id":%d}`, TrapRented), 409},
		{"GET", "/sim/v1/state?calls_after=x", "", 400},
		{"POST", "/sim/v1/reset", `{"seeds":1}`, 400}, {"POST", "/sim/v1/reset", `{"outbid_ending":"x"}`, 400},
		{"POST", "/sim/v1/reset", `{"servers":-1}`, 400}, {"POST", "/sim/v1/reset", `{"balance_usd":-1}`, 400},
	} {
		if a := r.do(c.method, c.path, "", c.body); a.status != c.status {
			t.Errorf("%s %s %s: %d %s, want %d", c.method, c.path, c.body, a.status, a.body, c.status)
		}
	}
}

func TestControl_ResetMakesANewWorld(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{Boot: -1, Visible: -1})
	r.post("/v1/create_order", order(TrapRight, nil))
	first := r.rentals()[0].ID
	r.script(`{"create_order":[{"apply":false}]}`)
	if a := r.do("POST", "/sim/v1/reset", "", `{"seed":9,"servers":30,"boot_ms":0,"visible_ms":0,"rate_limit":false,"balance_usd":50,"drift":true}`); a.status != 200 {
		t.Fatal(a)
	}
	st := r.sim.State(0, "")
	if len(st.Rentals) != 0 || len(st.Calls) != 0 || len(st.Servers) != 30 || st.GapsMS.Any != nil || st.Violations != 0 {
		t.Errorf("after the reset there are %d rentals, %d calls, %d servers", len(st.Rentals), len(st.Calls), len(st.Servers))
	}
	if body := r.get("/v1/wallets").body; !strings.Contains(body, `"balance":50`) {
		t.Errorf("the wallets are %s", body)
	}
	r.want(r.post("/v1/create_order", order(TrapRight, nil)), 200, `{"code":0}`)
	if got := r.rentals(); len(got) != 1 || got[0].ID <= first {
		t.Errorf("the next rental is %+v, the one before the reset had the id %d", got, first)
	}
	for n := range r.sim.State(0, "").Calls {
		if got := r.sim.State(0, "").Calls[n]; got.N <= 1 {
			t.Errorf("call numbers began again: %+v", got)
		}
	}
	after := r.lastCall("create_order").N - 1
	if got := r.sim.State(after, "").Calls; len(got) != 1 {
		t.Errorf("after call %d come %d calls", after, len(got))
	}
}

func TestState_NamesAndTimesAreTheContract(t *testing.T) {
	t.Parallel()
	r := newRig(t, plain)
	r.post("/v1/create_order", order(TrapRight, map[string]any{"ports": map[string]string{"22": "tcp", "20001": "tcp"}}))
	var st map[string]json.RawMessage
	if err := json.Unmarshal([]byte(r.do("GET", "/sim/v1/state", "", "").body), &st); err != nil {
		t.Fatal(err)
	}
	names := func(raw json.RawMessage) []string {
		var rows []json.RawMessage
		if json.Unmarshal(raw, &rows) == nil && len(rows) > 0 {
			raw = rows[0]
		}
		members, err := readObject(raw)
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		var names []string
		for _, m := range members {
			names = append(names, m.name)
		}
		return names
	}
	for name, want := range map[string]string{
		"servers": "id gpu rented online on_demand_usd_per_day spot_usd_per_day reliability",
		"rentals": "id server_id type currency price_per_day usd_per_hour image ports created_at ended_at end_reason spend key foreign mon_container holds",
		"calls":   "n at ended_at endpoint key request status code error applied",
		"gaps_ms": "any create",
	} {
		if got := strings.Join(names(st[name]), " "); got != want {
			t.Errorf("%s has %s, want %s", name, got, want)
		}
	}
	if got := r.do("GET", "/sim/v1/state", "", "").body; !regexp.MustCompile(`"created_at":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z","ended_at":null`).MatchString(got) {
		t.Errorf("times are printed otherwise: %s", st["rentals"])
	}
	if got := r.rentals()[0]; got.Type != "on-demand" || got.PricePerDay != "11.76" || got.USDPerHour != "0.49" || !slices.Equal(got.Ports, []int{22, 20001}) {
		t.Errorf("the rental is %+v", got)
	}
}

func TestLedger_OneRequestCarriedOutTwice(t *testing.T) {
	t.Parallel()
	w := worldOf(t, Config{Servers: 20})
	ports := func(p ...string) map[string]any {
		m := map[string]string{"22": "tcp"}
		for _, p := range p {
			m[p] = "tcp"
		}
		return map[string]any{"ports": m}
	}
	a := w.mustRent(t, noon, "k", TrapRight, ports("20001", "30001"))
	w.mustRent(t, after(time.Second), "k", TrapD, ports("20001", "30002"))
	w.mustRent(t, after(time.Second), "other", TrapLaptop, ports("20001", "30001"))
	b := w.mustRent(t, after(10*time.Second), "k", TrapAbove, ports("20001", "30001"))
	w.endRental(a, after(25*time.Second), "cancelled")
	w.mustRent(t, after(30*time.Second), "other", TrapRight, nil)
	want := []Overlap{{[2]int64{a.ID, b.ID}, "k", 15_000}}
	if got := w.overlaps(after(time.Hour)); !slices.Equal(got, want) {
		t.Errorf("overlaps are %+v, want %+v", got, want)
	}
}

// lockedLog collects log lines.
type lockedLog struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestLog_ShowsACallInFlightAndNoPassword(t *testing.T) {
	t.Parallel()
	var log lockedLog
	c := plain
	c.Logger = slog.New(slog.NewJSONHandler(&log, nil))
	r := newRig(t, c)
	r.script(`{"create_order":[{"delay_ms":600000}]}`)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = r.try("POST", "/v1/create_order", "k", order(TrapRight, map[string]any{"ssh_password": "canary"}))
	}()
	eventually(t, "the log shows the call waiting", func() bool {
		return strings.Contains(log.String(), `"msg":"call waits","n":1,"endpoint":"create_order","key":"k","applied":true`)
	})
	if s := log.String(); !strings.Contains(s, `"msg":"call came in","n":1`) || strings.Contains(s, "call answered") {
		t.Errorf("the log says %s", s)
	}
	if err := r.sim.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-done
	if strings.Contains(log.String(), "canary") {
		t.Error("the log shows a password")
	}
}
