package ingress_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/ingress"
	"github.com/renthook/renthook/services/internal/ask"
	"github.com/renthook/renthook/services/internal/topology"
)

func TestV1Orders(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	got := r.bearer("POST", "/v1/orders", `{"gpu":"RTX 4090","max_price":0.50,"env":{"TOKEN":"hush"},"paper":true}`)
	r.want(got, 202, `{"id":"*","done":false,"stage":"queued"}`)
	id := fmt.Sprint(got.body["id"])
	if got.header.Get("Location") != "/v1/operations/"+id || got.header.Get("Retry-After") == "" || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("%s", got)
	}
	all := r.commands()
	cmd, err := topology.ParseCommand(all[0].Subject)
	if err != nil || cmd.Operation() != id || cmd.Client != "local" || strings.Contains(string(all[0].Data), "hush") {
		t.Errorf("%s %s: %v", all[0].Subject, all[0].Data, err)
	}
	m, err := ask.Decode(cmd.Noun, cmd.Verb, all[0].Header.Get("Content-Type"), all[0].Data)
	create, ok := m.(*orderv1.CreateOrder)
	if err != nil || !ok || !create.Paper || create.Spec.MaxPrice.Amount != "0.5" || create.Origin.Door != "v1" || create.Spec.Sealed == "" {
		t.Errorf("%v, %v", m, err)
	}

	cancel := r.bearer("POST", "/v1/orders/ord_1/cancel", ``, "Idempotency-Key", "k")
	r.want(cancel, 202, `{"id":"*","done":false,"stage":"queued"}`)
	// The key stands for the order too, though the bodies are equal.
	if got := r.bearer("POST", "/v1/orders/ord_2/cancel", ``, "Idempotency-Key", "k"); got.status != 422 {
		t.Errorf("another order under the same key: %s", got)
	}
	if got := r.bearer("POST", "/v1/orders/ord_1/cancel", ``, "Idempotency-Key", "k"); got.body["id"] != cancel.body["id"] || got.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("again: %s", got)
	}
	if got := r.bearer("POST", "/v1/orders", `{"gpu":"x","request_id":"k"}`, "Idempotency-Key", "other"); got.status != 422 || got.body["code"] != "IDEMPOTENCY_KEY_INVALID" {
		t.Errorf("two keys: %s", got)
	}
	// Two asks without a key are two orders: the window is the seed's.
	a, b := r.bearer("POST", "/v1/orders", `{"gpu":"x"}`), r.bearer("POST", "/v1/orders", `{"gpu":"x"}`)
	if a.body["id"] == b.body["id"] {
		t.Errorf("%s and %s", a, b)
	}
}

