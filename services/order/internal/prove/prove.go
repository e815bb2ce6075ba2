// Package prove reads the market's list of rentals and says what it proves about our intents.
//
// It guarantees that a rental is taken as ours only by server, image, time and marker ports (or, while no ports are
// shown, by everything else, and then only held); that absence and ends are concluded only from good reads over a whole
// window; and that nothing is marked for cancelling unless it matches an intent of this installation that is closed,
// whose end is wanted, or that holds another rental with the same markers. It refuses to conclude anything from a list
// that is cut, stale or lacks what must be there.
// It does no I/O; what it remembers between reads is lost with the process, which only makes it wait longer.
package prove

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/order/internal/rental"
)

// Figures of DESIGN 5.
const (
	// GoodReads is how many good reads prove an absence or an end.
	GoodReads = 3
	// ClockSkew is how much earlier than its intent a rental of ours may claim to be created.
	ClockSkew = 120 * time.Second // fact:clocks-agree-within-two-minutes
	// InQuestionAfter is how many readable lists in a row must lack a live rental before its end is in question.
	InQuestionAfter = 3
	// MarkerLow is the first of the marker ports of any installation: above what images listen on, below what hosts use
	// for themselves.
	MarkerLow = 20000 // fact:marker-ports-are-taken
	// MarkerHigh is the last of them.
	MarkerHigh = 64999
	// lateAtMost is how long after a call a rental without ports is still suspected to be what the call was for.
	lateAtMost = 24 * time.Hour
	// mostOthers is beyond which rentals of others that are no longer listed are forgotten.
	mostOthers = 4096
)

// Config holds the windows and this installation's port.
type Config struct {
	// Window is how long an absence must last when another rental of ours shows that the list is fresh.
	Window time.Duration
	// WindowBlind is the same when nothing shows it.
	WindowBlind time.Duration
	// InstallationPort is the first marker of every intent of this installation, zero when markers are off.
	InstallationPort int
}

type key struct {
	order  string
	number int
}

// track counts good reads that lacked something.
type track struct {
	n           int
	first, last time.Time
}

func (t *track) add(at time.Time) {
	if t.n == 0 {
		t.first = at
	}
	t.n++
	t.last = at
}

// over says that the reads span window. The first of them was begun after the call was over, so the last was begun a
// whole window after that too.
func (t *track) over(window time.Duration) bool {
	return t.n >= GoodReads && t.last.Sub(t.first) >= window
}

type evidence struct {
	// fresh counts good reads that another rental of ours vouched for; any counts all good reads.
	fresh, any track
	// lacking counts readable lists in a row without a rental that is known live.
	lacking int
	// hold is a rental that fits in all but its ports, which are not shown, and since when it was seen so.
	hold      int64
	holdSince time.Time
}

// Prover remembers what earlier reads showed.
type Prover struct {
	config   Config
	evidence map[key]*evidence
	// others have shown ports that are none of ours: without ports they must not be taken for ours later.
	others map[int64]bool
}

// New makes a Prover that knows nothing yet.
func New(c Config) *Prover {
	return &Prover{config: c, evidence: map[key]*evidence{}, others: map[int64]bool{}}
}

// Conclusion is one thing a read proves about an order.
type Conclusion struct {
	OrderID string
	Event   rental.Event
}

// Orphan is a rental of this installation that nothing wants any more.
type Orphan struct {
	RentalID int64
	OrderID  string
	Number   int
}

// Result is what one read says.
type Result struct {
	// Conclusions to be decided on, in order.
	Conclusions []Conclusion
	// Orphans are to be cancelled.
	Orphans []Orphan
	// Suspects may be ours, or are held as ours and may not be. They are never cancelled by themselves; creates stop while
	// there are any.
	Suspects []market.Rental
	// Foreign are somebody else's.
	Foreign []market.Rental
	// HeldBack fit an open intent in all but their ports, which are not shown yet.
	HeldBack []market.Rental
	// Unaccounted counts rentals that should be listed and are not, their end not proved: creates stop.
	Unaccounted int
	// Good: complete, and nothing that must be there is missing.
	Good bool
	// MaxID is the highest rental id shown.
	MaxID int64
	// Live is how many live rows were shown.
	Live int
	// Vouched: a live rental of ours is shown, so the list is not merely empty or old.
	Vouched bool
}

