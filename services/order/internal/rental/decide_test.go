package rental_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/renthook/renthook/services/order/internal/rental"
)

const minute = time.Minute

// change is one change of the order that is asked for.
func change(f func(*rental.Order)) []func(*rental.Order) { return []func(*rental.Order){f} }

func noSSH(o *rental.Order)   { o.Ask.Ports = map[int]string{8888: "http"} }
func last(o *rental.Order)    { o.Policy.MaxCandidates = 1 }
func patient(o *rental.Order) { o.Ask.WaitUntil = t0.Add(20 * minute) }

// TestEdges holds every edge that event.go documents: the state, the name of the record, and what is done beside it.
// row:40 row:44 row:45 row:46
func TestEdges(t *testing.T) {
	t.Parallel()
	dearer := func(s *rental.Sighting) { s.PerDay = dec("9.8") }
	otherCoin := func(s *rental.Sighting) { s.Currency = "bitcoin" }
	// Clipped, so that cases that add steps do not share them.
	running := slices.Clip([]step{accept, plan, unknown, seenDown, seenUp, answers})
	spotRunning := slices.Clip([]step{accept, planSpot, unknown, seenDown, seenUp, answers})
	frozen := rental.Seen{Number: 1, Sighting: sight(101, false)}
	billed := rental.Seen{Number: 1, Sighting: sight(101, false, func(s *rental.Sighting) { s.Spend = dec("0.02") })}
	later := step{23*time.Hour + time.Second, rental.ExtendAsked{Operation: extendOp("e"), By: 2 * time.Hour, Reserved: dec("11")}}
	barred := rental.Barred{Failure: rental.Failure{Code: "SPEND_CAP_EXCEEDED", Message: "over"}}
	short := func(o *rental.Order) { o.Ask.Duration = 8 * minute }
	tests := []struct {
		name   string
		order  []func(*rental.Order)
		before []step
		event  step
		state  rental.State
		record string // empty: nothing is recorded
		act    rental.Effect
	}{
		{name: "asked", event: accept, state: rental.Pending, record: "accepted"},
		{name: "asked, over a limit", event: step{0, rental.Asked{Turned: &rental.Failure{Code: "RATE_LIMITED"}, Rejected: true}}, state: rental.Rejected, record: "rejected"},
		{name: "asked, senseless", event: step{0, rental.Asked{Turned: &rental.Failure{Code: "X"}}}, state: rental.Failed, record: "failed"},
		{name: "asked, its cancel came first", event: step{0, rental.Asked{Forestalled: true}}, state: rental.Cancelled, record: "cancelled"},

		{name: "planned", before: []step{accept}, event: plan, state: rental.Placing, record: "placing", act: rental.Create{Number: 1}},
		{name: "planned while waiting", order: change(patient), before: []step{accept, noOffer}, event: plan, state: rental.Placing, record: "placing", act: rental.Create{Number: 1}},
		{name: "planned again", before: []step{accept, plan, refused}, event: step{9 * time.Second, rental.Planned{Intent: intent(2)}}, state: rental.Placing, record: "placing", act: rental.Create{Number: 2}},

		{name: "no offer", before: []step{accept}, event: noOffer, state: rental.Failed, record: "failed"},
		{name: "no offer, patient", order: change(patient), before: []step{accept}, event: noOffer, state: rental.Waiting, record: "waiting"},
		{name: "no offer again, patient", order: change(patient), before: []step{accept, noOffer}, event: noOffer, state: rental.Waiting},
		{name: "no offer after a refusal, patient", order: change(patient), before: []step{accept, plan, refused}, event: step{3 * time.Second, noOffer.event}, state: rental.Waiting, record: "waiting"},
		{name: "no offer, patience over", order: change(patient), before: []step{accept, noOffer}, event: step{20 * minute, noOffer.event}, state: rental.Failed, record: "failed"},

		{name: "refused", before: []step{accept, plan}, event: refused, state: rental.Placing, record: "placing"},
		{name: "refused, none left", order: change(last), before: []step{accept, plan}, event: refused, state: rental.Failed, record: "failed"},
		{name: "refused for the wallet", before: []step{accept, plan}, event: step{2 * time.Second, rental.Called{Number: 1, Refused: true, Reason: "not_enough_balance"}}, state: rental.Failed, record: "failed"},
		{name: "refused for the key", before: []step{accept, plan}, event: step{2 * time.Second, rental.Called{Number: 1, Refused: true, Reason: "code-3"}}, state: rental.Failed, record: "failed"},
		{name: "refused, end wanted", before: []step{accept, plan, {time.Second, cancelled.event}}, event: refused, state: rental.Cancelled, record: "cancelled"},
		{name: "refused after the place deadline", before: []step{accept, plan, {31 * minute, rental.Tick{}}}, event: step{32 * minute, refused.event}, state: rental.Failed, record: "failed"},
		{name: "unknown outcome", before: []step{accept, plan}, event: unknown, state: rental.Unconfirmed, record: "unconfirmed"},
		{name: "look", before: []step{accept, plan}, event: look, state: rental.Unconfirmed, record: "unconfirmed"},
		{name: "unknown outcome, end wanted", before: []step{accept, plan, {time.Second, cancelled.event}}, event: unknown, state: rental.Unconfirmed, record: "unconfirmed"},
		{name: "answer of an older intent", before: []step{accept, plan, refused, {9 * time.Second, rental.Planned{Intent: intent(2)}}}, event: step{10 * time.Second, refused.event}, state: rental.Placing},
		{name: "answer twice", before: []step{accept, plan, unknown}, event: refused, state: rental.Unconfirmed},
		{name: "recovered", before: []step{accept, plan}, event: step{minute, rental.Recovered{}}, state: rental.Unconfirmed, record: "unconfirmed"},
		{name: "recovered without an intent", before: []step{accept, plan, refused}, event: step{minute, rental.Recovered{}}, state: rental.Placing},

		{name: "seen", before: []step{accept, plan, unknown}, event: seenDown, state: rental.Provisioning, record: "placed"},
		{name: "seen before the answer", before: []step{accept, plan}, event: seenDown, state: rental.Provisioning, record: "placed"},
		{name: "seen, end wanted", before: []step{accept, plan, unknown, cancelled}, event: step{minute, seenDown.event}, state: rental.Cancelling, record: "cancelling", act: rental.Cancel{RentalID: 101}},
		{name: "seen at 2 % more", before: []step{accept, plan, unknown}, event: step{minute, rental.Seen{Number: 1, Sighting: sight(101, false, func(s *rental.Sighting) { s.PerDay = dec("9.792") })}}, state: rental.Provisioning, record: "placed"},
		{name: "seen at more than 2 % more", before: []step{accept, plan, unknown}, event: step{minute, rental.Seen{Number: 1, Sighting: sight(101, false, dearer)}}, state: rental.Cancelling, record: "price_mismatch", act: rental.Cancel{RentalID: 101}},
		{name: "seen within 2 % but above the ceiling", order: change(func(o *rental.Order) { o.Ask.Ceiling = dec("0.4") }), before: []step{accept, plan, unknown}, event: step{minute, rental.Seen{Number: 1, Sighting: sight(101, false, func(s *rental.Sighting) { s.PerDay = dec("9.61") })}}, state: rental.Cancelling, record: "price_mismatch", act: rental.Cancel{RentalID: 101}},
		{name: "seen in another coin", before: []step{accept, plan, unknown}, event: step{minute, rental.Seen{Number: 1, Sighting: sight(101, false, otherCoin)}}, state: rental.Cancelling, record: "price_mismatch", act: rental.Cancel{RentalID: 101}},
		{name: "seen at a price beyond reckoning", before: []step{accept, {time.Second, rental.Planned{Intent: intent(1, func(i *rental.Intent) { i.USDRate, i.PerDay = dec("900000000000"), dec("0.00000000001") })}}, unknown}, event: step{minute, rental.Seen{Number: 1, Sighting: sight(101, false, func(s *rental.Sighting) { s.PerDay = dec("900000000000") })}}, state: rental.Cancelling, record: "price_mismatch", act: rental.Cancel{RentalID: 101}},
		{name: "seen within 2 % at a price beyond reckoning", order: change(func(o *rental.Order) { o.Ask.Ceiling = dec("420000000000000000") }), before: []step{accept, {time.Second, rental.Planned{Intent: intent(1, func(i *rental.Intent) { i.USDRate, i.PerDay = dec("1000000000"), dec("9900000000") })}}, unknown}, event: step{minute, rental.Seen{Number: 1, Sighting: sight(101, false, func(s *rental.Sighting) { s.PerDay = dec("10098000000") })}}, state: rental.Cancelling, record: "price_mismatch", act: rental.Cancel{RentalID: 101}},
		{name: "seen up, to be probed", before: []step{accept, plan, unknown, seenDown}, event: seenUp, state: rental.Provisioning, act: rental.Probe{Number: 1, Host: "n1.example", Port: 1022}},
		{name: "seen up without an address", before: []step{accept, plan, unknown, {3 * time.Second, rental.Seen{Number: 1, Sighting: sight(101, false, func(s *rental.Sighting) { s.Access = rental.Access{} })}}}, event: step{minute, rental.Seen{Number: 1, Sighting: sight(101, true, func(s *rental.Sighting) { s.Access = rental.Access{} })}}, state: rental.Provisioning},
		{name: "seen up, no ssh asked", order: change(noSSH), before: []step{accept, plan, unknown, seenDown}, event: seenUp, state: rental.Running, record: "running"},
		{name: "seen up, probes off", order: change(func(o *rental.Order) { o.Policy.ProbeSSH = false }), before: []step{accept, plan, unknown, seenDown}, event: seenUp, state: rental.Running, record: "running"},
		{name: "another rental seen", before: []step{accept, plan, unknown, seenDown}, event: step{minute, rental.Seen{Number: 1, Sighting: sight(102, true)}}, state: rental.Provisioning},
		{name: "seen dearer while provisioning", before: []step{accept, plan, unknown, seenDown}, event: step{minute, rental.Seen{Number: 1, Sighting: sight(101, true, dearer)}}, state: rental.Cancelling, record: "price_mismatch", act: rental.Cancel{RentalID: 101}},
		{name: "seen dearer while running", before: []step{accept, plan, unknown, seenDown, seenUp, answers}, event: step{minute, rental.Seen{Number: 1, Sighting: sight(101, true, dearer)}}, state: rental.Cancelling, record: "price_mismatch", act: rental.Cancel{RentalID: 101}},
		{name: "seen while it ends", before: []step{accept, plan, unknown, seenDown, cancelled}, event: step{minute, rental.Seen{Number: 1, Sighting: sight(101, true, dearer)}}, state: rental.Cancelling},

		{name: "ssh answers", before: []step{accept, plan, unknown, seenDown, seenUp}, event: answers, state: rental.Running, record: "running"},
		{name: "ssh silent", before: []step{accept, plan, unknown, seenDown, seenUp}, event: step{minute, rental.Probed{Number: 1}}, state: rental.Provisioning},
		{name: "ssh answers, the container is down", before: []step{accept, plan, unknown, seenDown}, event: answers, state: rental.Provisioning},
		{name: "ssh of an older rental answers", before: []step{accept, plan, unknown, seenDown, seenUp}, event: step{minute, rental.Probed{Number: 0, OK: true}}, state: rental.Provisioning},

		{name: "absent", before: []step{accept, plan, unknown}, event: absent, state: rental.Placing, record: "placing"},
		{name: "absent, none left", order: change(last), before: []step{accept, plan, unknown}, event: absent, state: rental.Failed, record: "failed"},
		{name: "absent, end wanted", before: []step{accept, plan, unknown, cancelled}, event: absent, state: rental.Cancelled, record: "cancelled"},
		{name: "absent, place deadline passed", before: []step{accept, plan, unknown}, event: step{30 * minute, absent.event}, state: rental.Failed, record: "failed"},
		{name: "absent while the call is out", before: []step{accept, plan}, event: absent, state: rental.Placing},
		{name: "absent of a rental that was seen", before: []step{accept, plan, unknown, seenDown}, event: absent, state: rental.Provisioning},

		{name: "first seen finished", before: []step{accept, planSpot, unknown}, event: step{minute, rental.Gone{Number: 1, RentalID: 101, Spend: dec("0.1")}}, state: rental.Placing, record: "placing"},
		{name: "first seen finished, budget gone", before: []step{accept, plan, unknown}, event: step{minute, rental.Gone{Number: 1, RentalID: 101, Spend: dec("0.5")}}, state: rental.Failed, record: "failed"},
		{name: "gone while provisioning", before: []step{accept, plan, unknown, seenDown}, event: step{minute, gone.event}, state: rental.Placing, record: "placing"},
		{name: "gone while provisioning, spot", before: []step{accept, planSpot, unknown, seenDown}, event: step{minute, gone.event}, state: rental.Interrupted, record: "interrupted"},
		{name: "gone while running", before: []step{accept, plan, unknown, seenDown, seenUp, answers}, event: gone, state: rental.Interrupted, record: "interrupted"},
		{name: "gone after its planned end", before: []step{accept, plan, unknown, seenDown, seenUp, answers}, event: step{25 * time.Hour, gone.event}, state: rental.Ended, record: "ended"},
		{name: "gone, cancelled", before: []step{accept, plan, unknown, seenDown, cancelled}, event: step{minute, gone.event}, state: rental.Cancelled, record: "cancelled"},
		{name: "gone, cancelled at its planned end", before: []step{accept, plan, unknown, seenDown, seenUp, answers, {25 * time.Hour, rental.Tick{}}}, event: step{26 * time.Hour, gone.event}, state: rental.Ended, record: "ended"},
		{name: "gone, cancelled at the place deadline", before: []step{accept, plan, unknown, {25 * minute, seenDown.event}, {30 * minute, rental.Tick{}}}, event: step{31 * minute, gone.event}, state: rental.Failed, record: "failed"},
		{name: "gone, never booted", before: []step{accept, plan, unknown, seenDown, {11 * minute, rental.Tick{}}}, event: step{12 * minute, gone.event}, state: rental.Placing, record: "placing"},
		{name: "gone, never booted, none left", order: change(last), before: []step{accept, plan, unknown, seenDown, {11 * minute, rental.Tick{}}}, event: step{12 * minute, gone.event}, state: rental.Failed, record: "failed"},
		{name: "gone, never booted, then cancelled", before: []step{accept, plan, unknown, seenDown, {11 * minute, rental.Tick{}}, {12 * minute, cancelled.event}}, event: step{13 * minute, gone.event}, state: rental.Cancelled, record: "cancelled"},
		{name: "gone of an older rental", before: []step{accept, plan, refused, {9 * time.Second, rental.Planned{Intent: intent(2)}}, {10 * time.Second, rental.Called{Number: 2}}}, event: step{minute, gone.event}, state: rental.Unconfirmed},

		{name: "end asked", before: []step{accept}, event: cancelled, state: rental.Cancelled, record: "cancelled"},
		{name: "end asked while waiting", order: change(patient), before: []step{accept, noOffer}, event: cancelled, state: rental.Cancelled, record: "cancelled"},
		{name: "end asked between servers", before: []step{accept, plan, refused}, event: cancelled, state: rental.Cancelled, record: "cancelled"},
		{name: "end asked while the call is out", before: []step{accept, plan}, event: cancelled, state: rental.Placing, record: "cancelling"},
		{name: "end asked while unconfirmed", before: []step{accept, plan, unknown}, event: cancelled, state: rental.Unconfirmed, record: "cancelling"},
		{name: "end asked while provisioning", before: []step{accept, plan, unknown, seenDown}, event: cancelled, state: rental.Cancelling, record: "cancelling", act: rental.Cancel{RentalID: 101}},
		{name: "end asked while running", before: []step{accept, plan, unknown, seenDown, seenUp, answers}, event: cancelled, state: rental.Cancelling, record: "cancelling", act: rental.Cancel{RentalID: 101}},
		{name: "end asked by a second", before: []step{accept, plan, unknown, seenDown, cancelled}, event: step{minute, rental.EndAsked{Operation: cancelOp("d")}}, state: rental.Cancelling, record: "cancelling", act: rental.Cancel{RentalID: 101}},
		{name: "end asked twice", before: []step{accept, plan, unknown, seenDown, cancelled}, event: step{minute, cancelled.event}, state: rental.Cancelling},
		{name: "end asked again by nobody", before: []step{accept, plan, unknown, seenDown, cancelled}, event: step{minute, rental.EndAsked{By: "x"}}, state: rental.Cancelling},
		{name: "end asked when over", before: []step{accept, noOffer}, event: cancelled, state: rental.Failed, record: "cancelled"},
		{name: "end asked twice when over", before: []step{accept, noOffer, cancelled}, event: step{minute, cancelled.event}, state: rental.Failed},
		{name: "end asked again after it settled", before: []step{accept, cancelled}, event: step{minute, cancelled.event}, state: rental.Cancelled},

		{name: "tick", before: []step{accept}, event: step{29 * minute, rental.Tick{}}, state: rental.Pending},
		{name: "place deadline", before: []step{accept}, event: step{30 * minute, rental.Tick{}}, state: rental.Failed, record: "failed"},
		{name: "patience over", order: change(patient), before: []step{accept, noOffer}, event: step{20 * minute, rental.Tick{}}, state: rental.Failed, record: "failed"},
		{name: "place deadline between servers", before: []step{accept, plan, refused}, event: step{30 * minute, rental.Tick{}}, state: rental.Failed, record: "failed"},
		{name: "place deadline while the call is out", before: []step{accept, plan}, event: step{30 * minute, rental.Tick{}}, state: rental.Placing, record: "cancelling"},
		{name: "place deadline while unconfirmed", before: []step{accept, plan, unknown}, event: step{30 * minute, rental.Tick{}}, state: rental.Unconfirmed, record: "cancelling"},
		{name: "not yet the place deadline, unconfirmed", before: []step{accept, plan, unknown}, event: step{29 * minute, rental.Tick{}}, state: rental.Unconfirmed},
		{name: "not yet the place deadline, between servers", before: []step{accept, plan, refused}, event: step{29 * minute, rental.Tick{}}, state: rental.Placing},
		{name: "not yet the boot deadline", before: []step{accept, plan, unknown, seenDown}, event: step{10 * minute, rental.Tick{}}, state: rental.Provisioning},
		{name: "not yet its planned end", before: append(running, step{23*time.Hour + 51*minute, rental.Tick{}}), event: step{24 * time.Hour, rental.Tick{}}, state: rental.Running},
		{name: "outbid, its bid still listed", before: append(spotRunning, step{minute, frozen}), event: step{3 * minute, frozen}, state: rental.Cancelling, record: "cancelling", act: rental.Cancel{RentalID: 101}},
		{name: "not running for a moment", before: append(spotRunning, step{minute, frozen}), event: step{3*minute - time.Second, frozen}, state: rental.Running},
		{name: "not running, and it was billed meanwhile", before: append(spotRunning, step{minute, frozen}, step{2 * minute, billed}), event: step{4 * minute, frozen}, state: rental.Running},
		{name: "not running, and it ran again meanwhile", before: append(spotRunning, step{minute, frozen}, step{2 * minute, seenUp.event}), event: step{4 * minute, frozen}, state: rental.Running},
		{name: "an on-demand rental cannot be outbid", before: append(running, step{minute, frozen}), event: step{9 * minute, frozen}, state: rental.Running},
		{name: "outbid, and the withdrawn bid is gone", before: append(spotRunning, step{minute, frozen}, step{3 * minute, frozen}), event: gone, state: rental.Interrupted, record: "interrupted"},
		{name: "outbid and cancelled, and the bid is gone", before: append(spotRunning, step{minute, frozen}, step{3 * minute, frozen}, step{4 * minute, cancelled.event}), event: gone, state: rental.Cancelled, record: "cancelled"},
		{name: "more than five hours left", before: running, event: step{19 * time.Hour, rental.Tick{}}, state: rental.Running},
		{name: "five hours left", before: running, event: step{19*time.Hour + time.Second, rental.Tick{}}, state: rental.Running, record: "expiring"},
		{name: "five hours left, told", before: append(running, step{19*time.Hour + time.Second, rental.Tick{}}), event: step{22 * time.Hour, rental.Tick{}}, state: rental.Running},
		{name: "an hour left", before: append(running, step{20 * time.Hour, rental.Tick{}}), event: step{23*time.Hour + time.Second, rental.Tick{}}, state: rental.Running, record: "expiring"},
		{name: "ten minutes left, never told", before: running, event: step{23*time.Hour + 55*minute, rental.Tick{}}, state: rental.Running, record: "expiring"},
		{name: "it never was ten minutes from its end", order: change(short), before: running, event: step{7 * minute, rental.Tick{}}, state: rental.Running},
		{name: "extended, and warned anew", before: append(running, step{23 * time.Hour, rental.Tick{}}, later), event: step{24 * time.Hour, rental.Tick{}}, state: rental.Running, record: "expiring"},

		{name: "extended", before: running, event: later, state: rental.Running, record: "extended"},
		{name: "extended twice by one command", before: append(running, later), event: later, state: rental.Running},
		{name: "extended past its old end", before: append(running, later), event: step{24*time.Hour + minute, rental.Tick{}}, state: rental.Running, record: "expiring"},
		{name: "extended, over a limit", before: append(running, step{23 * time.Hour, rental.ExtendAsked{Operation: extendOp("e"), By: 2 * time.Hour, Refused: &rental.Failure{Code: "X"}}}), event: step{24*time.Hour + minute, rental.Tick{}}, state: rental.Cancelling, record: "cancelling", act: rental.Cancel{RentalID: 101}},
		{name: "extended while it ends", before: append(running, cancelled), event: later, state: rental.Cancelling, record: "extend_failed"},

		{name: "barred by a limit", before: []step{accept}, event: step{time.Second, barred}, state: rental.Rejected, record: "rejected"},
		{name: "barred by a limit, patient", order: change(patient), before: []step{accept}, event: step{time.Second, barred}, state: rental.Waiting, record: "waiting"},
		{name: "barred by a limit, patience over", order: change(patient), before: []step{accept, noOffer}, event: step{20 * minute, barred}, state: rental.Rejected, record: "rejected"},
		{name: "barred by a limit after a refusal", before: []step{accept, plan, refused}, event: step{9 * time.Second, barred}, state: rental.Failed, record: "failed"},
		{name: "place deadline once", before: []step{accept, plan, unknown, {30 * minute, rental.Tick{}}}, event: step{31 * minute, rental.Tick{}}, state: rental.Unconfirmed},
		{name: "boot deadline", before: []step{accept, plan, unknown, seenDown}, event: step{11 * minute, rental.Tick{ProbeProven: true}}, state: rental.Cancelling, record: "cancelling", act: rental.Cancel{RentalID: 101, Issue: "The container did not become usable."}},
		{name: "boot deadline, up, ssh silent, probes work here", before: []step{accept, plan, unknown, seenDown, seenUp}, event: step{11 * minute, rental.Tick{ProbeProven: true}}, state: rental.Cancelling, record: "cancelling", act: rental.Cancel{RentalID: 101, Issue: "The container did not become usable."}},
		{name: "boot deadline, up, ssh silent, no probe ever worked", before: []step{accept, plan, unknown, seenDown, seenUp}, event: step{11 * minute, rental.Tick{}}, state: rental.Running, record: "running"},
		{name: "boot deadline, up, no ssh address at all", before: []step{accept, plan, unknown, {3 * time.Second, rental.Seen{Number: 1, Sighting: sight(101, true, func(s *rental.Sighting) { s.Access = rental.Access{} })}}}, event: step{11 * minute, rental.Tick{}}, state: rental.Cancelling, record: "cancelling", act: rental.Cancel{RentalID: 101, Issue: "The container did not become usable."}},
		{name: "place deadline, up, ssh silent, no probe ever worked", before: []step{accept, plan, unknown, {25 * minute, seenDown.event}, {26 * minute, seenUp.event}}, event: step{30 * minute, rental.Tick{}}, state: rental.Running, record: "running"},
		{name: "place deadline while provisioning", before: []step{accept, plan, unknown, {25 * minute, seenDown.event}}, event: step{30 * minute, rental.Tick{}}, state: rental.Cancelling, record: "cancelling", act: rental.Cancel{RentalID: 101}},
		{name: "place deadline while running", before: []step{accept, plan, unknown, seenDown, seenUp, answers}, event: step{31 * minute, rental.Tick{}}, state: rental.Running},
		{name: "up, probed again", before: []step{accept, plan, unknown, seenDown, seenUp}, event: step{minute, rental.Tick{}}, state: rental.Provisioning, act: rental.Probe{Number: 1, Host: "n1.example", Port: 1022}},
		{name: "planned end", before: []step{accept, plan, unknown, seenDown, seenUp, answers}, event: step{25 * time.Hour, rental.Tick{}}, state: rental.Cancelling, record: "cancelling", act: rental.Cancel{RentalID: 101}},
		{name: "planned end while provisioning", order: change(func(o *rental.Order) { o.Ask.Duration = 5 * minute }), before: []step{accept, plan, unknown, seenDown}, event: step{6 * minute, rental.Tick{}}, state: rental.Cancelling, record: "cancelling", act: rental.Cancel{RentalID: 101}},
		{name: "no planned end", order: change(func(o *rental.Order) { o.Ask.Duration, o.EndsAt = 0, time.Time{} }), before: []step{accept, plan, unknown, seenDown, seenUp, answers}, event: step{2400 * time.Hour, rental.Tick{}}, state: rental.Running},
		{name: "cancel repeated", before: []step{accept, plan, unknown, seenDown, cancelled}, event: step{minute, rental.Tick{}}, state: rental.Cancelling, act: rental.Cancel{RentalID: 101}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o, _ := after(t, asked(tt.order...), tt.before...)
			next, effects := after(t, o, tt.event)
			if next.State != tt.state {
				t.Errorf("state %s, want %s", next.State, tt.state)
			}
			event := ""
			if r := record(effects); r != nil {
				event = r.Event
			}
			if event != tt.record {
				t.Errorf("recorded %q, want %q", event, tt.record)
			}
			var want []rental.Effect
			if tt.act != nil {
				want = []rental.Effect{tt.act}
			}
			if text(t, others(effects)) != text(t, want) {
				t.Errorf("does %+v, want %+v", others(effects), want)
			}
		})
	}
}