func TestV1Refuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	now := time.Now()
	const body = `{"gpu":"x"}`
	bearer := func(token string) []string { return []string{"Authorization", "Bearer " + token} }
	for name, c := range map[string]struct {
		method, path, body string
		header             []string
		status             int
		code, detail       string
	}{
		"nobody":                          {"POST", "/v1/orders", body, nil, 401, "CREDENTIALS_MISSING", "Authorization: Bearer"},
		"a legacy signature":              {"POST", "/v1/orders", body, []string{"X-Webhook-Signature", strings.Repeat("0", 64)}, 401, "CREDENTIALS_MISSING", ""},
		"a wrong token":                   {"POST", "/v1/orders", body, bearer("rht_wrong"), 401, "TOKEN_INVALID", ""},
		"an empty token":                  {"POST", "/v1/orders", body, bearer(""), 401, "TOKEN_INVALID", ""},
		"basic":                           {"POST", "/v1/orders", body, []string{"Authorization", "Basic " + token}, 401, "TOKEN_INVALID", ""},
		"two tokens":                      {"POST", "/v1/orders", body, append(bearer(token), bearer(token)...), 401, "TOKEN_INVALID", ""},
		"a wrong signature":               {"POST", "/v1/orders", body, standard("whsec_AAAA", "m", now, body), 401, "SIGNATURE_INVALID", "Invalid signature"},
		"a stale signature":               {"POST", "/v1/orders", body, standard(otherSecret, "m", now.Add(-time.Hour), body), 401, "TIMESTAMP_SKEW", ""},
		"a token and a wrong signature":   {"POST", "/v1/orders", body, append(standard("whsec_AAAA", "m", now, body), bearer(token)...), 401, "SIGNATURE_INVALID", ""},
		"a token and another's signature": {"POST", "/v1/orders", body, append(standard(otherSecret, "m", now, body), bearer(token)...), 401, "SIGNATURE_INVALID", ""},
		"no scope":                        {"POST", "/v1/orders", body, bearer(readToken), 403, "SCOPE_DENIED", `"orders:create"`},
		"no scope to cancel":              {"POST", "/v1/orders/ord_1/cancel", ``, bearer(readToken), 403, "SCOPE_DENIED", `"orders:cancel"`},
		"no JSON":                         {"POST", "/v1/orders", `gpu`, bearer(token), 400, "INVALID_JSON", ""},
		"no object":                       {"POST", "/v1/orders", `[]`, bearer(token), 400, "INVALID_JSON", "not an object"},
		"twice":                           {"POST", "/v1/orders", `{"gpu":"x","gpu":"y"}`, bearer(token), 400, "INVALID_JSON", "twice"},
		"no GPU":                          {"POST", "/v1/orders", `{}`, bearer(token), 422, "INVALID_ARGUMENT", "gpu is required"},
		"a typo":                          {"POST", "/v1/orders", `{"gpu":"x","max_prise":1}`, bearer(token), 422, "UNKNOWN_MEMBER", `did you mean "max_price"?`},
		"a callback inside":               {"POST", "/v1/orders", `{"gpu":"x","callback_url":"https://10.0.0.1/"}`, bearer(token), 422, "CALLBACK_REFUSED", "egress.allow_networks"},
		"an order in the body":            {"POST", "/v1/orders/ord_1/cancel", `{"order_id":"ord_2"}`, bearer(token), 422, "UNKNOWN_MEMBER", "the path names the order"},
		"too large":                       {"POST", "/v1/orders", `{"gpu":"` + strings.Repeat("x", 64<<10) + `"}`, bearer(token), 413, "BODY_TOO_LARGE", ""},
		"no such path":                    {"GET", "/v1/nothing", ``, nil, 404, "NO_SUCH_ROUTE", ""},
		"the root":                        {"GET", "/v1", ``, nil, 404, "NO_SUCH_ROUTE", ""},
		"no such order":                   {"GET", "/v1/orders/ord_9", ``, bearer(token), 404, "NOT_FOUND", "no such order"},
		"no such operation":               {"GET", "/v1/operations/op_order-create_9", ``, bearer(token), 404, "NOT_FOUND", "no such operation"},
		"no operation":                    {"GET", "/v1/operations/abc", ``, bearer(token), 404, "NOT_FOUND", ""},
		"a subject's token":               {"GET", "/v1/operations/op_order-create_a.b", ``, bearer(token), 404, "NOT_FOUND", ""},
		"a wild card":                     {"GET", "/v1/operations/op_order-create_%3E", ``, bearer(token), 404, "NOT_FOUND", ""},
		"odd wait":                        {"GET", "/v1/operations/op_order-create_9?wait=long", ``, bearer(token), 422, "INVALID_ARGUMENT", "wait"},
		"odd page size":                   {"GET", "/v1/orders?page_size=many", ``, bearer(token), 422, "INVALID_ARGUMENT", "page_size"},
		"odd reveal":                      {"GET", "/v1/orders/ord_1?reveal=all", ``, bearer(token), 422, "INVALID_ARGUMENT", "reveal"},
	} {
		got := r.do(c.method, c.path, c.body, c.header...)
		detail, _ := got.body["detail"].(string)
		if got.status != c.status || got.body["code"] != c.code || !strings.Contains(detail, c.detail) || got.body["error"] != got.body["detail"] ||
			got.header.Get("Content-Type") != "application/problem+json" || fmt.Sprint(got.body["status"]) != fmt.Sprint(c.status) {
			t.Errorf("%s: %s; want %d %s %q", name, got, c.status, c.code, c.detail)
		}
		if (got.header.Get("WWW-Authenticate") != "") != (c.status == 401) {
			t.Errorf("%s: WWW-Authenticate %q", name, got.header.Get("WWW-Authenticate"))
		}
	}
	for path, allow := range map[string]string{
		"/v1/orders": "GET, HEAD, POST", "/v1/orders/ord_1": "GET, HEAD", "/v1/orders/ord_1/cancel": "POST", "/v1/operations/op_a-b_c": "GET, HEAD",
	} {
		if got := r.do("PATCH", path, ""); got.status != 405 || got.header.Get("Allow") != allow || got.body["code"] != "METHOD_NOT_ALLOWED" {
			t.Errorf("PATCH %s: %s", path, got)
		}
	}
	if n := len(r.commands()); n != 0 {
		t.Errorf("%d commands were stored", n)
	}
}

