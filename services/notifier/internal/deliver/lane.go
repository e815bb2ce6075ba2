package deliver

import (
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	deliveryv1 "github.com/renthook/renthook/proto/gen/renthook/delivery/v1"
	"github.com/renthook/renthook/services/notifier/internal/channel"
)

const (
	// pause is how long a delivery is put off when what it waits for may be over any moment.
	pause = 500 * time.Millisecond
	// lapse is how long after its due time a delivery that did not come back still holds its followers: it may be
	// in another replica's hands, or have aged out.
	lapse = 2 * time.Minute
	// mostKnown bounds what is remembered about receivers.
	mostKnown = 512
)

// lane is what is known of one consumer's deliveries: which are open and when each is due, which are settled, and
// how their receivers behave. It is the fold of the attempts that were recorded, by this process and by others,
// and does no I/O. All times come from the caller.
type lane struct {
	endpoint string

	mu   sync.Mutex
	open map[string]*entry
	// settled ids are never tried again.
	settled *recent
	// hold is until when an address wants to be left alone.
	hold map[string]time.Time
	// mute names hosts that did not answer last time, and the delivery that is finding out whether they do now:
	// one at a time, so that a host that hangs holds one worker and not all.
	mute map[string]string
	// gone are addresses that said they take nothing any more; forgotten at the next start.
	gone map[string]bool
}

func newLane(endpoint string) *lane {
	return &lane{
		endpoint: endpoint, open: map[string]*entry{}, settled: newRecent(mostSettled),
		hold: map[string]time.Time{}, mute: map[string]string{}, gone: map[string]bool{},
	}
}

// entry is one delivery that is not settled.
type entry struct {
	id       string
	event    uint64
	order    string
	receiver receiver
	// attempts made; due is when the next may be.
	attempts int
	due      time.Time
	// busy says that a worker has it.
	busy bool
	// made is an attempt that was made and could not be recorded.
	made *deliveryv1.Attempt
}

// receiver is where a callback goes; a configured endpoint has one, and both are empty.
type receiver struct{ address, host string }

func receiverOf(d *deliveryv1.Delivery) receiver {
	r := receiver{address: d.GetUrl()}
	if u, err := url.Parse(r.address); err == nil {
		r.host = strings.ToLower(u.Host)
	}
	return r
}

// eventOf is the sequence in an id that begins with "<stream>-<sequence>".
func eventOf(id string) uint64 {
	_, rest, _ := strings.Cut(id, "-")
	digits, _, _ := strings.Cut(rest, "-")
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0 // of no journal: first in line
	}
	return n
}

// before is a total order: no two deliveries ever wait for each other.
func (e *entry) before(other *entry) bool {
	if e.event != other.event {
		return e.event < other.event
	}
	return e.id < other.id
}

// verdict on a delivery that was handed to us.
type verdict uint8

const (
	// attempt: send it now.
	attempt verdict = iota
	// wait: not yet; no attempt is counted.
	wait
	// done: it was settled before.
	done
	// record: it was sent; only the record is missing.
	record
	// refuse: its receiver is gone.
	refuse
)

type turn struct {
	verdict verdict
	// number of the attempt to make, 1, 2, 3, …; with wait, of the attempts made.
	number int
	// after is how long to wait.
	after time.Duration
	// made is what is to be recorded.
	made *deliveryv1.Attempt
}

// enter decides what to do with a delivery. After attempt and refuse the caller must leave.
func (l *lane) enter(d *deliveryv1.Delivery, now time.Time) turn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.settled.has(d.GetId()) {
		return turn{verdict: done}
	}
	e := l.know(d.GetId(), d.GetOrderId(), now)
	e.receiver = receiverOf(d)
	switch {
	case e.made != nil:
		return turn{verdict: record, made: e.made}
	case e.busy:
		return turn{verdict: wait, number: e.attempts, after: pause}
	case l.gone[e.receiver.address]:
		e.busy = true
		return turn{verdict: refuse, number: e.attempts + 1}
	}
	if until := l.heldUntil(e, now); until.After(now) {
		e.due = until
		return turn{verdict: wait, number: e.attempts, after: until.Sub(now)}
	}
	e.busy = true
	if _, silent := l.mute[e.receiver.host]; silent {
		l.mute[e.receiver.host] = e.id
	}
	return turn{verdict: attempt, number: e.attempts + 1}
}

