package bus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/renthook/renthook/pkg/internal/leader"
)

// The outcomes of a publish that are not success. Nothing was stored, except where said.
var (
	// ErrExists: the stream keeps one message per subject and has it already.
	ErrExists = errors.New("the subject already has its message")
	// ErrFull: the stream or the broker has no room.
	ErrFull = errors.New("no room for the message")
	// ErrTooLarge: the message is above the limit of the stream or the broker.
	ErrTooLarge = errors.New("the message is too large")
	// ErrDuplicate: the broker took the message for another one with the same Nats-Msg-Id and dropped it.
	ErrDuplicate = errors.New("the broker took the message for a duplicate and dropped it")
	// ErrDenied: the permissions of this connection's user forbid the subject.
	ErrDenied = errors.New("the broker's permissions forbid it")
	// ErrUnavailable: the message was not sent, or no stream answered for its subject.
	ErrUnavailable = errors.New("the broker is not available")
	// ErrUnknown: no answer came. The message may or may not be stored; publishing it again, or reading the
	// subject, settles it.
	ErrUnknown = errors.New("no answer from the broker: the message may or may not be stored")
	// ErrNotFound: the stream has no such message.
	ErrNotFound = leader.ErrNotFound
)

// Error codes of JetStream that nats.go has no names for.
const (
	codeStoreFailed        jetstream.ErrorCode = 10077
	codeInsufficient       jetstream.ErrorCode = 10023
	codeAccountExceeded    jetstream.ErrorCode = 10002
	codeMemoryExceeded     jetstream.ErrorCode = 10028
	codeStorageExceeded    jetstream.ErrorCode = 10047
	statusUnavailable                          = 503
	textMessagesPerSubject                     = "messages per subject"
)

// Ack says where a message was stored.
type Ack struct {
	// Stream that took the message.
	Stream string
	// Seq is the message's sequence in it.
	Seq uint64
}

// Publish stores m and waits for the stream's answer, until ctx ends or for 5 seconds when it has no deadline.
// The message sent carries the trace context of ctx; m itself is left as it is. Errors wrap the sentinels above.
func (c *Conn) Publish(ctx context.Context, m *nats.Msg) (Ack, error) {
	ctx, span := c.startPublish(ctx, m.Subject)
	sent := &nats.Msg{Subject: m.Subject, Data: m.Data, Header: cloneHeader(m.Header)}
	inject(ctx, sent.Header)
	ack, err := c.publish(ctx, sent)
	endSpan(span, err)
	return ack, err
}

func cloneHeader(h nats.Header) nats.Header {
	clone := make(nats.Header, len(h)+1)
	maps.Copy(clone, h)
	return clone
}

// publish sends m as it is.
func (c *Conn) publish(ctx context.Context, m *nats.Msg) (Ack, error) {
	if err := ctx.Err(); err != nil {
		return Ack{}, fmt.Errorf("publish %s: %w", m.Subject, err)
	}
	ctx, forget := c.denied.watch(ctx, m.Subject)
	defer forget()
	ack, err := c.js.PublishMsg(ctx, m)
	if err != nil {
		return Ack{}, fmt.Errorf("publish %s: %w", m.Subject, c.outcome(ctx, err))
	}
	if ack.Duplicate {
		return Ack{}, fmt.Errorf("publish %s: %w", m.Subject, ErrDuplicate)
	}
	return Ack{Stream: ack.Stream, Seq: ack.Sequence}, nil
}

// outcome turns an error of nats.go into one of this package.
func (c *Conn) outcome(ctx context.Context, err error) error {
	if denied := context.Cause(ctx); errors.Is(denied, ErrDenied) {
		return denied
	}
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api):
		return refusal(api)
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case errors.Is(err, nats.ErrBadSubject), errors.Is(err, nats.ErrInvalidMsg):
		return err
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrReconnectBufExceeded),
		errors.Is(err, nats.ErrConnectionDraining), errors.Is(err, nats.ErrInvalidConnection),
		// Before the first connection nats.go does not know yet that the server takes headers.
		errors.Is(err, nats.ErrHeadersNotSupported):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	default:
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
}

func refusal(api *jetstream.APIError) error {
	switch api.ErrorCode {
	case codeStoreFailed:
		// One code for two answers; only the text tells them apart.
		if strings.Contains(api.Description, textMessagesPerSubject) {
			return fmt.Errorf("%w: %w", ErrExists, api)
		}
		return fmt.Errorf("%w: %w", ErrFull, api)
	case codeInsufficient, codeAccountExceeded, codeMemoryExceeded, codeStorageExceeded:
		return fmt.Errorf("%w: %w", ErrFull, api)
	case jetstream.JSErrCodeStreamMessageExceedsMaximum:
		return fmt.Errorf("%w: %w", ErrTooLarge, api)
	}
	if api.Code == statusUnavailable {
		return fmt.Errorf("%w: %w", ErrUnavailable, api)
	}
	return api
}

// LastBySubject reads the newest message of a subject from the stream's leader, never from a replica that may
// lag. It returns ErrNotFound when there is none.
func (c *Conn) LastBySubject(ctx context.Context, stream, subject string) (*jetstream.RawStreamMsg, error) {
	m, err := leader.LastFor(ctx, c.js, stream, subject)
	if err != nil {
		return nil, fmt.Errorf("read the last message of %s: %w", subject, err)
	}
	return m, nil
}

// denials lets publishers that wait for an answer hear of a permission violation, which the broker reports
// only on the side, by subject.
type denials struct {
	mu      sync.Mutex
	waiting map[string]map[*context.CancelCauseFunc]struct{}
}

var violation = regexp.MustCompile(`(?i)permissions violation for publish to "([^"\s]+)"`)

// watch derives a context that ends with ErrDenied when the broker forbids subject.
func (d *denials) watch(ctx context.Context, subject string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	key := &cancel
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting == nil {
		d.waiting = map[string]map[*context.CancelCauseFunc]struct{}{}
	}
	if d.waiting[subject] == nil {
		d.waiting[subject] = map[*context.CancelCauseFunc]struct{}{}
	}
	d.waiting[subject][key] = struct{}{}
	return ctx, func() {
		cancel(nil)
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.waiting[subject], key)
		if len(d.waiting[subject]) == 0 {
			delete(d.waiting, subject)
		}
	}
}

// resolve ends the waits a violation is about and says whether there were any.
func (d *denials) resolve(err error) bool {
	match := violation.FindStringSubmatch(err.Error())
	if match == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	waiting := d.waiting[match[1]]
	for cancel := range waiting {
		(*cancel)(fmt.Errorf("%w: %w", ErrDenied, err))
	}
	return len(waiting) > 0
}
