package prove_test

import (
	"slices"
	"testing"

	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/order/internal/prove"
	"github.com/renthook/renthook/services/order/internal/rental"
)

func orders(o ...*rental.Order) []*rental.Order { return o }

// TestOurs holds which live row is taken for the rental of an open intent.
// row:25 row:33 row:50
func TestOurs(t *testing.T) {
	t.Parallel()
	markerless := func() *rental.Order {
		o := open("a", 1)
		o.Intents[0].Markers = nil
		return o
	}
	oneMarker := func() *rental.Order {
		o := open("a", 1)
		o.Intents[0].Markers = []int{own(1)}
		return o
	}
	tests := []struct {
		name  string
		order *rental.Order
		list  list
		want  string
	}{
		{"server, image, time and both markers", open("a", 1), list{rows: rows(row(101, 1))}, "a seen 101"},
		{"an id not above the baseline does not matter beside markers", open("a", 1), list{rows: rows(row(0, 1, belowBaseline))}, "a seen 100"},
		{"before the call was answered", open("a", 1), list{at: -5, rows: rows(row(101, 1))}, "a seen 101"},
		{"in a list that may be cut", open("a", 1), list{rows: rows(row(101, 1)), limit: 1}, "a seen 101"},
		{"as old as clocks may differ", open("a", 1), list{rows: rows(row(101, 1, oldest))}, "a seen 101"},
		{"older than clocks may differ", open("a", 1), list{rows: rows(row(101, 1, tooOld))}, "suspect 101"},
		{"another server", open("a", 1), list{rows: rows(foreign(101, 2))}, ""},
		{"another server with this installation's port", open("a", 1), list{rows: rows(row(101, 2))}, "suspect 101"},
		{"another image", open("a", 1), list{rows: rows(row(101, 1, otherImage))}, "suspect 101"},
		{"another intent's marker", open("a", 1), list{rows: rows(row(101, 1, otherMarker))}, "suspect 101"},
		{"one marker of two", open("a", 1), list{rows: rows(row(101, 1, onlyOwnMarker))}, ""},
		{"ports without any marker", open("a", 1), list{rows: rows(foreign(101, 1))}, ""},
		{"another installation's ports", open("a", 1), list{rows: rows(row(101, 1, otherInstalled))}, ""},
		{"no ports yet", open("a", 1), list{rows: rows(row(101, 1, noPorts))}, "held 101"},
		{"no ports yet, another coin", open("a", 1), list{rows: rows(row(101, 1, noPorts, otherCoin))}, ""},
		{"no ports yet, not above the baseline", open("a", 1), list{rows: rows(row(0, 1, noPorts, belowBaseline))}, ""},
		{"no ports yet, another image", open("a", 1), list{rows: rows(row(101, 1, noPorts, otherImage))}, ""},
		{"no ports yet, too old", open("a", 1), list{rows: rows(row(101, 1, noPorts, tooOld))}, ""},
		{"another coin does not matter beside markers", open("a", 1), list{rows: rows(row(101, 1, otherCoin))}, "a seen 101"},
		{"one marker sent, shown", oneMarker(), list{rows: rows(row(101, 1, onlyOwnMarker))}, "a seen 101"},
		{"no markers sent", markerless(), list{rows: rows(foreign(101, 1))}, "a seen 101"},
		{"no markers sent, not above the baseline", markerless(), list{rows: rows(foreign(0, 1, belowBaseline))}, ""},
		{"no markers sent, another coin", markerless(), list{rows: rows(foreign(101, 1, otherCoin))}, ""},
		{"the same request twice: the first is the order's", open("a", 1), list{rows: rows(row(102, 1), row(101, 1))}, "a seen 101; suspect 102"},
		{"an end wanted does not change who is who", wanted(open("a", 1)), list{rows: rows(row(101, 1))}, "a seen 101"},
		{"an end wanted, no ports yet", wanted(open("a", 1)), list{rows: rows(row(101, 1, noPorts))}, "held 101"},
		{"a human's rental of another server, same image, same second", open("a", 1), list{rows: rows(foreign(102, 2), row(101, 1))}, "a seen 101"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := read(t, orders(tt.order), tt.list); got[0] != tt.want {
				t.Errorf("got %q, want %q", got[0], tt.want)
			}
		})
	}
}