// TestIllegal holds what is a defect of the caller: the order must come back as it was.
func TestIllegal(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		before []step
		event  step
	}{
		{"above the ceiling", []step{accept}, step{0, rental.Planned{Intent: intent(1, func(i *rental.Intent) { i.PerDay = dec("12.00000001") })}}},
		{"above the ceiling by its rate, whatever it says of itself", []step{accept}, step{0, rental.Planned{Intent: intent(1, func(i *rental.Intent) { i.USDRate = dec("1.26") })}}},
		{"no rate", []step{accept}, step{0, rental.Planned{Intent: intent(1, func(i *rental.Intent) { i.USDRate = dec("0") })}}},
		{"negative rate", []step{accept}, step{0, rental.Planned{Intent: intent(1, func(i *rental.Intent) { i.USDRate = dec("-1") })}}},
		{"no price", []step{accept}, step{0, rental.Planned{Intent: intent(1, func(i *rental.Intent) { i.PerDay = dec("0") })}}},
		{"no server", []step{accept}, step{0, rental.Planned{Intent: intent(0)}}},
		{"no deadline", []step{accept}, step{0, rental.Planned{Intent: intent(1, func(i *rental.Intent) { i.CallBy = time.Time{} })}}},
		{"while a call is out", []step{accept, plan}, step{minute, rental.Planned{Intent: intent(2)}}},
		{"while the outcome is unknown", []step{accept, plan, unknown}, step{minute, rental.Planned{Intent: intent(2)}}},
		{"while a rental is held", []step{accept, plan, unknown, seenDown}, step{minute, rental.Planned{Intent: intent(2)}}},
		{"while a rental is being ended for the next", []step{accept, plan, unknown, seenDown, {11 * minute, rental.Tick{}}}, step{12 * minute, rental.Planned{Intent: intent(2)}}},
		{"after a wanted end", []step{accept, plan, cancelled}, step{minute, rental.Planned{Intent: intent(2)}}},
		{"after the place deadline", []step{accept}, step{30 * minute, rental.Planned{Intent: intent(1)}}},
		{"after the end", []step{accept, noOffer}, step{minute, rental.Planned{Intent: intent(1)}}},
		{"beyond the last candidate", []step{accept, plan, refused, {minute, rental.Planned{Intent: intent(2)}}, {minute, rental.Called{Number: 2, Refused: true}}}, step{2 * minute, rental.Planned{Intent: intent(3)}}},
		{"an end before the beginning", nil, cancelled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o, _ := after(t, asked(func(o *rental.Order) { o.Policy.MaxCandidates = 2 }), tt.before...)
			next, effects, err := rental.Decide(o, tt.event.event, t0.Add(tt.event.after))
			if !illegal(err) {
				t.Errorf("got %v, want ErrIllegal", err)
			}
			if len(effects) > 0 || text(t, next) != text(t, o) {
				t.Errorf("an illegal event changed the order or had effects %v", effects)
			}
		})
	}
}

