package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/money"
	"github.com/renthook/renthook/services/order/internal/pace"
	"github.com/renthook/renthook/services/order/internal/prove"
	"github.com/renthook/renthook/services/order/internal/rental"
	"github.com/renthook/renthook/services/order/internal/world"
)

// Times of calls.
const (
	// cancelAgain is how long a cancel waits for the list to show its effect; it doubles up to cancelAtMost.
	cancelAgain  = 8 * time.Second
	cancelAtMost = 60 * time.Second
	// bootPoll is how often the list is read while a rental boots.
	bootPoll = 5 * time.Second
	// walletPoll is how often balances are read.
	walletPoll = 5 * time.Minute
	// readAgain is how long after a read that failed the next is due; it doubles up to readAtMost.
	readAgain  = 3 * time.Second
	readAtMost = 30 * time.Second
	// slotLength is how long a granted call of another process is taken to last.
	slotLength = time.Second
	// probeAgain and probeTimeout are of the ssh port.
	probeAgain   = 2 * time.Second
	probeTimeout = 5 * time.Second
	// mostProbes bounds the probes that are out at once.
	mostProbes = 8
)

// result is the answer to one call.
type result struct {
	kind     pace.Kind
	orderID  string
	number   int
	rentalID int64
	outcome  market.Outcome
	rentals  *market.Rentals
	wallets  []market.Wallet
	err      error
}

type probeResult struct {
	orderID string
	number  int
	ok      bool
}

// dispatch starts the next call if none is out and one may start; it returns when to ask again.
func (h *Holder) dispatch(ctx context.Context, now time.Time) (time.Time, error) {
	if h.busy != pace.None {
		return time.Time{}, nil
	}
	demand := h.demand(now)
	kind, wake := h.pacer.Next(now, demand)
	switch kind {
	case pace.Cancel:
		h.callCancel(ctx, now)
	case pace.Resolve:
		h.callRead(ctx)
	case pace.Create:
		return h.plan(ctx, now)
	case pace.Watch:
		h.callWatch(ctx, now)
	case pace.None:
		return wake, nil
	}
	return time.Time{}, nil
}

// demand says what is wanted when. It is derived anew each time, so that nothing wanted can be forgotten.
func (h *Holder) demand(now time.Time) pace.Demand {
	d := pace.Demand{Watch: h.sweepAt}
	for _, a := range h.cancels {
		d.Cancel = sooner(d.Cancel, a.due)
	}
	d.Resolve = h.ladder.due()
	for _, o := range h.deps.World.Live() {
		switch o.State {
		case rental.Provisioning:
			d.Resolve = sooner(d.Resolve, h.list.rentals.Began.Add(bootPoll))
		case rental.Unconfirmed:
			// Below the ladder: what is unconfirmed is looked for until it is proved either way.
			d.Resolve = sooner(d.Resolve, h.list.rentals.Began.Add(min(h.config.Prove.Window/4, h.config.SweepInterval)))
		}
	}
	for _, e := range h.deps.World.Errands() {
		if !h.list.rentals.Began.After(e.Accepted) || e.Called {
			d.Resolve = sooner(d.Resolve, h.list.rentals.Began.Add(readAgain))
		}
	}
	if h.next(now) != nil {
		if h.listSuffices(now) {
			d.Create = now
		} else {
			d.Resolve = sooner(d.Resolve, now)
		}
	}
	if !d.Resolve.IsZero() && d.Resolve.Before(h.readFrom) {
		d.Resolve = h.readFrom
	}
	if d.Watch.Before(h.readFrom) {
		d.Watch = h.readFrom
	}
	d.Watch = sooner(d.Watch, h.walletsAt)
	return d
}

// listSuffices says that the newest list may stand behind an intent: it can be believed, it is no older than two sweeps,
// nothing has failed since, and it was begun after the last adoption, as an intent's baseline must be.
func (h *Holder) listSuffices(now time.Time) bool {
	l := h.list
	return l.good && h.readsFailed == 0 && now.Sub(l.rentals.Began) < 2*h.config.SweepInterval && l.rentals.Began.After(h.lastAdoption)
}

func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// start runs one call in its own goroutine; its answer comes back to the loop.
func (h *Holder) start(kind pace.Kind, call func() result) {
	h.busy = kind
	h.work.Go(func() {
		r := call()
		r.kind = kind
		h.results <- r
	})
}

