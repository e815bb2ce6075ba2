package order

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/journal"
	"github.com/renthook/renthook/pkg/lease"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/order/internal/engine"
)

// again is how long to wait after something failed that another try may heal.
const again = time.Second

// commandWait bounds how long one command may wait for its record.
const commandWait = 20 * time.Second

// sweepAge is how old a command without a record must be before the sweep drives it: the consumer is usually faster.
const sweepAge = 10 * time.Second

// follow folds the journal into the world, whoever writes it.
func (s *Service) follow(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.journal.Follow(ctx, s.world.Last()+1, nil, func(r journal.Record) error { return s.world.Apply(r) })
		if ctx.Err() != nil {
			return
		}
		s.log.ErrorContext(ctx, "following the journal ended", "error", fmt.Sprint(err))
		s.setFailure(fmt.Errorf("the journal cannot be followed: %w", err))
		pause(ctx, again)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// contend holds the account whenever it can.
func (s *Service) contend(ctx context.Context) {
	l, err := lease.New(lease.Config{
		JS: s.deps.Bus.JetStream(), Bucket: topology.LeasesBucket(max(s.config.Settings.NATS.Replicas, 1)),
		Key: "order-" + s.engine.Account, Holder: s.engine.Holder, TTL: s.engine.LeaseTTL, Logger: s.log,
	})
	if err != nil {
		s.setFailure(err)
		s.log.ErrorContext(ctx, "the lease cannot be contended for", "error", err.Error())
		return
	}
	s.work.Go(func() { s.watchReady(ctx) })
	for ctx.Err() == nil {
		err := l.Run(ctx, s.hold)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.log.WarnContext(ctx, "holding the account ended", "error", err.Error())
			s.setFailure(fmt.Errorf("the account cannot be held: %w", err))
		}
		pause(ctx, again)
	}
}

// watchReady says that the service is ready once the journal has been read to its end as of now.
func (s *Service) watchReady(ctx context.Context) {
	for ctx.Err() == nil {
		state, err := s.journal.State(ctx)
		if err == nil && s.world.Last() >= state.Last {
			s.mu.Lock()
			unread := errors.Is(s.failure, errUnread)
			s.mu.Unlock()
			if unread {
				s.setFailure(nil)
			}
			return
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// hold is what the holder of the lease does: catch up, claim the journal, take commands, decide and act.
func (s *Service) hold(ctx context.Context, held *lease.Held) error {
	if _, err := s.journal.Replay(ctx, s.world.Last()+1, s.world.Apply); err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	last := s.world.Last()
	before, released := s.world.Holder()
	entry, err := engine.Holding(s.engine.Account, s.engine.Holder, last+1, time.Now())
	if err != nil {
		return err
	}
	var writer engine.Appender
	claimed, err := s.journal.Claim(ctx, s.engine.Holder, last, entry)
	switch {
	case errors.Is(err, journal.ErrFull):
		// Without a record of its own this holder creates nothing; what is to end is ended all the same.
		s.log.ErrorContext(ctx, "alarm", "alarm", "journal_full", "reason", "the journal is full: nothing is rented; what is to end is still ended. Make room or raise the stream's limit", "error", err.Error())
		writer = fullJournal{last}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, fullAgain)
		defer cancel()
	case err != nil:
		return fmt.Errorf("claim the journal: %w", err)
	default:
		writer = claimed
		if !s.ends.off() {
			writer = exportsAhead{claimed, s.ends}
		}
		if err := s.world.Apply(journal.Record{Seq: writer.Epoch(), Subject: entry.Subject, Data: entry.Data, Time: time.Now()}); err != nil {
			return err
		}
	}
	s.ends.hold(true)
	defer s.ends.hold(false)
	// A call of this very process cannot be out any more: its holder waited for it.
	wait := !released && before != s.engine.Holder
	s.log.InfoContext(ctx, "holding the account", "account", s.engine.Account, "epoch", writer.Epoch(), "creates_wait", wait)
	h := engine.NewHolder(s.engine, engine.Deps{
		Log: s.log, World: s.world, Books: books{s.deps.Books}, Account: s.deps.Market, Box: s.deps.Box,
		Room:      func() bool { return !s.tight.Load() },
		Waits:     func(reason string) { s.waiting(reason, claimed != nil) },
		Remaining: held.Remaining, Dial: s.deps.Dial, Random: random,
	}, writer, wait)
	if claimed != nil {
		s.setFailure(nil)
	} else {
		s.setFailure(fmt.Errorf("nothing is rented: %w", journal.ErrFull))
	}

	inner, stop := context.WithCancel(ctx)
	defer stop()
	consumer, err := s.consumer(ctx)
	if err != nil {
		return err
	}
	slot, err := s.serveSlots(inner, h)
	if err != nil {
		return err
	}
	defer s.setWaits("")
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		s.consume(inner, consumer, h)
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		s.sweep(inner, h)
	}()
	err = h.Run(ctx)
	stop()
	<-done
	<-done
	_ = slot.Unsubscribe()
	return err
}

// fullAgain is how long a holder that could not claim a full journal holds before it tries again.
const fullAgain = time.Minute

// waiting takes why no create may go out. A full journal makes the service unready, until it is claimed and has room.
func (s *Service) waiting(reason string, claimed bool) {
	s.setWaits(reason)
	if reason == engine.WhyFull {
		s.setFailure(fmt.Errorf("nothing is rented: %w", journal.ErrFull))
		return
	}
	s.mu.Lock()
	full := errors.Is(s.failure, journal.ErrFull)
	s.mu.Unlock()
	if full && claimed {
		s.setFailure(nil)
	}
}

// fullPart is how much of the journal may be used before nothing more is rented, percent.
const fullPart = 80

// fullJournal takes the place of the writer while the journal has no room.
type fullJournal struct{ last uint64 }

func (f fullJournal) Append(context.Context, ...journal.Entry) (first, last uint64, err error) {
	return 0, 0, journal.ErrFull
}
func (f fullJournal) Last() uint64  { return f.last }
func (f fullJournal) Epoch() uint64 { return 0 }

// books gives the view the shape the engine wants.
type books struct{ Books }

func (b books) Poll() uint64 {
	poll, _, _ := b.Snapshot()
	return poll
}

// consumer is the account's durable: its filter follows the clients of the settings. It takes every command of theirs,
// so that one that nobody knows is answered and not left queued.
func (s *Service) consumer(ctx context.Context) (string, error) {
	name := topology.OrderConsumer(s.engine.Account)
	c := jetstream.ConsumerConfig{
		Durable: name, Description: "Commands of the clients of account " + s.engine.Account + ", taken by its holder.",
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: 30 * time.Second, MaxDeliver: -1, DeliverPolicy: jetstream.DeliverAllPolicy,
		MaxAckPending: 16,
	}
	for client := range s.engine.Clients {
		c.FilterSubjects = append(c.FilterSubjects, topology.CommandsOf(client))
	}
	if len(c.FilterSubjects) == 0 {
		return "", errors.New("no client belongs to this account: nobody can ask for anything")
	}
	if _, err := s.deps.Bus.JetStream().CreateOrUpdateConsumer(ctx, topology.Commands, c); err != nil {
		return "", fmt.Errorf("make consumer %s: %w", name, err)
	}
	return name, nil
}

func (s *Service) consume(ctx context.Context, consumer string, h *engine.Holder) {
	for ctx.Err() == nil {
		err := s.deps.Bus.Consume(ctx, topology.Commands, consumer, func(ctx context.Context, m bus.Msg) error {
			ctx, cancel := context.WithTimeout(ctx, commandWait)
			defer cancel()
			return h.Command(ctx, engine.Command{
				Subject: m.Subject, ContentType: m.Header.Get("Content-Type"), Body: m.Data, Seq: m.Sequence, Time: m.Time, Trace: m.Header.Get("traceparent"),
			})
		}, bus.Options{DeadLetter: topology.DeadLetter(topology.Commands, consumer)})
		if ctx.Err() != nil {
			return
		}
		s.log.WarnContext(ctx, "taking commands ended", "error", fmt.Sprint(err))
		pause(ctx, again)
	}
}

// sweep drives commands that the consumer skipped: its position may be lost or ahead of the stream after a crash.
func (s *Service) sweep(ctx context.Context, h *engine.Holder) {
	// next is, per client, the sequence from which nothing has been looked at.
	next := map[string]uint64{}
	for ctx.Err() == nil {
		for client := range s.engine.Clients {
			from, err := s.sweepClient(ctx, h, client, next[client])
			if err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "the sweep over commands stopped", "client", client, "error", err.Error())
			}
			next[client] = from
		}
		if state, err := s.journal.State(ctx); err == nil {
			s.tight.Store(state.MaxBytes > 0 && state.Bytes > state.MaxBytes/100*fullPart)
		}
		if info, err := s.commandsInfo(ctx); err == nil {
			s.world.Prune(time.Now(), info.State.FirstSeq)
		}
		pause(ctx, s.engine.SweepInterval)
	}
}

