package ingress_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/pkg/webhook"
	"github.com/renthook/renthook/services/ingress"
	"github.com/renthook/renthook/services/internal/ask"
	"github.com/renthook/renthook/services/internal/marketview"
	"github.com/renthook/renthook/services/internal/topology"
)

func TestSeedConversations(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	queued := func(message string) string {
		b, err := json.Marshal(map[string]string{"status": "queued", "task_id": "*", "message": message})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	said := func(text string) string {
		b, err := json.Marshal(map[string]string{"error": text})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	const (
		create, cancel, alert, status = "/webhook/create-order", "/webhook/cancel-order", "/webhook/price-alert", "/webhook/status"
		notObject                     = `{"error":"body must be a JSON object","detail":"*"}`
	)
	for _, c := range []struct {
		path, body string
		status     int
		want       string
	}{
		{create, `{"gpu_type":"RTX 4090","max_price":0.50}`, 200, queued("Order creation queued for RTX 4090")},
		{create, ` {"gpu_type" : "rtx 4090 ü", "use_spot":null, "extra":[1,2]} `, 200, queued("Order creation queued for rtx 4090 ü")},
		{create, "\xef\xbb\xbf" + `{"gpu_type":"RTX 3080","max_price":"0.50","image":"a/b","use_spot":false,"callback_url":"https://a.example/x"}`, 200, queued("Order creation queued for RTX 3080")},
		{create, `{"gpu_type":"<b>&"}`, 200, queued("Order creation queued for <b>&")},
		{create, `{}`, 400, said("gpu_type required")},
		{create, `{"gpu_type":""}`, 400, said("gpu_type required")},
		{create, `{"gpu_type":0.0,"callback_url":"https://10.0.0.1/"}`, 400, said("gpu_type required")},
		{create, `{"gpu_type":4090}`, 400, said("gpu_type must be a string")},
		{create, `{"gpu_type":"x","max_price":-1}`, 400, said("max_price must be a positive number")},
		{create, `{"gpu_type":"x","max_price":NaN}`, 400, said("max_price must be a positive number")},
		{create, `{"gpu_type":"x","use_spot":"yes"}`, 400, said("use_spot must be true or false")},
		{create, `{"gpu_type":"x","callback_url":"https://10.0.0.1/"}`, 400, said("callback_url refused: 10.0.0.1 is a private address; egress.allow_networks would allow it")},
		{create, `{"gpu_type":"x","count":11}`, 400, said("count must be a whole number from 1 to 10")},
		{create, ``, 400, notObject},
		{create, `null`, 400, notObject},
		{create, `[]`, 400, notObject},
		{create, `"gpu_type"`, 400, notObject},
		{create, `{"gpu_type":"x"`, 400, notObject},
		{create, `gpu_type=x`, 400, notObject},
		{create, `{"gpu_type":"x","gpu_type":"y"}`, 400, notObject},
		{create, `{"gpu_type":"x","GPU_type":"y"}`, 400, notObject},
		{create, "{\"gpu_type\":\"\xff\"}", 400, notObject},
		{create, `{"gpu_type":"x","a":` + strings.Repeat("[", 17) + strings.Repeat("]", 17) + `}`, 400, notObject},
		{cancel, `{"order_id":38176}`, 200, queued("Cancellation queued for order 38176")},
		{cancel, `{"order_id":"38176"}`, 200, queued("Cancellation queued for order 38176")},
		{cancel, `{"order_id":"ord_1"}`, 200, queued("Cancellation queued for order ord_1")},
		{cancel, `{"order_id":1E5}`, 200, queued("Cancellation queued for order 100000.0")},
		{cancel, `{"order_id":1e16}`, 200, queued("Cancellation queued for order 1e+16")},
		{cancel, `{"order_id":340282366920938463463374607431768211456}`, 200, queued("Cancellation queued for order 340282366920938463463374607431768211456")},
		{cancel, `{"order_id":"` + strings.Repeat("x", 500) + `"}`, 200, queued("Cancellation queued for order " + strings.Repeat("x", 500))},
		{cancel, `{}`, 400, said("order_id required")},
		{cancel, `{"order_id":0}`, 400, said("order_id required")},
		{cancel, `{"order_id":[]}`, 400, said("order_id required")},
		{cancel, `{"order_id":true}`, 400, said("order_id must be a number or a string")},
		{cancel, `{"order_id":1,"callback_url":"https://10.0.0.1/"}`, 400, said("callback_url refused: 10.0.0.1 is a private address; egress.allow_networks would allow it")},
		{status, ``, 200, `{"status":"queued","task_id":"*"}`},
		{status, `{}`, 200, `{"status":"queued","task_id":"*"}`},
		{status, `null`, 200, `{"status":"queued","task_id":"*"}`},
		{status, `[]`, 200, `{"status":"queued","task_id":"*"}`},
		{status, `""`, 200, `{"status":"queued","task_id":"*"}`},
		{status, `0`, 200, `{"status":"queued","task_id":"*"}`},
		{status, `false`, 200, `{"status":"queued","task_id":"*"}`},
		{status, `{"callback_url":"https://a.example"}`, 200, `{"status":"queued","task_id":"*"}`},
		{status, `{"callback_url":"https://10.0.0.1/"}`, 400, said("callback_url refused: 10.0.0.1 is a private address; egress.allow_networks would allow it")},
		{status, `[1]`, 400, notObject},
		{status, `{`, 400, notObject},
		{alert, `{"gpu_type":"x"}`, 400, said("gpu_type and target_price required")},
		{alert, `{"gpu_type":"x","target_price":0}`, 400, said("gpu_type and target_price required")},
		{alert, `{"gpu_type":1,"target_price":1}`, 400, said("gpu_type must be a string")},
		{alert, `{"gpu_type":"x","target_price":"none"}`, 400, said("target_price must be a positive number")},
		{alert, `{"gpu_type":"x","target_price":0.4}`, 501, `{"error":"*"}`},
	} {
		got := r.signed(c.path, c.body)
		r.want(got, c.status, c.want)
		if got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: Content-Type %q", c.path, c.body, got.header.Get("Content-Type"))
		}
	}
	for _, m := range r.commands() {
		cmd, err := topology.ParseCommand(m.Subject)
		if err != nil || cmd.Client != "local" || len(cmd.Key) != 32 || len(m.Header.Get(topology.BodyHash)) != 64 {
			t.Errorf("%s %v: %v", m.Subject, m.Header, err)
		}
		if _, err := ask.Decode(cmd.Noun, cmd.Verb, m.Header.Get("Content-Type"), m.Data); err != nil {
			t.Errorf("%s cannot be read by the order service: %v", m.Data, err)
		}
	}
}

func TestSeedPaths(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.want(r.do("GET", "/health", ""), 200, `{"status":"ok"}`)
	for _, c := range []struct {
		method, path string
		status       int
		allow, want  string
	}{
		{"GET", "/", 404, "", `{"error":"not found"}`},
		{"POST", "/webhook", 404, "", `{"error":"not found"}`},
		{"POST", "/webhook/create-order/", 404, "", `{"error":"not found"}`},
		{"POST", "//webhook/create-order", 404, "", `{"error":"not found"}`},
		{"POST", "/WEBHOOK/create-order", 404, "", `{"error":"not found"}`},
		{"GET", "/webhook/create-order", 405, "POST", `{"error":"method not allowed"}`},
		{"PUT", "/webhook/cancel-order", 405, "POST", `{"error":"method not allowed"}`},
		{"DELETE", "/webhook/status", 405, "POST", `{"error":"method not allowed"}`},
		{"GET", "/webhook/price-alert", 405, "POST", `{"error":"method not allowed"}`},
		{"GET", "/slack/command", 405, "POST", `{"error":"method not allowed"}`},
		{"POST", "/webhook/marketplace", 405, "GET, HEAD", `{"error":"method not allowed"}`},
		{"POST", "/health", 405, "GET, HEAD", `{"error":"method not allowed"}`},
		{"POST", "/slack/command", 501, "", `{"error":"*"}`},
	} {
		got := r.do(c.method, c.path, "")
		r.want(got, c.status, c.want)
		if got.header.Get("Allow") != c.allow {
			t.Errorf("%s %s: Allow %q, want %q", c.method, c.path, got.header.Get("Allow"), c.allow)
		}
	}
	if got := r.do("HEAD", "/webhook/create-order", ""); got.status != 405 || got.header.Get("Allow") != "POST" {
		t.Errorf("HEAD of a POST route: %s", got)
	}
	for _, path := range []string{"/health", "/webhook/marketplace"} {
		r.market.set()
		get, head := r.do("GET", path, ""), r.do("HEAD", path, "")
		if head.status != 200 || head.raw != "" || head.header.Get("Content-Length") != get.header.Get("Content-Length") {
			t.Errorf("HEAD %s: %s", path, head)
		}
	}
}

func TestSeedSignatures(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const path, body = "/webhook/cancel-order", `{"order_id":1}`
	const missing, invalid = `{"error":"Missing signature"}`, `{"error":"Invalid signature"}`
	good := webhook.SignLegacy(legacySecret, []byte(body))
	now := time.Now()
	without := func(h []string, name string) []string {
		var out []string
		for i := 0; i < len(h); i += 2 {
			if h[i] != name {
				out = append(out, h[i], h[i+1])
			}
		}
		return out
	}
	right := standard(newSecret, "msg_1", now, body)
	legacy := []string{webhook.HeaderLegacy, good}
	for name, c := range map[string]struct {
		header []string
		status int
		want   string
	}{
		"none":                          {nil, 401, missing},
		"empty":                         {[]string{webhook.HeaderLegacy, ""}, 401, missing},
		"bearer only":                   {[]string{"Authorization", "Bearer " + token}, 401, missing},
		"right":                         {legacy, 200, ""},
		"the other live secret":         {[]string{webhook.HeaderLegacy, webhook.SignLegacy(newSecret, []byte(body))}, 200, ""},
		"upper case":                    {[]string{webhook.HeaderLegacy, strings.ToUpper(good)}, 200, ""},
		"prefix":                        {[]string{webhook.HeaderLegacy, "sha256=" + good}, 200, ""},
		"twice":                         {append(legacy, legacy...), 401, invalid},
		"of another body":               {[]string{webhook.HeaderLegacy, webhook.SignLegacy(legacySecret, []byte(body+" "))}, 401, invalid},
		"by nobody":                     {[]string{webhook.HeaderLegacy, webhook.SignLegacy("somebody else's", []byte(body))}, 401, invalid},
		"by a client of the other door": {[]string{webhook.HeaderLegacy, webhook.SignLegacy(otherSecret, []byte(body))}, 401, invalid},
		"short":                         {[]string{webhook.HeaderLegacy, good[:62]}, 401, invalid},
		"not hexadecimal":               {[]string{webhook.HeaderLegacy, "zz" + good[2:]}, 401, invalid},
		"standard":                      {right, 200, ""},
		"standard and legacy":           {append(right, legacy...), 200, ""},
		"wrong standard, right legacy":  {append(standard("whsec_AAAA", "msg_1", now, body), legacy...), 401, invalid},
		"empty standard, right legacy":  {append([]string{webhook.HeaderSignature, ""}, legacy...), 401, missing},
		"stale standard":                {standard(newSecret, "msg_1", now.Add(-6*time.Minute), body), 401, invalid},
		"standard of the future":        {standard(newSecret, "msg_1", now.Add(6*time.Minute), body), 401, invalid},
		"standard without id":           {without(right, webhook.HeaderID), 401, missing},
		"standard without a time":       {without(right, webhook.HeaderTimestamp), 401, missing},
		"standard, another id":          {append(without(right, webhook.HeaderID), webhook.HeaderID, "msg_2"), 401, invalid},
		"only an id, right legacy":      {append([]string{webhook.HeaderID, "msg_3"}, legacy...), 200, ""},
	} {
		got := r.do("POST", path, body, c.header...)
		if got.status != c.status || c.want != "" && !jsonEqual(t, got.raw, c.want) {
			t.Errorf("%s: %s; want %d %s", name, got, c.status, c.want)
		}
	}
	for i := range 16 {
		flipped := []byte(good)
		flipped[i*4] ^= 1
		if got := r.do("POST", path, body, webhook.HeaderLegacy, string(flipped)); got.status != 401 {
			t.Errorf("a bit flipped: %s", got)
		}
	}
	// The order: what is unsigned is not parsed.
	r.want(r.do("POST", path, `{`), 401, missing)
}

func TestSeedSentAt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	at := func(d time.Duration) string { return `,"sent_at":"` + time.Now().Add(d).Format(time.RFC3339) + `"}` }
	for body, status := range map[string]int{
		`{"order_id":1` + at(0):               200,
		`{"order_id":2` + at(-4*time.Minute):  200,
		`{"order_id":3` + at(4*time.Minute):   200,
		`{"order_id":4,"sent_at":null}`:       200,
		`{"order_id":5` + at(-6*time.Minute):  401,
		`{"order_id":6` + at(6*time.Minute):   401,
		`{"order_id":7,"sent_at":"today"}`:    401,
		`{"order_id":8,"sent_at":1764000000}`: 401,
		// The signature is judged before the members.
		`{"none":1` + at(time.Hour): 401,
	} {
		got := r.signed("/webhook/cancel-order", body)
		if got.status != status {
			t.Errorf("%s: %s", body, got)
		}
		if status == 401 {
			r.want(got, 401, `{"error":"Invalid signature"}`)
		}
	}
}

