// Package admit puts commands on the bus, each at most once.
//
// It guarantees that an ask is answered with success only after JetStream holds its command, that the same key with
// the same bytes gives the same operation for as long as commands are kept (topology.CommandRetention), whichever
// replica is asked and however often, and that the same key with other bytes is refused. The broker decides, by the
// subject; nothing is remembered here. An outcome that is not known is settled by publishing again. It refuses to
// guess: what cannot be settled in time is Unavailable, and the same ask sent again is safe.
package admit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/fault"
	"github.com/renthook/renthook/services/internal/topology"
)

// The faults of an admission.
var (
	// ErrMismatch: the key stands for another ask.
	ErrMismatch = fault.New(fault.Mismatch, "IDEMPOTENCY_MISMATCH", "this key was used with another body")
	// ErrUnavailable: not stored, or not known to be. Asking again with the same key is safe.
	ErrUnavailable = fault.New(fault.Unavailable, "UNAVAILABLE", "temporarily unavailable").After(retryAfter)
)

const (
	retryAfter = 2 * time.Second
	// patience bounds one admission, so that a sender hears of trouble before its own time-out.
	patience = 6 * time.Second
	// attemptTimeout bounds one publish; pause stands between two.
	attemptTimeout = 2 * time.Second
	pause          = 100 * time.Millisecond
)

// Bus is the part of *bus.Conn that is needed.
type Bus interface {
	Publish(ctx context.Context, m *nats.Msg) (bus.Ack, error)
	LastBySubject(ctx context.Context, stream, subject string) (*jetstream.RawStreamMsg, error)
}

// Admitter admits.
type Admitter struct{ bus Bus }

// New makes an Admitter.
func New(b Bus) *Admitter { return &Admitter{bus: b} }

// Ask is one command to admit.
type Ask struct {
	// Command names it; its Key is a token of Key, Fresh or Nth.
	Command topology.Command
	// Body is the command itself.
	Body proto.Message
	// Hash stands for what the sender sent.
	Hash string
}

// Receipt says what was admitted.
type Receipt struct {
	// Operation is the id to ask about.
	Operation string
	// Replayed says that it had been admitted before.
	Replayed bool
}

// Admit stores the command, or finds that it is stored. The errors are faults: ErrMismatch and ErrUnavailable, with
// their cause for the log.
func (a *Admitter) Admit(ctx context.Context, ask Ask) (Receipt, error) {
	body, err := protojson.Marshal(ask.Body)
	if err != nil {
		return Receipt{}, fmt.Errorf("write the command %s: %w", ask.Command.Subject(), err)
	}
	m := &nats.Msg{Subject: ask.Command.Subject(), Data: body, Header: nats.Header{
		topology.BodyHash: {ask.Hash},
		"Content-Type":    {"application/json"},
	}}
	receipt := Receipt{Operation: ask.Command.Operation()}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for unknown := false; ; {
		switch err := a.publish(ctx, m); {
		case err == nil:
			return receipt, nil
		case errors.Is(err, bus.ErrUnknown) && ctx.Err() == nil:
			unknown = true
		case errors.Is(err, bus.ErrExists), errors.Is(err, bus.ErrFull), errors.Is(err, bus.ErrDuplicate):
			// After an unknown outcome the stored message is taken for the one this call published: whoever waits
			// for the first answer gets it as the first answer.
			receipt.Replayed = !unknown
			return receipt, a.settle(ctx, m, err)
		default:
			return Receipt{}, ErrUnavailable.Wrap(err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return Receipt{}, ErrUnavailable.Wrap(ctx.Err())
		}
	}
}

func (a *Admitter) publish(ctx context.Context, m *nats.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	_, err := a.bus.Publish(ctx, m)
	return err
}

// settle compares with what the subject holds: the broker has one refusal for "taken" and for "full", and which of
// the two a caller was told is not relied upon.
func (a *Admitter) settle(ctx context.Context, m *nats.Msg, refusal error) error {
	stored, err := a.bus.LastBySubject(ctx, topology.Commands, m.Subject)
	switch {
	case err != nil:
		return ErrUnavailable.Wrap(errors.Join(refusal, err))
	case stored.Header.Get(topology.BodyHash) != m.Header.Get(topology.BodyHash):
		return ErrMismatch
	}
	return nil
}

// Queued reads an operation from the commands themselves: when it was admitted, and whether it was at all.
func (a *Admitter) Queued(ctx context.Context, c topology.Command) (at time.Time, ok bool, err error) {
	m, err := a.bus.LastBySubject(ctx, topology.Commands, c.Subject())
	switch {
	case errors.Is(err, bus.ErrNotFound):
		return time.Time{}, false, nil
	case err != nil:
		return time.Time{}, false, ErrUnavailable.Wrap(err)
	}
	return m.Time, true, nil
}

// Key is the token for a sender's own key: a hash, so that any text can be one and no two clients share one.
func Key(client, key string) string { return digest("key", client, key) }

// Fresh is a token for an ask that has no key.
func Fresh() string {
	id := uuid.Must(uuid.NewV7()) // fails only without randomness, and then crypto/rand ends the process
	return hex.EncodeToString(id[:])
}

// Nth is the token of the nth command of one ask, which is itself the first: n counts from 0.
func Nth(token string, n int) string {
	if n == 0 {
		return token
	}
	return digest("nth", token, fmt.Sprint(n))
}

// Hash stands for the bytes a sender sent, and for what of the path says what is asked.
func Hash(body []byte, path ...string) string {
	h := sha256.New()
	for _, p := range path {
		fmt.Fprintf(h, "%d:%s\n", len(p), p)
	}
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

// digest is 128 bits over parts that cannot run into each other.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s\n", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