// TestReads holds what series of lists prove. Only the last answer is compared; before it nothing of the kind may be
// concluded, which "never" says.
// row:32 row:35 row:36 row:45
func TestReads(t *testing.T) {
	t.Parallel()
	canary := holds("c", 9, 109)
	shown := row(109, 9)
	lookOrder := func() *rental.Order {
		o := open("a", 1)
		o.Intents[0].Look, o.Intents[0].Reason = true, "server-already-rented"
		return o
	}
	notCalled := func() *rental.Order {
		o := open("a", 1)
		o.Intents[0].Called, o.State = false, rental.Placing
		return o
	}
	ended := func(o *rental.Order, seconds int) *rental.Order {
		o.EndsAt = at(seconds)
		return o
	}
	none := rows()
	with := rows(shown)
	join := func(parts ...[]list) []list { return slices.Concat(parts...) }
	tests := []struct {
		name   string
		orders []*rental.Order
		lists  []list
		last   string
		never  string // what no list before the last may say
	}{
		// Absence.
		{"absent after the window, vouched for", orders(open("a", 1), canary), every(with, 1, 60, 181), "c seen 109; a absent", "c seen 109; a absent"},
		{"not a whole window after the first good read", orders(open("a", 1), canary), every(with, 1, 60, 180), "c seen 109", ""},
		{"not a whole window after the call", orders(open("a", 1), canary), every(with, -300, -200, 179), "c seen 109", ""},
		{"reads begun before the call was answered do not count", orders(open("a", 1), canary), every(with, -2, 0, 1, 181), "c seen 109", ""},
		{"a whole window, but two reads", orders(open("a", 1), canary), every(with, 1, 200), "c seen 109", ""},
		{"blind, the window is not enough", orders(open("a", 1)), every(none, 1, 60, 181, 599), "", ""},
		{"blind, absent after the blind window", orders(open("a", 1)), every(none, 1, 60, 601), "a absent", "a absent"},
		{"vouched for twice, blind once", orders(open("a", 1), ended(holds("c", 9, 109), 100)), join(every(with, 1, 60), every(none, 181)), "unaccounted 1", ""},
		{"another open intent does not vouch", orders(open("a", 1), open("b", 2)), every(none, 1, 60, 181), "", ""},
		{"a rental adopted by the same list vouches", orders(open("b", 2), open("a", 1)), every(rows(row(102, 2)), 1, 60, 181), "b seen 102; a absent", "b seen 102; a absent"},
		{"a human's rental does not vouch", orders(open("a", 1)), every(rows(foreign(102, 2)), 1, 60, 181), "", ""},
		{"a list cut by the limit is not good", orders(open("a", 1), canary), []list{{at: 1, rows: with}, {at: 60, rows: with}, {at: 181, rows: with, limit: 1}}, "c seen 109", ""},
		{"finished rows do not count against the limit", orders(open("a", 1), canary), []list{{at: 1, rows: with}, {at: 60, rows: with}, {at: 181, rows: rows(shown, foreign(90, 3, expired)), limit: 2}}, "c seen 109; a absent", ""},
		{"a list that lacks a live rental is not good", orders(open("a", 1), canary), join(every(with, 1, 60), every(none, 181)), "unaccounted 1", ""},
		{"nor is the second such list", orders(open("a", 1), canary, holds("d", 8, 108)), join(every(rows(shown, row(108, 8)), 1, 60), every(with, 170, 181)), "c seen 109; unaccounted 1", ""},
		{"the third such list is good: it is in question", orders(open("a", 1), canary, holds("d", 8, 108)), join(every(rows(shown, row(108, 8)), 1, 60), every(with, 170, 175, 181)), "c seen 109; a absent; unaccounted 1", ""},
		{"in a row only", orders(open("a", 1), canary, holds("d", 8, 108)), join(every(rows(shown, row(108, 8)), 1, 60), every(with, 170), every(rows(shown, row(108, 8)), 172), every(with, 175, 181)), "c seen 109; unaccounted 1", ""},
		{"in question because its end was asked", orders(open("a", 1), canary, wanted(holds("d", 8, 108))), join(every(rows(shown, row(108, 8)), 1, 60), every(with, 181)), "c seen 109; a absent; unaccounted 1", ""},
		{"in question because its planned end passed", orders(open("a", 1), canary, ended(holds("d", 8, 108), 181)), join(every(rows(shown, row(108, 8)), 1, 60), every(with, 181)), "c seen 109; a absent; unaccounted 1", ""},
		{"its planned end has not passed", orders(open("a", 1), canary, ended(holds("d", 8, 108), 182)), join(every(rows(shown, row(108, 8)), 1, 60), every(with, 181)), "c seen 109; unaccounted 1", ""},
		{"accounted for: shown finished", orders(open("a", 1), canary, holds("d", 8, 108)), join(every(rows(shown, row(108, 8)), 1, 60), every(rows(shown, row(108, 8, expired)), 181)), "c seen 109; d gone; a absent", ""},
		{"without finished rentals nothing is absent", orders(open("a", 1), canary), []list{{at: 1, rows: with}, {at: 60, rows: with}, {at: 181, rows: with, without: true}}, "c seen 109", ""},
		{"a call that is out is not looked for", orders(notCalled(), canary), every(with, 1, 60, 181, 700), "c seen 109", ""},
		{"two end in the same second, a third unconfirmed: the finished rows account for them", orders(open("a", 1), holds("c", 9, 109), holds("d", 8, 108)), every(rows(row(109, 9, expired), row(108, 8, expired)), 60), "c gone; d gone", ""},
		{"two vanish in the same second, a third unconfirmed", orders(open("a", 1), holds("c", 9, 109), holds("d", 8, 108)), every(none, 1, 2, 3, 60, 181), "unaccounted 2", ""},
		{"two vanish in the same second, a third unconfirmed, over the blind window", orders(open("a", 1), holds("c", 9, 109), holds("d", 8, 108)), every(none, 1, 2, 3, 60, 604), "c gone; d gone; a absent", "a absent"},

		// Look: one good read.
		{"look, not there", orders(lookOrder()), every(none, 1), "a absent", ""},
		{"look, there", orders(lookOrder()), every(rows(row(101, 1)), 1), "a seen 101", ""},
		{"look, another's", orders(lookOrder()), every(rows(foreign(101, 1)), 1), "a absent", ""},
		{"look, no ports yet", orders(lookOrder()), every(rows(row(101, 1, noPorts)), 1, 100), "held 101", ""},
		{"look, a read begun before the answer", orders(lookOrder()), every(none, 0), "", ""},
		{"look, a read that is not good", orders(lookOrder(), canary), every(none, 1), "unaccounted 1", ""},

		// Held back.
		{"no ports shown over a whole window: adopted", orders(open("a", 1)), every(rows(row(101, 1, noPorts)), 1, 90, 181), "a seen 101", "a seen 101"},
		{"no ports shown, not a whole window", orders(open("a", 1)), every(rows(row(101, 1, noPorts)), 1, 90, 180), "held 101", ""},
		{"no ports shown, first seen before the call was over", orders(open("a", 1)), every(rows(row(101, 1, noPorts)), -9, 90, 179), "held 101", ""},
		{"no ports shown, first seen late", orders(open("a", 1)), every(rows(row(101, 1, noPorts)), 300), "held 101", ""},
		{"no ports, then another's", orders(open("a", 1)), join(every(rows(row(101, 1, noPorts)), 1, 90), every(rows(foreign(101, 1)), 181)), "", "a seen 101"},
		{"no ports, then another's, then a list without ports", orders(open("a", 1)), join(every(rows(row(101, 1, noPorts)), 1), every(rows(foreign(101, 1)), 90), every(rows(row(101, 1, noPorts)), 181)), "", "a seen 101"},
		{"no ports, then ours", orders(open("a", 1)), join(every(rows(row(101, 1, noPorts)), 1, 90), every(rows(row(101, 1)), 95)), "a seen 101", ""},
		{"nothing is absent while one is held back", orders(open("a", 1), canary), join(every(with, 1, 60), every(rows(shown, row(101, 1, noPorts)), 90), every(with, 181)), "c seen 109", ""},
		{"absence counts anew after one was held back", orders(open("a", 1), canary), join(every(rows(shown, row(101, 1, noPorts)), 90), every(with, 100, 181, 280)), "c seen 109; a absent", "a absent"},

		// First seen finished.
		{"a new finished row on the server", orders(open("a", 1)), every(rows(row(101, 1, expired)), 1), "a gone 101", ""},
		{"a finished row from before", orders(open("a", 1)), every(rows(row(0, 1, expired, belowBaseline)), 1), "", ""},
		{"a finished row of another image", orders(open("a", 1)), every(rows(row(101, 1, expired, otherImage)), 1), "", ""},
		{"a finished row in another coin", orders(open("a", 1)), every(rows(row(101, 1, expired, otherCoin)), 1), "", ""},
		{"a finished row of another server", orders(open("a", 1)), every(rows(row(102, 2, expired)), 1), "", ""},
		{"a finished row that another order held", orders(order("b", func() rental.Intent { i := intent(1, 1, rental.Over); i.RentalID = 101; return i }()), open("a", 1)), every(rows(row(101, 1, expired)), 1), "", ""},
		{"alive beside a finished one", orders(open("a", 1)), every(rows(row(101, 1, expired), row(102, 1)), 1), "a seen 102", ""},

		{"finished, but seen alive with another's ports", orders(open("a", 1)), join(every(rows(foreign(101, 1)), 1), every(rows(row(101, 1, expired)), 2)), "", "a gone 101"},

		// Ends.
		{"shown finished, though the list is not good", orders(holds("a", 1, 101), canary), every(rows(row(101, 1, expired)), 1), "a gone; unaccounted 1", ""},
		{"cancelled: three good reads", orders(wanted(holds("a", 1, 101)), canary), every(with, 1, 2, 3), "c seen 109; a gone", "c seen 109; a gone"},
		{"cancelled: two are not enough", orders(wanted(holds("a", 1, 101)), canary), every(with, 1, 200), "c seen 109; unaccounted 1", ""},
		{"cancelled: a list that is not good does not count", orders(wanted(holds("a", 1, 101)), canary, holds("d", 8, 108)), join(every(rows(shown, row(108, 8)), 1, 2), every(with, 3)), "c seen 109; unaccounted 2", ""},
		{"cancelled: shown again, counted anew", orders(wanted(holds("a", 1, 101)), canary), join(every(with, 1, 2), every(rows(shown, row(101, 1)), 3), every(with, 4, 5)), "c seen 109; unaccounted 1", ""},
		{"cancelled, nothing else of ours: the blind window", orders(wanted(holds("a", 1, 101))), every(none, 1, 2, 3, 600), "unaccounted 1", ""},
		{"cancelled, nothing else of ours: after the blind window", orders(wanted(holds("a", 1, 101))), every(none, 1, 2, 601), "a gone", "a gone"},
		{"vanished: in question from the third on, three more prove it", orders(holds("a", 1, 101), canary), every(with, 1, 2, 3, 4, 5), "c seen 109; a gone", "c seen 109; a gone"},
		{"vanished: four are not enough", orders(holds("a", 1, 101), canary), every(with, 1, 2, 3, 400), "c seen 109; unaccounted 1", ""},
		{"a read that was out when the end was decided does not count", orders(func() *rental.Order { o := wanted(holds("a", 1, 101)); o.Updated = at(2); return o }(), canary), every(with, 1, 2, 3), "c seen 109; unaccounted 1", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := read(t, tt.orders, tt.lists...)
			if last := got[len(got)-1]; last != tt.last {
				t.Errorf("the last list says %q, want %q; all: %q", last, tt.last, got)
			}
			if tt.never != "" && slices.Contains(got[:len(got)-1], tt.never) {
				t.Errorf("%q is concluded too early: %q", tt.never, got)
			}
		})
	}
}

