package ask

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/renthook/renthook/pkg/fault"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
)

func seed(t *testing.T, body string) *Seed {
	t.Helper()
	s, err := ParseSeed([]byte(body), false)
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return s
}

// same compares with the JSON of a message.
func same(t *testing.T, got proto.Message, want string) {
	t.Helper()
	w := got.ProtoReflect().New().Interface()
	if err := protojson.Unmarshal([]byte(want), w); err != nil {
		t.Fatalf("%s: %v", want, err)
	}
	if !proto.Equal(got, w) {
		t.Errorf("got  %s\nwant %s", protojson.Format(got), protojson.Format(w))
	}
}

func refused(t *testing.T, body string, err error, want string) {
	t.Helper()
	f, ok := fault.From(err)
	if !ok || f.Kind != fault.Invalid || f.Message != want {
		t.Errorf("%s gave %v, want %q", body, err, want)
	}
}

func TestSeedCreate(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"gpu_type":"RTX 4090"}`: `{"spec":{"gpu":"RTX 4090","marketType":"any"},
			"origin":{"door":"seed","seedCallback":true,"gpuAsSent":"RTX 4090"}}`,
		`{"gpu_type":"RTX 4090","max_price":0.50,"image":"a/b:c","use_spot":false,"callback_url":"https://x.example/h"}`: `{
			"spec":{"gpu":"RTX 4090","maxPrice":{"amount":"0.5","currency":"USD","per":"hour","scope":"server"},"image":"a/b:c",
				"marketType":"on-demand","callbackUrl":"https://x.example/h"},
			"origin":{"door":"seed","seedCallback":true,"gpuAsSent":"RTX 4090","priceAsSent":"0.5"}}`,
		`{"gpu_type":" x ","max_price":"0.50","use_spot":null,"image":"","callback_url":null,"whatever":[1,{"a":NaN}]}`: `{
			"spec":{"gpu":" x ","maxPrice":{"amount":"0.5","currency":"USD","per":"hour","scope":"server"},"marketType":"on-demand"},
			"origin":{"door":"seed","seedCallback":true,"gpuAsSent":" x ","priceAsSent":"0.50"}}`,
		`{"gpu_type":"x","max_price":1e16,"max_price_":0}`: `{
			"spec":{"gpu":"x","maxPrice":{"amount":"1000000000000","currency":"USD","per":"hour","scope":"server"},"marketType":"any"},
			"origin":{"door":"seed","seedCallback":true,"gpuAsSent":"x","priceAsSent":"1e+16"}}`,
		`{"gpu_type":"x","max_price":null,"max_duration":"2d","ssh_key":"ssh-ed25519 AAAA a@b","env":{"A":"1"},"command":"run"}`: `{
			"spec":{"gpu":"x","marketType":"any","maxDuration":"48h0m0s","sshKey":"ssh-ed25519 AAAA a@b","env":{"A":"1"},"command":"run"},
			"origin":{"door":"seed","seedCallback":true,"gpuAsSent":"x"}}`,
	} {
		c, err := seed(t, body).Create()
		if err != nil || c.Rentals != 1 {
			t.Errorf("%s: %d, %v", body, c.Rentals, err)
			continue
		}
		same(t, c.Command, want)
	}
	for count, want := range map[string]int{"1": 1, "10": 10, "3.0": 3, "1e1": 10, "null": 1} {
		c, err := seed(t, `{"gpu_type":"x","count":`+count+`}`).Create()
		if err != nil || c.Rentals != want {
			t.Errorf("count %s: %d, %v", count, c.Rentals, err)
		}
	}
}

func TestSeedCreateRefuses(t *testing.T) {
	t.Parallel()
	const (
		gpuRequired = "gpu_type required"
		gpuString   = "gpu_type must be a string"
		price       = "max_price must be a positive number"
		spot        = "use_spot must be true or false"
		count       = "count must be a whole number from 1 to 10"
	)
	for body, want := range map[string]string{
		`{}`: gpuRequired, `{"gpu_type":null}`: gpuRequired, `{"gpu_type":false}`: gpuRequired, `{"gpu_type":0}`: gpuRequired,
		`{"gpu_type":0.0}`: gpuRequired, `{"gpu_type":-0.0}`: gpuRequired, `{"gpu_type":""}`: gpuRequired, `{"gpu_type":[]}`: gpuRequired,
		`{"gpu_type":{}}`: gpuRequired, `{"max_price":-1}`: gpuRequired,
		`{"gpu_type":4090}`: gpuString, `{"gpu_type":true}`: gpuString, `{"gpu_type":["RTX 4090"]}`: gpuString, `{"gpu_type":{"a":1},"max_price":0}`: gpuString,
		`{"gpu_type":"x","max_price":0}`: price, `{"gpu_type":"x","max_price":-0.0}`: price, `{"gpu_type":"x","max_price":-1}`: price,
		`{"gpu_type":"x","max_price":NaN}`: price, `{"gpu_type":"x","max_price":Infinity}`: price, `{"gpu_type":"x","max_price":"NaN"}`: price,
		`{"gpu_type":"x","max_price":""}`: price, `{"gpu_type":"x","max_price":"cheap"}`: price, `{"gpu_type":"x","max_price":false}`: price,
		`{"gpu_type":"x","max_price":true}`: price, `{"gpu_type":"x","max_price":[1]}`: price, `{"gpu_type":"x","max_price":1e999}`: price,
		`{"gpu_type":"x","use_spot":"true"}`: spot, `{"gpu_type":"x","use_spot":1}`: spot, `{"gpu_type":"x","use_spot":0}`: spot, `{"gpu_type":"x","use_spot":""}`: spot,
		`{"gpu_type":"x","count":0}`: count, `{"gpu_type":"x","count":11}`: count, `{"gpu_type":"x","count":-1}`: count, `{"gpu_type":"x","count":1.5}`: count,
		`{"gpu_type":"x","count":"2"}`: count, `{"gpu_type":"x","count":true}`: count, `{"gpu_type":"x","count":NaN}`: count,
		`{"gpu_type":"x","callback_url":5}`:     "callback_url refused: it must be a string",
		`{"gpu_type":"x","image":5}`:            "image must be a string",
		`{"gpu_type":"x","image":"a b"}`:        "image must be the name of a Docker image",
		`{"gpu_type":"x","ssh_key":"a\nb"}`:     "ssh_key must be one line: a public key as in authorized_keys",
		`{"gpu_type":"x","env":{"A":1}}`:        `env must be an object of strings: "A" is not one`,
		`{"gpu_type":"x","env":["A"]}`:          "env must be an object of strings",
		`{"gpu_type":"x","env":{"A=B":"1"}}`:    `env: "A=B" cannot be the name of a variable`,
		`{"gpu_type":"x","max_duration":"6"}`:   `max_duration: "6" is not a duration such as "6h", "90m" or "2d"`,
		`{"gpu_type":"x","max_duration":"-6h"}`: `max_duration: "-6h" is out of range: more than 0, at most 10 years`,
	} {
		_, err := seed(t, body).Create()
		refused(t, body, err, want)
	}
}

func TestSeedCancel(t *testing.T) {
	t.Parallel()
	for body, want := range map[string][2]string{
		`{"order_id":38176}`:                        {"38176", "38176"},
		`{"order_id":"38176"}`:                      {"38176", `"38176"`},
		`{"order_id":38176.0}`:                      {"38176", "38176.0"},
		`{"order_id":"ord_1","callback_url":false}`: {"ord_1", `"ord_1"`},
		`{"order_id":-5}`:                           {"-5", "-5"},
		`{"order_id":1e300}`:                        {"1e+300", "1e300"},
	} {
		c, err := seed(t, body).Cancel()
		if err != nil || c.OrderId != want[0] || c.Origin.OrderAsSent != want[1] || !c.Origin.SeedCallback {
			t.Errorf("%s: %v, %v", body, c, err)
		}
	}
	for _, falsy := range []string{`null`, `false`, `0`, `0.0`, `-0.0`, `""`, `[]`, `{}`} {
		_, err := seed(t, `{"order_id":`+falsy+`}`).Cancel()
		refused(t, falsy, err, "order_id required")
	}
	for _, odd := range []string{`true`, `[1]`, `{"id":1}`, `NaN`, `Infinity`, `1e999`} {
		_, err := seed(t, `{"order_id":`+odd+`}`).Cancel()
		refused(t, odd, err, "order_id must be a number or a string")
	}
}

func TestSeedAlert(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"gpu_type":"x"}`:                              "gpu_type and target_price required",
		`{"target_price":1}`:                            "gpu_type and target_price required",
		`{"gpu_type":"x","target_price":0}`:             "gpu_type and target_price required",
		`{"gpu_type":"x","target_price":"0"}`:           "target_price must be a positive number",
		`{"gpu_type":"x","target_price":-1}`:            "target_price must be a positive number",
		`{"gpu_type":"x","target_price":true}`:          "target_price must be a positive number",
		`{"gpu_type":1,"target_price":1}`:               "gpu_type must be a string",
		`{"gpu_type":"x","target_price":1,"image":[1]}`: "image must be a string",
	} {
		_, err := seed(t, body).Alert()
		refused(t, body, err, want)
	}
	url, err := seed(t, `{"gpu_type":"x","target_price":"0.4","callback_url":"https://a.example"}`).Alert()
	if err != nil || url != "https://a.example" {
		t.Errorf("%q, %v", url, err)
	}
}

