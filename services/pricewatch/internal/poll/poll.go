// Package poll reads the market again and again and publishes what changed. One process of several runs it, the
// holder of a lease.
//
// It guarantees at most one call per interval, whatever fails, whoever asks and however often the lease moves; that
// a poll's books are on the bus before its snapshot; that a market which lost more than half of its servers is
// published only when a second answer agrees; and that it goes on where another holder stopped. It refuses to call
// while the account's holder says that a call of its own is due.
package poll

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/marketview"
	"github.com/renthook/renthook/services/pricewatch/internal/board"
)

const (
	// callTimeout bounds one call to the market.
	callTimeout = 30 * time.Second
	// loadTimeout bounds the reading of what was published last.
	loadTimeout = 30 * time.Second
	// retry is the pause after a broker that failed; the market is not called meanwhile.
	retry = time.Second
	// mostStretch bounds by how much the interval grows while the market says "too many requests".
	mostStretch = 16
	// leastDenial and mostDenial bound a wait that the account's holder asks for.
	leastDenial, mostDenial = 50 * time.Millisecond, 5 * time.Second
	// leastPatience is when being denied is a failure to tell of; asking goes on.
	leastPatience = 30 * time.Second
)

// Config is the data of a Poller.
type Config struct {
	// Interval between the starts of two calls.
	Interval time.Duration
}

// Deps are what a Poller works with.
type Deps struct {
	Offers market.Offers
	// Slot asks for leave to call the market; nil means granted.
	Slot func(context.Context) (granted bool, after time.Duration)
	// Take asks for the one call that all replicas have per interval; nil means granted. The lease alone does not
	// bound the calls: a broker that lost its memory has granted it to two.
	Take func(ctx context.Context, interval time.Duration) (granted bool, after time.Duration, err error)
	// Load reads what the stream holds.
	Load func(context.Context) (marketview.Stored, error)
	// Publish stores a message.
	Publish func(context.Context, *nats.Msg) (bus.Ack, error)
	Logger  *slog.Logger
}

// Poller polls. Run may be called again, not twice at once.
type Poller struct {
	cfg  Config
	deps Deps

	// called is when the market was called last, stretch by how much the interval is multiplied.
	called  time.Time
	stretch int

	mu sync.Mutex
	// failure is why there was no snapshot last time.
	failure error
}

// New makes a poller.
func New(cfg Config, deps Deps) *Poller { return &Poller{cfg: cfg, deps: deps, stretch: 1} }

// Failure is why the last poll gave no snapshot, nil when it did.
func (p *Poller) Failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure
}

// Run polls until ctx ends, or until it finds that somebody else polls too: then it returns [ErrForeign], and the
// lease is to be contended for anew. What another holder published since the last Run is read first.
func (p *Poller) Run(ctx context.Context) error {
	pub := &publisher{load: p.deps.Load, publish: p.deps.Publish, partBytes: board.MostPartBytes}
	for ctx.Err() == nil {
		if err := p.prepare(ctx, pub); err != nil {
			p.note(ctx, err)
			sleep(ctx, retry)
			continue
		}
		if !sleep(ctx, p.due(pub.poll.Began)) {
			continue
		}
		err := p.leave(ctx)
		if err == nil {
			err = p.round(ctx, pub)
		}
		p.note(ctx, err)
		if errors.Is(err, ErrForeign) {
			return err
		}
	}
	return nil
}

func (p *Poller) prepare(ctx context.Context, pub *publisher) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	return pub.prepare(ctx)
}

func (p *Poller) interval() time.Duration { return time.Duration(p.stretch) * p.cfg.Interval }

// due is how long to wait so that an interval lies between the last call, this process's or the one that stands in
// the stream, and the next. Clocks of other hosts may be wrong: more than an interval is never waited for them.
func (p *Poller) due(published time.Time) time.Duration {
	wait := time.Until(published.Add(p.interval()))
	if wait > p.interval() {
		wait = 0
	}
	return max(wait, time.Until(p.called.Add(p.interval())))
}

// leave waits until the account's holder and the other replicas let the market be called; an error says that they did
// not for long.
func (p *Poller) leave(ctx context.Context) error {
	for until := time.Now().Add(max(10*p.interval(), leastPatience)); ; {
		granted, after, err := p.ask(ctx)
		if granted || err != nil {
			return err
		}
		if time.Now().After(until) {
			return errDenied
		}
		if !sleep(ctx, min(max(after, leastDenial), mostDenial)) {
			return ctx.Err()
		}
	}
}

func (p *Poller) ask(ctx context.Context) (granted bool, after time.Duration, err error) {
	if p.deps.Slot != nil {
		if granted, after := p.deps.Slot(ctx); !granted {
			return false, after, ctx.Err()
		}
	}
	if p.deps.Take == nil {
		return true, 0, ctx.Err()
	}
	granted, after, err = p.deps.Take(ctx, p.interval())
	if err != nil {
		// Without the broker the answer could not be published either.
		sleep(ctx, retry)
	}
	return granted, after, err
}

var errDenied = errors.New("there is no room for a call to the market")

// round makes one call and publishes what it shows.
func (p *Poller) round(ctx context.Context, pub *publisher) error {
	p.called = time.Now()
	call, cancel := context.WithTimeout(ctx, callTimeout)
	listing, err := p.deps.Offers.Offers(call)
	cancel()
	if err != nil {
		if _, ok := errors.AsType[*market.ThrottledError](err); ok {
			p.stretch = min(2*p.stretch, mostStretch)
		}
		return err
	}
	p.stretch = max(p.stretch/2, 1)
	believed, err := pub.listing(ctx, listing, p.interval())
	if err != nil {
		return err
	}
	if !believed {
		return errHeldBack
	}
	p.deps.Logger.DebugContext(ctx, "the market was read", "poll", pub.poll.Number, "servers", pub.poll.Servers,
		"models", pub.poll.Models, "dropped", pub.poll.Dropped, "dur_ms", time.Since(p.called).Milliseconds())
	return nil
}

var errHeldBack = errors.New("the market lost more than half of its servers at once: held back until the next answer agrees")

// note keeps the outcome for whoever asks, and logs it when it is another than before.
func (p *Poller) note(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	before := p.failure
	p.failure = err
	p.mu.Unlock()
	switch {
	case err == nil && before != nil:
		p.deps.Logger.InfoContext(ctx, "the market is read again")
	case err != nil && (before == nil || before.Error() != err.Error()):
		p.deps.Logger.WarnContext(ctx, "the market was not read", "error", err)
	}
}

// sleep waits for d and says whether ctx still lasts.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
