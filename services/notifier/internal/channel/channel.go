// Package channel is what the notifier knows of any kind of endpoint: an event is rendered once into a body, and
// a body is sent by one POST. It guarantees that an answer means the same for every channel unless the vendor
// documents otherwise, and that the reasons it gives hold neither addresses nor bodies: an endpoint's URL is a
// secret. It refuses retries, schedules and records: those stand outside, once for all channels.
//
// A channel is one package beneath this one, and one line in the catalog.
package channel

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/renthook/renthook/pkg/egress"
	deliveryv1 "github.com/renthook/renthook/proto/gen/renthook/delivery/v1"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
)

// Sender makes one POST of a delivery, begun at the given time.
type Sender interface {
	Send(ctx context.Context, d *deliveryv1.Delivery, at time.Time) Result
}

// Endpoint is one configured receiver. Render makes the body that Send is given later, on every try the same.
type Endpoint interface {
	Sender
	Render(ev *orderv1.OrderEvent) ([]byte, error)
}

// Poster makes one bounded POST; pkg/egress is the one that may call a user's URL.
type Poster interface {
	Post(ctx context.Context, rawURL string, h http.Header, body []byte) (egress.Response, error)
}

// Verdict is what an answer means for a delivery.
type Verdict uint8

const (
	// Retry means later, by the schedule.
	Retry Verdict = iota
	// Delivered means that the receiver has it.
	Delivered
	// Failed means that this body will never be taken.
	Failed
	// Gone means that the receiver takes nothing any more.
	Gone
	// Refused means that we did not send it, and would not the next time either.
	Refused
)

func (v Verdict) String() string {
	return [...]string{"retry", "delivered", "failed", "gone", "refused"}[v]
}

// Result is the outcome of one POST.
type Result struct {
	Verdict Verdict
	// Status is HTTP's; zero when no answer came.
	Status int
	// RetryAfter is how long the receiver wants to be left alone; zero when it did not say.
	RetryAfter time.Duration
	// Reason is a short sentence without address or body; empty when delivered.
	Reason string
}

// Judge says what an answer means where the vendor says nothing else, by the rules of Standard Webhooks: 2xx is
// success, a redirect is a failure and is not followed, 410 is gone, everything else is tried again.
func Judge(resp egress.Response, err error, at time.Time) Result {
	if err != nil {
		return unanswered(err)
	}
	r := Result{Status: resp.Status, RetryAfter: RetryAfter(resp.Header, at)}
	switch {
	case resp.Status >= 200 && resp.Status <= 299:
		return Result{Verdict: Delivered, Status: resp.Status}
	case resp.Status == http.StatusGone:
		r.Verdict, r.Reason = Gone, "answered 410: gone for good"
	case resp.Status >= 300 && resp.Status <= 399:
		r.Reason = "answered " + strconv.Itoa(resp.Status) + ": redirects are not followed"
	default:
		r.Reason = "answered " + strconv.Itoa(resp.Status)
	}
	return r
}

// unanswered names the cause of a call without an answer, in words that hold no address.
func unanswered(err error) Result {
	var (
		refused *egress.Refused
		dns     *net.DNSError
		cert    *tls.CertificateVerificationError
		timeout interface{ Timeout() bool }
	)
	switch {
	case errors.As(err, &refused):
		return Result{Verdict: Refused, Reason: "the egress guard refuses the address"}
	case errors.As(err, &dns):
		return Result{Reason: "the name does not resolve"}
	case errors.As(err, &cert):
		return Result{Reason: "the certificate is not accepted"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return Result{Reason: "connection refused"}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return Result{Reason: "no answer in time"}
	default:
		return Result{Reason: "the connection failed"}
	}
}

// mostRetryAfter bounds what a receiver may ask for: the last step of the schedule.
const mostRetryAfter = 24 * time.Hour

// RetryAfter reads the header of that name: seconds, also with a fraction, or a date. It is never negative and
// never above 24 hours.
func RetryAfter(h http.Header, at time.Time) time.Duration {
	return clampRetryAfter(parseRetryAfter(strings.TrimSpace(h.Get("Retry-After")), at))
}

func parseRetryAfter(text string, at time.Time) time.Duration {
	if s, err := strconv.ParseFloat(text, 64); err == nil {
		return Seconds(s)
	}
	if t, err := http.ParseTime(text); err == nil {
		return t.Sub(at)
	}
	return 0
}

// Seconds turns what a vendor states in seconds into a duration within the bounds of RetryAfter.
func Seconds(s float64) time.Duration {
	if !(s > 0) { // also NaN
		return 0
	}
	return clampRetryAfter(time.Duration(min(s, mostRetryAfter.Seconds()) * float64(time.Second)))
}

func clampRetryAfter(d time.Duration) time.Duration { return min(max(d, 0), mostRetryAfter) }

// Truncate cuts s to at most limit runes, the last one "…" when something was cut. Vendors reject what is too
// long instead of cutting it.
func Truncate(s string, limit int) string {
	r := []rune(s)
	if len(r) <= limit {
		return s
	}
	return string(r[:limit-1]) + "…"
}