// Read concludes from one readable list. orders are all orders of the account.
func (p *Prover) Read(r market.Rentals, orders []*rental.Order) Result {
	v := &view{Prover: p, list: r, live: map[int64]*market.Rental{}, ended: map[int64]*market.Rental{}, owner: map[int64]key{}}
	v.index(orders)
	v.held(orders)
	v.result.Good = v.complete() && v.mustShow == 0
	v.settleHeld()
	for _, o := range orders {
		if i := o.OpenIntent(); i != nil {
			v.open(o, i)
		}
	}
	v.sweep(orders)
	v.result.Vouched = v.shown > 0
	p.forget(orders)
	if len(p.others) > mostOthers {
		maps.DeleteFunc(p.others, func(id int64, _ bool) bool { return v.live[id] == nil && v.ended[id] == nil })
	}
	return v.result
}

// view is the work on one list.
type view struct {
	*Prover
	list        market.Rentals
	rows        []*market.Rental // by id
	live, ended map[int64]*market.Rental
	// owner says which intent holds a rental id.
	owner map[int64]key
	// shown counts live rentals of ours in the list; mustShow those that are missing without explanation.
	shown, mustShow int
	missing         []missing
	result          Result
}

type missing struct {
	order  *rental.Order
	intent *rental.Intent
}

func (v *view) index(orders []*rental.Order) {
	for n := range v.list.Rentals {
		v.rows = append(v.rows, &v.list.Rentals[n])
	}
	slices.SortFunc(v.rows, func(a, b *market.Rental) int { return cmp.Compare(a.ID, b.ID) })
	for _, row := range v.rows {
		v.result.MaxID = max(v.result.MaxID, row.ID)
		if row.Expired {
			v.ended[row.ID] = row
			continue
		}
		v.live[row.ID] = row
		v.result.Live++
	}
	for _, o := range orders {
		for n := range o.Intents {
			if id := o.Intents[n].RentalID; id != 0 {
				v.owner[id] = key{o.ID, o.Intents[n].Number}
			}
		}
	}
}

// complete says that the list cannot have been cut by the account's limit.
func (v *view) complete() bool {
	// fact:limit-counts-live-orders
	return v.list.Limit == 0 || v.result.Live < v.list.Limit
}

func (p *Prover) of(k key) *evidence {
	e := p.evidence[k]
	if e == nil {
		e = &evidence{}
		p.evidence[k] = e
	}
	return e
}

// held looks for every rental that is known to live.
func (v *view) held(orders []*rental.Order) {
	// fact:expired-is-over
	for _, o := range orders {
		i := o.HeldIntent()
		if i == nil {
			continue
		}
		k := key{o.ID, i.Number}
		if row := v.live[i.RentalID]; row != nil {
			v.shown++
			delete(v.evidence, k)
			v.conclude(o, rental.Seen{Number: i.Number, Sighting: sighting(row)})
			if len(i.Markers) > 0 && len(row.TCPPorts) > 0 && !shows(i.Markers, row) {
				// It was adopted while it showed no ports, and turns out to be another's.
				v.result.Suspects = append(v.result.Suspects, *row)
			}
			continue
		}
		if row := v.ended[i.RentalID]; row != nil {
			v.conclude(o, rental.Gone{Number: i.Number, Spend: row.Spend, EndedAt: row.Ended, Proof: fmt.Sprintf("the market lists rental %d as finished", row.ID)})
			continue
		}
		e := v.of(k)
		e.lacking++
		// A read that was out when the end was decided cannot lack it for that reason.
		asked := o.State == rental.Cancelling && !v.list.Began.Before(o.Updated) || !o.EndsAt.IsZero() && !v.list.Began.Before(o.EndsAt)
		if !asked && e.lacking < InQuestionAfter {
			v.mustShow++
		}
		v.missing = append(v.missing, missing{o, i})
	}
}

// settleHeld counts this read for the rentals it lacks, and concludes their end when it has been long enough.
func (v *view) settleHeld() {
	// fact:unlisted-is-over fact:fresh-if-it-shows-ours
	for _, m := range v.missing {
		e := v.of(key{m.order.ID, m.intent.Number})
		if v.result.Good {
			e.any.add(v.list.Began)
			if v.shown > 0 {
				e.fresh.add(v.list.Began)
			}
		}
		// Three reads vouched for by another rental are enough; blind, they must span the blind window.
		if e.fresh.n >= GoodReads || e.any.over(v.config.WindowBlind) {
			v.conclude(m.order, rental.Gone{Number: m.intent.Number, EndedAt: v.list.Began, Proof: fmt.Sprintf("rental %d was missing from %d good reads", m.intent.RentalID, e.any.n)})
			continue
		}
		v.result.Unaccounted++
	}
}