// TestSweep holds what is cancelled, what blocks, and what is left alone.
// row:34 row:50
func TestSweep(t *testing.T) {
	t.Parallel()
	closed := func(out rental.Outcome) *rental.Order {
		o := order("a", intent(1, 1, out))
		o.State = rental.Failed
		return o
	}
	over := func() *rental.Order {
		o := closed(rental.Over)
		o.Intents[0].RentalID, o.Intents[0].Started = 101, at(-9)
		return o
	}
	neverSeenAlive := func() *rental.Order {
		o := closed(rental.Over)
		o.Intents[0].RentalID = 101
		return o
	}
	livesOn := func() *rental.Order {
		held := intent(2, 2, rental.Placed)
		held.RentalID = 102
		return order("a", intent(1, 1, rental.NotThere), held)
	}
	markerless := func(o *rental.Order) *rental.Order {
		o.Intents[0].Markers = nil
		return o
	}
	own1 := func(o *rental.Order) *rental.Order {
		o.Intents[0].Markers = []int{own(1)}
		return o
	}
	tests := []struct {
		name   string
		orders []*rental.Order
		list   list
		want   string
	}{
		{"of an intent refused", orders(closed(rental.Refused)), list{rows: rows(row(101, 1))}, "orphan 101"},
		{"of an intent proved absent", orders(closed(rental.NotThere)), list{rows: rows(row(101, 1))}, "orphan 101"},
		{"of an intent that ended, by its marker", orders(closed(rental.Over)), list{rows: rows(row(103, 1))}, "orphan 103"},
		{"of an intent that ended, by its id alone", orders(over()), list{rows: rows(row(101, 1, noPorts, otherImage))}, "orphan 101"},
		{"of an intent that ended, by its id, on whatever server", orders(over()), list{rows: rows(row(101, 7, noPorts))}, "orphan 101"},
		{"of an intent that ended, by its id, but its ports are another's", orders(over()), list{rows: rows(foreign(101, 1))}, ""},
		{"first seen finished, and alive after all", orders(neverSeenAlive()), list{rows: rows(row(101, 1))}, "orphan 101"},
		{"first seen finished, alive, no ports", orders(neverSeenAlive()), list{rows: rows(row(101, 1, noPorts))}, "suspect 101"},
		{"first seen finished, alive, another's ports", orders(neverSeenAlive()), list{rows: rows(foreign(101, 1))}, ""},
		{"in a list that is cut", orders(closed(rental.NotThere)), list{rows: rows(row(101, 1)), limit: 1}, "orphan 101"},
		{"while the order lives on with another", orders(livesOn()), list{rows: rows(row(102, 2), row(101, 1))}, "a seen 102; orphan 101"},
		{"a second rental of the same intent", orders(holds("a", 1, 101)), list{rows: rows(row(101, 1), row(103, 1))}, "a seen 101; orphan 103"},
		{"a second rental of the same intent, an end wanted", orders(wanted(holds("a", 1, 101))), list{rows: rows(row(101, 1), row(103, 1))}, "a seen 101; orphan 103"},
		{"a second rental of an intent whose own is not listed", orders(own1(holds("a", 1, 101))), list{rows: rows(row(103, 1, onlyOwnMarker))}, "suspect 103; unaccounted 1"},
		{"a second rental of an intent whose own shows other ports", orders(holds("a", 1, 101)), list{rows: rows(foreign(101, 1), row(103, 1))}, "a seen 101; suspect 101; suspect 103"},
		{"older than its intent", orders(own1(closed(rental.NotThere))), list{rows: rows(row(101, 1, tooOld, onlyOwnMarker))}, ""},
		{"of another image", orders(own1(closed(rental.NotThere))), list{rows: rows(row(101, 1, otherImage, onlyOwnMarker))}, ""},
		{"one marker of two", orders(closed(rental.NotThere)), list{rows: rows(row(101, 1, onlyOwnMarker))}, ""},
		{"finished", orders(closed(rental.NotThere)), list{rows: rows(row(101, 1, expired))}, ""},
		{"an open intent is adopted, not cancelled", orders(closed(rental.NotThere), open("b", 1)), list{rows: rows(row(101, 1))}, "b seen 101"},

		{"no ports yet, on a server proved absent", orders(closed(rental.NotThere)), list{rows: rows(row(101, 1, noPorts))}, "suspect 101"},
		{"no ports, on a server proved absent, in another coin", orders(closed(rental.NotThere)), list{rows: rows(row(101, 1, noPorts, otherCoin))}, ""},
		{"no ports, on a server proved absent, from before", orders(closed(rental.NotThere)), list{rows: rows(row(0, 1, noPorts, belowBaseline))}, ""},
		{"no ports, on a server proved absent, days later", orders(closed(rental.NotThere)), list{rows: rows(row(101, 1, noPorts, func(r *market.Rental) { r.Created = at(25 * 3600) }))}, ""},
		{"no ports, on a server that refused", orders(closed(rental.Refused)), list{rows: rows(row(101, 1, noPorts))}, ""},
		{"matches a closed intent without markers", orders(markerless(closed(rental.NotThere))), list{rows: rows(foreign(101, 1))}, "suspect 101"},
		{"matches a held intent without markers", orders(markerless(holds("a", 1, 101))), list{rows: rows(foreign(101, 1), foreign(103, 1))}, "a seen 101; suspect 103"},
		{"matches an intent without markers, from before", orders(markerless(closed(rental.NotThere))), list{rows: rows(foreign(0, 1, belowBaseline))}, ""},
		{"this installation's port and no intent", orders(closed(rental.NotThere)), list{rows: rows(row(101, 5))}, "suspect 101"},
		{"this installation's port over an empty journal", nil, list{rows: rows(foreign(101, 5, func(r *market.Rental) { r.TCPPorts = map[int]int{installation: 1} }))}, "suspect 101"},
		{"held without ports, then shows another's", orders(holds("a", 1, 101)), list{rows: rows(foreign(101, 1))}, "a seen 101; suspect 101"},

		{"another installation's", orders(closed(rental.NotThere)), list{rows: rows(row(101, 5, otherInstalled))}, ""},
		{"another installation's, on a server of ours", orders(closed(rental.NotThere)), list{rows: rows(row(101, 1, otherInstalled))}, ""},
		{"a human's", orders(closed(rental.NotThere)), list{rows: rows(foreign(101, 1), foreign(103, 2))}, ""},
		{"another installation's over an empty journal: ours, perhaps, from before", nil, list{rows: rows(row(101, 5, otherInstalled))}, "suspect 101"},
		{"the same while no order has an intent", orders(order("a")), list{rows: rows(row(101, 5, otherInstalled))}, "suspect 101"},
		{"one port in the range over an empty journal", nil, list{rows: rows(foreign(101, 5, func(r *market.Rental) { r.TCPPorts = map[int]int{22: 1, 20000: 2, 65000: 3, 19999: 4} }))}, ""},
		{"the ends of the range over an empty journal", nil, list{rows: rows(foreign(101, 5, func(r *market.Rental) { r.TCPPorts = map[int]int{20000: 2, 64999: 3} }))}, "suspect 101"},
		{"a human's over an empty journal", nil, list{rows: rows(foreign(101, 1))}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := prove.New(config)
			r := p.Read(tt.list.rentals(), tt.orders)
			if got := said(r); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if left := len(r.Orphans) + len(r.Suspects) + len(r.Foreign) + len(r.HeldBack); left+countSeen(r) < r.Live {
				t.Errorf("%d live rows, and only %d are told: one is forgotten", r.Live, left+countSeen(r))
			}
		})
	}
}