// callContext bounds one call. It does not end with the holder: a call that is out is answered or given up.
func (h *Holder) callContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), h.config.CallTimeout)
}

func (h *Holder) callRead(ctx context.Context) {
	// fact:completed-are-listed
	h.ladder.done(time.Now())
	h.start(pace.Resolve, func() result {
		c, cancel := h.callContext(ctx)
		defer cancel()
		r, err := h.deps.Account.Rentals(c, true)
		if err != nil {
			return result{err: err}
		}
		return result{rentals: &r}
	})
}

func (h *Holder) callWatch(ctx context.Context, now time.Time) {
	switch {
	case !now.Before(h.sweepAt) && !now.Before(h.readFrom):
		h.callRead(ctx)
	default:
		h.walletsAt = now.Add(walletPoll)
		h.start(pace.Watch, func() result {
			c, cancel := h.callContext(ctx)
			defer cancel()
			w, err := h.deps.Account.Wallets(c)
			return result{wallets: w, err: err}
		})
	}
}

func (h *Holder) callCancel(ctx context.Context, now time.Time) {
	// fact:cancel-ends-billing
	var id int64
	for r, a := range h.cancels {
		if !now.Before(a.due) && (id == 0 || a.due.Before(h.cancels[id].due)) {
			id = r
		}
	}
	a := h.cancels[id]
	a.n++
	a.due = now.Add(min(cancelAgain<<min(a.n-1, 4), cancelAtMost))
	h.deps.Log.InfoContext(ctx, "cancelling a rental", "market_order_id", id, "attempt", a.n)
	h.start(pace.Cancel, func() result {
		c, cancel := h.callContext(ctx)
		defer cancel()
		return result{rentalID: id, outcome: h.deps.Account.Cancel(c, id, "")}
	})
}

// callCreate sends the intent's one request. The last line before the wire is guard.
func (h *Holder) callCreate(ctx context.Context, o *rental.Order, i *rental.Intent, r market.CreateRequest) {
	stop := &atomic.Bool{}
	h.creating, h.abortCreate = o.ID, stop
	orderID, client, number, callBy, epoch := o.ID, o.Client, i.Number, i.CallBy, i.Epoch
	h.deps.Log.InfoContext(ctx, "asking for a server", "order_id", orderID, "server_id", i.Server.ID, "attempt", number, "market_type", i.Type)
	h.start(pace.Create, func() result {
		out := result{orderID: orderID, number: number}
		if why := h.guard(ctx, stop, client, callBy, epoch); why != "" {
			out.outcome = market.Outcome{Verdict: market.Refused, Reason: stopped + why}
			return out
		}
		c, cancel := h.callContext(ctx)
		defer cancel()
		out.outcome = h.deps.Account.Create(c, r)
		return out
	})
}

// stopped begins the reason of a create that our own last line stopped.
const stopped = "not-sent: "

// guard says why a create must not reach the wire; empty when it may. Nothing may stand between it and the call.
func (h *Holder) guard(ctx context.Context, stop *atomic.Bool, client string, callBy time.Time, epoch uint64) string {
	switch {
	case ctx.Err() != nil:
		return "this process is stopping"
	case epoch != h.log.Epoch():
		return "the intent is another writer's"
	case time.Now().Add(h.config.CallTimeout).After(callBy):
		return "too late for the call's whole time-out"
	case h.deps.Remaining() < h.config.CallTimeout+leaseMargin:
		return "the lease does not outlast the call"
	case stop.Load():
		return "an end is wanted"
	case h.deps.World.Halted(client) != nil:
		return "renting was halted"
	}
	return ""
}

