package callback

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/renthook/renthook/pkg/egress"
	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/pkg/webhook"
	deliveryv1 "github.com/renthook/renthook/proto/gen/renthook/delivery/v1"
	"github.com/renthook/renthook/services/notifier/internal/channel"
	"github.com/renthook/renthook/services/notifier/internal/channel/channeltest"
)

const key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

type passwords struct{}

func (passwords) Password(purpose string, parts ...string) string {
	return purpose + "/" + strings.Join(parts, "/")
}

func sender(p channel.Poster) *Sender {
	return New(Config{Secrets: map[string]secret.String{"local": secret.New(key)}, Version: "1.2.3"}, p, passwords{})
}

func delivery() *deliveryv1.Delivery {
	return &deliveryv1.Delivery{
		Id: "ORDERS_MAIN-42-op_order-create_k1", Client: "local", Channel: "callback", Endpoint: "cb-07", Url: "https://hooks.example.com/clore?t=1",
		Seed: true, OrderId: "ord_1", Body: []byte(`{"success":true,"data":{"ssh":{"user":"root","port":10022}},"type":"order.running"}`),
		RevealSshAttempt: 2, Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
}

func TestSend_HeadersAndSignatures(t *testing.T) {
	t.Parallel()
	at := time.Unix(1764000000, 5e8)
	p := &channeltest.Poster{Status: 204}
	if r := sender(p).Send(context.Background(), delivery(), at); r.Verdict != channel.Delivered {
		t.Fatalf("%+v", r)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "User-Agent": "renthook/1.2.3", "webhook-id": delivery().GetId(),
		"webhook-timestamp": "1764000000", "traceparent": delivery().GetTraceparent(),
	} {
		if got := p.SentHeader.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if _, id, err := webhook.VerifyStandard(p.SentHeader, p.Sent, []string{key}, at); err != nil || id != delivery().GetId() {
		t.Errorf("standard signature of %q: %v", id, err)
	}
	if _, err := webhook.VerifyLegacy(p.SentHeader, p.Sent, []string{key}); err != nil {
		t.Errorf("legacy signature: %v", err)
	}
}

func TestSend_NoLegacySignatureForOthers(t *testing.T) {
	t.Parallel()
	d := delivery()
	d.Seed = false
	p := &channeltest.Poster{Status: 200}
	sender(p).Send(context.Background(), d, time.Now())
	if got := p.SentHeader.Values(webhook.HeaderLegacy); len(got) != 0 {
		t.Errorf("legacy signature %q on a callback that asked for none", got)
	}
}

func TestSend_PasswordAtTheLastStep(t *testing.T) {
	t.Parallel()
	d := delivery()
	p := &channeltest.Poster{Status: 500}
	s := sender(p)
	s.Send(context.Background(), d, time.Unix(1764000000, 0))
	first := string(p.Sent)
	s.Send(context.Background(), d, time.Unix(1764009999, 0))
	if string(p.Sent) != first {
		t.Errorf("the second try sends\n%s, the first sent\n%s", p.Sent, first)
	}
	var got, want map[string]any
	if err := json.Unmarshal(p.Sent, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(`{"success":true,"type":"order.running",
		"data":{"ssh":{"user":"root","port":10022,"password":"ssh/ord_1/2"}}}`), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if strings.Contains(string(d.GetBody()), "password") {
		t.Error("the password was put into the delivery itself")
	}
}

func TestSend_BodyAsItIsWithoutPassword(t *testing.T) {
	t.Parallel()
	d := delivery()
	d.RevealSshAttempt, d.Body = 0, []byte(`{"b":1,  "a":2}`)
	p := &channeltest.Poster{Status: 200}
	sender(p).Send(context.Background(), d, time.Now())
	if string(p.Sent) != string(d.GetBody()) {
		t.Errorf("sent %s", p.Sent)
	}
}

func TestSend_NeverUnsigned(t *testing.T) {
	t.Parallel()
	d := delivery()
	d.Client = "stranger"
	p := &channeltest.Poster{Status: 200}
	r := sender(p).Send(context.Background(), d, time.Now())
	if r.Verdict != channel.Refused || p.Posts != 0 || !strings.Contains(r.Reason, "stranger") {
		t.Errorf("%+v after %d POSTs", r, p.Posts)
	}
}

func TestSend_BodyWithoutPlaceForThePassword(t *testing.T) {
	t.Parallel()
	for _, body := range []string{`{}`, `{"data":{}}`, `{"data":{"ssh":null}}`, `{"data":[]}`, `null`, `x`} {
		d := delivery()
		d.Body = []byte(body)
		p := &channeltest.Poster{Status: 200}
		if r := sender(p).Send(context.Background(), d, time.Now()); r.Verdict != channel.Failed || p.Posts != 0 {
			t.Errorf("%s: %+v after %d POSTs", body, r, p.Posts)
		}
	}
}

func TestSend_EveryStatus(t *testing.T) {
	t.Parallel()
	for status := 100; status <= 599; status++ {
		want := channel.Retry
		switch {
		case status >= 200 && status <= 299:
			want = channel.Delivered
		case status == http.StatusGone:
			want = channel.Gone
		}
		if r := sender(&channeltest.Poster{Status: status}).Send(context.Background(), delivery(), time.Now()); r.Verdict != want || r.Status != status {
			t.Errorf("%d: %+v, want %s", status, r, want)
		}
	}
}

func TestSend_ReasonsHoldNoAddress(t *testing.T) {
	t.Parallel()
	for _, err := range []error{&egress.Refused{Reason: "hooks.example.com is 10.0.0.1"}, fmt.Errorf("dial hooks.example.com: %w", context.DeadlineExceeded)} {
		r := sender(&channeltest.Poster{Err: err}).Send(context.Background(), delivery(), time.Now())
		if strings.Contains(r.Reason, "example.com") || r.Reason == "" {
			t.Errorf("%v: %+v", err, r)
		}
	}
}