func TestV1StandardWebhooks(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const body = `{"gpu":"x"}`
	header := standard(otherSecret, "msg_1", time.Now(), body)
	a, b := r.do("POST", "/v1/orders", body, header...), r.do("POST", "/v1/orders", body, header...)
	if a.status != 202 || a.body["id"] != b.body["id"] || b.header.Get("Idempotent-Replayed") != "true" || len(r.commands()) != 1 {
		t.Errorf("%s then %s", a, b)
	}
	if got := r.do("GET", "/v1/operations/"+fmt.Sprint(a.body["id"]), "", standard(otherSecret, "msg_2", time.Now(), "")...); got.status != 200 {
		t.Errorf("a signed read: %s", got)
	}
	if got := r.bearer("GET", "/v1/operations/"+fmt.Sprint(a.body["id"]), ""); got.status != 404 {
		t.Errorf("another client's operation: %s", got)
	}
}

func running() *orderv1.Order {
	return &orderv1.Order{
		Id: "ord_1", Client: "local", State: orderv1.Order_RUNNING, Revision: 5, MarketOrderId: 38176,
		Spec:     &orderv1.OrderSpec{Gpu: "rtx-4090", Sealed: "s1.AAAA"},
		Access:   &orderv1.Access{Host: "n1.example", SshPort: 10022, SshUser: "root"},
		Attempts: []*orderv1.Attempt{{Number: 1, Outcome: "refused"}, {Number: 2, Outcome: "placed"}},
	}
}

func TestV1Reads(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.orders.orders["ord_1"] = running()
	r.orders.orders["ord_2"] = &orderv1.Order{Id: "ord_2", Client: "other"}

	const plain = `{"id":"ord_1","client":"local","state":"RUNNING","revision":"5","market_order_id":"38176","spec":{"gpu":"rtx-4090"},
		"access":{"host":"n1.example","ssh_port":10022,"ssh_user":"root"},"attempts":[{"number":1,"outcome":"refused"},{"number":2,"outcome":"placed"}]`
	got := r.bearer("GET", "/v1/orders/ord_1", "")
	r.want(got, 200, plain+`}`)
	r.want(r.bearer("GET", "/v1/orders/ord_1?reveal=ssh", ""), 200, plain+`,"ssh":{"user":"root","host":"n1.example","port":10022,
		"command":"ssh root@n1.example -p 10022","password":"`+box(t).Password("ssh", "ord_1", "2")+`"}}`)
	if got := r.bearer("GET", "/v1/orders/ord_2?reveal=ssh", ""); got.status != 404 {
		t.Errorf("another client's order: %s", got)
	}

	list := r.bearer("GET", "/v1/orders?page_size=2&page_token=abc&filter=state+%3D+RUNNING", "")
	r.want(list, 200, `{"orders":[`+plain+`}],"next_page_token":"next"}`)
	if got := list.header.Get("Link"); got != `</v1/orders?filter=state+%3D+RUNNING&page_size=2&page_token=next>; rel="next"` {
		t.Errorf("Link %s", got)
	}
	if asked := r.orders.listed[0]; asked.PageSize != 2 || asked.PageToken != "abc" || asked.Filter != "state = RUNNING" {
		t.Errorf("%v", asked)
	}
	r.want(r.do("GET", "/v1/orders", "", "Authorization", "Bearer "+readToken), 200, `{"orders":[],"next_page_token":"next"}`)

	// Nothing to log in to yet; a key of the asker's; a key of the operator's.
	r.orders.orders["ord_1"].Access = nil
	if got := r.bearer("GET", "/v1/orders/ord_1?reveal=ssh", ""); got.status != 200 || got.body["ssh"] != nil {
		t.Errorf("no access: %s", got)
	}
	r.orders.orders["ord_1"] = running()
	keyed, _ := r.replica(func(c *ingress.Config) { c.KeyedAccess = true })
	ssh := func(got reply) map[string]any { m, _ := got.body["ssh"].(map[string]any); return m }
	if m := ssh(r.bearer("GET", "http://"+keyed.Addr()+"/v1/orders/ord_1?reveal=ssh", "")); m["host"] != "n1.example" || m["password"] != nil {
		t.Errorf("an operator's key: %v", m)
	}
	r.orders.orders["ord_1"].Spec.SshKey = "ssh-ed25519 AAAA"
	if m := ssh(r.bearer("GET", "/v1/orders/ord_1?reveal=ssh", "")); m["host"] != "n1.example" || m["password"] != nil {
		t.Errorf("the asker's key: %v", m)
	}
}