// TestGuards holds what no sequence of events reaches, so that one mistake elsewhere does not spend money.
func TestGuards(t *testing.T) {
	t.Parallel()
	none, _ := after(t, asked(func(o *rental.Order) { o.Policy.MaxCandidates = 0 }), accept)
	ending, _ := after(t, asked(), accept, plan, refused)
	ending.Wanted = &rental.End{Kind: rental.ByCommand}
	for name, o := range map[string]rental.Order{"no candidate is allowed": none, "an end is wanted": ending} {
		if _, _, err := rental.Decide(o, rental.Planned{Intent: intent(2)}, t0.Add(minute)); !illegal(err) {
			t.Errorf("%s: %v, want ErrIllegal", name, err)
		}
	}
	if ending.WantsServer() {
		t.Error("an order whose end is wanted wants a server")
	}
}

// TestIntents holds what becomes of the intent itself: the next reads and the next choice go by it.
func TestIntents(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		steps      []step
		outcome    rental.Outcome
		failedBoot bool
		called     bool
	}{
		{"call out", []step{accept, plan}, rental.Open, false, false},
		{"answered", []step{accept, plan, unknown}, rental.Open, false, true},
		{"found after a restart", []step{accept, plan, {minute, rental.Recovered{}}}, rental.Open, false, true},
		{"refused", []step{accept, plan, refused}, rental.Refused, false, true},
		{"looked for and not there", []step{accept, plan, look, {minute, absent.event}}, rental.Refused, false, true},
		{"absent", []step{accept, plan, unknown, absent}, rental.NotThere, false, true},
		{"seen", []step{accept, plan, unknown, seenDown}, rental.Placed, false, true},
		{"first seen finished", []step{accept, plan, unknown, {minute, rental.Gone{Number: 1, RentalID: 101}}}, rental.Over, true, true},
		{"first seen finished, an end wanted", []step{accept, plan, unknown, cancelled, {minute, rental.Gone{Number: 1, RentalID: 101}}}, rental.Over, false, true},
		{"gone while provisioning", []step{accept, plan, unknown, seenDown, gone}, rental.Over, true, true},
		{"never booted", []step{accept, plan, unknown, seenDown, {11 * minute, rental.Tick{}}}, rental.Placed, true, true},
		{"cancelled while provisioning", []step{accept, plan, unknown, seenDown, cancelled, gone}, rental.Over, false, true},
		{"gone while running", []step{accept, plan, unknown, seenDown, seenUp, answers, gone}, rental.Over, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o, _ := after(t, asked(), tt.steps...)
			if i := o.Intents[0]; i.Outcome != tt.outcome || i.FailedBoot != tt.failedBoot || i.Called != tt.called {
				t.Errorf("%s, failed boot %v, called %v; want %s, %v, %v", i.Outcome, i.FailedBoot, i.Called, tt.outcome, tt.failedBoot, tt.called)
			}
		})
	}
}