// open looks for the rental of an intent that is not proved either way.
func (v *view) open(o *rental.Order, i *rental.Intent) {
	// fact:fresh-if-it-shows-ours fact:shown-within-the-window fact:one-look-decides
	k := key{o.ID, i.Number}
	var hold *market.Rental
	for _, row := range v.rows {
		if _, taken := v.owner[row.ID]; taken || row.Expired || !v.could(i, row) {
			continue
		}
		switch match(i, row) {
		case ours:
			v.owner[row.ID] = k
			v.adopt(o, i, row)
			return
		case perhaps:
			if hold == nil && !v.others[row.ID] {
				hold = row
			}
		case anothers:
		}
	}
	if hold != nil {
		v.holdBack(o, i, hold)
		return
	}
	for _, row := range v.rows {
		if _, taken := v.owner[row.ID]; !taken && row.Expired && !v.others[row.ID] && v.could(i, row) && row.ID > i.Baseline && row.Currency == i.Currency {
			v.owner[row.ID] = k
			v.conclude(o, rental.Gone{Number: i.Number, RentalID: row.ID, Spend: row.Spend, EndedAt: row.Ended, Proof: fmt.Sprintf("rental %d was first seen finished", row.ID)})
			return
		}
	}
	if !v.result.Good || !v.list.Began.After(i.CallBy) || !i.Called || !v.list.WithEnded {
		return
	}
	if i.Look {
		v.conclude(o, rental.Absent{Number: i.Number, Reason: i.Reason + ", and a good read shows no rental of ours there"})
		return
	}
	e := v.of(k)
	e.any.add(v.list.Began)
	if v.shown > 0 {
		e.fresh.add(v.list.Began)
	}
	if e.fresh.over(v.config.Window) || e.any.over(v.config.WindowBlind) {
		v.conclude(o, rental.Absent{Number: i.Number, Reason: fmt.Sprintf("%d good reads over %s show no rental of ours on server %d", e.any.n, e.any.last.Sub(e.any.first).Round(time.Second), i.Server.ID)})
	}
}

// holdBack keeps an intent open for a rental whose ports are not shown yet. It is adopted when they show the marker, or
// when a whole window has shown none. While it is there nothing is absent.
func (v *view) holdBack(o *rental.Order, i *rental.Intent, row *market.Rental) {
	e := v.of(key{o.ID, i.Number})
	e.fresh, e.any = track{}, track{}
	if e.hold != row.ID {
		e.hold, e.holdSince = row.ID, v.list.Began
	}
	if v.list.Began.Sub(i.CallBy) >= v.config.Window && v.list.Began.Sub(e.holdSince) >= v.config.Window {
		v.owner[row.ID] = key{o.ID, i.Number}
		v.adopt(o, i, row)
		return
	}
	v.result.HeldBack = append(v.result.HeldBack, *row)
	v.owner[row.ID] = key{o.ID, i.Number}
}

func (v *view) adopt(o *rental.Order, i *rental.Intent, row *market.Rental) {
	delete(v.evidence, key{o.ID, i.Number})
	v.shown++
	v.conclude(o, rental.Seen{Number: i.Number, Sighting: sighting(row)})
}

func (v *view) conclude(o *rental.Order, ev rental.Event) {
	v.result.Conclusions = append(v.result.Conclusions, Conclusion{OrderID: o.ID, Event: ev})
}

// could says that a row is on the intent's server, of its image, and not older than it.
func (v *view) could(i *rental.Intent, row *market.Rental) bool {
	return row.ServerID == i.Server.ID && row.Image == i.Image && !row.Created.Before(i.At.Truncate(time.Second).Add(-ClockSkew))
}

type likeness uint8

const (
	anothers likeness = iota
	perhaps
	ours
)

// match tells a live row that could be the intent's from one that is.
func match(i *rental.Intent, row *market.Rental) likeness {
	// fact:no-ports-at-first
	fits := row.ID > i.Baseline && row.Currency == i.Currency
	switch {
	case len(row.TCPPorts) == 0 && fits:
		return perhaps
	case len(row.TCPPorts) == 0:
		return anothers
	case len(i.Markers) == 0 && fits:
		return ours
	case shows(i.Markers, row):
		return ours
	default:
		return anothers
	}
}

