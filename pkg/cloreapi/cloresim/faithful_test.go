package cloresim

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// kind is what JSON knows of a value: it is all that a reader in another language sees.
func kind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "bool"
	case string:
		return "string"
	case json.Number, float64:
		return "number"
	case []any:
		return "array"
	default:
		return "object"
	}
}

// sameShape compares two values member by member and kind by kind. Members of got beyond want are errors too, save
// those allowed. Elements of an array are all compared with the first recorded one.
func sameShape(t *testing.T, path string, got, want any, allowed ...string) {
	t.Helper()
	if kind(got) != kind(want) {
		t.Errorf("%s is %s, recorded %s", path, kind(got), kind(want))
		return
	}
	switch want := want.(type) {
	case map[string]any:
		got := got.(map[string]any)
		for name := range want {
			if _, ok := got[name]; !ok {
				t.Errorf("%s has no %s, which was recorded", path, name)
				continue
			}
			sameShape(t, path+"."+name, got[name], want[name], allowed...)
		}
		for name := range got {
			if _, ok := want[name]; !ok && !slices.Contains(allowed, name) {
				t.Errorf("%s has %s, which was not recorded", path, name)
			}
		}
	case []any:
		for _, e := range got.([]any) {
			if len(want) > 0 {
				sameShape(t, path+"[]", e, want[0], allowed...)
			}
		}
	}
}

func readJSON(t *testing.T, path string) any {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return parseJSON(t, string(raw))
}

func parseJSON(t *testing.T, s string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return v
}

