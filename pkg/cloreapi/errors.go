package cloreapi

import (
	"errors"
	"fmt"
)

// The codes of the market's answers (its documentation, "error codes").
const (
	CodeOK              = 0
	CodeDatabase        = 1
	CodeInvalidInput    = 2
	CodeInvalidToken    = 3
	CodeInvalidEndpoint = 4
	CodeTooManyRequests = 5
	// CodeError means that the error member says what is wrong.
	CodeError = 6
)

// Refusal is an answer of the market whose code is not 0. It says what the market said and proves nothing by
// itself: code 1 and code 5 have come with orders that existed.
type Refusal struct {
	Endpoint string
	// Code is one of the constants above, or one that is not known yet.
	Code int
	// Status is the HTTP status: 200 and 500 are both usual with code 6, 429 with code 5.
	Status int
	// Name is the error member ("server-already-rented", "too_low_price"), empty when none came.
	Name string
	// MinPrice comes with too_low_price: the least bid, per day, in the currency asked. Empty otherwise.
	MinPrice Number
	// MaxStep comes with exceeded_max_step: the most by which one lowering may lower a bid. Empty otherwise.
	MaxStep Number
	// SecondsToLowering comes with can_lower_every_600_seconds. Empty otherwise.
	SecondsToLowering Number
}

func (r *Refusal) Error() string {
	s := fmt.Sprintf("%s: the market answered code %d", r.Endpoint, r.Code)
	if r.Name != "" {
		s += fmt.Sprintf(" (%.80q)", r.Name)
	}
	return s + fmt.Sprintf(", HTTP status %d", r.Status)
}

// CallError means that no readable answer came.
type CallError struct {
	Endpoint string
	// Sent says that bytes of the request may have left this process. False is proof that none did.
	Sent bool
	// Status is the HTTP status, zero when none came.
	Status int
	// Err is why.
	Err error
}

func (e *CallError) Error() string {
	s := e.Endpoint + ": "
	if e.Status != 0 {
		s += fmt.Sprintf("HTTP status %d: ", e.Status)
	}
	return s + e.Err.Error()
}

func (e *CallError) Unwrap() error { return e.Err }

// ErrTooLarge is wrapped by a CallError when an answer is larger than Config.MaxBody.
var ErrTooLarge = errors.New("the answer is larger than allowed")

// ErrNotJSON is wrapped by a CallError when the answer is not the JSON object the market answers with: a page of
// the proxy in front of it, a cut body, a shape this package does not know.
var ErrNotJSON = errors.New("the answer is not a JSON object of a known shape")
