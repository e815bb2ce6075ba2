package cloreapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recordings is where recorded answers of the real market are, or skips.
func recordings(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("RENTHOOK_RECORDINGS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data", "clore")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no recordings of the market here (RENTHOOK_RECORDINGS): %v", err)
	}
	return dir
}

// answering is a market that answers every call with one status and body.
func answering(t *testing.T, status int, body string) *Client {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(srv.Close)
	c := New(Config{BaseURL: srv.URL})
	t.Cleanup(c.Close)
	return c
}

// TestRecordings_EveryFileDecodes walks each recording, sends every part of it that is an answer of an endpoint
// through the client, and fails on a file in which it finds none.
func TestRecordings_EveryFileDecodes(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(recordings(t), "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			d := json.NewDecoder(bytes.NewReader(raw))
			d.UseNumber()
			var v any
			if err := d.Decode(&v); err != nil {
				t.Fatal(err)
			}
			if n := decodeParts(t, v); n == 0 {
				t.Error("no part of the file was recognised as an answer of the market")
			} else {
				t.Logf("%d answers", n)
			}
		})
	}
}

// decodeParts finds answers inside a recording: whole bodies, rows, and notes of a status and a code.
func decodeParts(t *testing.T, v any) int {
	t.Helper()
	n := 0
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			n += decodeParts(t, e)
		}
	case map[string]any:
		if decodeAnswer(t, v) {
			return 1
		}
		for _, e := range v {
			n += decodeParts(t, e)
		}
	}
	return n
}

func decodeAnswer(t *testing.T, v map[string]any) bool {
	t.Helper()
	text := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	has := func(name string) bool { _, ok := v[name]; return ok }
	rows, isList := v["servers"].([]any)
	switch {
	case isList && len(rows) > 0 && rows[0].(map[string]any)["specs"] != nil && has("my_servers"):
		m, err := answering(t, 200, text(v)).Marketplace(t.Context())
		if err != nil {
			t.Fatalf("marketplace: %v", err)
		}
		if len(m.Servers) != len(rows) || m.Unreadable != 0 {
			t.Errorf("decoded %d of %d servers, %d unreadable", len(m.Servers), len(rows), m.Unreadable)
		}
		checkPrices(t, m.Servers)
	case has("wallets") && has("code"):
		if ws, err := answering(t, 200, text(v)).Wallets(t.Context()); err != nil || len(ws) == 0 || ws[0].Balance == "" {
			t.Errorf("wallets: %v, %v", ws, err)
		}
	case has("si") && (has("ct") || has("expired")):
		o := renamed(v)
		body := text(map[string]any{"orders": []any{o}, "limit": json.Number("100"), "code": json.Number("0")})
		got, err := answering(t, 200, body).MyOrders(t.Context(), true)
		if err != nil {
			t.Fatalf("my_orders: %v", err)
		}
		checkOrder(t, o, got.Orders[0])
	case has("on_demand") && has("usd"):
		var p Price
		if err := json.Unmarshal([]byte(text(v)), &p); err != nil {
			t.Fatalf("price: %v", err)
		}
		checkPrices(t, []Server{{Price: p}})
		if p.USD == nil || p.USD.OnDemandUSD == "" {
			t.Error("the price lost its USD equivalents")
		}
	case has("allowed") || has("region"):
		var s Server
		row := map[string]any{"id": v["id"], "allowed_coins": v["allowed"], "specs": map[string]any{"gpu": v["gpu"]}}
		if err := json.Unmarshal([]byte(text(row)), &s); err != nil || s.ID == 0 {
			t.Errorf("server %v: %v", v, err)
		}
	case has("status") && (has("payload") || has("code")):
		checkNote(t, v, text)
	case has("cancelJson"):
		if _, err := answering(t, 200, text(v["cancelJson"])).CancelOrder(t.Context(), 1, ""); err != nil {
			t.Errorf("cancel_order: %v", err)
		}
	case len(v) == 1 && has("code"):
		if _, err := answering(t, 200, text(v)).CancelOrder(t.Context(), 1, ""); err != nil {
			t.Errorf("cancel_order: %v", err)
		}
	default:
		return false
	}
	return true
}

// renamed gives back the market's names to orders whose recorder renamed two of them.
func renamed(v map[string]any) map[string]any {
	o := make(map[string]any, len(v))
	for name, value := range v {
		switch name {
		case "price_usd_per_day":
			name = "price"
		case "api_spend_usd":
			name = "spend"
		case "creation_fee_usd":
			name = "creation_fee"
		}
		o[name] = value
	}
	return o
}

func checkOrder(t *testing.T, raw map[string]any, o Order) {
	t.Helper()
	want := func(name string) string {
		if n, ok := raw[name].(json.Number); ok {
			return n.String()
		}
		return ""
	}
	for name, got := range map[string]Number{"price": o.Price, "spend": o.Spend, "creation_fee": o.CreationFee} {
		if string(got) != want(name) {
			t.Errorf("%s is %q, recorded %q", name, got, want(name))
		}
		if got != "" {
			if _, err := got.Decimal(); err != nil {
				t.Error(err)
			}
		}
	}
	if ports, ok := raw["tcp_ports"].([]any); ok {
		got, err := o.Ports()
		if err != nil || len(got) != len(ports) {
			t.Errorf("tcp_ports %v read as %v, %v", ports, got, err)
		}
	}
	if expired, _ := raw["expired"].(bool); o.Expired != expired {
		t.Errorf("expired is %v, recorded %v", o.Expired, expired)
	}
}

func checkPrices(t *testing.T, servers []Server) {
	t.Helper()
	for _, s := range servers {
		if len(s.Price.OnDemand) == 0 {
			t.Errorf("server %d lost its prices", s.ID)
		}
		for coin, p := range s.Price.OnDemand {
			if d, err := p.Decimal(); err != nil || !d.IsPos() {
				t.Errorf("server %d costs %q %s: %v", s.ID, p, coin, err)
			}
		}
	}
}

// checkNote plays a noted HTTP status and code as an answer of create_order.
func checkNote(t *testing.T, v map[string]any, text func(any) string) {
	t.Helper()
	status, err := v["status"].(json.Number).Int64()
	if err != nil {
		t.Fatal(err)
	}
	body, ok := v["payload"].(map[string]any)
	if !ok {
		body = map[string]any{"code": v["code"]}
		if v["error"] != nil {
			body["error"] = v["error"]
		}
	}
	_, err = answering(t, int(status), text(body)).CreateOrder(t.Context(), CreateOrder{})
	if body["code"] == json.Number("0") {
		if err != nil {
			t.Errorf("code 0 read as %v", err)
		}
		return
	}
	var r *Refusal
	if !errors.As(err, &r) {
		t.Fatalf("%s read as %v", text(body), err)
	}
	name, _ := body["error"].(string)
	if text(r.Code) != text(body["code"]) || r.Status != int(status) || r.Name != name || !strings.Contains(err.Error(), name) {
		t.Errorf("%s read as %+v", text(body), r)
	}
}
