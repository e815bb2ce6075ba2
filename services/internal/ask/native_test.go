package ask

import (
	"strings"
	"testing"

	"github.com/renthook/renthook/pkg/fault"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
)

const dollar = `{"amount":"0.5","currency":"USD","per":"hour","scope":"server"}`

func TestV1Create(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"gpu":"RTX 4090"}`:                                   `{"spec":{"gpu":"RTX 4090"},"origin":{"door":"v1","gpuAsSent":"RTX 4090"}}`,
		`{"gpu":"x","max_price":0.50,"request_id":"k"}`:        `{"spec":{"gpu":"x","maxPrice":` + dollar + `},"origin":{"door":"v1","gpuAsSent":"x","priceAsSent":"0.5"}}`,
		`{"spec":{"gpu":"x","maxPrice":"0.50"},"paper":true}`:  `{"spec":{"gpu":"x","maxPrice":` + dollar + `},"paper":true,"origin":{"door":"v1","gpuAsSent":"x","priceAsSent":"0.50"}}`,
		`{"gpu":"x","max_price":{"amount":0.50},"paper":true}`: `{"spec":{"gpu":"x","maxPrice":` + dollar + `},"paper":true,"origin":{"door":"v1","gpuAsSent":"x","priceAsSent":"0.5"}}`,
		`{"gpu":"x","max_price":{"amount":"12","currency":"CLORE-Blockchain","per":"day"},"currency":null}`: `{
			"spec":{"gpu":"x","maxPrice":{"amount":"12","currency":"CLORE-Blockchain","per":"day","scope":"server"}},"origin":{"door":"v1","gpuAsSent":"x"}}`,
		`{"gpu":"x","count":2,"requirements":{"min_vram_gb":24,"countries":["DE"]},"ports":{"22":"tcp"},"labels":{"a":"b"},"market_type":"spot","wait_until":"2026-11-24T10:00:00Z","max_duration":"1d12h"}`: `{
			"spec":{"gpu":"x","count":2,"requirements":{"minVramGb":24,"countries":["DE"]},"ports":{"22":"tcp"},"labels":{"a":"b"},"marketType":"spot",
			"waitUntil":"2026-11-24T10:00:00Z","maxDuration":"36h0m0s"},"origin":{"door":"v1","gpuAsSent":"x"}}`,
		`{"gpu_type":"x","max_price":0.50,"use_spot":false,"sent_at":"x"}`: `{"spec":{"gpu":"x","maxPrice":` + dollar + `,"marketType":"on-demand"},
			"origin":{"door":"v1","seedCallback":true,"gpuAsSent":"x","priceAsSent":"0.5"}}`,
	} {
		c, err := V1Create([]byte(body))
		if err != nil || c.Rentals != 1 {
			t.Errorf("%s: %d, %v", body, c.Rentals, err)
			continue
		}
		same(t, c.Command, want)
	}
	if c, err := V1Create([]byte(`{"gpu":"x","request_id":"k"}`)); err != nil || c.RequestID != "k" {
		t.Errorf("%v, %v", c, err)
	}
}

func TestV1CreateRefuses(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{}`:                                     "gpu is required",
		`{"spec":null}`:                          "spec must be an object",
		`{"spec":{"gpu":"x"},"gpu":"y"}`:         `unknown member "gpu"`,
		`[]`:                                     "not an object",
		``:                                       "empty",
		`{"gpu":"x","max_prise":1}`:              `did you mean "max_price"?`,
		`{"gpu":"x","MaxPrice":1}`:               `did you mean "max_price"?`,
		`{"gpu":"x","price":1}`:                  `did you mean "max_price"?`,
		`{"gpu":"x","zzzzzzzz":1}`:               `unknown member "zzzzzzzz"`,
		`{"gpu_type":"x","max_prices":1}`:        `did you mean "max_price"?`,
		`{"gpu_type":"x","gpu":"x"}`:             `did you mean "gpu_type"?`,
		`{"gpu":"x","requirements":{"vram":24}}`: `unknown member "vram" in requirements; did you mean "min_vram_gb"?`,
		`{"gpu":"x","sealed":"s1.AAAA"}`:         `unknown member "sealed"`,
		`{"gpu":"x","origin":{}}`:                `unknown member "origin"`,
		`{"gpu":"x","max_price":0}`:              "max_price must be above zero",
		`{"gpu":"x","max_price":true}`:           "max_price must be a number",
		`{"gpu":"x","max_price":{}}`:             "max_price must be above zero",
		`{"gpu":"x","max_price":{"amount":"1","per":"week"}}`:  `max_price.per is "week"`,
		`{"gpu":"x","max_price":{"amount":"1","scope":"all"}}`: `max_price.scope is "all"`,
		`{"gpu":"x","max_price":1,"maxPrice":2}`:               "are the same one",
		`{"gpu":"x","market_type":"ondemand"}`:                 `want "spot", "on-demand" or "any"`,
		`{"gpu":"x","count":-1}`:                               "count is the number",
		`{"gpu":"x","count":1.5}`:                              "invalid value for int32 field count",
		`{"gpu":"x","count":"1"}`:                              "count must be a number",
		`{"gpu":5}`:                                            "gpu must be a string",
		`{"gpu":"x","paper":1}`:                                "paper must be true or false",
		`{"gpu":"x","labels":[]}`:                              "labels must be an object",
		`{"gpu":"x","labels":{"a":1}}`:                         "labels.a must be a string",
		`{"gpu":"x","labels":{"a":null}}`:                      "labels.a must not be null",
		`{"gpu":"x","requirements":5}`:                         "requirements must be an object",
		`{"gpu":"x","requirements":{"countries":"DE"}}`:        "requirements.countries must be a list",
		`{"gpu":"x","wait_until":5}`:                           "wait_until must be a time",
		`{"gpu":"x","wait_until":"noon"}`:                      "invalid",
		`{"gpu":"x","ports":{"0":"tcp"}}`:                      `"0" is not a port`,
		`{"gpu":"x","ports":{"22":"udp"}}`:                     `ports: 22 is "udp"`,
		`{"gpu":"x","request_id":""}`:                          "request_id must be",
		`{"gpu":"x","request_id":5}`:                           "request_id must be",
		`{"gpu":"x","gpu":"y"}`:                                "stands twice",
		`{"gpu":"x","max_price":NaN}`:                          "broken",
	} {
		_, err := V1Create([]byte(body))
		f, ok := fault.From(err)
		if !ok || f.Kind != fault.Invalid || !strings.Contains(f.Message, want) {
			t.Errorf("%s gave %v, want %q", body, err, want)
		}
	}
}

