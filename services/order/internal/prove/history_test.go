package prove_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/order/internal/prove"
	"github.com/renthook/renthook/services/order/internal/rental"
)

// real is a rental as it really is, whatever the list says.
type real struct {
	market.Rental
	order   string // empty: another's
	attempt int
	// visible is when the list shows it, ports when its ports, ends when it ends (zero: not yet decided).
	visible, ports, ends time.Time
}

func (r *real) alive(now time.Time) bool {
	return !now.Before(r.Created) && (r.ends.IsZero() || now.Before(r.ends))
}

// history is a market with orders of ours and rentals of others, read by lists that may lie.
type history struct {
	now     time.Time
	orders  []*rental.Order
	rentals []*real
	nextID  int64
	lies    int // in a row
	honest  time.Time
	maxID   int64
}

func (h *history) draw(t *rapid.T, seconds ...int) time.Duration {
	return time.Duration(rapid.SampledFrom(seconds).Draw(t, "seconds")) * time.Second
}

// decide feeds one event to an order and does what it wants done: a cancel ends the rental some time later, or not.
func (h *history) decide(t *rapid.T, o *rental.Order, e rental.Event) {
	next, effects, err := rental.Decide(*o, e, h.now)
	if err != nil {
		t.Fatalf("%T in %s: %v", e, o.State, err)
	}
	*o = next
	for _, effect := range effects {
		if c, ok := effect.(rental.Cancel); ok {
			h.cancel(t, c.RentalID)
		}
	}
}

func (h *history) cancel(t *rapid.T, id int64) {
	for _, r := range h.rentals {
		if r.ID != id {
			continue
		}
		if r.order == "" {
			t.Fatalf("another's rental %d is cancelled", id)
		}
		if r.ends.IsZero() && rapid.IntRange(0, 3).Draw(t, "cancel lost") > 0 {
			r.ends = h.now.Add(h.draw(t, 0, 2, 20))
		}
	}
}

// place records an intent, calls, and lets the market do with it what it likes.
func (h *history) place(t *rapid.T, o *rental.Order) {
	server := rapid.Int64Range(1, 4).Draw(t, "server")
	for _, other := range h.orders {
		for _, i := range other.Intents {
			if i.Server.ID == server {
				return
			}
		}
	}
	number := len(o.Intents) + 1
	marker := 41000 + int(server)
	i := intent(number, server, rental.Open)
	i.Markers, i.Baseline, i.CallBy, i.Called = []int{installation, marker}, h.maxID, h.now.Add(17*time.Second), false
	h.decide(t, o, rental.Planned{Intent: i})
	called := h.now
	if applied := rapid.IntRange(0, 4).Draw(t, "applied"); applied > 0 {
		created := called.Add(h.draw(t, 0, 0, 1, 45, 400))
		h.add(t, &real{order: o.ID, attempt: number, Rental: row(0, server, func(r *market.Rental) {
			r.Created, r.TCPPorts = created, map[int]int{22: 1, installation: 2, marker: 3}
		})}, h.draw(t, 0, 0, 3, 20, 60))
	}
	h.now = h.now.Add(h.draw(t, 1, 15))
	if rapid.IntRange(0, 3).Draw(t, "crash") == 0 {
		h.decide(t, o, rental.Recovered{})
		return
	}
	h.decide(t, o, rental.Called{Number: number, Reason: "code-0"})
}

func (h *history) add(t *rapid.T, r *real, lag time.Duration) {
	h.nextID++
	r.ID = h.nextID
	r.visible = r.Created.Add(lag)
	r.ports = r.visible.Add(h.draw(t, 0, 0, 5, 40))
	h.rentals = append(h.rentals, r)
}