// shows says that every marker, and at least one, is among the row's container ports.
func shows(markers []int, row *market.Rental) bool {
	// fact:ports-come-back
	for _, m := range markers {
		if _, ok := row.TCPPorts[m]; !ok {
			return false
		}
	}
	return len(markers) > 0
}

// sweep sorts the live rows that no order holds.
func (v *view) sweep(orders []*rental.Order) {
	byServer := map[int64][]missing{}
	intents := map[key]*rental.Intent{}
	for _, o := range orders {
		for n := range o.Intents {
			i := &o.Intents[n]
			byServer[i.Server.ID] = append(byServer[i.Server.ID], missing{o, i})
			intents[key{o.ID, i.Number}] = i
		}
	}
	for _, row := range v.rows {
		if row.Expired {
			continue
		}
		k, known := v.owner[row.ID]
		if known && intents[k].Outcome.Live() {
			continue
		}
		switch orphan, suspect := v.sort(row, byServer[row.ServerID]); {
		case known && returned(intents[k], row):
			v.result.Orphans = append(v.result.Orphans, Orphan{RentalID: row.ID, OrderID: k.order, Number: k.number})
		case orphan != nil:
			v.result.Orphans = append(v.result.Orphans, *orphan)
		case suspect, known && len(row.TCPPorts) == 0, len(intents) == 0 && markerPorts(row) >= 2:
			// Over an empty journal two ports in the range may be ours from before the journal was lost.
			v.result.Suspects = append(v.result.Suspects, *row)
		default:
			v.result.Foreign = append(v.result.Foreign, *row)
			if len(row.TCPPorts) > 0 {
				v.others[row.ID] = true
			}
		}
	}
}

// returned says that a row is the rental that a closed intent held, listed alive again: its id is in the journal, it was
// adopted then, and its ports, when they are shown, do not speak against it.
func returned(i *rental.Intent, row *market.Rental) bool {
	return !i.Started.IsZero() && (len(i.Markers) == 0 || len(row.TCPPorts) == 0 || shows(i.Markers, row))
}

func markerPorts(row *market.Rental) int {
	n := 0
	for port := range row.TCPPorts {
		if port >= MarkerLow && port <= MarkerHigh {
			n++
		}
	}
	return n
}

// sort says what a live row is that no live intent holds: an orphan, perhaps ours, or, neither, another's.
func (v *view) sort(row *market.Rental, candidates []missing) (orphan *Orphan, suspect bool) {
	// fact:bids-can-double
	for _, c := range candidates {
		i := c.intent
		if !v.could(i, row) {
			continue
		}
		switch fits := row.ID > i.Baseline; {
		case i.Outcome == rental.Open:
			// A second row beside the one this read adopts: the next read says which is the order's.
			suspect = suspect || shows(i.Markers, row)
		case shows(i.Markers, row) && (!i.Outcome.Live() || c.order.Wanted != nil || v.heldShows(i)):
			return &Orphan{RentalID: row.ID, OrderID: c.order.ID, Number: i.Number}, false
		case shows(i.Markers, row), len(i.Markers) == 0 && fits:
			suspect = true
		case i.Outcome == rental.NotThere && fits && len(row.TCPPorts) == 0 && row.Currency == i.Currency && row.Created.Before(i.CallBy.Add(lateAtMost)):
			// Perhaps what was proved absent too early: its ports will tell.
			suspect = true
		}
	}
	if _, ok := row.TCPPorts[v.config.InstallationPort]; ok && v.config.InstallationPort != 0 {
		suspect = true
	}
	return nil, suspect
}

// heldShows says that the rental an intent holds is listed with the intent's own markers, so that another with the same
// markers is one too many.
func (v *view) heldShows(i *rental.Intent) bool {
	row := v.live[i.RentalID]
	return row != nil && shows(i.Markers, row)
}

// forget drops evidence of intents that no longer live.
func (p *Prover) forget(orders []*rental.Order) {
	living := map[key]bool{}
	for _, o := range orders {
		if i := o.Current(); i != nil && i.Outcome.Live() {
			living[key{o.ID, i.Number}] = true
		}
	}
	for k := range p.evidence {
		if !living[k] {
			delete(p.evidence, k)
		}
	}
}

func sighting(r *market.Rental) rental.Sighting {
	return rental.Sighting{
		RentalID: r.ID, Currency: r.Currency, PerDay: r.PerDay, Started: r.Created, Up: r.Up, GPUs: r.GPUs, Spend: r.Spend,
		Access: rental.Access{Host: r.Host, TCPPorts: r.TCPPorts, HTTPHost: r.HTTPHost},
	}
}
