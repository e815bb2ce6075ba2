package journal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// pullMessages bounds what is under way to a reader. No bound in bytes: the broker would end each pull with a
	// status message, for which a full buffer has no room.
	pullMessages = 256
	// silence is how often the broker says that it is still there; twice as long without a word, and the reader
	// opens its consumer anew.
	silence = 5 * time.Second
	// forgotten is when the broker drops a reader that went away without a word.
	forgotten = 5 * time.Minute

	pauseShort = 50 * time.Millisecond
	pauseLong  = 5 * time.Second
)

// errHalt carries the error of a reader's function, or of the journal itself, out of a session: it is final.
type errHalt struct{ err error }

func (e *errHalt) Error() string { return e.err.Error() }
func (e *errHalt) Unwrap() error { return e.err }

// Replay calls fn for every record from sequence from (0 is 1) to the journal's end as of the call, and returns
// that end. It returns fn's error as it is, ErrAlien, ErrGap when records from there on are gone, and ErrAhead when
// the journal ends before from-1. It survives reconnects until ctx ends.
func (j *Journal) Replay(ctx context.Context, from uint64, fn func(Record) error) (last uint64, err error) {
	from = max(from, 1)
	state, err := j.State(ctx)
	if err != nil {
		return 0, err
	}
	if err := within(state, from, true); err != nil {
		return 0, fmt.Errorf("replay journal %s: %w", j.stream, err)
	}
	if state.Last < from {
		return state.Last, nil
	}
	r := &reader{journal: j, next: from, contiguous: true, until: state.Last, fn: fn}
	if err := r.run(ctx); err != nil {
		return 0, fmt.Errorf("replay journal %s: %w", j.stream, err)
	}
	return state.Last, nil
}

// Follow calls fn for every record from sequence from (0 is 1) on, as they are appended, until ctx ends (then it
// returns nil) or fn fails. With a filter it gives only records of these subjects, and cannot see gaps. It survives
// reconnects; it returns ErrAlien, ErrGap and ErrAhead like Replay.
func (j *Journal) Follow(ctx context.Context, from uint64, filter []string, fn func(Record) error) error {
	r := &reader{journal: j, next: max(from, 1), contiguous: len(filter) == 0, filter: filter, fn: fn}
	if err := r.run(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("follow journal %s: %w", j.stream, err)
	}
	return nil
}

// within refuses to read what is not there.
func within(s State, from uint64, contiguous bool) error {
	if s.Last+1 < from {
		return fmt.Errorf("%w: it ends at %d, wanted from %d on", ErrAhead, s.Last, from)
	}
	if contiguous && from < s.First && s.First <= s.Last+1 && s.Last > 0 {
		return fmt.Errorf("%w: it begins at %d, wanted from %d on", ErrGap, s.First, from)
	}
	return nil
}

// reader gives the records of a journal in order through consumers that keep no state on the broker.
type reader struct {
	journal *Journal
	// next is the lowest sequence still wanted.
	next uint64
	// until is the last one wanted; 0 for ever.
	until      uint64
	filter     []string
	contiguous bool
	fn         func(Record) error
	turns      turns
}

// run reads through as many consumers as it takes.
func (r *reader) run(ctx context.Context) error {
	for pause := pauseShort; ; pause = min(2*pause, pauseLong) {
		before := r.next
		err := r.session(ctx)
		var halt *errHalt
		var api *jetstream.APIError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &halt):
			return halt.err
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &api) && api.Code >= 400 && api.Code < 500:
			// The stream is gone, or does not let itself be read: asking again changes nothing.
			return err
		}
		if r.next != before {
			pause = pauseShort
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// session is the life of one consumer. It returns nil when until is reached, an errHalt that is final, or an error
// after which another session goes on where this one ended.
func (r *reader) session(ctx context.Context) error {
	state, err := r.journal.State(ctx)
	if err != nil {
		return err
	}
	if err := within(state, r.next, r.contiguous); err != nil {
		return &errHalt{err}
	}
	consumer, err := r.journal.js.CreateConsumer(ctx, r.journal.stream, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: r.next, FilterSubjects: r.filter,
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: forgotten,
	})
	if err != nil {
		return err
	}
	defer r.drop(consumer)
	messages, err := consumer.Messages(jetstream.PullMaxMessages(pullMessages),
		jetstream.PullExpiry(30*time.Second), jetstream.PullHeartbeat(silence))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for delivered := uint64(1); ; delivered++ {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		// A delivery lost on the way shows here, also with a filter.
		if meta.Sequence.Consumer != delivered {
			return fmt.Errorf("delivery %d is missing", delivered)
		}
		done, err := r.take(m, meta)
		if done || err != nil {
			return err
		}
	}
}

// take gives one delivery to the reader's function.
func (r *reader) take(m jetstream.Msg, meta *jetstream.MsgMetadata) (done bool, err error) {
	seq := meta.Sequence.Stream
	if r.contiguous && seq != r.next {
		return false, &errHalt{fmt.Errorf("%w: sequence %d follows %d", ErrGap, seq, r.next-1)}
	}
	rec, err := record(m.Subject(), seq, meta.Timestamp, m.Headers(), m.Data())
	if err == nil && r.contiguous {
		err = r.turns.check(rec)
	}
	if err != nil {
		return false, &errHalt{err}
	}
	if err := r.fn(rec); err != nil {
		return false, &errHalt{err}
	}
	r.next = seq + 1
	return seq == r.until, nil
}

// drop removes the consumer from the broker; one that cannot be removed is forgotten by itself.
func (r *reader) drop(consumer jetstream.Consumer) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = r.journal.js.DeleteConsumer(ctx, r.journal.stream, consumer.CachedInfo().Name)
}