// another rents: on any server, the same image, perhaps with ports of another installation.
func (h *history) another(t *rapid.T) {
	ports := rapid.SampledFrom([]map[int]int{{22: 1}, {22: 1, 8888: 2}, {22: 1, 33333: 2, 44444: 3}}).Draw(t, "ports")
	h.add(t, &real{Rental: row(0, rapid.Int64Range(1, 6).Draw(t, "server"), func(r *market.Rental) {
		r.Created, r.TCPPorts = h.now, ports
	})}, h.draw(t, 0, 3))
}

// list is what the market says at a time.
func (h *history) list(at time.Time) []market.Rental {
	var all []market.Rental
	for _, r := range h.rentals {
		if at.Before(r.visible) {
			continue
		}
		row := r.Rental
		if at.Before(r.ports) {
			row.TCPPorts = nil
		}
		if !r.alive(at) {
			row.Expired, row.Ended, row.TCPPorts = true, r.ends, nil
		}
		all = append(all, row)
	}
	return all
}

// read gives the prover a list, at most two lying ones in a row, and lets the orders decide.
func (h *history) read(t *rapid.T, p *prove.Prover, honest bool) {
	l := market.Rentals{Began: h.now, Rentals: h.list(h.now), Limit: 100, WithEnded: true}
	lie := 0
	if !honest && h.lies < 2 && h.now.Sub(h.honest) < 40*time.Second {
		lie = rapid.IntRange(0, 5).Draw(t, "lie")
	}
	switch lie {
	case 1: // empty
		l.Rentals = nil
	case 2: // some rows lost
		l.Rentals = slices.DeleteFunc(l.Rentals, func(market.Rental) bool { return rapid.Bool().Draw(t, "lost") })
	case 3: // stale
		l.Rentals = h.list(h.now.Add(-h.draw(t, 5, 30, 120)))
	case 4: // without ports
		for n := range l.Rentals {
			l.Rentals[n].TCPPorts = nil
		}
	case 5: // cut by the limit, finished rows not asked for
		l.WithEnded = false
		l.Rentals = slices.DeleteFunc(l.Rentals, func(r market.Rental) bool { return r.Expired })
		l.Rentals = l.Rentals[:min(1, len(l.Rentals))]
		l.Limit = 1
	default:
		h.honest = h.now
	}
	if h.lies++; lie == 0 {
		h.lies = 0
	}
	res := p.Read(l, h.orders)
	h.maxID = max(h.maxID, res.MaxID)
	for _, c := range res.Conclusions {
		n := slices.IndexFunc(h.orders, func(o *rental.Order) bool { return o.ID == c.OrderID })
		h.judge(t, h.orders[n], c.Event)
		h.decide(t, h.orders[n], c.Event)
	}
	for _, o := range res.Orphans {
		h.orphan(t, o)
	}
}

// judge compares a conclusion with what really is.
func (h *history) judge(t *rapid.T, o *rental.Order, e rental.Event) {
	switch e := e.(type) {
	case rental.Seen:
		for _, r := range h.rentals {
			if r.ID == e.RentalID && (r.order != o.ID || r.attempt != e.Number) {
				t.Fatalf("order %s, attempt %d, is given rental %d of %q", o.ID, e.Number, r.ID, r.order)
			}
		}
	case rental.Absent:
		for _, r := range h.rentals {
			if r.order == o.ID && r.attempt == e.Number && r.alive(h.now) && !h.honest.Before(r.visible) {
				t.Fatalf("order %s: attempt %d is called absent, and rental %d has been shown since %s", o.ID, e.Number, r.ID, h.now.Sub(r.visible))
			}
		}
	case rental.Gone:
		id := e.RentalID
		if id == 0 {
			id = o.Current().RentalID
		}
		for _, r := range h.rentals {
			if r.ID == id && r.alive(h.now) {
				t.Fatalf("order %s: rental %d is called ended and lives", o.ID, id)
			}
		}
	}
}