// TestCallDeadline holds from when absence counts: the answer of the call, also one that came late.
func TestCallDeadline(t *testing.T) {
	t.Parallel()
	for _, at := range []time.Duration{2 * time.Second, 2 * time.Hour} {
		o, _ := after(t, asked(), accept, plan, step{at, unknown.event})
		if got := o.Current().CallBy; !got.Equal(t0.Add(at)) {
			t.Errorf("answered after %s: call deadline %s", at, got.Sub(t0))
		}
	}
	o, _ := after(t, asked(), accept, plan, step{time.Minute, rental.Recovered{}})
	if got := o.Current().CallBy; !got.Equal(t0.Add(time.Hour)) {
		t.Errorf("never answered: call deadline %s, want the planned one", got.Sub(t0))
	}
}

// TestSettlements holds how each command is told to have ended: the code, and the text of the seed's callback.
func TestSettlements(t *testing.T) {
	t.Parallel()
	noPrice := func(o *rental.Order) { o.Ask.CeilingGiven, o.Ask.PriceAsSent = false, "" }
	tests := []struct {
		name   string
		order  []func(*rental.Order)
		steps  []step // the last one settles
		code   string // of the create; empty: it succeeds
		seed   string
		record string
	}{
		{"running", nil, []step{accept, plan, unknown, seenDown, seenUp, answers}, "", "", "running"},
		{"no match", nil, []step{accept, noOffer}, "NO_MATCHING_SERVER", "No RTX 4090 available under $0.5/hr", "failed"},
		{"no match, no price", change(noPrice), []step{accept, noOffer}, "NO_MATCHING_SERVER", "No RTX 4090 available", "failed"},
		{"no match, price from elsewhere", change(func(o *rental.Order) { o.Ask.PriceAsSent, o.Ask.CeilingAsked = "", dec("0.50") }), []step{accept, noOffer}, "NO_MATCHING_SERVER", "No RTX 4090 available under $0.5/hr", "failed"},
		{"no match, price above the limit is echoed as asked", change(func(o *rental.Order) { o.Ask.PriceAsSent, o.Ask.CeilingAsked = "9.0", dec("9") }), []step{accept, noOffer}, "NO_MATCHING_SERVER", "No RTX 4090 available under $9.0/hr", "failed"},
		{"no match, name from elsewhere", change(func(o *rental.Order) { o.Ask.GPUAsSent = "" }), []step{accept, noOffer}, "NO_MATCHING_SERVER", "No rtx-4090 available under $0.5/hr", "failed"},
		{"no match in time", change(patient), []step{accept, noOffer, {20 * minute, rental.Tick{}}}, "NO_MATCHING_SERVER", "No RTX 4090 available under $0.5/hr", "failed"},
		{"place deadline", nil, []step{accept, {30 * minute, rental.Tick{}}}, "PLACE_DEADLINE", "Order creation timed out", "failed"},
		{"place deadline, and no offer", nil, []step{accept, {30 * minute, noOffer.event}}, "PLACE_DEADLINE", "Order creation timed out", "failed"},
		{"place deadline, proved absent", nil, []step{accept, plan, unknown, {30 * minute, rental.Tick{}}, {31 * minute, absent.event}}, "PLACE_DEADLINE", "Order creation timed out", "failed"},
		{"place deadline, proved gone", nil, []step{accept, plan, unknown, {25 * minute, seenDown.event}, {30 * minute, rental.Tick{}}, {31 * minute, gone.event}}, "PLACE_DEADLINE", "Order creation timed out", "failed"},
		{"candidates used up, absent", change(last), []step{accept, plan, unknown, absent}, "PLACE_DEADLINE", "Order creation timed out", "failed"},
		{"candidates used up, never booted", change(last), []step{accept, plan, unknown, seenDown, {11 * minute, rental.Tick{}}, {12 * minute, gone.event}}, "PLACE_DEADLINE", "Order creation timed out", "failed"},
		{"budget of failed boots used up", nil, []step{accept, plan, unknown, {minute, rental.Gone{Number: 1, RentalID: 101, Spend: dec("0.5")}}}, "PLACE_DEADLINE", "Order creation timed out", "failed"},
		{"nothing else after a failed boot", nil, []step{accept, plan, unknown, seenDown, {minute, gone.event}, {2 * minute, noOffer.event}}, "PLACE_DEADLINE", "Order creation timed out", "failed"},
		{"wrong price, none left", change(last), []step{accept, plan, unknown, {minute, rental.Seen{Number: 1, Sighting: sight(101, false, func(s *rental.Sighting) { s.PerDay = dec("13") })}}, {2 * minute, gone.event}}, "PRICE_MISMATCH", "Order creation timed out", "failed"},
		{"planned end before it ran", change(func(o *rental.Order) { o.Ask.Duration = 5 * minute }), []step{accept, plan, unknown, seenDown, {6 * minute, rental.Tick{}}, {7 * minute, gone.event}}, "PLACE_DEADLINE", "Order creation timed out", "ended"},
		{"refused everywhere", change(last), []step{accept, plan, refused}, "SERVERS_REFUSED", "Every server that fitted was refused by the market (server 1: server-offline). Ask again.", "failed"},
		{"wallet empty", nil, []step{accept, plan, {2 * time.Second, rental.Called{Number: 1, Refused: true, Reason: "not_enough_balance"}}}, "WALLET_EMPTY", "The market account has not enough USD-Blockchain. Top it up, or allow another currency.", "failed"},
		{"key bad", nil, []step{accept, plan, {2 * time.Second, rental.Called{Number: 1, Refused: true, Reason: "code-3"}}}, "UPSTREAM_AUTH", "The market does not accept the API key. Check it and restart.", "failed"},
		{"over a limit", nil, []step{{0, rental.Asked{Rejected: true, Turned: &rental.Failure{Code: "RATE_LIMITED", Seed: "limits.orders_per_hour: try again later"}}}}, "RATE_LIMITED", "limits.orders_per_hour: try again later", "rejected"},
		{"cancelled first", nil, []step{{0, rental.Asked{Forestalled: true}}}, "CANCELLED", "Order cancelled", "cancelled"},
		{"cancelled", nil, []step{accept, cancelled}, "CANCELLED", "Order cancelled", "cancelled"},
		{"cancelled, proved absent", nil, []step{accept, plan, unknown, cancelled, absent}, "CANCELLED", "Order cancelled", "cancelled"},
		{"cancelled, proved gone", nil, []step{accept, plan, unknown, seenDown, cancelled, {minute, gone.event}}, "CANCELLED", "Order cancelled", "cancelled"},
		{"outbid before it was ready", nil, []step{accept, planSpot, unknown, seenDown, {minute, gone.event}}, "INTERRUPTED", "Outbid before it was ready", "interrupted"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o, effects := after(t, asked(tt.order...), tt.steps...)
			r := record(effects)
			f, ok := settledBy(r, o.Create.ID)
			if !ok {
				t.Fatalf("the create is not settled by %+v", r)
			}
			if r.Event != tt.record {
				t.Errorf("settled by %q, want %q", r.Event, tt.record)
			}
			switch {
			case f == nil && tt.code != "":
				t.Errorf("settled as done, want %s", tt.code)
			case f != nil && (f.Code != tt.code || f.Seed != tt.seed):
				t.Errorf("settled as %s %q, want %s %q", f.Code, f.Seed, tt.code, tt.seed)
			case f != nil && tt.code != "RATE_LIMITED" && !strings.HasSuffix(f.Message, "."):
				t.Errorf("%q is no sentence", f.Message)
			}
			if !o.CreateSettled {
				t.Error("the order does not know that its create is settled")
			}
		})
	}
}

