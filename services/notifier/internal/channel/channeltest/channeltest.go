// Package channeltest is what every channel must pass: every HTTP status means what it should, Retry-After is
// read, long texts are cut to the vendor's limit, nobody can be mentioned, prices carry their units, the way to
// log in is not shown unasked, and the URL is never printed.
package channeltest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/renthook/renthook/pkg/egress"
	"github.com/renthook/renthook/pkg/secret"
	deliveryv1 "github.com/renthook/renthook/proto/gen/renthook/delivery/v1"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/notifier/internal/channel"
)

// Suite describes a channel to Run.
type Suite struct {
	// New makes an endpoint with this URL.
	New func(url secret.String, notice channel.NoticeOptions, p channel.Poster) channel.Endpoint
	// Text is what people read of a body.
	Text func(body []byte) (string, error)
	// Limit is the vendor's, in characters.
	Limit int
	// Verdicts by status where the vendor departs from the rules of Standard Webhooks.
	Verdicts map[int]channel.Verdict
}

// Canary is the part of a URL that must never be seen.
const Canary = "T000-canary-B000"

// Poster answers every POST with the same, and keeps the last one.
type Poster struct {
	Status int
	Header http.Header
	Body   string
	Err    error

	URL        string
	Sent       []byte
	SentHeader http.Header
	Posts      int
}

// Post implements channel.Poster.
func (p *Poster) Post(_ context.Context, rawURL string, h http.Header, body []byte) (egress.Response, error) {
	p.URL, p.Sent, p.SentHeader, p.Posts = rawURL, body, h, p.Posts+1
	if p.Err != nil {
		return egress.Response{}, p.Err
	}
	header := p.Header
	if header == nil {
		header = http.Header{}
	}
	return egress.Response{Status: p.Status, Header: header, Body: []byte(p.Body)}, nil
}

// Event is a running order with everything a notice can tell.
func Event() *orderv1.OrderEvent {
	ends := time.Date(2026, 11, 23, 20, 31, 7, 0, time.UTC)
	return &orderv1.OrderEvent{
		Type: "order.running", Time: timestamppb.New(ends.Add(-6 * time.Hour)), Revision: 5,
		Order: &orderv1.Order{
			Id: "ord_0123456789abcdef0123456789abcdef", Client: "local", Account: "main", State: orderv1.Order_RUNNING,
			Revision: 5, Spec: &orderv1.OrderSpec{Gpu: "rtx-4090"}, MarketOrderId: 38176, MarketType: "spot",
			Server: &orderv1.Server{
				Id: 6718, Gpu: "rtx-4090", GpuName: "NVIDIA GeForce RTX 4090", GpuCount: 1, VramGb: 24, Country: "DE", Reliability: 0.993,
			},
			Cost: &orderv1.Cost{
				UsdPerHour: "0.4900", NativePerDay: "98.0", Currency: "CLORE-Blockchain", UsdRate: "0.12",
				FeesUsdPerHour: "0.0245", WorstCaseUsd: "12.45",
			},
			Access: &orderv1.Access{Host: "n1.example.clorecloud.net", SshPort: 10022, SshUser: "root"},
			EndsAt: timestamppb.New(ends),
		},
	}
}

// Run holds a channel to the suite.
func Run(t *testing.T, s Suite) {
	t.Helper()
	t.Run("every status", s.statuses)
	t.Run("no answer", s.unanswered)
	t.Run("retry after", s.retryAfter)
	t.Run("what is sent", s.sent)
	t.Run("what is told", s.told)
	t.Run("truncation", s.truncation)
	t.Run("secret never printed", s.secret)
}

func url() secret.String { return secret.New("https://hooks.example.com/services/" + Canary) }

func (s Suite) send(p *Poster) channel.Result {
	e := s.New(url(), channel.NoticeOptions{}, p)
	return e.Send(context.Background(), &deliveryv1.Delivery{Id: "ORDERS_MAIN-1", Body: []byte(`{"a":1}`)}, time.Unix(1764000000, 0))
}

func (s Suite) statuses(t *testing.T) {
	for status := 100; status <= 599; status++ {
		want := channel.Retry
		switch {
		case status >= 200 && status <= 299:
			want = channel.Delivered
		case status == http.StatusGone:
			want = channel.Gone
		}
		if v, ok := s.Verdicts[status]; ok {
			want = v
		}
		p := &Poster{Status: status}
		r := s.send(p)
		if r.Verdict != want || r.Status != status {
			t.Errorf("%d: %s (status %d), want %s", status, r.Verdict, r.Status, want)
		}
		if (r.Reason == "") != (r.Verdict == channel.Delivered) {
			t.Errorf("%d: reason %q", status, r.Reason)
		}
		if p.Posts != 1 {
			t.Errorf("%d: %d POSTs, want one", status, p.Posts)
		}
	}
}

