package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
)

// Headers of a dead letter, beside those the message had.
const (
	DeadReason     = "Renthook-Dlq-Reason"
	DeadStream     = "Renthook-Dlq-Stream"
	DeadConsumer   = "Renthook-Dlq-Consumer"
	DeadSequence   = "Renthook-Dlq-Sequence"
	DeadSubject    = "Renthook-Dlq-Subject"
	DeadDeliveries = "Renthook-Dlq-Deliveries"
	// DeadOmitted is "body" where the message was too large to be copied; it is still in its stream.
	DeadOmitted = "Renthook-Dlq-Omitted"
	// deadControl precedes the name of a header that would steer the broker if it were copied as it is.
	deadControl = "Renthook-Dlq-Header-"
)

// mostReason bounds the text of a reason, in bytes.
const mostReason = 1024

// DeadLetter is a message that was given up, and why.
type DeadLetter struct {
	// Message as it was delivered last: give it to its handler, or publish it, to drive it again.
	Message Msg
	// Reason in words.
	Reason string
	// Omitted says that the letter holds no body, because it was too large; read it from its stream.
	Omitted bool
}

// deadLetter stores a copy of m under subject.
func (c *Conn) deadLetter(ctx context.Context, subject string, m Msg, reason error) error {
	// No trace is injected: the letter keeps the trace the message came with.
	_, err := c.publish(ctx, &nats.Msg{Subject: subject, Data: m.Data, Header: deadHeader(m, reason)})
	if !errors.Is(err, ErrTooLarge) {
		return err
	}
	// The letter's own headers can push a message of the largest size over the limit.
	h := deadHeader(Msg{
		Subject: m.Subject, Stream: m.Stream, Consumer: m.Consumer, Sequence: m.Sequence, Delivered: m.Delivered,
	}, reason)
	h.Set(DeadOmitted, "body")
	_, err = c.publish(ctx, &nats.Msg{Subject: subject, Header: h})
	return err
}

func deadHeader(m Msg, reason error) nats.Header {
	h := make(nats.Header, len(m.Header)+6)
	for name, values := range m.Header {
		if strings.HasPrefix(name, "Nats-") {
			name = deadControl + name
		}
		h[name] = values
	}
	h.Set(DeadReason, oneLine(reason.Error()))
	h.Set(DeadStream, m.Stream)
	h.Set(DeadConsumer, m.Consumer)
	h.Set(DeadSequence, strconv.FormatUint(m.Sequence, 10))
	h.Set(DeadSubject, m.Subject)
	h.Set(DeadDeliveries, strconv.FormatUint(m.Delivered, 10))
	return h
}

// ParseDeadLetter reads the headers and body of a message from the dead letters.
func ParseDeadLetter(h nats.Header, data []byte) (DeadLetter, error) {
	sequence, err := strconv.ParseUint(h.Get(DeadSequence), 10, 64)
	if err != nil {
		return DeadLetter{}, fmt.Errorf("read a dead letter: header %s: %w", DeadSequence, err)
	}
	delivered, err := strconv.ParseUint(h.Get(DeadDeliveries), 10, 64)
	if err != nil {
		return DeadLetter{}, fmt.Errorf("read a dead letter: header %s: %w", DeadDeliveries, err)
	}
	letter := DeadLetter{Reason: h.Get(DeadReason), Omitted: h.Get(DeadOmitted) != ""}
	letter.Message = Msg{
		Subject: h.Get(DeadSubject), Data: data, Stream: h.Get(DeadStream), Consumer: h.Get(DeadConsumer),
		Sequence: sequence, Delivered: delivered, Header: nats.Header{},
	}
	for name, values := range h {
		if original, ok := strings.CutPrefix(name, deadControl); ok {
			letter.Message.Header[original] = values
		} else if !strings.HasPrefix(name, "Renthook-Dlq-") && !strings.HasPrefix(name, "Nats-") {
			letter.Message.Header[name] = values
		}
	}
	return letter, nil
}

// oneLine makes text fit a header.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	if len(text) > mostReason {
		text = strings.ToValidUTF8(text[:mostReason], "")
	}
	return strings.TrimSpace(text)
}