func TestSeedLegacySignature(t *testing.T) {
	t.Parallel()
	const body = `{"order_id":1}`
	warn := newRig(t, func(c *ingress.Config) { c.LegacySignature = "warn" })
	if got := warn.signed("/webhook/cancel-order", body); got.status != 200 || !strings.HasPrefix(got.header.Get("Deprecation"), "@") {
		t.Errorf("warn: %s", got)
	}
	if got := warn.do("POST", "/webhook/cancel-order", body, standard(newSecret, "m", time.Now(), body)...); got.status != 200 || got.header.Get("Deprecation") != "" {
		t.Errorf("warn, standard: %s", got)
	}
	deny := newRig(t, func(c *ingress.Config) { c.LegacySignature = "deny" })
	deny.want(deny.signed("/webhook/cancel-order", body), 401, `{"error":"Invalid signature"}`)
	deny.want(deny.do("POST", "/webhook/cancel-order", body), 401, `{"error":"Missing signature"}`)
	if got := deny.do("POST", "/webhook/cancel-order", body, standard(newSecret, "m", time.Now(), body)...); got.status != 200 {
		t.Errorf("deny, standard: %s", got)
	}
}

func TestSeedBodies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	fill := func(n int) string {
		const frame = `{"gpu_type":"x","pad":""}`
		return `{"gpu_type":"x","pad":"` + strings.Repeat("a", n-len(frame)) + `"}`
	}
	if got := r.signed("/webhook/create-order", fill(64<<10)); got.status != 200 {
		t.Errorf("64 KiB: %s", got)
	}
	r.want(r.signed("/webhook/create-order", fill(64<<10+1)), 413, `{"error":"body too large"}`)
	// Chunked, and with no Content-Type.
	send := func(body string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.base+"/webhook/create-order", struct{ *strings.Reader }{strings.NewReader(body)})
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = -1
		req.Header.Set(webhook.HeaderLegacy, webhook.SignLegacy(legacySecret, []byte(body)))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	if got := send(`{"gpu_type":"chunked"}`); got != 200 {
		t.Errorf("chunked: %d", got)
	}
	if got := send(fill(65 << 10)); got != 413 {
		t.Errorf("chunked, too large: %d", got)
	}
	// The server may close the connection while the rest is still being sent.
	if got, err := r.try("GET", "/health", "", "X-Big", strings.Repeat("x", 64<<10)); err == nil && got.status != 431 {
		t.Errorf("headers of 64 KiB: %s", got)
	}
}

