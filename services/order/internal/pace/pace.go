// Package pace decides which call to the market may start now. One account has one stream of calls: at most one at a
// time, a gap between the end of one and the start of the next, and a longer silence before a create.
//
// It guarantees the order cancel, resolve, create, watch; that a silence once begun is broken only by a cancel; and that
// none is begun while a resolve read is due. It is pure: times are handed in.
package pace

import "time"

// Kind of call, in the order of precedence.
type Kind uint8

const (
	// None says that nothing may start; see the wake-up time.
	None Kind = iota
	// Cancel ends a rental.
	Cancel
	// Resolve reads the list because something waits for it.
	Resolve
	// Create asks for a server.
	Create
	// Watch is every read that can wait: the sweep, wallets, a poll of the marketplace.
	Watch
)

func (k Kind) String() string {
	return [...]string{"none", "cancel", "resolve", "create", "watch"}[k]
}

// Config holds the market's limits with a margin. Sources: one call a second, one create in five.
type Config struct {
	// CallGap is from the end of a call to the start of the next.
	CallGap time.Duration // fact:one-call-a-second
	// CreateGap is the silence before a create.
	CreateGap time.Duration // fact:one-create-in-five-seconds
}

// maxFactor bounds the slow-down after "too many requests".
const maxFactor = 32

// Pacer is the account's clock. It is used by one goroutine.
type Pacer struct {
	config  Config
	lastEnd time.Time
	// silent is set while the silence before a create runs.
	silent bool
	factor int
	calls  int
}

// New makes a Pacer that assumes a call has just ended: another process may have made one.
func New(c Config, now time.Time) *Pacer { return &Pacer{config: c, lastEnd: now, factor: 1} }

// Demand says what wants to be called, and when at the earliest. A zero time means not wanted.
type Demand struct {
	Cancel, Resolve, Create, Watch time.Time
}

// Ended notes the end of a call; throttled doubles the spacing, success lets it decay.
func (p *Pacer) Ended(at time.Time, throttled bool) {
	p.lastEnd, p.silent = at, false
	if throttled {
		p.factor, p.calls = min(p.factor*2, maxFactor), 0
		return
	}
	if p.calls++; p.factor > 1 && p.calls >= 5 {
		p.factor, p.calls = p.factor/2, 0
	}
}

// Factor is by how much the spacing is stretched now: 1 when all is well.
func (p *Pacer) Factor() int { return p.factor }

// Next says what may start now, or None and when to ask again (zero: when a demand changes).
func (p *Pacer) Next(now time.Time, d Demand) (Kind, time.Time) {
	// fact:calls-before-a-create-count
	gap := p.lastEnd.Add(time.Duration(p.factor) * p.config.CallGap)
	quiet := p.lastEnd.Add(time.Duration(p.factor) * p.config.CreateGap)
	due := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	p.silent = p.silent && due(d.Create) // a silence for what is no longer wanted ends, also behind a cancel
	if due(d.Cancel) {
		return at(Cancel, now, gap)
	}
	if due(d.Create) && (p.silent || !due(d.Resolve)) {
		p.silent = true
		kind, wake := at(Create, now, quiet)
		return kind, earliest(wake, d.Cancel)
	}
	switch {
	case due(d.Resolve):
		return at(Resolve, now, gap)
	case due(d.Watch):
		return at(Watch, now, gap)
	}
	return None, earliest(d.Cancel, d.Resolve, d.Create, d.Watch)
}

func at(k Kind, now, start time.Time) (Kind, time.Time) {
	if now.Before(start) {
		return None, start
	}
	return k, time.Time{}
}

func earliest(times ...time.Time) time.Time {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}