func TestV1Cancel(t *testing.T) {
	t.Parallel()
	for _, body := range []string{``, `{}`} {
		c, key, err := V1Cancel("ord_1", []byte(body))
		if err != nil || key != "" {
			t.Fatalf("%s: %v", body, err)
		}
		same(t, c, `{"orderId":"ord_1","origin":{"door":"v1","orderAsSent":"\"ord_1\""}}`)
	}
	c, key, err := V1Cancel("ord_1", []byte(`{"reason":"done","callback_url":"https://a.example","request_id":"k"}`))
	if err != nil || key != "k" {
		t.Fatal(err)
	}
	same(t, c, `{"orderId":"ord_1","reason":"done","callbackUrl":"https://a.example","origin":{"door":"v1","orderAsSent":"\"ord_1\""}}`)
	for body, want := range map[string]string{
		`{"order_id":"ord_2"}`: "the path names the order", `{"origin":{}}`: "origin", `{"reasons":""}`: `did you mean "reason"?`, `[]`: "not an object",
	} {
		if _, _, err := V1Cancel("ord_1", []byte(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gave %v", body, err)
		}
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ verb, body, want string }{
		{"create", `{"gpu_type":"x","max_price":0.50,"use_spot":true,"request_id":"ignored","count":1}`,
			`{"spec":{"gpu":"x","marketType":"any","maxPrice":` + dollar + `},"origin":{"door":"nats","seedCallback":true,"gpuAsSent":"x","priceAsSent":"0.5"}}`},
		{"create", `{"spec":{"gpu":"x","sealed":"s1.x"},"notAfter":"2026-11-24T10:00:00Z","origin":{"door":"watch"}}`,
			`{"spec":{"gpu":"x","sealed":"s1.x"},"notAfter":"2026-11-24T10:00:00Z","origin":{"door":"watch"}}`},
		{"cancel", `{"order_id":38176}`, `{"orderId":"38176","origin":{"door":"nats","orderAsSent":"38176"}}`},
		{"cancel", `{"orderId":"ord_1","reason":"r"}`, `{"orderId":"ord_1","reason":"r","origin":{"door":"nats","orderAsSent":"\"ord_1\""}}`},
		{"extend", `{"order_id":"ord_1","by":"1d"}`, `{"orderId":"ord_1","by":"24h0m0s","origin":{"door":"nats","orderAsSent":"\"ord_1\""}}`},
		{"report", `{}`, `{"origin":{"door":"nats"}}`},
		{"report", `{"callback_url":"https://a.example","request_id":"k"}`, `{"callbackUrl":"https://a.example","origin":{"door":"nats"}}`},
	} {
		m, err := Decode("order", c.verb, "", []byte(c.body))
		if err != nil {
			t.Errorf("%s %s: %v", c.verb, c.body, err)
			continue
		}
		same(t, m, c.want)
		published(t, c.verb, m)
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ noun, verb, kind, body, want string }{
		{"order", "create", "", `{"gpu_type":"x","count":2}`, "one command a rental"},
		{"order", "create", "", `{"gpu_type":"x","nonsense":2}`, "unknown member"},
		{"order", "create", "", ``, "empty"},
		{"order", "cancel", "", `{}`, "order_id required"},
		{"order", "extend", "", `{"order_id":"ord_1"}`, "by must be"},
		{"order", "extend", "", `{"order_id":"ord_1","by":"never"}`, "by must be"},
		{"order", "extend", "", `{"by":"1h"}`, "order_id required"},
		{"order", "report", "", `{"a":1}`, "unknown member"},
		{"order", "create", "application/protobuf", "\xff", "in protobuf"},
		{"order", "create", "application/protobuf", "", "gpu is required"},
		{"order", "cancel", "application/protobuf", "", "order_id required"},
		{"order", "extend", "application/protobuf", "", "order_id required"},
		{"order", "report", "application/protobuf", "\xf8\x01\x01", "members that"},
	} {
		m, err := Decode(c.noun, c.verb, c.kind, []byte(c.body))
		f, ok := fault.From(err)
		if m != nil && err == nil || !ok || f.Kind != fault.Invalid || !strings.Contains(f.Message, c.want) {
			t.Errorf("%s %q gave %v, want %q", c.verb, c.body, err, c.want)
		}
	}
	for _, c := range [][2]string{{"order", "explode"}, {"watch", "create"}} {
		for _, kind := range []string{"", "application/protobuf"} {
			if _, err := Decode(c[0], c[1], kind, []byte(`{}`)); err == nil || !strings.Contains(err.Error(), "no command") {
				t.Errorf("%v: %v", c, err)
			}
		}
	}
}

// FuzzDecode holds that nothing on the bus can panic, and that what is read, written and read again is the same.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"gpu_type":"x"}`, `{"spec":{"gpu":"x","max_price":{"amount":1}},"origin":{}}`, `{"order_id":1,"by":"1h"}`, "\x0a\x03\x0a\x01x"} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, body []byte, protobuf bool) {
		kind := ""
		if protobuf {
			kind = "application/protobuf"
		}
		for _, verb := range []string{"create", "cancel", "extend", "report"} {
			if m, err := Decode("order", verb, kind, body); err == nil {
				published(t, verb, m)
			}
		}
	})
}

func TestSeal(t *testing.T) {
	t.Parallel()
	spec := &orderv1.OrderSpec{Gpu: "x", Env: map[string]string{"TOKEN": "t"}, Command: "run"}
	if err := Seal(openBox{}, spec); err != nil {
		t.Fatal(err)
	}
	if spec.Env != nil || spec.Command != "" || !strings.HasPrefix(spec.Sealed, SealContext) {
		t.Errorf("left in clear: %v", spec)
	}
	p, err := Open(openBox{}, spec.Sealed)
	if err != nil || p.Command != "run" || p.Env["TOKEN"] != "t" {
		t.Errorf("%v, %v", p, err)
	}
	empty := &orderv1.OrderSpec{Gpu: "x"}
	if err := Seal(openBox{}, empty); err != nil || empty.Sealed != "" {
		t.Errorf("%v, %v", empty, err)
	}
}