// TestCreateSettlesOnce: what ends after it was running has told its create, and an end does not tell it again.
func TestCreateSettlesOnce(t *testing.T) {
	t.Parallel()
	running := []step{accept, plan, unknown, seenDown, seenUp, answers}
	dear := step{minute, rental.Seen{Number: 1, Sighting: sight(101, true, func(s *rental.Sighting) { s.PerDay = dec("13") })}}
	for name, end := range map[string][]step{
		"gone": {gone}, "cancelled": {cancelled, gone}, "planned end": {{25 * time.Hour, rental.Tick{}}, {26 * time.Hour, gone.event}},
		"price": {dear, {31 * minute, gone.event}}, "the next server": {dear, {2 * minute, gone.event}, {3 * minute, noOffer.event}},
	} {
		o, effects := after(t, asked(), append(running[:len(running):len(running)], end...)...)
		if !o.State.Terminal() || o.CreateFailure != nil {
			t.Errorf("%s: %s, the create failed by %+v", name, o.State, o.CreateFailure)
		}
		if _, again := settledBy(record(effects), o.Create.ID); again {
			t.Errorf("%s: the create is told a second time", name)
		}
	}
}

// TestCancelsSettle holds that a cancel is told only when the end is proved, and then as done, whatever the order's end.
func TestCancelsSettle(t *testing.T) {
	t.Parallel()
	second := step{time.Minute, rental.EndAsked{Operation: cancelOp("d"), By: "local"}}
	tests := []struct {
		name  string
		steps []step
		told  []string // by the last step
	}{
		{"call out", []step{accept, plan, cancelled}, nil},
		{"call out, refused", []step{accept, plan, {time.Second, cancelled.event}, refused}, []string{"c"}},
		{"unconfirmed", []step{accept, plan, unknown, cancelled}, nil},
		{"unconfirmed, absent", []step{accept, plan, unknown, cancelled, second, absent}, []string{"c", "d"}},
		{"running", []step{accept, plan, unknown, seenDown, seenUp, answers, cancelled}, nil},
		{"running, gone", []step{accept, plan, unknown, seenDown, seenUp, answers, cancelled, second, gone}, []string{"c", "d"}},
		{"ended by the place deadline", []step{accept, plan, unknown, {30 * minute, rental.Tick{}}, {31 * minute, cancelled.event}, {32 * minute, absent.event}}, []string{"c"}},
		{"after the end", []step{accept, noOffer, cancelled}, []string{"c"}},
		{"another after the end", []step{accept, noOffer, cancelled, second}, []string{"d"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, effects := after(t, asked(), tt.steps...)
			for _, op := range []string{"c", "d"} {
				f, ok := settledBy(record(effects), cancelOp(op).ID)
				want := false
				for _, told := range tt.told {
					want = want || told == op
				}
				if ok != want || f != nil {
					t.Errorf("cancel %s told: %v (failure %v), want %v", op, ok, f, want)
				}
			}
		})
	}
}