// Senders that hold a connection open without ever finishing a request keep nobody else out.
func TestSlowSenders(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 200 {
		c, err := net.Dial("tcp", strings.TrimPrefix(r.base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := io.WriteString(c, "POST /webhook/create-order HTTP/1.1\r\nHost: x\r\nX-Slow: "); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.signed("/webhook/create-order", `{"gpu_type":"x"}`); got.status != 200 {
		t.Errorf("%s", got)
	}
	// And they are cut off.
	c, err := net.Dial("tcp", strings.TrimPrefix(r.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, "POST /webhook/create-order HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 400 ") {
		t.Errorf("half a body is answered %q, %v", b, err)
	}
}

// Senders in Python, with nothing but its standard library.
func TestPythonSender(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3 here")
	}
	r := newRig(t)
	cmd := exec.CommandContext(t.Context(), python, "-c", `
import hashlib, hmac, json, sys, urllib.request
body = json.dumps({"gpu_type": "RTX 4090", "max_price": 0.50, "note": "ü"}).encode()
signature = hmac.new(sys.argv[2].encode(), body, hashlib.sha256).hexdigest()
req = urllib.request.Request(sys.argv[1], data=body, headers={"X-Webhook-Signature": signature})
print(urllib.request.urlopen(req).read().decode())`, r.base+"/webhook/create-order", legacySecret)
	out, err := cmd.CombinedOutput()
	if err != nil || !jsonEqual(t, string(out), `{"status":"queued","task_id":"*","message":"Order creation queued for RTX 4090"}`) {
		t.Errorf("%s: %v", out, err)
	}
}

func TestSeedCommands(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	got := r.signed("/webhook/create-order", `{"gpu_type":"RTX 4090","max_price":0.50,"callback_url":"https://a.example/x","env":{"TOKEN":"hush"},"command":"run hush"}`)
	r.signed("/webhook/cancel-order", `{"order_id":38176}`)
	r.signed("/webhook/status", ``)
	all := r.commands()
	if len(all) != 3 {
		t.Fatalf("%d commands", len(all))
	}
	first, err := topology.ParseCommand(all[0].Subject)
	if err != nil || first.Operation() != got.body["task_id"] || first.Noun+"."+first.Verb != "order.create" {
		t.Errorf("%v of %s: %v", first, got, err)
	}
	if strings.Contains(string(all[0].Data), "hush") {
		t.Errorf("in clear on the bus: %s", all[0].Data)
	}
	var sent struct {
		Spec struct{ Sealed string }
	}
	if err := json.Unmarshal(all[0].Data, &sent); err != nil {
		t.Fatal(err)
	}
	private, err := ask.Open(box(t), sent.Spec.Sealed)
	if err != nil || private.Env["TOKEN"] != "hush" || private.Command != "run hush" {
		t.Errorf("%v, %v", private, err)
	}
	data := strings.Replace(string(all[0].Data), sent.Spec.Sealed, "S", 1)
	if want := `{"origin":{"door":"seed","gpuAsSent":"RTX 4090","priceAsSent":"0.5","seedCallback":true},` +
		`"spec":{"callbackUrl":"https://a.example/x","gpu":"RTX 4090","marketType":"any",` +
		`"maxPrice":{"amount":"0.5","currency":"USD","per":"hour","scope":"server"},"sealed":"S"}}`; compact(t, []byte(data)) != want {
		t.Errorf("got  %s\nwant %s", compact(t, []byte(data)), want)
	}
	if got, want := compact(t, all[1].Data), `{"orderId":"38176","origin":{"door":"seed","orderAsSent":"38176","seedCallback":true}}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := compact(t, all[2].Data), `{"origin":{"door":"seed","seedCallback":true}}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestSeedMarketplace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	got := r.do("GET", "/webhook/marketplace", "")
	r.want(got, 503, `{"error":"marketplace not read yet"}`)
	if got.header.Get("Retry-After") == "" {
		t.Errorf("no Retry-After: %s", got)
	}
	r.market.set()
	r.want(r.do("GET", "/webhook/marketplace", ""), 200, `{"status":"ok","summary":{},"total_servers":0,"total_available":0}`)
	r.market.set(
		marketview.Model{GPU: "rtx-4090", Name: "RTX 4090", Available: 2, Total: 5, Spot: marketview.Price{ServerID: 7, USDPerHour: decimal.MustParse("0.4500")}},
		marketview.Model{GPU: "rtx-3060", Name: "RTX 3060", Available: 0, Total: 1},
	)
	r.want(r.do("GET", "/webhook/marketplace", ""), 200, `{"status":"ok","summary":{
		"RTX 4090":{"available":2,"total":5,"min_price":0.45},"RTX 3060":{"available":0,"total":1,"min_price":null}},"total_servers":6,"total_available":2}`)
}