func (h *history) orphan(t *rapid.T, o prove.Orphan) {
	for _, r := range h.rentals {
		if r.ID != o.RentalID {
			continue
		}
		if r.order != o.OrderID || r.attempt != o.Number {
			t.Fatalf("rental %d of %q is called an orphan of %s", r.ID, r.order, o.OrderID)
		}
		n := slices.IndexFunc(h.orders, func(x *rental.Order) bool { return x.ID == o.OrderID })
		if i := h.orders[n].Intents[o.Number-1]; i.Outcome.Live() && h.orders[n].Wanted == nil {
			t.Fatalf("rental %d is called an orphan, its intent is %s", r.ID, i.Outcome)
		}
	}
	h.cancel(t, o.RentalID)
}

// TestAnyHistory lets orders live on a market that is slow, loses calls and lies, beside other people's rentals. While it
// lies nothing false is concluded, and once it is honest every rental of ours is held by its order or ended.
// row:32 row:34 row:35 row:36
func TestAnyHistory(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := &history{now: t0, nextID: 200, honest: t0, maxID: 200}
		for _, id := range []string{"a", "b", "c"} {
			o := &rental.Order{
				ID: id, Client: "local", CommandSeq: 1, Create: rental.Operation{ID: "op_" + id}, PlaceBy: t0.Add(300 * time.Hour),
				Ask:    rental.Ask{Ceiling: dec("1"), Image: "img"},
				Policy: rental.Policy{MaxCandidates: 2, BootDeadline: 200 * time.Hour, FailedBootUSD: dec("100")},
			}
			h.decide(t, o, rental.Asked{})
			h.orders = append(h.orders, o)
		}
		p := prove.New(config)
		for range rapid.IntRange(10, 80).Draw(t, "steps") {
			h.now = h.now.Add(h.draw(t, 1, 2, 5, 15, 45))
			o := h.orders[rapid.IntRange(0, len(h.orders)-1).Draw(t, "order")]
			switch rapid.IntRange(0, 9).Draw(t, "happens") {
			case 0, 1:
				if o.WantsServer() && len(o.Intents) < o.Policy.MaxCandidates {
					h.place(t, o)
				}
			case 2:
				h.another(t)
			case 3:
				if rapid.IntRange(0, 2).Draw(t, "cancel") == 0 {
					h.decide(t, o, rental.EndAsked{Operation: cancelOp(o.ID)})
				}
			case 4:
				r := &real{}
				if len(h.rentals) > 0 {
					r = h.rentals[rapid.IntRange(0, len(h.rentals)-1).Draw(t, "rental")]
				}
				if r.ends.IsZero() && r.alive(h.now) && rapid.Bool().Draw(t, "ends") {
					r.ends = h.now
				}
			case 5:
				p = prove.New(config) // the process restarts
			default:
				h.decide(t, o, rental.Tick{})
				h.read(t, p, false)
			}
		}
		for range 60 {
			h.now = h.now.Add(20 * time.Second)
			for _, o := range h.orders {
				h.decide(t, o, rental.Tick{})
			}
			h.read(t, p, true)
		}
		h.atRest(t)
	})
}

func cancelOp(id string) rental.Operation {
	return rental.Operation{ID: "op_cancel_" + id, Command: "order.cancel"}
}

func (h *history) atRest(t *rapid.T) {
	for _, r := range h.rentals {
		if r.order == "" || !r.alive(h.now) {
			continue
		}
		n := slices.IndexFunc(h.orders, func(o *rental.Order) bool { return o.ID == r.order })
		if i := h.orders[n].HeldIntent(); i == nil || i.RentalID != r.ID {
			t.Fatalf("rental %d of order %s lives and is forgotten: %s", r.ID, r.order, h.orders[n].State)
		}
	}
	for _, o := range h.orders {
		if i := o.OpenIntent(); i != nil {
			t.Fatalf("order %s: nothing is proved of attempt %d in twenty minutes", o.ID, i.Number)
		}
		if o.Wanted != nil && !o.State.Terminal() {
			t.Fatalf("order %s is %s twenty minutes after its end was wanted", o.ID, o.State)
		}
	}
}