// know gives the entry of a delivery, a new one if need be.
func (l *lane) know(id, order string, now time.Time) *entry {
	e := l.open[id]
	if e == nil {
		e = &entry{id: id, event: eventOf(id), order: order, due: now}
		l.open[id] = e
	}
	return e
}

// heldUntil is when e may be tried: not before its own due time, not before an earlier delivery of its order to the
// same receiver is through, not while its address wants to be left alone or its silent host is being tried.
func (l *lane) heldUntil(e *entry, now time.Time) time.Time {
	until := e.due
	if h := l.hold[e.receiver.address]; h.After(until) {
		until = h
	}
	soon := now.Add(pause)
	if head := l.head(e, now); head != nil {
		until = later(until, later(head.due, soon))
	}
	if prober := l.mute[e.receiver.host]; prober != "" && prober != e.id {
		until = later(until, soon)
	}
	return until
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// head is the first open delivery that e has to wait for, nil when it is e's turn.
func (l *lane) head(e *entry, now time.Time) *entry {
	if e.order == "" {
		return nil
	}
	var first *entry
	for _, o := range l.open {
		switch {
		case o == e, o.order != e.order, !o.before(e):
		// An entry learnt from another replica's record does not know its receiver.
		case o.receiver.address != "" && o.receiver.address != e.receiver.address:
		case !o.busy && now.After(o.due.Add(lapse)):
		case first == nil || o.before(first):
			first = o
		}
	}
	return first
}

// sent notes what a receiver answered, before it is recorded.
func (l *lane) sent(d *deliveryv1.Delivery, a *deliveryv1.Attempt, r channel.Result, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rec := receiverOf(d)
	l.know(d.GetId(), d.GetOrderId(), now).made = a
	bound(l.hold)
	bound(l.mute)
	bound(l.gone)
	if r.Status != 0 {
		delete(l.mute, rec.host)
	}
	switch {
	case r.Verdict == channel.Gone:
		l.gone[rec.address] = true
	case r.RetryAfter > 0:
		l.hold[rec.address] = now.Add(r.RetryAfter)
	case r.Verdict == channel.Delivered:
		delete(l.hold, rec.address)
	case r.Verdict == channel.Retry && r.Status == 0:
		l.mute[rec.host] = ""
	}
}

// bound forgets everything about receivers when there are too many to know: each is learnt again by one try.
func bound[V any](known map[string]V) {
	if len(known) >= mostKnown {
		clear(known)
	}
}

// leave ends a worker's hold of a delivery.
func (l *lane) leave(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.open[id]
	if e == nil {
		return
	}
	e.busy = false
	if l.mute[e.receiver.host] == id {
		l.mute[e.receiver.host] = ""
	}
}

// apply folds in a recorded attempt, of this process or another's. The same one may come twice, and one's own
// earlier ones after later ones.
func (l *lane) apply(a *deliveryv1.Attempt, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := a.GetDeliveryId()
	if l.settled.has(id) {
		return
	}
	if a.GetOutcome() != Retrying {
		l.settled.add(id)
		if e := l.open[id]; e != nil && l.mute[e.receiver.host] == id {
			l.mute[e.receiver.host] = ""
		}
		delete(l.open, id)
		return
	}
	e := l.know(id, a.GetOrderId(), now)
	if int(a.GetNumber()) >= e.attempts {
		e.attempts, e.due, e.made = int(a.GetNumber()), a.GetNextTime().AsTime(), nil
	}
}

// resume notes a delivery that was handed out before this process began and is not acknowledged: it comes back
// when the broker's patience ends, and its followers must not overtake it.
func (l *lane) resume(d *deliveryv1.Delivery, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.settled.has(d.GetId()) {
		l.know(d.GetId(), d.GetOrderId(), now).receiver = receiverOf(d)
	}
}

// forget drops what can no longer come back, because the stream has let it go.
func (l *lane) forget(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, e := range l.open {
		if !e.busy && now.After(e.due.Add(retention)) {
			delete(l.open, id)
		}
	}
}
