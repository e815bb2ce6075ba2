package engine

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/pkg/journal"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/order/internal/pace"
	"github.com/renthook/renthook/services/order/internal/prove"
	"github.com/renthook/renthook/services/order/internal/rental"
	"github.com/renthook/renthook/services/order/internal/world"
)

// tickEvery is how often deadlines are looked at.
const tickEvery = time.Second

// Holder is the one writer of an account's journal for as long as it holds the lease. Run owns everything in it; other
// goroutines speak to it through Command and Slot.
type Holder struct {
	config Config
	deps   Deps
	log    Appender

	pacer  *pace.Pacer
	prover *prove.Prover

	commands chan request
	slots    chan chan time.Duration
	results  chan result
	probes   chan probeResult
	work     sync.WaitGroup

	// busy is the call that is out; abortCreate stops a create that has not reached the wire.
	busy        pace.Kind
	creating    string
	abortCreate *atomic.Bool
	// createsFrom is when the first create may go out: later than now after a holder that did not let go.
	createsFrom time.Time
	// list is the newest readable list of rentals.
	list list
	// lastAdoption: a baseline must come from a read begun after it.
	lastAdoption time.Time
	// resolveAt is when the next read that something waits for is due.
	ladder    ladder
	sweepAt   time.Time
	walletsAt time.Time
	balances  map[string]decimal.Decimal
	// walletsWanted: the market refused for want of money, and what is left has not been read since.
	walletsWanted bool
	// keyRefused: the newest read was refused for the key.
	keyRefused bool
	// cancels maps rentals that are to end to when the next cancel is due.
	cancels map[int64]*attempts
	// foreign are rentals that are no order's and were asked to be ended; lacking are the good reads without them.
	foreign map[int64]bool
	lacking map[int64]*absence
	probing map[string]*probing
	// readFrom bars reads for a while after some that failed: a market that is away is not called at every gap.
	readFrom    time.Time
	readsFailed int
	// evaluated is what the newest poll has for an order.
	evaluated map[string]evaluation
	tickAt    time.Time
	budgetsAt time.Time
	// fullUntil is when the journal, found full, may be tried with a create again; ending are orders whose end was
	// wanted, and stopping rentals whose cancel was decided, while it could not be recorded.
	fullUntil time.Time
	// lost: some decision could not be recorded since intents without an outcome were last looked for.
	lost     bool
	ending   map[string]bool
	stopping map[int64]bool
	// waits is why no create may go out, since when, and whether it was told.
	waits     string
	waitsFrom time.Time
	waitsTold bool
	// alarms are those that were told and still hold.
	alarms map[string]bool
}

// probing says when the ssh port of an order's rental may be asked again.
type probing struct {
	out bool
	due time.Time
}

// evaluation says whether a poll had a candidate for an order.
type evaluation struct {
	poll uint64
	some bool
}

// list is what one readable answer of my_orders showed.
type list struct {
	rentals     market.Rentals
	good        bool
	vouched     bool
	maxID       int64
	unaccounted int
	suspects    int
	orphans     int
}

// attempts counts cancels of one rental.
type attempts struct {
	n   int
	due time.Time
}

type request struct {
	command Command
	done    chan error
}

// ErrStopped says that the holder no longer holds; the command is redelivered.
var ErrStopped = errors.New("this process does not hold the account now")