func (s *Service) commandsInfo(ctx context.Context) (*jetstream.StreamInfo, error) {
	stream, err := s.deps.Bus.JetStream().Stream(ctx, topology.Commands)
	if err != nil {
		return nil, err
	}
	return stream.CachedInfo(), nil
}

func (s *Service) sweepClient(ctx context.Context, h *engine.Holder, client string, from uint64) (uint64, error) {
	stream, err := s.deps.Bus.JetStream().Stream(ctx, topology.Commands)
	if err != nil {
		return from, err
	}
	for {
		m, err := stream.GetMsg(ctx, max(from, 1), jetstream.WithGetMsgSubject(topology.CommandsOf(client)))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return from, nil
		}
		if err != nil {
			return from, err
		}
		if !s.world.Handled(m.Sequence) {
			if time.Since(m.Time) < sweepAge {
				return m.Sequence, nil
			}
			s.log.WarnContext(ctx, "driving a command that the consumer skipped", "subject", m.Subject, "sequence", m.Sequence)
			err := h.Command(ctx, engine.Command{
				Subject: m.Subject, ContentType: m.Header.Get("Content-Type"), Body: m.Data, Seq: m.Sequence, Time: m.Time, Trace: m.Header.Get("traceparent"),
			})
			if err != nil {
				return m.Sequence, err
			}
		}
		from = m.Sequence + 1
	}
}

// serveSlots answers the poller: the account's calls are paced in one place.
func (s *Service) serveSlots(ctx context.Context, h *engine.Holder) (*nats.Subscription, error) {
	return s.deps.Bus.NATS().Subscribe(topology.Slot, func(m *nats.Msg) {
		wait, err := h.Slot(ctx)
		if err != nil {
			return
		}
		answer, err := json.Marshal(map[string]any{"granted": wait == 0, "retry_after_ms": wait.Milliseconds()})
		if err == nil {
			err = m.Respond(answer)
		}
		if err != nil {
			s.log.WarnContext(ctx, "a slot could not be granted", "error", err.Error())
		}
	})
}
