package ingress_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/webhook"
	"github.com/renthook/renthook/services/ingress"
)

// at once sends n requests together.
func atOnce(n int, send func(i int) reply) []reply {
	out := make([]reply, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			out[i] = send(i)
		})
	}
	close(start)
	wg.Wait()
	return out
}

// one holds that all answers are one ask, admitted once.
func (r *rig) one(replies []reply, status int, id string, stored int) {
	r.t.Helper()
	fresh, task := 0, replies[0].body[id]
	for _, got := range replies {
		if got.status != status || got.body[id] != task || task == nil {
			r.t.Errorf("%s; want %d and %v", got, status, task)
		}
		if got.header.Get("Idempotent-Replayed") != "true" {
			fresh++
		}
	}
	if fresh != 1 {
		r.t.Errorf("%d of %d answers say that they are the first", fresh, len(replies))
	}
	if n := len(r.commands()); n != stored {
		r.t.Errorf("%d commands are stored, want %d", n, stored)
	}
}

func TestOneKeyAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	second, _ := r.replica()
	bases := []string{r.base, "http://" + second.Addr()}
	const body = `{"gpu_type":"RTX 4090"}`
	r.one(atOnce(50, func(i int) reply {
		return r.signed(bases[i%2]+"/webhook/create-order", body, "Idempotency-Key", `"k1"`)
	}), 200, "task_id", 1)
	r.one(atOnce(50, func(i int) reply {
		return r.bearer("POST", bases[i%2]+"/v1/orders", `{"gpu":"x"}`, "Idempotency-Key", "k2")
	}), 202, "id", 2)
	// Without a key: the window.
	r.one(atOnce(50, func(i int) reply { return r.signed(bases[i%2]+"/webhook/create-order", body) }), 200, "task_id", 3)
	// Many keys at once do not disturb each other.
	atOnce(50, func(i int) reply {
		return r.bearer("POST", bases[i%2]+"/v1/orders", `{"gpu":"x"}`, "Idempotency-Key", fmt.Sprint(i/2))
	})
	if n := len(r.commands()); n != 28 {
		t.Errorf("%d commands are stored, want 28", n)
	}
}

func TestSeedKeys(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const path, body = "/webhook/create-order", `{"gpu_type":"x"}`
	first := r.signed(path, body, "Idempotency-Key", "k")
	if first.status != 200 || first.body["duplicate"] != nil || first.header.Get("Idempotent-Replayed") != "" {
		t.Fatalf("first: %s", first)
	}
	task := fmt.Sprint(first.body["task_id"])
	again := fmt.Sprintf(`{"status":"queued","task_id":%q,"message":"Order creation queued for x","duplicate":true}`, task)
	for name, got := range map[string]reply{
		"the same":            r.signed(path, body, "Idempotency-Key", "k"),
		"quoted":              r.signed(path, body, "Idempotency-Key", `"k"`),
		"by the other secret": r.do("POST", path, body, webhook.HeaderLegacy, webhook.SignLegacy(newSecret, []byte(body)), "Idempotency-Key", "k"),
		"as webhook-id":       r.do("POST", path, body, standard(newSecret, "k", time.Now(), body)...),
		"in both":             r.do("POST", path, body, append(standard(newSecret, "k", time.Now(), body), "Idempotency-Key", "k")...),
	} {
		if got.status != 200 || !jsonEqual(t, got.raw, again) || got.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("%s: %s", name, got)
		}
	}
	r.want(r.signed(path, body+" ", "Idempotency-Key", "k"), 422, `{"error":"this key was used with another body"}`)
	r.want(r.signed(path, `{"gpu_type":"x","request_id":"k"}`), 422, `{"error":"this key was used with another body"}`)
	const differ = `{"error":"Idempotency-Key, webhook-id and request_id differ: send one key"}`
	r.want(r.signed(path, `{"gpu_type":"x","request_id":"k2"}`, "Idempotency-Key", "k"), 400, differ)
	r.want(r.do("POST", path, body, append(standard(newSecret, "k2", time.Now(), body), "Idempotency-Key", "k")...), 400, differ)
	r.want(r.signed(path, body, "Idempotency-Key", "k", "Idempotency-Key", "k"), 400, `{"error":"the header Idempotency-Key stands twice"}`)
	r.want(r.signed(path, body, "Idempotency-Key", strings.Repeat("k", 257)), 400, `{"error":"a key has at most 256 bytes"}`)
	r.want(r.signed(path, `{"gpu_type":"x","request_id":5}`), 400, `{"error":"request_id must be a string"}`)

	withID := `{"gpu_type":"x","request_id":"k3"}`
	a, b := r.signed(path, withID), r.signed(path, withID)
	if a.body["task_id"] == task || a.body["task_id"] != b.body["task_id"] || b.body["duplicate"] != true {
		t.Errorf("request_id: %s then %s", a, b)
	}
	// A key belongs to its client and to what is asked.
	if got := r.signed("/webhook/cancel-order", `{"order_id":1}`, "Idempotency-Key", "k"); got.body["task_id"] == task || got.status != 200 {
		t.Errorf("for a cancel: %s", got)
	}
	other := r.do("POST", "/v1/orders", `{"gpu":"x"}`, "Authorization", "Bearer "+otherToken, "Idempotency-Key", "k")
	if other.status != 202 || other.body["id"] == task {
		t.Errorf("another client: %s", other)
	}
	// The two doors are one core.
	r.want(r.bearer("POST", "/v1/orders", `{"gpu":"x"}`, "Idempotency-Key", "k"), 422, `{"type":"urn:renthook:problem:idempotency-mismatch",
		"title":"Unprocessable Entity","status":422,"detail":"this key was used with another body","instance":"/v1/orders",
		"code":"IDEMPOTENCY_MISMATCH","retryable":false,"error":"this key was used with another body"}`)
	native := r.bearer("POST", "/v1/orders", body, "Idempotency-Key", "k")
	if native.status != 202 || native.body["id"] != task || native.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("the same at the other door: %s", native)
	}
}

