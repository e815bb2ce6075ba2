package cloresim

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// rig is a market served over HTTP, and a caller with a key.
type rig struct {
	t   *testing.T
	sim *Sim
	url string
}

// newRig serves a market of few servers, without rate limits and lags unless c says otherwise.
func newRig(t *testing.T, c Config) *rig {
	t.Helper()
	if c.Servers == 0 {
		c.Servers = 60
	}
	sim, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(sim.Handler())
	t.Cleanup(func() {
		if err := sim.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		srv.Close()
	})
	return &rig{t, sim, srv.URL}
}

// plain is a market that does at once what it is asked.
var plain = Config{NoRateLimit: true, Boot: -1, Visible: -1}

// answer is what came back of a call.
type answer struct {
	status int
	body   string
}

func (r *rig) try(method, path, key, body string) (answer, error) {
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return answer{}, err
	}
	if key != "" {
		req.Header.Set("auth", key)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, string(raw)}, err
}

func (r *rig) do(method, path, key, body string) answer {
	r.t.Helper()
	a, err := r.try(method, path, key, body)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (r *rig) get(path string) answer        { r.t.Helper(); return r.do("GET", path, "k", "") }
func (r *rig) post(path, body string) answer { r.t.Helper(); return r.do("POST", path, "k", body) }

// want checks an answer whole.
func (r *rig) want(a answer, status int, body string) {
	r.t.Helper()
	if a.status != status || !sameJSON(r.t, a.body, body) {
		r.t.Errorf("answered %d %s, want %d %s", a.status, a.body, status, body)
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	norm := func(s string) string {
		var v any
		if err := json.Unmarshal([]byte(s), &v); err != nil {
			return s
		}
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	return norm(a) == norm(b)
}

// order is what create_order sends for a server, on demand and for USD, with changes.
func order(server int64, changes map[string]any) string {
	o := map[string]any{
		"currency": "USD-Blockchain", "image": "cloreai/jupyter:ubuntu24.04-v2", "renting_server": server,
		"type": "on-demand", "ports": map[string]string{"22": "tcp", "8888": "http"}, "ssh_password": "Abc123",
	}
	for k, v := range changes {
		if v == nil {
			delete(o, k)
		} else {
			o[k] = v
		}
	}
	raw, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

func (r *rig) orders(completed bool) []map[string]json.RawMessage {
	r.t.Helper()
	path := "/v1/my_orders"
	if completed {
		path += "?return_completed=true"
	}
	a := r.get(path)
	var body struct {
		Orders []map[string]json.RawMessage `json:"orders"`
		Code   int                          `json:"code"`
	}
	if err := json.Unmarshal([]byte(a.body), &body); err != nil || body.Code != 0 {
		r.t.Fatalf("my_orders: %d %s", a.status, a.body)
	}
	return body.Orders
}

func (r *rig) script(queues string) {
	r.t.Helper()
	if a := r.do("POST", "/sim/v1/script", "", queues); a.status != http.StatusOK {
		r.t.Fatalf("script: %d %s", a.status, a.body)
	}
}

// eventually waits for an outcome.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline, tick := time.After(60*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("%s: did not happen", what)
		case <-tick.C:
		}
	}
}

// recordings is where recorded answers of the real market are, or skips.
func recordings(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("RENTHOOK_RECORDINGS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "shared", "data", "clore")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no recordings of the market here (RENTHOOK_RECORDINGS): %v", err)
	}
	return dir
}