// NewHolder makes a Holder over a journal that was just claimed. waitCreates is set after a holder that did not let go.
func NewHolder(c Config, d Deps, log Appender, waitCreates bool) *Holder {
	now := time.Now()
	if c.Zone == nil {
		c.Zone = time.UTC
	}
	if d.Waits == nil {
		d.Waits = func(string) {}
	}
	if d.Room == nil {
		d.Room = func() bool { return true }
	}
	h := &Holder{
		config: c, deps: d, log: log, pacer: pace.New(c.Pace, now), prover: prove.New(c.Prove),
		commands: make(chan request), slots: make(chan chan time.Duration), results: make(chan result), probes: make(chan probeResult),
		cancels: map[int64]*attempts{}, foreign: map[int64]bool{}, lacking: map[int64]*absence{},
		probing: map[string]*probing{}, evaluated: map[string]evaluation{}, alarms: map[string]bool{}, ending: map[string]bool{}, stopping: map[int64]bool{}, createsFrom: now, sweepAt: now, walletsAt: now, tickAt: now,
	}
	if waitCreates {
		h.createsFrom = now.Add(c.Quiesce())
	}
	return h
}

// Command hands one command to the holder and returns once it has its record, or why it has none.
func (h *Holder) Command(ctx context.Context, c Command) error {
	r := request{command: c, done: make(chan error, 1)}
	select {
	case h.commands <- r:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Slot asks for leave to call the market once. It returns how long to wait with asking again; zero is leave.
func (h *Holder) Slot(ctx context.Context) (time.Duration, error) {
	r := make(chan time.Duration, 1)
	select {
	case h.slots <- r:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	select {
	case d := <-r:
		return d, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// Run decides and acts until ctx ends or the journal cannot be written. A call that is out is waited for, within its
// time-out, so that the next holder in this process starts from a known state.
func (h *Holder) Run(ctx context.Context) error {
	inner, stop := context.WithCancel(ctx)
	err := h.loop(inner)
	stop()
	h.drain()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return h.release()
	}
	return err
}

// release records that this holder lets go, so that the next one need not wait.
func (h *Holder) release() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return h.append(ctx, fact{
		client: "-", id: "-", event: "released", internal: world.Internal{Released: true},
		public: &orderv1.OrderEvent{Cause: &orderv1.Cause{Kind: "writer", By: h.config.Holder}},
	})
}

// drain waits for calls and probes that are out; their answers are found again by reading.
func (h *Holder) drain() {
	done := make(chan struct{})
	go func() { h.work.Wait(); close(done) }()
	for {
		select {
		case <-h.results:
		case <-h.probes:
		case <-done:
			return
		}
	}
}

func (h *Holder) loop(ctx context.Context) error {
	if err := h.tolerate(h.recover(ctx)); err != nil {
		return err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		if err := h.tolerate(h.step(ctx, now)); err != nil {
			return err
		}
		wake, err := h.dispatch(ctx, now)
		if h.tolerate(err) != nil {
			return err
		}
		if wake.IsZero() || wake.After(h.tickAt) {
			wake = h.tickAt
		}
		timer.Reset(max(time.Until(wake), 0))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-h.commands:
			err := h.command(ctx, r.command)
			r.done <- err
			if h.tolerate(err) != nil {
				return err
			}
		case r := <-h.results:
			if err := h.tolerate(h.answered(ctx, r)); err != nil {
				return err
			}
		case p := <-h.probes:
			if err := h.tolerate(h.probeAnswered(ctx, p)); err != nil {
				return err
			}
		case s := <-h.slots:
			s <- h.slot(ctx, time.Now())
		case <-h.deps.Books.Changed():
		case <-timer.C:
		}
	}
}

// tolerate lets the holder go on while the journal has no room: what can only stop spending is still done.
func (h *Holder) tolerate(err error) error {
	if errors.Is(err, journal.ErrFull) {
		return nil
	}
	return err
}

// recover makes intents without an outcome unconfirmed, those that the last writer left and those whose answer could not
// be recorded: they are never asked for again.
func (h *Holder) recover(ctx context.Context) error {
	for _, o := range h.deps.World.Live() {
		if o.OpenIntent() == nil || o.ID == h.creating {
			continue
		}
		if len(h.ladder.steps) == 0 {
			h.ladder.start(time.Now(), h.config)
		}
		if err := h.decide(ctx, o, rental.Recovered{}, world.Internal{}); err != nil {
			return err
		}
	}
	return nil
}

// step lets time pass: deadlines, patience, orders that find nothing.
func (h *Holder) step(ctx context.Context, now time.Time) error {
	if now.Before(h.tickAt) {
		return h.evaluate(ctx, now)
	}
	h.tickAt = now.Add(tickEvery)
	if h.lost {
		h.lost = false // set again by what still cannot be recorded
		if err := h.recover(ctx); err != nil {
			return err
		}
	}
	probed := h.deps.World.Probed()
	for _, o := range h.deps.World.Live() {
		if err := h.decide(ctx, o, rental.Tick{ProbeProven: probed, Waits: h.waits}, world.Internal{}); err != nil {
			return err
		}
	}
	for id, p := range h.probing {
		if o := h.deps.World.Order(id); !p.out && (o == nil || o.State != rental.Provisioning) {
			delete(h.probing, id)
		}
	}
	if err := h.closes(ctx); err != nil {
		return err
	}
	if err := h.tellFrozen(ctx, now); err != nil {
		return err
	}
	if err := h.errands(ctx, now, false); err != nil {
		return err
	}
	if err := h.budgets(ctx, now); err != nil {
		return err
	}
	return h.evaluate(ctx, now)
}

// act starts what a decision wants done beside its record. Creates are started by plan, in the slot they were granted.
func (h *Holder) act(ctx context.Context, o *rental.Order, effects []rental.Effect) error {
	for _, e := range effects {
		switch e := e.(type) {
		case rental.Cancel:
			if h.cancels[e.RentalID] == nil {
				h.cancels[e.RentalID] = &attempts{due: time.Now()}
			}
		case rental.Probe:
			h.probe(ctx, o.ID, e)
		case rental.Record, rental.Create:
		}
	}
	return nil
}

// abort stops the create of an order if it has not reached the wire.
func (h *Holder) abort(orderID string) {
	if h.creating == orderID && h.abortCreate != nil {
		h.abortCreate.Store(true)
	}
}

// slot answers another process that wants to call the market once: at once if nothing of ours is due, else when to ask
// again. A granted slot is taken to last slotLength.
func (h *Holder) slot(ctx context.Context, now time.Time) time.Duration {
	// fact:one-call-a-second
	if h.busy != pace.None {
		return h.config.Pace.CallGap / 2
	}
	demand := h.demand(now)
	demand.Watch = now
	kind, wake := h.pacer.Next(now, demand)
	if kind != pace.Watch {
		return max(wake.Sub(now), h.config.Pace.CallGap/4)
	}
	h.start(pace.Watch, func() result {
		t := time.NewTimer(slotLength)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		return result{}
	})
	return 0
}

// ladder is when to read while something is unconfirmed: soon, then further apart.
type ladder struct {
	steps []time.Time
}

// rungs are the seconds after a call at which its outcome is looked for, for a confirm window of 180 s.
var rungs = []float64{1.1, 3, 6, 10, 20, 40, 60, 90, 120, 150, 183}

// start begins the ladder anew; it is stretched with the confirm window.
func (l *ladder) start(now time.Time, c Config) {
	l.steps = l.steps[:0]
	for _, s := range rungs {
		l.steps = append(l.steps, now.Add(time.Duration(s*float64(c.Prove.Window)/180)))
	}
}

// due is the next rung; zero when there is none.
func (l *ladder) due() time.Time {
	if len(l.steps) == 0 {
		return time.Time{}
	}
	return l.steps[0]
}

// done drops the rungs that a read begun at covers.
func (l *ladder) done(at time.Time) {
	for len(l.steps) > 0 && !l.steps[0].After(at) {
		l.steps = l.steps[1:]
	}
}

// sooner adds a rung.
func (l *ladder) sooner(at time.Time) {
	if len(l.steps) == 0 || at.Before(l.steps[0]) {
		l.steps = append([]time.Time{at}, l.steps...)
	}
}