// answered takes the answer of the call that was out.
func (h *Holder) answered(ctx context.Context, r result) error {
	now := time.Now()
	h.busy = pace.None
	var throttled *market.ThrottledError
	h.pacer.Ended(now, r.outcome.Throttled || errors.As(r.err, &throttled))
	switch {
	case r.kind == pace.Create:
		h.creating, h.abortCreate = "", nil
		return h.createAnswered(ctx, r, now)
	case r.kind == pace.Cancel:
		h.deps.Log.InfoContext(ctx, "cancel answered", "market_order_id", r.rentalID, "verdict", r.outcome.Verdict.String(), "reason", r.outcome.Reason)
		h.ladder.sooner(now.Add(h.config.Pace.CallGap))
		return nil
	case r.rentals != nil:
		return h.read(ctx, *r.rentals)
	case r.wallets != nil:
		h.walletsWanted = false
		h.balances = map[string]decimal.Decimal{}
		for _, w := range r.wallets {
			h.balances[w.Currency] = w.Balance
		}
		return nil
	}
	if r.err != nil {
		// A read that failed proves nothing; it is tried again, whatever wanted it.
		// Several tries must fit into a confirm window, however short it is set.
		first := min(readAgain, h.config.Prove.Window/8)
		h.readFrom = now.Add(min(first<<min(h.readsFailed, 4), readAtMost))
		h.readsFailed++
		var key *market.KeyError
		h.keyRefused = errors.As(r.err, &key)
		if h.walletsWanted {
			h.walletsAt = h.readFrom
		}
		h.deps.Log.WarnContext(ctx, "a read of the market failed", "call", r.kind.String(), "error", r.err.Error(), "failed", h.readsFailed)
		h.ladder.sooner(h.readFrom)
	}
	return nil
}

func (h *Holder) createAnswered(ctx context.Context, r result, now time.Time) error {
	o := h.deps.World.Order(r.orderID)
	out := r.outcome
	h.deps.Log.InfoContext(ctx, "create answered", "order_id", r.orderID, "attempt", r.number, "verdict", out.Verdict.String(), "reason", out.Reason, "status", out.Status, "code", out.Code)
	ev := rental.Called{Number: r.number, Refused: out.Verdict == market.Refused, NotSent: out.Verdict == market.Refused && !out.Sent, Look: out.Verdict == market.Look, Reason: out.Reason}
	if ev.NotSent && !strings.HasPrefix(out.Reason, stopped) {
		// The market was not reached: nothing is asked again before a read has reached it.
		h.readsFailed = max(h.readsFailed, 1)
		h.ladder.sooner(now.Add(readAgain))
	}
	if err := h.decide(ctx, o, ev, world.Internal{}); err != nil {
		return err
	}
	h.evaluated = map[string]evaluation{}
	if strings.Contains(out.Reason, "balance") {
		h.walletsAt, h.walletsWanted = now, true
	}
	if out.Verdict != market.Refused {
		h.ladder.start(now, h.config)
	}
	return nil
}

// read takes one readable list: what it proves is decided, and what nothing wants is cancelled.
func (h *Holder) read(ctx context.Context, r market.Rentals) error {
	if h.readsFailed > 0 {
		// The market is back: what was to end has waited long enough.
		for _, a := range h.cancels {
			a.n, a.due = 0, r.Began
		}
	}
	h.keyRefused = false
	h.sweepAt, h.readsFailed, h.readFrom = r.Began.Add(h.config.SweepInterval), 0, time.Time{}
	res := h.prover.Read(r, h.deps.World.Orders())
	res.Suspects = slices.DeleteFunc(res.Suspects, func(s market.Rental) bool { return h.deps.World.Disowned(s.ID) })
	h.list = list{rentals: r, good: res.Good, vouched: res.Vouched, maxID: max(res.MaxID, h.list.maxID), unaccounted: res.Unaccounted, suspects: len(res.Suspects), orphans: len(res.Orphans)}
	for _, c := range res.Conclusions {
		o := h.deps.World.Order(c.OrderID)
		if _, seen := c.Event.(rental.Seen); seen && o.OpenIntent() != nil {
			h.lastAdoption = time.Now()
			h.evaluated = map[string]evaluation{}
		}
		if gone, ok := c.Event.(rental.Gone); ok {
			gone.Proof += h.winBack(o.Current())
			c.Event = gone
		}
		if err := h.decide(ctx, o, c.Event, world.Internal{}); err != nil {
			return err
		}
	}
	if !slices.ContainsFunc(h.deps.World.Live(), func(o *rental.Order) bool { return o.OpenIntent() != nil }) {
		h.ladder.steps = nil // nothing is looked for any more: the calls are better spent
	}
	for _, s := range res.Suspects {
		h.deps.Log.ErrorContext(ctx, "a rental may be ours and no intent accounts for it: no creates until it is gone", "market_order_id", s.ID, "server_id", s.ServerID)
	}
	h.wantedGone(ctx, res)
	return h.errands(ctx, time.Now(), true)
}

