// Package fault is the one typed error that crosses a boundary: an HTTP answer, a gRPC status, a message.
//
// It guarantees that a fault says the same thing at every door (Reason is the problem's code and the
// ErrorInfo's reason), that what is shown is only Message, and that a fault sent over gRPC comes back as it left.
// It refuses to show the wrapped cause: that is for the log of the process it happened in.
package fault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Domain is the ErrorInfo domain of our faults; a status of any other domain is not turned back into one.
const Domain = "renthook"

// Kind says what sort of failure it is; it decides the status at every door. The zero Kind counts as Internal.
type Kind uint8

const (
	// Invalid is an ask that makes no sense: HTTP 422 (a door may answer 400), gRPC INVALID_ARGUMENT.
	Invalid Kind = iota + 1
	// Unauthenticated is an ask by nobody we know: 401, UNAUTHENTICATED.
	Unauthenticated
	// Forbidden is an ask by somebody who may not: 403, PERMISSION_DENIED.
	Forbidden
	// NotFound is an ask about what is not there, or is another's: 404, NOT_FOUND.
	NotFound
	// Mismatch is a key used again with another body: 422, ALREADY_EXISTS.
	Mismatch
	// Precondition is an ask that the present state forbids: 409, FAILED_PRECONDITION.
	Precondition
	// Exhausted is an ask over a limit: 429, RESOURCE_EXHAUSTED.
	Exhausted
	// Unavailable is an ask that may succeed later, unchanged: 503, UNAVAILABLE.
	Unavailable
	// TooLarge is a body above its bound: 413, OUT_OF_RANGE (RESOURCE_EXHAUSTED would invite a retry).
	TooLarge
	// Internal is a defect of ours: 500, INTERNAL.
	Internal
)

type row struct {
	name string
	http int
	grpc codes.Code
}

// The gRPC codes differ from each other, so that a kind survives the wire.
var kinds = map[Kind]row{
	Invalid:         {"invalid", http.StatusUnprocessableEntity, codes.InvalidArgument},
	Unauthenticated: {"unauthenticated", http.StatusUnauthorized, codes.Unauthenticated},
	Forbidden:       {"forbidden", http.StatusForbidden, codes.PermissionDenied},
	NotFound:        {"not found", http.StatusNotFound, codes.NotFound},
	Mismatch:        {"mismatch", http.StatusUnprocessableEntity, codes.AlreadyExists},
	Precondition:    {"precondition", http.StatusConflict, codes.FailedPrecondition},
	Exhausted:       {"exhausted", http.StatusTooManyRequests, codes.ResourceExhausted},
	Unavailable:     {"unavailable", http.StatusServiceUnavailable, codes.Unavailable},
	TooLarge:        {"too large", http.StatusRequestEntityTooLarge, codes.OutOfRange},
	Internal:        {"internal", http.StatusInternalServerError, codes.Internal},
}

func (k Kind) row() row {
	if r, ok := kinds[k]; ok {
		return r
	}
	return kinds[Internal]
}

// String names the kind for logs.
func (k Kind) String() string { return k.row().name }

// Error is a failure fit to leave the process: everything but Err may be shown to whoever asked.
type Error struct {
	// Kind decides the status.
	Kind Kind
	// Reason is UPPER_SNAKE and stable: programs branch on it.
	Reason string
	// Message is a sentence for people: what was refused and what to do about it.
	Message string
	// RetryAfter is how long to wait before the same ask makes sense again; 0 when unknown.
	RetryAfter time.Duration
	// Err is the cause. It appears in Error(), which is for logs, and at no door.
	Err error
}

// New makes a fault. The format and its arguments are shown to whoever asked: no secrets, no internals.
func New(k Kind, reason, format string, args ...any) *Error {
	return &Error{Kind: k, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Wrap gives a copy of the fault with err as its cause, so that a shared fault stays as it is.
func (e *Error) Wrap(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

// After gives a copy of the fault that says when to try again.
func (e *Error) After(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// Error is the text for logs, cause included. What may be shown is Message.
func (e *Error) Error() string {
	s := e.Reason + ": " + e.Message
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// HTTPStatus is the status of the fault over HTTP.
func (e *Error) HTTPStatus() int { return e.Kind.row().http }

// GRPCStatus is the fault as a status with an ErrorInfo and, when RetryAfter is set, a RetryInfo.
// A gRPC server must be given the fault itself (see Public): of a wrapped one it would send the whole text.
func (e *Error) GRPCStatus() *status.Status {
	s := status.New(e.Kind.row().grpc, e.Message)
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: e.Reason, Domain: Domain}}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	if with, err := s.WithDetails(details...); err == nil {
		return with
	}
	return s
}

// From finds the fault in err: one of this process, or one that came over gRPC with an ErrorInfo of our domain.
func From(err error) (*Error, bool) {
	var e *Error
	if errors.As(err, &e) {
		return e, true
	}
	var remote interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &remote) {
		return nil, false
	}
	return fromStatus(remote.GRPCStatus(), err)
}

func fromStatus(s *status.Status, cause error) (*Error, bool) {
	e := &Error{Message: s.Message(), Err: cause}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == Domain {
				e.Reason = d.GetReason()
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	if e.Reason == "" {
		return nil, false
	}
	for k, r := range kinds {
		if r.grpc == s.Code() {
			e.Kind = k
			return e, true
		}
	}
	return nil, false
}

// Public turns any error into the fault a door answers with: a fault found in err, without what was wrapped
// around it; Unavailable with reason TIMEOUT for a deadline that passed; INTERNAL with a fixed text for the rest.
// The cause stays in Err for the log. A nil err gives nil.
func Public(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := From(err); ok {
		return e.Wrap(err)
	}
	var remote interface{ GRPCStatus() *status.Status }
	code := codes.Unknown
	if errors.As(err, &remote) {
		code = remote.GRPCStatus().Code()
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), code == codes.DeadlineExceeded:
		return New(Unavailable, "TIMEOUT", "no answer in time; try again").Wrap(err)
	case errors.Is(err, context.Canceled), code == codes.Canceled, code == codes.Unavailable:
		return New(Unavailable, "UNAVAILABLE", "temporarily unavailable; try again").Wrap(err)
	}
	return New(Internal, "INTERNAL", "something went wrong on our side").Wrap(err)
}