func TestSeedWindow(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *ingress.Config) { c.DedupeWindow = time.Second })
	const path, body = "/webhook/create-order", `{"gpu_type":"x"}`
	first := r.signed(path, body)
	// Other routes, bodies and secrets are other asks.
	for name, got := range map[string]reply{
		"body":   r.signed(path, body+" "),
		"route":  r.signed("/webhook/status", body),
		"secret": r.do("POST", path, body, webhook.HeaderLegacy, webhook.SignLegacy(newSecret, []byte(body))),
		"key":    r.signed(path, body, "Idempotency-Key", "k"),
	} {
		if got.status != 200 || got.body["duplicate"] != nil || got.body["task_id"] == first.body["task_id"] {
			t.Errorf("another %s: %s", name, got)
		}
	}
	// It lapses, whenever that is.
	bustest.Eventually(t, "the window to lapse", func() bool {
		got := r.signed(path, body)
		return got.status == 200 && got.body["task_id"] != first.body["task_id"] && got.body["duplicate"] == nil
	})
	off := newRig(t, func(c *ingress.Config) { c.DedupeWindow = 0 })
	if a, b := off.signed(path, body), off.signed(path, body); a.status != 200 || a.body["task_id"] == b.body["task_id"] || b.body["duplicate"] != nil {
		t.Errorf("switched off: %s then %s", a, b)
	}
}

func TestSeedCount(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const path, body = "/webhook/create-order", `{"gpu_type":"x","count":3}`
	got := r.signed(path, body)
	ids, _ := got.body["task_ids"].([]any)
	if got.status != 200 || len(ids) != 3 || ids[0] != got.body["task_id"] || ids[0] == ids[1] || ids[1] == ids[2] {
		t.Fatalf("%s", got)
	}
	again := r.signed(path, body)
	if again.body["duplicate"] != true || fmt.Sprint(again.body["task_ids"]) != fmt.Sprint(ids) || len(r.commands()) != 3 {
		t.Errorf("again: %s, %d commands", again, len(r.commands()))
	}
	if got := r.signed(path, `{"gpu_type":"x","count":1}`); got.body["task_ids"] != nil {
		t.Errorf("one: %s", got)
	}
	native := r.bearer("POST", "/v1/orders", body)
	if ids, _ := native.body["operation_ids"].([]any); native.status != 202 || len(ids) != 3 || ids[0] != native.body["id"] {
		t.Errorf("at the other door: %s", native)
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	five := func(c *ingress.Config) { c.RequestsPerMinute = 5 }
	r := newRig(t, five)
	second, _ := r.replica(five)
	bases := []string{r.base, "http://" + second.Addr()}
	// What does not count.
	for range 10 {
		if r.do("GET", "/health", "").status != 200 || r.do("GET", "/none", "").status != 404 ||
			r.do("GET", "/webhook/status", "").status != 405 || r.do("POST", "/slack/command", "").status != 501 {
			t.Fatal("a request that does not count is refused")
		}
	}
	// What is not signed counts, whichever replica hears it, and stands before the signature.
	limited := 0
	for i := range 9 {
		got := r.do("POST", bases[i%2]+"/webhook/create-order", `{`)
		switch got.status {
		case 401:
			if limited > 0 {
				t.Errorf("let through after the limit: %s", got)
			}
		case 429:
			limited++
			r.want(got, 429, `{"error":"Rate limit exceeded"}`)
			if got.header.Get("Retry-After") == "" {
				t.Errorf("no Retry-After: %s", got)
			}
		default:
			t.Errorf("%s", got)
		}
	}
	if limited < 3 {
		t.Errorf("%d of 9 requests are refused at 5 a minute", limited)
	}
	r.want(r.signed("/webhook/create-order", `{"gpu_type":"x"}`), 429, `{"error":"Rate limit exceeded"}`)
	r.want(r.do("GET", "/webhook/marketplace", ""), 429, `{"error":"Rate limit exceeded"}`)
	native := r.bearer("GET", "/v1/orders", "")
	r.want(native, 429, `{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","title":"Too Many Requests","status":429,
		"detail":"more than 5 requests a minute","instance":"/v1/orders","code":"RATE_LIMITED","retryable":true,
		"error":"more than 5 requests a minute","violated-policies":["default"]}`)
	if native.header.Get("Retry-After") == "" || native.header.Get("RateLimit-Policy") != `"default";q=5;w=60` {
		t.Errorf("%s", native)
	}
}

func TestRateLimitOfAClient(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *ingress.Config) {
		c.RequestsPerMinute = 3
		c.TrustedProxies = append(c.TrustedProxies, loopback)
	})
	// Each from an address of its own, all by one client.
	statuses := map[int]int{}
	for i := range 6 {
		got := r.signed("/webhook/cancel-order", fmt.Sprintf(`{"order_id":%d}`, i+1), "X-Forwarded-For", fmt.Sprintf("198.51.100.%d", i))
		statuses[got.status]++
	}
	if statuses[200] < 3 || statuses[429] < 1 || statuses[200]+statuses[429] != 6 {
		t.Errorf("%v", statuses)
	}
	// Another client still may, from a fresh address.
	if got := r.do("GET", "/v1/orders", "", "Authorization", "Bearer "+otherToken, "X-Forwarded-For", "198.51.100.99"); got.status != 200 || got.header.Get("RateLimit") == "" {
		t.Errorf("%s", got)
	}
}

