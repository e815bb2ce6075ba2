// Package webhooktest is a receiver of webhooks for tests: it keeps every request with what the signatures on it
// say, and answers as it is told. It stops with the test.
package webhooktest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/renthook/renthook/pkg/webhook"
)

// Request is what arrived.
type Request struct {
	// Path is its path and query.
	Path   string
	Header http.Header
	Body   []byte
	At     time.Time
	// ID is webhook-id as sent.
	ID string
	// Standard and Legacy are what the signatures of the two schemes say; nil when they hold.
	Standard, Legacy error
}

// Answer is how a request is answered. The zero value is 200 without a body.
type Answer struct {
	Status int
	Header http.Header
	Body   string
	// Hang answers nothing until the sender gives up.
	Hang bool
}

// Receiver is a running receiver.
type Receiver struct {
	server  *httptest.Server
	secrets []string

	mu       sync.Mutex
	answer   func(Request) Answer
	requests []Request
}

// Start runs a receiver that verifies with secrets, until the test ends.
func Start(t testing.TB, secrets ...string) *Receiver {
	t.Helper()
	r := &Receiver{secrets: secrets, answer: func(Request) Answer { return Answer{} }}
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	return r
}

// URL of the receiver, with a path.
func (r *Receiver) URL(path string) string { return r.server.URL + path }

// Answer sets how requests are answered from now on; f is not called at the same time twice.
func (r *Receiver) Answer(f func(Request) Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = f
}

// Requests gives all that arrived so far, oldest first.
func (r *Receiver) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// ServeHTTP takes a request.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, 1<<20))
	if err != nil {
		return // the sender broke off, which is not a request
	}
	got := Request{Path: req.URL.RequestURI(), Header: req.Header, Body: body, At: time.Now(), ID: req.Header.Get(webhook.HeaderID)}
	_, _, got.Standard = webhook.VerifyStandard(req.Header, body, r.secrets, got.At)
	_, got.Legacy = webhook.VerifyLegacy(req.Header, body, r.secrets)
	answer := r.take(got)
	if answer.Hang {
		<-req.Context().Done()
		return
	}
	for name, values := range answer.Header {
		w.Header()[name] = values
	}
	if answer.Status != 0 {
		w.WriteHeader(answer.Status)
	}
	_, _ = io.WriteString(w, answer.Body) // a sender that is gone is no failure of the test
}

func (r *Receiver) take(got Request) Answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, got)
	return r.answer(got)
}