func (s Suite) unanswered(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want channel.Verdict
	}{
		"refused by the guard": {&egress.Refused{Reason: "10.1.2.3 is private"}, channel.Refused},
		"no such name":         {&net.DNSError{Name: "hooks.example.com", IsNotFound: true}, channel.Retry},
		"connection refused":   {&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, channel.Retry},
		"too slow":             {context.DeadlineExceeded, channel.Retry},
		"something else":       {errors.New("https://hooks.example.com/services/" + Canary + " broke"), channel.Retry},
	} {
		r := s.send(&Poster{Err: fmt.Errorf("post: %w", c.err)})
		if r.Verdict != c.want || r.Status != 0 || r.Reason == "" {
			t.Errorf("%s: %+v, want %s", name, r, c.want)
		}
		for _, leak := range []string{Canary, "example.com", "10.1.2.3"} {
			if strings.Contains(r.Reason, leak) {
				t.Errorf("%s: reason %q holds an address", name, r.Reason)
			}
		}
	}
}

func (s Suite) retryAfter(t *testing.T) {
	at := time.Unix(1764000000, 0)
	for text, want := range map[string]time.Duration{
		"":     0,
		"7":    7 * time.Second,
		"0.25": 250 * time.Millisecond,
		at.Add(time.Minute).UTC().Format(http.TimeFormat):  time.Minute,
		at.Add(-time.Minute).UTC().Format(http.TimeFormat): 0,
		"-3":        0,
		"soon":      0,
		"NaN":       0,
		"999999999": 24 * time.Hour,
		"1e300":     24 * time.Hour,
	} {
		for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
			r := s.send(&Poster{Status: status, Header: http.Header{"Retry-After": {text}}})
			if r.Verdict != channel.Retry || r.RetryAfter != want {
				t.Errorf("%d with %q: %s after %s, want %s", status, text, r.Verdict, r.RetryAfter, want)
			}
		}
	}
}

func (s Suite) sent(t *testing.T) {
	p := &Poster{Status: 200}
	s.send(p)
	if string(p.Sent) != `{"a":1}` {
		t.Errorf("sent %s, want the delivery's body as it is", p.Sent)
	}
	if p.SentHeader.Get("Content-Type") != "application/json" {
		t.Errorf("content type %q", p.SentHeader.Get("Content-Type"))
	}
	if p.URL != url().Reveal() {
		t.Error("not sent to the endpoint's URL")
	}
}

// render gives the text people read.
func (s Suite) render(t *testing.T, ev *orderv1.OrderEvent, opt channel.NoticeOptions) string {
	t.Helper()
	body, err := s.New(url(), opt, &Poster{}).Render(ev)
	if err != nil {
		t.Fatal(err)
	}
	text, err := s.Text(body)
	if err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return text
}

func (s Suite) told(t *testing.T) {
	text := s.render(t, Event(), channel.NoticeOptions{})
	for _, want := range []string{
		"RTX 4090 ×1", "running", "$0.49/h · $11.76/day · whole server · excl. fees", "6718", "DE", "99.3 %", "2026-11-23 20:31 UTC", "reveal=ssh",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not told in:\n%s", want, text)
		}
	}
	if strings.Contains(text, "10022") || strings.Contains(text, "clorecloud") {
		t.Errorf("the way to log in is shown unasked:\n%s", text)
	}
	if open := s.render(t, Event(), channel.NoticeOptions{SSHInChannel: true}); !strings.Contains(open, "ssh root@n1.example.clorecloud.net -p 10022") {
		t.Errorf("the way to log in is not shown though allowed:\n%s", open)
	}
}

func (s Suite) truncation(t *testing.T) {
	for _, filler := range []string{"x", "é", "🚀", "<", "&", "_"} {
		ev := proto.CloneOf(Event())
		ev.Type, ev.Order.State = "order.failed", orderv1.Order_FAILED
		ev.Order.Failure = &orderv1.Failure{Message: strings.Repeat(filler, 3*s.Limit)}
		text := s.render(t, ev, channel.NoticeOptions{})
		if n := utf8.RuneCountInString(text); n > s.Limit || n < s.Limit/2 {
			t.Errorf("%q: %d characters, the limit is %d", filler, n, s.Limit)
		}
		if !utf8.ValidString(text) || !strings.HasSuffix(text, "…") {
			t.Errorf("%q: does not end as cut: %q", filler, text[max(0, len(text)-20):])
		}
		if !strings.HasPrefix(text, "RTX 4090 ×1") {
			t.Errorf("%q: what happened is not told first: %q", filler, text[:20])
		}
	}
}

func (s Suite) secret(t *testing.T) {
	e := s.New(url(), channel.NoticeOptions{}, &Poster{Status: 500})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if text := fmt.Sprintf(verb, e); strings.Contains(text, Canary) {
			t.Errorf("printed with %s: %s", verb, text)
		}
	}
	for _, status := range []int{200, 302, 404, 410, 500} {
		p := &Poster{Status: status, Header: http.Header{"Location": {url().Reveal()}}, Body: Canary}
		if r := s.send(p); strings.Contains(r.Reason, Canary) {
			t.Errorf(strconv.Itoa(status)+": reason %q", r.Reason)
		}
	}
}