func TestSeedEmpty(t *testing.T) {
	t.Parallel()
	for _, body := range []string{``, " \n", `{}`, `null`, `[]`, `""`, `0`, `0.0`, `false`, "\xef\xbb\xbf"} {
		s, err := ParseSeed([]byte(body), true)
		if err != nil {
			t.Errorf("%q: %v", body, err)
			continue
		}
		r, err := s.Report()
		if err != nil || r.CallbackUrl != "" {
			t.Errorf("%q: %v, %v", body, r, err)
		}
	}
	for _, body := range []string{`1`, `"a"`, `[1]`, `true`, `{`, `NaN`} {
		if _, err := ParseSeed([]byte(body), true); err == nil {
			t.Errorf("%q is taken for a status request", body)
		}
	}
	for _, body := range []string{``, `null`, `[]`, `""`, `0`, `false`, `[1]`, `{"a":1,"a":2}`} {
		if _, err := ParseSeed([]byte(body), false); err == nil {
			t.Errorf("%q is taken for an object", body)
		}
	}
}

func TestSeedSentAt(t *testing.T) {
	t.Parallel()
	at, given, err := seed(t, `{"sent_at":"2026-11-24T10:00:00.5+01:00"}`).SentAt()
	if want := time.Date(2026, 11, 24, 9, 0, 0, 5e8, time.UTC); err != nil || !given || !at.Equal(want) {
		t.Errorf("%v, %v, %v", at, given, err)
	}
	if _, given, err := seed(t, `{"sent_at":null}`).SentAt(); given || err != nil {
		t.Errorf("null: %v, %v", given, err)
	}
	for _, odd := range []string{`""`, `0`, `1764000000`, `"yesterday"`, `{}`} {
		if _, given, err := seed(t, `{"sent_at":`+odd+`}`).SentAt(); !given || err == nil {
			t.Errorf("%s: %v, %v", odd, given, err)
		}
	}
}