// TestUnprobedIsOfTheRental: an order that is placed anew does not carry the mark of the rental before.
func TestUnprobedIsOfTheRental(t *testing.T) {
	t.Parallel()
	o, _ := after(t, asked(), accept, plan, unknown, seenDown, seenUp, step{11 * minute, rental.Tick{}})
	if o.State != rental.Running || !o.Unprobed {
		t.Fatalf("%s, unprobed %v; want RUNNING unprobed", o.State, o.Unprobed)
	}
	dear := sight(101, true, func(s *rental.Sighting) { s.PerDay = dec("13") })
	o, _ = after(t, o, step{12 * minute, rental.Seen{Number: 1, Sighting: dear}}, step{13 * minute, gone.event}, step{14 * minute, rental.Planned{Intent: intent(2)}})
	if o.Unprobed || o.Intents[0].FailedBoot || !o.Intents[0].RealPerDay.Equal(dec("13")) {
		t.Errorf("unprobed %v, counted as a failed boot %v, billed %s; want none of it and 13", o.Unprobed, o.Intents[0].FailedBoot, o.Intents[0].RealPerDay)
	}
}

// TestLaterVersionsAreRefused: a word this version does not know must not be taken for one that bills nothing.
// row:29
func TestLaterVersionsAreRefused(t *testing.T) {
	t.Parallel()
	o, _ := after(t, asked(), accept, plan, unknown, cancelled)
	b, err := o.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for word, later := range map[string]string{`"UNCONFIRMED"`: `"PAUSED"`, `"open"`: `"paused"`, `"asked"`: `"burned"`} {
		changed := strings.Replace(string(b), word, later, 1)
		if changed == string(b) {
			t.Fatalf("%s is not in the journal's form", word)
		}
		if _, err := rental.Unmarshal([]byte(changed)); err == nil {
			t.Errorf("%s is understood", later)
		}
	}
	if _, err := rental.Unmarshal(b); err != nil {
		t.Error(err)
	}
}

