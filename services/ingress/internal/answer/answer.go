// Package answer reads bodies and writes answers the same way at every door.
//
// It guarantees that a body is read whole or not at all, within MostBytes, and that what is written is JSON with its
// length and is kept by no cache. It refuses nothing else and knows no route.
package answer

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/renthook/renthook/pkg/fault"
)

// MostBytes is the largest body that is read.
const MostBytes = 64 << 10

// Patience bounds what is done for one request that does not ask to wait, well within the server's own time-out.
const Patience = 10 * time.Second

// The faults of a body.
var (
	ErrTooLarge = fault.New(fault.TooLarge, "BODY_TOO_LARGE", "body too large")
	ErrBroken   = fault.New(fault.Invalid, "BODY_INCOMPLETE", "the body did not arrive whole")
)

// Body reads the body of a request, chunked or not.
func Body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > MostBytes {
		// Nothing of it is read, so the connection cannot be used again.
		w.Header().Set("Connection", "close")
		return nil, ErrTooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MostBytes))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, ErrTooLarge
	case err != nil:
		return nil, ErrBroken.Wrap(err)
	}
	return body, nil
}

// JSON writes v with a status.
func JSON(w http.ResponseWriter, status int, contentType string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		// Every value of ours can be written; a defect must not look like success.
		http.Error(w, `{"error":"something went wrong on our side"}`, http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(status)
	// A receiver that went away cannot be told so.
	_, _ = w.Write(append(b, '\n'))
}

// RetryAfter sets the header in whole seconds, rounded up, at least 1.
func RetryAfter(w http.ResponseWriter, d time.Duration) {
	w.Header().Set("Retry-After", strconv.FormatInt(Seconds(d), 10))
}

// Seconds rounds up, at least to 1.
func Seconds(d time.Duration) int64 {
	return max(1, int64((d+time.Second-1)/time.Second))
}
