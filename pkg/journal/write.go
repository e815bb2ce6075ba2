package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/renthook/renthook/pkg/internal/leader"
)

const (
	// attemptTimeout bounds one attempt to append.
	attemptTimeout = 5 * time.Second
	// settleTimeout bounds an Append, the settling of an unknown outcome included.
	settleTimeout = 30 * time.Second
	// graceTimeout bounds what is left of it once the caller's context has ended.
	graceTimeout = 5 * time.Second
	// overtakenTries is how often a journal must end before what its writer has read to be taken for another.
	overtakenTries = 3
)

// Writer appends to a journal it has claimed. It is used by one goroutine.
type Writer struct {
	journal *Journal
	name    string
	epoch   uint64
	last    uint64
	// dead is why no more can be appended.
	dead error
}

// Claim makes writer the journal's writer by appending holder, which must follow sequence last: the end of what
// the caller has replayed. From then on every earlier writer is fenced. It returns ErrFenced when the journal
// does not end at last.
func (j *Journal) Claim(ctx context.Context, writer string, last uint64, holder Entry) (*Writer, error) {
	if writer == "" {
		return nil, errors.New("claim a journal: the writer has no name")
	}
	// Nothing but the journal's next sequence can be the claim's own, so the epoch is known before it is stored.
	w := &Writer{journal: j, name: writer, epoch: last + 1, last: last}
	if _, _, err := w.Append(ctx, holder); err != nil {
		return nil, fmt.Errorf("claim journal %s: %w", j.stream, err)
	}
	return w, nil
}

// Last is the sequence of the last record, which is this writer's.
func (w *Writer) Last() uint64 { return w.last }

// Epoch is the sequence of this writer's claim.
func (w *Writer) Epoch() uint64 { return w.epoch }

// Append stores entries, all or none, as the journal's next records, and returns the first and last sequence.
//
// Once something was sent, it is waited out and settled even when ctx ends meanwhile, for at most 5 seconds more:
// an append that is given up half way would leave the writer dead. ErrFull, ErrTooLarge and ErrUnavailable say
// that nothing was stored and leave the writer alive; after ErrFenced and ErrUnsettled it is dead.
func (w *Writer) Append(ctx context.Context, entries ...Entry) (first, last uint64, err error) {
	if w.dead != nil {
		return 0, 0, fmt.Errorf("%w: %w", ErrDead, w.dead)
	}
	if len(entries) == 0 || len(entries) > MaxBatch {
		return 0, 0, fmt.Errorf("append %d entries: at least 1 and at most %d", len(entries), MaxBatch)
	}
	if err := ctx.Err(); err != nil {
		return 0, 0, fmt.Errorf("append to journal %s: %w", w.journal.stream, err)
	}
	a := &appending{writer: w, id: nuid.Next(), entries: entries}
	if err := a.validate(); err != nil {
		return 0, 0, err
	}
	if err := a.run(ctx); err != nil {
		if errors.Is(err, ErrFenced) || errors.Is(err, ErrUnsettled) {
			w.dead = err
		}
		return 0, 0, fmt.Errorf("append to journal %s after %d: %w", w.journal.stream, w.last, err)
	}
	first, w.last = w.last+1, w.last+uint64(len(entries))
	return first, w.last, nil
}

// appending is one Append until its outcome is known.
type appending struct {
	writer  *Writer
	id      string
	entries []Entry
}

func (a *appending) validate() error {
	for _, e := range a.entries {
		for name := range e.Header {
			if strings.HasPrefix(name, "Nats-") {
				return fmt.Errorf("append to %s: header %s is the broker's", e.Subject, name)
			}
		}
	}
	return nil
}