// TestExtend holds what moves and what does not.
func TestExtend(t *testing.T) {
	t.Parallel()
	running := []step{accept, plan, unknown, seenDown, seenUp, answers}
	extend := func(by time.Duration) step {
		return step{time.Hour, rental.ExtendAsked{Operation: extendOp("e"), By: by, Reserved: dec("11")}}
	}
	lent := rental.Planned{Intent: intent(1, func(i *rental.Intent) { i.MaxLength = 26 * time.Hour })}
	for _, c := range []struct {
		name    string
		order   []func(*rental.Order)
		before  []step
		by      time.Duration
		refused string
	}{
		{name: "running", before: running, by: 2 * time.Hour},
		{name: "pending", before: []step{accept}, by: 2 * time.Hour},
		{name: "as long as the host lends it", before: []step{accept, {time.Second, lent}}, by: 2 * time.Hour},
		{name: "longer than the host lends it", before: []step{accept, {time.Second, lent}}, by: 2*time.Hour + time.Second, refused: "The host lends the server for 26h0m0s at most."},
		{name: "backwards", before: running, by: -time.Hour, refused: "The end can only be moved further away; cancel the order to end it sooner."},
		{name: "by nothing", before: running, refused: "The end can only be moved further away; cancel the order to end it sooner."},
		{name: "no planned end", order: change(func(o *rental.Order) { o.Ask.Duration, o.EndsAt = 0, time.Time{} }), before: running, by: time.Hour, refused: "The order has no planned end."},
		{name: "being ended", before: append(running, cancelled), by: time.Hour, refused: "The order is being ended."},
		{name: "ended", before: append(running, gone), by: time.Hour, refused: "The order has ended."},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			before, _ := after(t, asked(c.order...), c.before...)
			next, effects := after(t, before, extend(c.by))
			f, settled := settledBy(record(effects), extendOp("e").ID)
			switch {
			case !settled:
				t.Fatal("the command is not settled")
			case c.refused != "":
				if f == nil || f.Message != c.refused || !next.EndsAt.Equal(before.EndsAt) || next.Ask.Duration != before.Ask.Duration {
					t.Fatalf("got %+v, the end moved from %s to %s", f, before.EndsAt, next.EndsAt)
				}
			case f != nil || !next.EndsAt.Equal(before.EndsAt.Add(c.by)) || next.Ask.Duration != before.Ask.Duration+c.by:
				t.Fatalf("got %+v, the end moved from %s to %s", f, before.EndsAt, next.EndsAt)
			case next.Current() != nil && next.Current().Reserved.Cmp(dec("11")) != 0:
				t.Fatalf("%s is reserved", next.Current().Reserved)
			}
		})
	}
}
