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

// Run polls until ctx ends. What another holder published since the last Run is read first.
func (p *Poller) Run(ctx context.Context) {
	pub := &publisher{load: p.deps.Load, publish: p.deps.Publish}
	for ctx.Err() == nil {
		if err := p.prepare(ctx, pub); err != nil {
			p.note(ctx, err)
			sleep(ctx, retry)
			continue
		}
		if !sleep(ctx, p.due(pub.poll.Began)) {
			continue
		}
		if err := p.leave(ctx); err != nil {
			p.note(ctx, err)
			continue
		}
		p.note(ctx, p.round(ctx, pub))
	}
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

// leave waits until the account's holder lets the market be called; an error says that it did not for long.
func (p *Poller) leave(ctx context.Context) error {
	if p.deps.Slot == nil {
		return nil
	}
	for until := time.Now().Add(max(10*p.cfg.Interval, leastPatience)); ; {
		granted, after := p.deps.Slot(ctx)
		if granted {
			return ctx.Err()
		}
		if time.Now().After(until) {
			return errDenied
		}
		if !sleep(ctx, min(max(after, leastDenial), mostDenial)) {
			return ctx.Err()
		}
	}
}

var errDenied = errors.New("the account's own calls leave no room for the market's")

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
