package v1

import (
	"fmt"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"github.com/renthook/renthook/pkg/fault"
	"github.com/renthook/renthook/pkg/throttle"
	"github.com/renthook/renthook/services/ingress/internal/answer"
	"github.com/renthook/renthook/services/internal/ask"
)

const (
	reasonLimit  = "RATE_LIMITED"
	reasonMethod = "METHOD_NOT_ALLOWED"
	policy       = "default"
	window       = 60
)

var (
	errNoRoute = fault.New(fault.NotFound, "NO_SUCH_ROUTE", "there is nothing here")
	errMethod  = fault.New(fault.NotFound, reasonMethod, "this path does not take this method")
)

// problem is RFC 9457, with the same words in code as in a gRPC ErrorInfo. Error repeats Detail under the name that
// senders to the seed's door look at.
type problem struct {
	Type      string   `json:"type"`
	Title     string   `json:"title"`
	Status    int      `json:"status"`
	Detail    string   `json:"detail"`
	Instance  string   `json:"instance"`
	Code      string   `json:"code"`
	Retryable bool     `json:"retryable"`
	Error     string   `json:"error"`
	TraceID   string   `json:"trace_id,omitempty"`
	Violated  []string `json:"violated-policies,omitempty"`
}

func (d *Door) refuse(w http.ResponseWriter, r *request, err error) {
	f := fault.Public(err)
	status := f.HTTPStatus()
	log := d.deps.Log.DebugContext
	p := problem{
		Type:   "urn:renthook:problem:" + strings.ReplaceAll(strings.ToLower(f.Reason), "_", "-"),
		Detail: f.Message, Instance: r.URL.Path, Code: f.Reason, Error: f.Message,
	}
	switch {
	case f.Reason == reasonMethod:
		status = http.StatusMethodNotAllowed
	case f.Reason == ask.ReasonJSON, f.Reason == answer.ErrBroken.Reason:
		status = http.StatusBadRequest
	case f.Reason == reasonLimit:
		p.Type, p.Violated = "https://iana.org/assignments/http-problem-types#quota-exceeded", []string{policy}
	case f.Kind == fault.Unauthenticated:
		w.Header().Set("WWW-Authenticate", `Bearer realm="renthook", Signature realm="renthook"`)
	case f.Kind == fault.Internal:
		log = d.deps.Log.ErrorContext
	}
	if f.Kind == fault.Unavailable || f.RetryAfter > 0 {
		p.Retryable = true
		answer.RetryAfter(w, f.RetryAfter)
	}
	if f.Kind == fault.Unavailable {
		log = d.deps.Log.WarnContext
	}
	p.Status, p.Title = status, http.StatusText(status)
	if span := trace.SpanContextFromContext(r.Context()); span.HasTraceID() {
		p.TraceID = span.TraceID().String()
	}
	log(r.Context(), "request refused", "client", r.caller.Client, "method", r.Method, "path", r.URL.Path, "status", status,
		"reason", f.Reason, "error", err.Error())
	answer.JSON(w, status, "application/problem+json", p)
}

// setLimit writes the headers of the IETF's draft: the policy, and what is left of it.
func setLimit(w http.ResponseWriter, v throttle.Decision) {
	w.Header().Set("RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=%d", policy, v.Limit, window))
	w.Header().Set("RateLimit", fmt.Sprintf("%q;r=%d;t=%d", policy, v.Remaining, answer.Seconds(v.Reset)))
}