// winBack says what a bid for the server of a spot rental that ended must be above now; empty when that is not known.
func (h *Holder) winBack(i *rental.Intent) string {
	if i == nil || i.Type != string(market.Spot) {
		return ""
	}
	for _, offer := range h.deps.Books.Book(i.Server.GPU) {
		if offer.ServerID != i.Server.ID {
			continue
		}
		for _, q := range offer.Spot {
			if q.Currency == i.Currency && q.Priced {
				return fmt.Sprintf("; its spot price is %s USD per hour now", money.Cents(q.USDPerHour))
			}
		}
	}
	return ""
}

// wantedGone derives which rentals are to be cancelled: those of orders that are ending, orphans, and those of others
// that somebody with leave asked to end. It forgets the rest.
func (h *Holder) wantedGone(ctx context.Context, res prove.Result) {
	want := map[int64]bool{}
	for _, o := range h.deps.World.Live() {
		if i := o.HeldIntent(); i != nil && o.State == rental.Cancelling {
			want[i.RentalID] = true
		}
	}
	for _, o := range res.Orphans {
		want[o.RentalID] = true
		h.deps.Log.WarnContext(ctx, "a rental of ours is wanted by no order: ending it", "market_order_id", o.RentalID, "order_id", o.OrderID, "attempt", o.Number)
	}
	for id := range h.foreign {
		want[id] = true
	}
	h.keepStopping(want)
	for id := range want {
		if h.cancels[id] == nil {
			h.cancels[id] = &attempts{due: time.Now()}
		}
	}
	for id := range h.cancels {
		if !want[id] {
			delete(h.cancels, id)
		}
	}
	if len(h.cancels) > 0 {
		// Their end is to be seen soon; later reads come with the repeated cancels.
		h.ladder.sooner(time.Now().Add(2 * h.config.Pace.CallGap))
	}
}

// keepStopping adds rentals whose cancel could not be recorded, until a list that can be believed lacks them.
func (h *Holder) keepStopping(want map[int64]bool) {
	if !h.list.good {
		for id := range h.stopping {
			want[id] = true
		}
		return
	}
	live := map[int64]bool{}
	for _, r := range h.list.rentals.Rentals {
		live[r.ID] = !r.Expired
	}
	for id := range h.stopping {
		if live[id] {
			want[id] = true
		} else {
			delete(h.stopping, id)
		}
	}
}

// probe asks the ssh port of a rental for its banner.
func (h *Holder) probe(ctx context.Context, orderID string, p rental.Probe) {
	now := time.Now()
	out := 0
	for _, other := range h.probing {
		if other.out {
			out++
		}
	}
	if last := h.probing[orderID]; last != nil && (last.out || now.Before(last.due)) || out >= mostProbes {
		return
	}
	h.probing[orderID] = &probing{out: true}
	h.work.Go(func() {
		err := h.banner(ctx, net.JoinHostPort(p.Host, strconv.Itoa(p.Port)))
		if err != nil {
			h.deps.Log.DebugContext(ctx, "ssh does not answer yet", "order_id", orderID, "error", err.Error())
		}
		h.probes <- probeResult{orderID: orderID, number: p.Number, ok: err == nil}
	})
}

// banner dials and reads the first bytes of an ssh server.
func (h *Holder) banner(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := h.deps.Dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(probeTimeout)); err != nil {
		return err
	}
	b, err := bufio.NewReaderSize(conn, 64).Peek(4)
	if err != nil {
		return err
	}
	if string(b) != "SSH-" {
		return fmt.Errorf("%s answers, but not as ssh does", address)
	}
	return nil
}

func (h *Holder) probeAnswered(ctx context.Context, p probeResult) error {
	h.probing[p.orderID] = &probing{due: time.Now().Add(probeAgain)}
	o := h.deps.World.Order(p.orderID)
	if o == nil {
		return nil
	}
	return h.decide(ctx, o, rental.Probed{Number: p.number, OK: p.ok}, world.Internal{})
}