func countSeen(r prove.Result) int {
	n := 0
	for _, c := range r.Conclusions {
		if _, ok := c.Event.(rental.Seen); ok {
			n++
		}
	}
	return n
}

// TestSighting holds what of a row reaches the order.
func TestSighting(t *testing.T) {
	t.Parallel()
	p := prove.New(config)
	r := p.Read(list{rows: rows(row(101, 1, func(r *market.Rental) { r.Up, r.GPUs, r.HTTPHost = true, []string{"NVIDIA"}, "h" }))}.rentals(), orders(open("a", 1)))
	seen, ok := r.Conclusions[0].Event.(rental.Seen)
	if !ok || r.MaxID != 101 || r.Live != 1 || !r.Good {
		t.Fatalf("got %+v", r)
	}
	if s := seen.Sighting; s.RentalID != 101 || s.Currency != "USD-Blockchain" || !s.PerDay.Equal(dec("9.6")) || !s.Up || s.Access.Host != "n1" ||
		s.Access.TCPPorts[22] != 1 || s.Access.HTTPHost != "h" || len(s.GPUs) != 1 || !s.Spend.Equal(dec("0.1")) || !s.Started.Equal(at(-9)) {
		t.Errorf("got %+v", s)
	}
	gone := p.Read(list{at: 60, rows: rows(row(101, 1, expired))}.rentals(), orders(holds("a", 1, 101))).Conclusions[0].Event
	if g, ok := gone.(rental.Gone); !ok || !g.Spend.Equal(dec("0.2")) || !g.EndedAt.Equal(at(50)) || g.Proof == "" {
		t.Errorf("got %+v", gone)
	}
}

// TestForgetting: what was counted for an intent that is closed does not speak for the next one.
func TestForgetting(t *testing.T) {
	t.Parallel()
	p := prove.New(config)
	o, c := open("a", 1), holds("c", 9, 109)
	for _, s := range []int{1, 60} {
		p.Read(list{at: s, rows: rows(row(109, 9))}.rentals(), orders(o, c))
	}
	next := intent(2, 2, rental.Open)
	next.CallBy = at(100)
	closed := order("a", intent(1, 1, rental.NotThere), next)
	for _, s := range []int{181, 279} {
		if got := said(p.Read(list{at: s, rows: rows(row(109, 9))}.rentals(), orders(closed, c))); got != "c seen 109" {
			t.Errorf("at %d: %q", s, got)
		}
	}
	// A new process knows nothing of the reads before, and waits longer.
	p = prove.New(config)
	if got := said(p.Read(list{at: 900, rows: rows(row(109, 9))}.rentals(), orders(closed, c))); got != "c seen 109" {
		t.Errorf("after a restart: %q", got)
	}
}