func TestRestartKeepsAnswers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const path, body = "/webhook/create-order", `{"gpu_type":"x"}`
	keyed := r.signed(path, body, "Idempotency-Key", "k")
	keyless := r.signed(path, body)
	after, stop := r.replica()
	base := "http://" + after.Addr()
	for range 2 {
		if got := r.signed(base+path, body, "Idempotency-Key", "k"); got.body["task_id"] != keyed.body["task_id"] || got.body["duplicate"] != true {
			t.Errorf("keyed: %s", got)
		}
		if got := r.signed(base+path, body); got.body["task_id"] != keyless.body["task_id"] || got.body["duplicate"] != true {
			t.Errorf("keyless: %s", got)
		}
		r.want(r.signed(base+path, `{"gpu_type":"y"}`, "Idempotency-Key", "k"), 422, `{"error":"this key was used with another body"}`)
		// And the broker.
		r.nats.Restart()
		bustest.Eventually(t, "the service is ready again", func() bool { return after.Ready() == nil })
	}
	stop()
	if _, err := r.try("GET", base+"/health", ""); err == nil {
		t.Error("a stopped service answers")
	}
}

// row:14
func TestBrokerAway(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *ingress.Config) { c.RequestsPerMinute = 1000 })
	const path, body = "/webhook/create-order", `{"gpu_type":"x"}`
	if got := r.signed(path, body); got.status != 200 {
		t.Fatalf("%s", got)
	}
	r.market.set()
	r.nats.Stop()
	bustest.Eventually(t, "the connection to be lost", func() bool { return r.bus.Ready() != nil })
	for name, got := range map[string]reply{
		"known":  r.signed(path, body),
		"new":    r.signed(path, `{"gpu_type":"y"}`),
		"keyed":  r.signed(path, body, "Idempotency-Key", "k"),
		"cancel": r.signed("/webhook/cancel-order", `{"order_id":1}`),
		"status": r.signed("/webhook/status", ""),
	} {
		if got.status != 503 || !jsonEqual(t, got.raw, `{"error":"temporarily unavailable"}`) || got.header.Get("Retry-After") == "" {
			t.Errorf("%s: %s", name, got)
		}
	}
	native := r.bearer("POST", "/v1/orders", `{"gpu":"x"}`)
	if native.status != 503 || native.body["code"] != "UNAVAILABLE" || native.body["retryable"] != true || native.header.Get("Retry-After") == "" {
		t.Errorf("native: %s", native)
	}
	// What needs no broker goes on.
	r.want(r.do("POST", path, body), 401, `{"error":"Missing signature"}`)
	r.want(r.signed(path, `{}`), 400, `{"error":"gpu_type required"}`)
	r.want(r.do("GET", "/health", ""), 200, `{"status":"ok"}`)
	if got := r.do("GET", "/webhook/marketplace", ""); got.status != 200 {
		t.Errorf("marketplace: %s", got)
	}
	r.nats.Resume()
	bustest.Eventually(t, "asks to be taken again", func() bool {
		return r.signed(path, body, "Idempotency-Key", "k").status == http.StatusOK
	})
	if n := len(r.commands()); n != 2 {
		t.Errorf("%d commands are stored, want 2: what was answered 503 was never sent", n)
	}
}