// run attempts and settles until the outcome is known or time is up.
func (a *appending) run(ctx context.Context) error {
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(graceTimeout, cancel) })
	defer stop()

	// stray says that an attempt may have been stored, or may yet be.
	stray := false
	for try, pause := 1, pauseShort; ; try, pause = try+1, min(2*pause, pauseLong) {
		err := a.attempt(work)
		outcome := judge(err)
		switch {
		case outcome == stored:
			return nil
		case outcome == refused && !stray:
			return err
		case outcome != absent:
			stray = stray || outcome == unknown
			settled, serr := a.settle(work)
			if settled {
				return serr
			}
			// The journal ends before what this writer has read: it is another one. Not at the first sight, since
			// a leader refuses for what is still under way to the other replicas.
			if outcome == overtaken && !stray && try >= overtakenTries && errors.Is(serr, leader.ErrNotFound) {
				return fmt.Errorf("%w: %w", ErrFenced, err)
			}
		}
		if a.writer.journal.js.Conn().IsClosed() {
			cancel()
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-work.Done():
			timer.Stop()
		}
		switch {
		case stray && work.Err() != nil:
			return fmt.Errorf("%w: %w", ErrUnsettled, err)
		case !stray && (work.Err() != nil || ctx.Err() != nil):
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
}

// settle reads what follows the writer's last record. It says whether that settles the append: ours is there, or
// another's. With nothing there the append has to be tried again, under the same expectation, so that an attempt
// that arrives late and its repetition exclude each other.
func (a *appending) settle(ctx context.Context) (settled bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.writer.journal.attempt)
	defer cancel()
	m, err := leader.Get(ctx, a.writer.journal.js, a.writer.journal.stream, a.writer.last+1)
	if err != nil {
		return false, err
	}
	if m.Header.Get(HeaderAppendID) == a.id {
		return true, nil
	}
	return true, fmt.Errorf("%w: %s wrote sequence %d", ErrFenced, m.Header.Get(HeaderWriter), m.Sequence)
}

type outcome int

const (
	stored outcome = iota
	// refused: not stored, and trying again is of no use.
	refused
	// overtaken: the journal does not end where the writer believes.
	overtaken
	// absent: not stored, and trying again may help.
	absent
	// unknown: stored or not.
	unknown
)

// Error codes of JetStream that nats.go has no names for.
const (
	codeStoreFailed     jetstream.ErrorCode = 10077
	codeInsufficient    jetstream.ErrorCode = 10023
	codeAccountExceeded jetstream.ErrorCode = 10002
	codeMemoryExceeded  jetstream.ErrorCode = 10028
	codeStorageExceeded jetstream.ErrorCode = 10047
)

func judge(err error) outcome {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return stored
	case errors.Is(err, ErrFull), errors.Is(err, ErrTooLarge):
		return refused
	case errors.As(err, &api):
		switch api.ErrorCode {
		case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant:
			return overtaken
		}
		return absent
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		return absent
	}
	return unknown
}

// attempt sends the entries once and waits for the answer.
func (a *appending) attempt(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, a.writer.journal.attempt)
	defer cancel()
	js, w := a.writer.journal.js, a.writer
	want := w.last + uint64(len(a.entries))
	if len(a.entries) == 1 {
		ack, err := js.PublishMsg(ctx, a.message(0))
		if err != nil {
			return sentinel(err)
		}
		return verify(ack.Sequence, want, ack.Duplicate)
	}
	msgs := make([]*nats.Msg, len(a.entries))
	for i := range a.entries {
		msgs[i] = a.message(i)
	}
	// The broker answers the first message of a batch, so that one it will not take is not sent whole.
	flow := jetstreamext.BatchFlowControl{AckFirst: true, AckTimeout: w.journal.attempt}
	ack, err := jetstreamext.PublishMsgBatch(ctx, js, msgs, flow)
	if err != nil {
		return sentinel(err)
	}
	return verify(ack.Sequence, want, false)
}

func verify(seq, want uint64, duplicate bool) error {
	if seq != want || duplicate {
		// No answer of a fenced append can look so; settle by reading.
		return fmt.Errorf("the journal answered sequence %d (duplicate: %t) where %d was due", seq, duplicate, want)
	}
	return nil
}

// message is entry i as it is sent.
func (a *appending) message(i int) *nats.Msg {
	e := a.entries[i]
	h := make(nats.Header, len(e.Header)+8)
	for name, values := range e.Header {
		h[name] = values
	}
	h.Set(HeaderWriter, a.writer.name)
	h.Set(HeaderEpoch, strconv.FormatUint(a.writer.epoch, 10))
	h.Set(HeaderAppendID, a.id)
	h.Set(jetstream.ExpectedStreamHeader, a.writer.journal.stream)
	if i == 0 {
		h.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatUint(a.writer.last, 10))
	}
	return &nats.Msg{Subject: e.Subject, Header: h, Data: e.Data}
}

// sentinel names the refusals a caller branches on.
func sentinel(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("%w: %w", jetstream.ErrInvalidJSAck, err)
	}
	var api *jetstream.APIError
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case !errors.As(err, &api):
		return err
	}
	switch api.ErrorCode {
	case codeStoreFailed, codeInsufficient, codeAccountExceeded, codeMemoryExceeded, codeStorageExceeded:
		return fmt.Errorf("%w: %w", ErrFull, err)
	case jetstream.JSErrCodeStreamMessageExceedsMaximum:
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	return err
}