// FuzzSeed holds that no body panics, and that what the door would publish is what the order service reads.
func FuzzSeed(f *testing.F) {
	for _, s := range []string{
		`{"gpu_type":"RTX 4090","max_price":0.50,"env":{"A":"b"},"count":2,"max_duration":"1d"}`, `{"order_id":1E5}`,
		`{"gpu_type":"x","target_price":1e-7}`, `null`, `{"gpu_type":"\ud800","max_price":" +.5e1 "}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := ParseSeed(body, true)
		if err != nil {
			return
		}
		_, _, _ = s.SentAt()
		_, _ = s.RequestID()
		_, _ = s.Alert()
		if c, err := s.Create(); err == nil {
			published(t, "create", c.Command)
		}
		if c, err := s.Cancel(); err == nil {
			published(t, "cancel", c)
			_ = Echo(c.Origin.OrderAsSent)
		}
		if r, err := s.Report(); err == nil {
			published(t, "report", r)
		}
	})
}

// published sends a command the way the doors do and reads it back.
func published(t *testing.T, verb string, m proto.Message) {
	t.Helper()
	if c, ok := m.(*orderv1.CreateOrder); ok {
		if err := Seal(openBox{}, c.Spec); err != nil {
			t.Fatal(err)
		}
	}
	body, err := protojson.Marshal(m)
	if err != nil {
		t.Fatalf("write %v: %v", m, err)
	}
	got, err := Decode("order", verb, "application/json", body)
	if err != nil || !proto.Equal(got, m) {
		t.Fatalf("published %s\nread %v, %v", body, got, err)
	}
	if body, err = proto.Marshal(m); err != nil {
		t.Fatal(err)
	}
	got, err = Decode("order", verb, "application/protobuf; charset=x", body)
	if err != nil || !proto.Equal(got, m) {
		t.Fatalf("published %v in protobuf\nread %v, %v", m, got, err)
	}
}

// openBox seals nothing.
type openBox struct{}

func (openBox) Seal(plain []byte, context string) (string, error) {
	return context + ":" + string(plain), nil
}

func (openBox) Open(sealed, context string) ([]byte, error) {
	return []byte(strings.TrimPrefix(sealed, context+":")), nil
}