func TestV1Operations(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	asked := r.signed("/webhook/create-order", `{"gpu_type":"x"}`)
	id := fmt.Sprint(asked.body["task_id"])
	path := "/v1/operations/" + id
	queued := r.bearer("GET", path, "")
	r.want(queued, 200, fmt.Sprintf(`{"id":%q,"done":false,"stage":"queued","create_time":"*"}`, id))
	if queued.header.Get("Retry-After") == "" {
		t.Errorf("%s", queued)
	}
	if got := r.do("GET", path, "", "Authorization", "Bearer "+otherToken); got.status != 404 {
		t.Errorf("another client's: %s", got)
	}
	// A wait that ends before the operation does, and not before its time: the server's own time-outs are shorter.
	for wait, least := range map[string]time.Duration{"1": time.Second, "16s": 16 * time.Second} {
		began := time.Now()
		if got := r.bearer("GET", path+"?wait="+wait, ""); got.body["done"] != false || time.Since(began) < least {
			t.Errorf("after %s: %s", time.Since(began), got)
		}
	}
	// A wait that the end of the operation ends.
	answered := make(chan reply, 1)
	go func() {
		got, err := r.try("GET", path+"?wait=60s", "", "Authorization", "Bearer "+token)
		if err != nil {
			got.raw = err.Error()
		}
		answered <- got
	}()
	r.orders.put(&orderv1.Operation{Id: id, Done: true, Stage: "succeeded", OrderId: "ord_1", Order: running()})
	select {
	case got := <-answered:
		order, _ := got.body["order"].(map[string]any)
		spec, _ := order["spec"].(map[string]any)
		if got.status != 200 || got.body["done"] != true || order["id"] != "ord_1" || spec["sealed"] != nil || got.header.Get("Retry-After") != "" {
			t.Errorf("%s", got)
		}
	case <-time.After(time.Minute):
		t.Error("the wait does not end")
	}
}

// With the order service away asks are taken and operations read; what only it knows is 503.
func TestOrderServiceAway(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.grpc.Stop()
	asked := r.bearer("POST", "/v1/orders", `{"gpu":"x"}`)
	if asked.status != 202 {
		t.Fatalf("%s", asked)
	}
	r.want(r.bearer("GET", asked.header.Get("Location"), ""), 200, fmt.Sprintf(`{"id":%q,"done":false,"stage":"queued","create_time":"*"}`, asked.body["id"]))
	for _, path := range []string{"/v1/orders", "/v1/orders/ord_1", "/v1/operations/op_order-create_unknown"} {
		got := r.bearer("GET", path, "")
		if got.status != 503 || got.body["code"] != "UNAVAILABLE" || got.header.Get("Retry-After") == "" || strings.Contains(got.raw, "connect") {
			t.Errorf("%s: %s", path, got)
		}
	}
}

func TestStopEndsWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s, stop := r.replica()
	asked := r.bearer("POST", "/v1/orders", `{"gpu":"x"}`)
	var answered = make(chan reply, 1)
	go func() {
		got, err := r.try("GET", "http://"+s.Addr()+asked.header.Get("Location")+"?wait=60s", "", "Authorization", "Bearer "+token)
		if err != nil {
			got.raw = err.Error()
		}
		answered <- got
	}()
	r.orders.waitForAsk(t, fmt.Sprint(asked.body["id"]))
	began := time.Now()
	stop()
	got := <-answered
	if got.status != http.StatusOK || got.body["done"] != false || time.Since(began) > 40*time.Second {
		t.Errorf("after %s: %s", time.Since(began), got)
	}
}

func TestTraces(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	got := r.bearer("POST", "/v1/orders", `{`, "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if got.body["trace_id"] != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("%s", got)
	}
	r.bearer("POST", "/v1/orders", `{"gpu":"x"}`, "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if m := r.commands()[0]; !strings.Contains(strings.ToLower(fmt.Sprint(m.Header)), "0af7651916cd43dd8448eb211c80319c") {
		t.Errorf("the command has no trace: %v", m.Header)
	}
	if !json.Valid([]byte(got.raw)) {
		t.Errorf("%s", got.raw)
	}
}