// A message that was stored but whose answer was lost is one command, and the sender that asks again gets it.
func TestAnswerLost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	proxy := r.nats.Proxy(t)
	conn := bustest.Connect(t, busConfig(proxy.URL()))
	direct := r.bus
	r.bus = conn
	s, _ := r.replica()
	r.bus = direct
	base := "http://" + s.Addr()
	const path, body = "/webhook/create-order", `{"gpu_type":"x"}`
	warm := r.signed(base+path, `{"gpu_type":"warm"}`)
	if warm.status != 200 {
		t.Fatalf("%s", warm)
	}
	proxy.Mute()
	got := r.signed(base+path, body, "Idempotency-Key", "k")
	if got.status != 503 || got.header.Get("Retry-After") == "" {
		t.Errorf("without an answer: %s", got)
	}
	bustest.Eventually(t, "the command to be stored all the same", func() bool { return len(r.commands()) == 2 })
	proxy.Heal()
	bustest.Eventually(t, "the same ask to be answered", func() bool {
		got = r.signed(base+path, body, "Idempotency-Key", "k")
		return got.status == 200
	})
	if n := len(r.commands()); n != 2 || !strings.HasSuffix(r.commands()[1].Subject, strings.TrimPrefix(fmt.Sprint(got.body["task_id"]), "op_order-create_")) {
		t.Errorf("%s; %d commands", got, n)
	}

	proxy.Deafen()
	if got := r.signed(base+path, body, "Idempotency-Key", "k2"); got.status != 503 {
		t.Errorf("when nothing arrives: %s", got)
	}
	if n := len(r.commands()); n != 2 {
		t.Errorf("%d commands", n)
	}
	proxy.Heal()
	bustest.Eventually(t, "it to be answered", func() bool {
		got = r.signed(base+path, body, "Idempotency-Key", "k2")
		return got.status == 200
	})
	if n := len(r.commands()); n != 3 {
		t.Errorf("%s; %d commands", got, n)
	}
}

// row:19 row:20
func TestCommandsFull(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *ingress.Config) { c.Sizes = small })
	const path = "/webhook/create-order"
	var last string
	for i := range 100 {
		body := fmt.Sprintf(`{"gpu_type":"%d","image":%q}`, i, strings.Repeat("x", 4000))
		got := r.signed(path, body)
		if got.status == 503 {
			r.want(got, 503, `{"error":"temporarily unavailable"}`)
			break
		}
		if got.status != 200 {
			t.Fatalf("%s", got)
		}
		last = body
	}
	n := len(r.commands())
	if n == 0 || n == 100 {
		t.Fatalf("%d commands are stored", n)
	}
	if got := r.signed(path, last); got.status != 200 || got.body["duplicate"] != true {
		t.Errorf("a known ask when full: %s", got)
	}
	if got := len(r.commands()); got != n {
		t.Errorf("%d commands are stored, want the %d from before: nothing old may go", got, n)
	}
}

func TestStopWithoutStart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s, err := ingress.New(ingress.Config{Address: "127.0.0.1:0", Clients: clients()}, ingress.Deps{
		Bus: r.bus, Seal: box(t), Callbacks: callbacks{}, Market: r.market,
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.Ready() == nil {
		t.Error("ready before it is started")
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for name, change := range map[string]func(*ingress.Config){
		"a window of two hours":     func(c *ingress.Config) { c.DedupeWindow = 2 * time.Hour },
		"an unknown word":           func(c *ingress.Config) { c.LegacySignature = "maybe" },
		"a shared secret":           func(c *ingress.Config) { c.Clients[2].Secrets = c.Clients[0].Secrets },
		"a shared token":            func(c *ingress.Config) { c.Clients[2].Tokens = c.Clients[0].Tokens },
		"an address that is none":   func(c *ingress.Config) { c.Address = "nowhere" },
		"an address that is in use": func(c *ingress.Config) { c.Address = strings.TrimPrefix(r.base, "http://") },
	} {
		cfg := ingress.Config{Address: "127.0.0.1:0", Clients: clients()}
		change(&cfg)
		s, err := ingress.New(cfg, ingress.Deps{Bus: r.bus, Seal: box(t), Callbacks: callbacks{}, Market: r.market})
		if err == nil {
			t.Errorf("%s is taken", name)
			_ = s.Stop(t.Context())
		}
	}
}