func at(v any, path ...string) any {
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

// rented makes an on-demand rental of server and gives the row that my_orders shows.
func rented(t *testing.T, r *rig, server int64) map[string]any {
	t.Helper()
	r.want(r.post("/v1/create_order", order(server, map[string]any{"ports": map[string]string{"22": "tcp", "8080": "http"}})), 200, `{"code":0}`)
	rows := at(parseJSON(t, r.get("/v1/my_orders").body), "orders").([]any)
	if len(rows) != 1 {
		t.Fatalf("my_orders shows %d rows", len(rows))
	}
	return rows[0].(map[string]any)
}

func TestFaithful_LiveOrderIsTheRecordedOne(t *testing.T) {
	t.Parallel()
	sample := at(readJSON(t, filepath.Join(recordings(t), "clore-my-orders-sample.json")), "sample")
	c := plain
	c.Boot = 0
	r := newRig(t, c)
	sameShape(t, "order", rented(t, r, TrapRight), sample)
	top := parseJSON(t, r.get("/v1/my_orders").body).(map[string]any)
	if names := slices.Sorted(maps.Keys(top)); !slices.Equal(names, []string{"code", "limit", "orders"}) {
		t.Errorf("my_orders has the members %v", names)
	}
}

func TestFaithful_EndedOrderIsTheRecordedOne(t *testing.T) {
	t.Parallel()
	recorded := readJSON(t, filepath.Join(recordings(t), "stage3r-real-orders.sanitized.json"))
	r := newRig(t, plain)
	id := rented(t, r, TrapRight)["id"]
	raw, err := json.Marshal(map[string]any{"id": id})
	if err != nil {
		t.Fatal(err)
	}
	r.want(r.post("/v1/cancel_order", string(raw)), 200, `{"code":0}`)
	if rows := r.orders(false); len(rows) != 0 {
		t.Errorf("the default list shows %d ended orders", len(rows))
	}
	rows := at(parseJSON(t, r.get("/v1/my_orders?return_completed=true").body), "orders").([]any)
	if len(rows) != 1 {
		t.Fatalf("the list of completed orders shows %d", len(rows))
	}
	row := rows[0].(map[string]any)
	want := []string{}
	for _, name := range at(recorded, "top_level_fields_observed").([]any) {
		want = append(want, name.(string))
	}
	slices.Sort(want)
	if names := slices.Sorted(maps.Keys(row)); !slices.Equal(names, want) {
		t.Errorf("an ended order has the members\n%v, recorded\n%v", names, want)
	}
	golden := at(recorded, "manual_golden").(map[string]any)
	for _, name := range []string{"expired", "online", "mon_container", "tcp_ports"} {
		a, _ := json.Marshal(row[name])
		b, _ := json.Marshal(golden[name])
		if string(a) != string(b) {
			t.Errorf("%s of an ended order is %s, recorded %s", name, a, b)
		}
	}
	sameShape(t, "gpu_array", row["gpu_array"], golden["gpu_array"])
	sameShape(t, "order_end", row["order_end"], golden["order_end"])
}

func TestFaithful_MarketplaceRowsAreTheRecordedOnes(t *testing.T) {
	t.Parallel()
	dir := recordings(t)
	old := at(readJSON(t, filepath.Join(dir, "marketplace-2024.two-servers.json")), "servers").([]any)
	priced := at(readJSON(t, filepath.Join(dir, "clore-step01-currency.json")), "sampleNoUsd").([]any)[0]
	specs := at(readJSON(t, filepath.Join(dir, "clore-my-orders-sample.json")), "sample", "specs")

	r := newRig(t, plain)
	top := parseJSON(t, r.get("/v1/marketplace").body).(map[string]any)
	if names := slices.Sorted(maps.Keys(top)); !slices.Equal(names, []string{"code", "my_servers", "servers"}) {
		t.Errorf("marketplace has the members %v", names)
	}
	for _, v := range top["servers"].([]any) {
		row := v.(map[string]any)
		if row["id"] != float64(TrapRight) {
			continue
		}
		// The older recording lacks what came since; the newer ones have those parts.
		since := []string{"gpu_array", "usd", "original_usd", "USD-Blockchain", "stock_pl", "xfs", "test_history"}
		sameShape(t, "server", row, old[0], since...)
		sameShape(t, "server.specs", row["specs"], specs, "pl", "stock_pl")
		sameShape(t, "server.price.on_demand", at(row, "price", "on_demand"), at(priced, "on_demand"))
		sameShape(t, "server.price.usd", at(row, "price", "usd"), at(priced, "usd"))
		return
	}
	t.Error("the marketplace lacks the server that is compared")
}

func TestFaithful_CreateAnswersAreTheRecordedOnes(t *testing.T) {
	t.Parallel()
	dir := recordings(t)
	success := at(readJSON(t, filepath.Join(dir, "clore-create-response.json")), "create").(map[string]any)
	currency := at(readJSON(t, filepath.Join(dir, "clore-code1-diag.json")), "results").([]any)[0].(map[string]any)
	matrix := at(readJSON(t, filepath.Join(dir, "clore-payload-matrix.json")), "attempts").([]any)[1].(map[string]any)
	env := at(readJSON(t, filepath.Join(dir, "clore-env-matrix.json")), "results").([]any)[4].(map[string]any)
	throttled := at(readJSON(t, filepath.Join(dir, "clore-code1-now.json")), "my_orders").(map[string]any)
	cancelled := at(readJSON(t, filepath.Join(dir, "cancel-orphan-gpus.json")), "cancelled").([]any)[0].(map[string]any)
	whole := func(name string, a answer, status, payload any) {
		t.Helper()
		raw, _ := json.Marshal(payload)
		if float64(a.status) != status || !sameJSON(t, a.body, string(raw)) {
			t.Errorf("%s: %d %s, recorded %v %s", name, a.status, a.body, status, raw)
		}
	}
	noted := func(name string, a answer, note map[string]any) {
		t.Helper()
		m := parseJSON(t, a.body).(map[string]any)
		if float64(a.status) != note["status"] || m["code"] != note["code"] || m["error"] != note["error"] {
			t.Errorf("%s: %d %s, recorded %v", name, a.status, a.body, note)
		}
		if keys, ok := note["keys"].([]any); ok && len(keys) != len(m) {
			t.Errorf("%s: members %v, recorded %v", name, m, keys)
		}
	}

	r := newRig(t, plain)
	whole("create", r.post("/v1/create_order", order(TrapRight, nil)), success["status"], success["payload"])
	noted("create again", r.post("/v1/create_order", order(TrapRight, nil)), matrix)
	whole("coin not allowed", r.post("/v1/create_order", order(TrapCoin, map[string]any{"currency": "CLORE-Blockchain"})),
		currency["status"], currency["payload"])
	noted("an & in the environment", r.post("/v1/create_order", order(TrapAbove, map[string]any{"env": map[string]string{"A": "b&c"}})), env)
	var id json.RawMessage
	for _, o := range r.orders(false) {
		id = o["id"]
	}
	whole("cancel", r.post("/v1/cancel_order", `{"id":`+string(id)+`}`), cancelled["cancelStatus"], cancelled["cancelJson"])

	limited := newRig(t, Config{Boot: -1, Visible: -1})
	limited.get("/v1/my_orders")
	noted("too early", limited.get("/v1/my_orders"), map[string]any{"status": throttled["status"], "code": throttled["code"]})
}

func TestFaithful_WalletsAreTheDocumentedOnes(t *testing.T) {
	t.Parallel()
	documented := readJSON(t, filepath.Join(recordings(t), "docs-examples.json")).(map[string]any)
	for name, example := range documented {
		if rows, ok := at(example, "wallets").([]any); ok {
			r := newRig(t, plain)
			got := at(parseJSON(t, r.get("/v1/wallets").body), "wallets").([]any)
			sameShape(t, name, got[0], rows[0])
			for i, want := range []string{"bitcoin", "CLORE-Blockchain", "USD-Blockchain"} {
				if at(got[i], "name") != want || kind(at(got[i], "balance")) != "number" {
					t.Errorf("wallet %d is %v, want %s", i, got[i], want)
				}
			}
			return
		}
	}
	t.Error("the documentation's example of wallets is gone")
}

func TestFaithful_RecordedInventoryIsListedVerbatim(t *testing.T) {
	t.Parallel()
	file := filepath.Join(recordings(t), "marketplace-2024-05-21.full.json")
	c := plain
	c.Inventory, c.Dir, c.Drift = file, t.TempDir(), true
	r := newRig(t, c)
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := r.do("GET", "/v1/marketplace", "", "")
	if got.status != 200 || !sameJSON(t, got.body, string(raw)) {
		t.Fatal("the marketplace is not the recorded one")
	}
	// A server of it can be rented, its row changes where it must and nowhere else, and the order echoes it.
	var id int64
	st := r.sim.State(0, "")
	for _, s := range st.Servers {
		if !s.Rented && s.OnDemandUSD != nil {
			id = s.ID
		}
	}
	r.want(r.post("/v1/create_order", order(id, map[string]any{"currency": "bitcoin"})), 200, `{"code":0}`)
	before, after := parseJSON(t, string(raw)), parseJSON(t, r.get("/v1/marketplace").body)
	for i, row := range at(before, "servers").([]any) {
		want, now := row.(map[string]any), at(after, "servers").([]any)[i].(map[string]any)
		if want["id"] == float64(id) {
			if now["rented"] != true {
				t.Error("the rented server shows as free")
			}
			want["rented"] = true
		}
		a, _ := json.Marshal(want)
		b, _ := json.Marshal(now)
		if string(a) != string(b) {
			t.Fatalf("row %d changed from %s to %s", i, a, b)
		}
	}
	if rows := r.orders(false); len(rows) != 1 || rows[0]["gpu_array"] != nil || rows[0]["specs"] == nil {
		t.Errorf("my_orders shows %v", rows)
	}
}
