// Package marketview follows the market stream and shows the market as of the last poll.
//
// It guarantees that the books of a poll become visible together with its snapshot and never one by one, that what
// is visible adds up to what the snapshot counted, that what it returns never changes under a reader, and that it
// heals by itself: whatever is lost, reordered or restarted, it reads the stream's last messages anew. It holds one
// copy of the market. It refuses books that do not add up, and to call an old market fresh.
//
// The form of offers on the bus is known here and nowhere else.
package marketview

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/encoding/protojson"

	marketv1 "github.com/renthook/renthook/proto/gen/renthook/market/v1"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/topology"
)

// freshPolls is how many intervals a market may be old and still be rented from.
const freshPolls = 3

const (
	// requestTimeout bounds the making of a consumer.
	requestTimeout = 5 * time.Second
	// heartbeat is how often an idle stream says that it is there; twice missed means reading anew.
	heartbeat = 2 * time.Second
	// idle is when the broker forgets a consumer nobody pulls.
	idle = time.Minute
	// pullMessages and pullBytes bound what is on its way to this process.
	pullMessages, pullBytes = 256, 4 << 20
	firstRetry, lastRetry   = 100 * time.Millisecond, 5 * time.Second
)

// View shows the newest market. Its methods are safe for concurrent use.
type View struct {
	js  jetstream.JetStream
	log *slog.Logger

	stop context.CancelFunc
	done chan struct{}

	mu      sync.Mutex
	market  *Market
	changed chan struct{}
}

// Open follows the market until ctx ends or Close is called. The broker and the stream may be away: it keeps trying,
// and Wait says when there is something to see. A nil logger means slog.Default.
func Open(ctx context.Context, js jetstream.JetStream, log *slog.Logger) *View {
	if log == nil {
		log = slog.Default()
	}
	ctx, stop := context.WithCancel(ctx)
	v := &View{js: js, log: log, stop: stop, done: make(chan struct{}), changed: make(chan struct{})}
	go func() {
		defer close(v.done)
		v.run(ctx)
	}()
	return v
}

// Close stops following and waits until it has stopped. What was seen last stays visible.
func (v *View) Close() {
	v.stop()
	<-v.done
}

// Market is the whole market as of one poll, for readers that need its parts to agree; nil before the first.
func (v *View) Market() *Market {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.market
}

// Book lists the offers of a model, cheapest first. It may not be written to.
func (v *View) Book(gpu string) []market.Offer {
	if m := v.Market(); m != nil {
		return m.Book(gpu)
	}
	return nil
}

// Models lists the models with at least one server, by slug.
func (v *View) Models() []Model {
	if m := v.Market(); m != nil {
		return m.Models()
	}
	return nil
}

// Snapshot says which poll is visible, when its call was begun and the interval then in force; zeros before the first.
func (v *View) Snapshot() (poll uint64, began time.Time, interval time.Duration) {
	if m := v.Market(); m != nil {
		return m.Poll.Number, m.Poll.Began, m.Poll.Interval
	}
	return 0, time.Time{}, 0
}

// Fresh says whether what is visible was begun no longer than three polls before now.
func (v *View) Fresh(now time.Time) bool {
	m := v.Market()
	return m != nil && now.Sub(m.Poll.Began) <= freshPolls*m.Poll.Interval
}

// Changed is closed when a newer market becomes visible. Take it before looking.
func (v *View) Changed() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changed
}

// Wait returns when there is a market to see, or with the error of ctx.
func (v *View) Wait(ctx context.Context) error {
	for {
		changed := v.Changed()
		if v.Market() != nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the first snapshot of the market: %w", ctx.Err())
		}
	}
}

func (v *View) show(m *Market) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.market = m
	close(v.changed)
	v.changed = make(chan struct{})
}

// run reads the stream from its last messages on, and anew after anything that may have cost a message.
func (v *View) run(ctx context.Context) {
	wait := firstRetry
	for {
		began := time.Now()
		err := v.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > lastRetry {
			wait = firstRetry
		}
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			v.log.InfoContext(ctx, "the market has not been published yet")
		} else {
			v.log.WarnContext(ctx, "following the market anew", "error", err, "in", wait)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		wait = min(2*wait, lastRetry)
	}
}

// follow shows one snapshot after another until something fails.
func (v *View) follow(ctx context.Context) error {
	var staged parts
	// A reading from scratch brings every book: what was visible before is no part of the next market.
	var base *Market
	doubts := 0
	return tail(ctx, v.js, false, func(m jetstream.Msg) error {
		switch kindOf(m.Subject()) {
		case isBook:
			return staged.add(m.Subject(), m.Data())
		case isSnapshot:
		default:
			return nil
		}
		poll, err := readSnapshot(m.Data())
		if err != nil {
			return err
		}
		books, torn := staged.take()
		after := next(base, poll, books)
		// Kept also when it does not add up: the next poll may complete it, when the one that published died midway.
		base = after
		if torn || !after.whole() {
			if doubts++; doubts > 2 {
				return fmt.Errorf("the books do not add up to snapshot %d", poll.Number)
			}
			return nil
		}
		doubts = 0
		v.show(after)
		return nil
	})
}

type kind uint8

const (
	isOther kind = iota
	isBook
	isSnapshot
)

func kindOf(subject string) kind {
	if subject == topology.MarketSnapshot {
		return isSnapshot
	}
	if t := strings.Split(subject, "."); len(t) == 6 && t[3] == "book" {
		return isBook
	}
	return isOther
}

func readSnapshot(data []byte) (Poll, error) {
	var s marketv1.Snapshot
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, &s); err != nil {
		return Poll{}, fmt.Errorf("read a snapshot: %w", err)
	}
	p, err := decodeSnapshot(&s)
	if err != nil {
		return Poll{}, fmt.Errorf("read snapshot %d: %w", s.GetPoll(), err)
	}
	return p, nil
}

var errGap = errors.New("a message of the market stream is missing")

// tail hands the last message of every subject, then every new one, in order, to fn, until that errs. With once it
// returns when it has handed over what the stream held.
func tail(ctx context.Context, js jetstream.JetStream, once bool, fn func(jetstream.Msg) error) error {
	made, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	consumer, err := js.CreateConsumer(made, topology.Market, jetstream.ConsumerConfig{
		Description:   "Follows the newest books and snapshots.",
		DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, FilterSubject: topology.MarketAll,
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: idle,
	})
	if err != nil {
		return fmt.Errorf("open the market stream: %w", err)
	}
	if once && consumer.CachedInfo().NumPending == 0 {
		return nil
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(pullMessages, pullBytes),
		jetstream.PullHeartbeat(heartbeat), jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return fmt.Errorf("read the market stream: %w", err)
	}
	defer messages.Stop()
	for want := uint64(1); ; want++ {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("read the market stream: %w", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read the market stream: %w", err)
		}
		if meta.Sequence.Consumer != want {
			return errGap
		}
		if err := fn(m); err != nil {
			return err
		}
		if once && meta.NumPending == 0 {
			return nil
		}
	}
}
