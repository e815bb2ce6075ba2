package rental_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/renthook/renthook/services/internal/money"
	"github.com/renthook/renthook/services/order/internal/rental"
)

// drawOrder is an order that was just asked for, of any temper.
func drawOrder(t *rapid.T) rental.Order {
	return asked(func(o *rental.Order) {
		o.Policy.MaxCandidates = rapid.IntRange(1, 4).Draw(t, "candidates")
		o.Policy.ProbeSSH = rapid.Bool().Draw(t, "probe")
		if rapid.Bool().Draw(t, "no ssh") {
			noSSH(o)
		}
		if rapid.Bool().Draw(t, "patient") {
			patient(o)
		}
		o.Ask.Duration = rapid.SampledFrom([]time.Duration{0, 5 * minute, 24 * time.Hour}).Draw(t, "duration")
		if o.Ask.Duration == 0 {
			o.EndsAt = time.Time{}
		}
	})
}

// drawEvent is any event: what the order expects now, what is late, what comes twice, what is illegal.
func drawEvent(t *rapid.T, o *rental.Order) rental.Event {
	newest := len(o.Intents)
	number := newest
	if rapid.Bool().Draw(t, "goes on") {
		if e := onward(t, o); e != nil {
			return e
		}
	}
	if rapid.IntRange(0, 3).Draw(t, "which") == 0 {
		number = rapid.IntRange(0, newest+1).Draw(t, "number")
	}
	row := func() rental.Sighting {
		return sight(rapid.Int64Range(100, 103).Draw(t, "rental"), rapid.Bool().Draw(t, "up"), func(s *rental.Sighting) {
			s.PerDay = dec(rapid.SampledFrom([]string{"9.6", "9.6", "9.6", "9.7", "11.9", "13"}).Draw(t, "billed"))
			s.Currency = rapid.SampledFrom([]string{"USD-Blockchain", "USD-Blockchain", "USD-Blockchain", "bitcoin"}).Draw(t, "coin")
			s.Spend = dec(rapid.SampledFrom([]string{"0", "0.1", "0.6"}).Draw(t, "spend"))
			if rapid.IntRange(0, 3).Draw(t, "ports") == 0 {
				s.Access = rental.Access{}
			}
		})
	}
	switch rapid.IntRange(0, 13).Draw(t, "event") {
	case 0:
		return rental.Asked{Forestalled: rapid.Bool().Draw(t, "forestalled")}
	case 1, 2:
		return rental.Planned{Intent: intent(rapid.Int64Range(1, 5).Draw(t, "server"), func(i *rental.Intent) {
			i.PerDay = dec(rapid.SampledFrom([]string{"9.6", "12", "12.00000001", "400"}).Draw(t, "price"))
			i.USDRate = dec(rapid.SampledFrom([]string{"1", "1", "0.9", "1.5", "0", "-1"}).Draw(t, "rate"))
			i.Type = rapid.SampledFrom([]string{"on-demand", "spot"}).Draw(t, "type")
		})}
	case 3:
		return rental.NoOffer{Reason: "none"}
	case 4:
		return rental.Called{
			Number: number, Refused: rapid.Bool().Draw(t, "refused"), Look: rapid.Bool().Draw(t, "look"),
			Reason: rapid.SampledFrom([]string{"server-offline", "not_enough_balance", "code-3", "code-0", "timeout"}).Draw(t, "reason"),
		}
	case 5:
		return rental.Recovered{}
	case 6:
		return rental.Seen{Number: number, Sighting: row()}
	case 7:
		return rental.Probed{Number: number, OK: rapid.Bool().Draw(t, "ok")}
	case 8:
		return rental.Absent{Number: number, Reason: "3 good reads"}
	case 9:
		return rental.Gone{Number: number, RentalID: rapid.SampledFrom([]int64{0, 101}).Draw(t, "first sight"), Spend: dec("0.2")}
	case 10:
		id := rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "operation")
		if id == "" {
			return rental.EndAsked{By: "somebody"}
		}
		return rental.EndAsked{Operation: cancelOp(id), By: "local"}
	case 11:
		e := rental.ExtendAsked{
			Operation: extendOp(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "extension")),
			By:        rapid.SampledFrom([]time.Duration{-minute, 0, time.Hour}).Draw(t, "by"), Reserved: dec("11"),
		}
		if rapid.Bool().Draw(t, "over a limit") {
			e.Refused = &rental.Failure{Code: "SPEND_CAP_EXCEEDED", Message: "over"}
		}
		return e
	case 12:
		return rental.Barred{Failure: rental.Failure{Code: "SPEND_CAP_EXCEEDED", Message: "over"}}
	default:
		return rental.Tick{ProbeProven: rapid.Bool().Draw(t, "proven")}
	}
}

// onward is what brings an order nearer to running, and then to its end; nil when nothing does.
func onward(t *rapid.T, o *rental.Order) rental.Event {
	number := len(o.Intents)
	switch {
	case o.State == rental.New:
		return rental.Asked{}
	case o.WantsServer():
		return rental.Planned{Intent: intent(int64(number+1), func(i *rental.Intent) {
			i.Type = rapid.SampledFrom([]string{"on-demand", "spot"}).Draw(t, "type")
		})}
	case o.State == rental.Placing:
		return rental.Called{Number: number, Reason: "code-0"}
	case o.State == rental.Unconfirmed:
		return rental.Seen{Number: number, Sighting: sight(101, false)}
	case o.State == rental.Provisioning && !o.HeldIntent().Up:
		return rental.Seen{Number: number, Sighting: sight(o.HeldIntent().RentalID, true)}
	case o.State == rental.Provisioning:
		return rental.Probed{Number: number, OK: true}
	case o.State.Held():
		return rental.Gone{Number: number}
	}
	return nil
}

// judge holds everything that one decision must keep.
type judge struct {
	settled map[string]int
	wanted  map[string]bool // operations that were accepted
	at      time.Time
}

func (j *judge) decide(t *rapid.T, o rental.Order, e rental.Event) rental.Order {
	before := text(t, o)
	next, effects, err := rental.Decide(o, e, j.at)
	if text(t, o) != before {
		t.Fatalf("%T in %s: the order handed in was changed", e, o.State)
	}
	if err != nil {
		if !illegal(err) || len(effects) > 0 || text(t, next) != before {
			t.Fatalf("%T in %s: refused by %v, with effects %v", e, o.State, err, effects)
		}
		return next
	}
	j.replay(t, o, e, next, effects)
	j.records(t, o, e, next, effects)
	j.invariants(t, &o, &next)
	j.acts(t, &o, &next, others(effects))
	return next
}

// replay: the order as the journal keeps it decides the same.
func (j *judge) replay(t *rapid.T, o rental.Order, e rental.Event, next rental.Order, effects []rental.Effect) {
	b, err := o.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	read, err := rental.Unmarshal(b)
	if err != nil {
		t.Fatal(err)
	}
	again, effects2, err := rental.Decide(*read, e, j.at)
	if err != nil || text(t, again) != text(t, next) || fmt.Sprintf("%T", effects) != fmt.Sprintf("%T", effects2) || text(t, effects) != text(t, effects2) {
		t.Fatalf("%T in %s: decided otherwise after a round trip: %v\n%s\n%s\n%v\n%v", e, o.State, err, text(t, next), text(t, again), effects, effects2)
	}
}

// durable is the order without what is kept but not recorded: what the market shows of a rental.
func durable(o rental.Order) rental.Order {
	o.Revision, o.Updated = 0, time.Time{}
	o.Intents = slices.Clone(o.Intents)
	for n := range o.Intents {
		i := &o.Intents[n]
		i.Spend, i.Up, i.Access, i.FrozenSince = dec("0"), false, rental.Access{}, time.Time{}
	}
	return o
}

func (j *judge) records(t *rapid.T, o rental.Order, e rental.Event, next rental.Order, effects []rental.Effect) {
	records := len(effects) - len(others(effects))
	if records > 1 || next.Revision != o.Revision+uint64(records) {
		t.Fatalf("%T in %s: %d records, revision %d after %d", e, o.State, records, next.Revision, o.Revision)
	}
	if records == 1 {
		if _, first := effects[0].(rental.Record); !first {
			t.Fatalf("%T in %s: something is done before it is recorded: %v", e, o.State, effects)
		}
	}
	r := record(effects)
	same := reflect.DeepEqual(durable(o), durable(next))
	if same != (r == nil) {
		t.Fatalf("%T in %s: recorded %v, changed %v", e, o.State, r != nil, !same)
	}
	if ev, ok := e.(rental.EndAsked); ok && ev.Operation.ID != "" {
		j.wanted[ev.Operation.ID] = true
	}
	if ev, ok := e.(rental.ExtendAsked); ok {
		j.wanted[ev.Operation.ID] = true
	}
	if _, ok := e.(rental.Asked); ok && o.State == rental.New {
		j.wanted[o.Create.ID] = true
	}
	if r == nil {
		return
	}
	for _, s := range r.Settled {
		j.settled[s.Operation.ID]++
		if j.settled[s.Operation.ID] > 1 || !j.wanted[s.Operation.ID] {
			t.Fatalf("%T in %s: operation %s was settled %d times, asked for: %v", e, o.State, s.Operation.ID, j.settled[s.Operation.ID], j.wanted[s.Operation.ID])
		}
	}
	if next.State.Terminal() {
		for op := range j.wanted {
			if j.settled[op] != 1 {
				t.Fatalf("%T: %s, and operation %s was settled %d times", e, next.State, op, j.settled[op])
			}
		}
	}
}

func (j *judge) invariants(t *rapid.T, o, next *rental.Order) {
	live := 0
	for n := range next.Intents {
		i := &next.Intents[n]
		if i.Outcome.Live() {
			if live++; n != len(next.Intents)-1 {
				t.Fatalf("intent %d may bill and is not the newest", i.Number)
			}
		}
		if over, err := money.USDPerHour(i.PerDay, i.USDRate); err != nil || over.Cmp(next.Ask.Ceiling) > 0 || !i.USDRate.IsPos() {
			t.Fatalf("intent %d was planned at %s USD per hour, the ceiling is %s (%v)", i.Number, over, next.Ask.Ceiling, err)
		}
		if n < len(o.Intents) {
			from, to := o.Intents[n].Outcome, i.Outcome
			if from != to && (from != rental.Open && from != rental.Placed || from == rental.Placed && to != rental.Over) {
				t.Fatalf("intent %d went from %s to %s", i.Number, from, to)
			}
		}
	}
	if live > 1 || len(next.Intents) > next.Policy.MaxCandidates {
		t.Fatalf("%d intents may bill, %d were tried of %d", live, len(next.Intents), next.Policy.MaxCandidates)
	}
	if len(next.Intents) > len(o.Intents) && (o.Wanted != nil || o.State.Terminal() || !j.at.Before(o.PlaceBy)) {
		t.Fatalf("a new intent in %s, end wanted %v, at %s", o.State, o.Wanted != nil, j.at)
	}
	if o.Wanted != nil && !reflect.DeepEqual(o.Wanted, next.Wanted) {
		t.Fatal("a wanted end was changed")
	}
	switch open, held := next.OpenIntent() != nil, next.HeldIntent() != nil; {
	case next.State.Held() != held,
		next.State == rental.Unconfirmed && !open,
		open && next.State != rental.Unconfirmed && next.State != rental.Placing,
		next.WantsServer() && (open || held || next.Wanted != nil):
		t.Fatalf("%s with an open intent %v, a held one %v, end wanted %v", next.State, open, held, next.Wanted != nil)
	}
	if later := next.EndsAt.After(o.EndsAt); later && len(next.Intents) == len(o.Intents) && (o.Wanted != nil || next.Ask.Duration <= o.Ask.Duration) {
		t.Fatalf("the end moved from %s to %s, end wanted %v, for %s instead of %s", o.EndsAt, next.EndsAt, o.Wanted != nil, next.Ask.Duration, o.Ask.Duration)
	}
	if o.State.Terminal() && next.State != o.State {
		t.Fatalf("%s became %s", o.State, next.State)
	}
	if next.State == rental.Running && next.Intents[len(next.Intents)-1].RentalID == 0 {
		t.Fatal("RUNNING without a rental")
	}
}

func (j *judge) acts(t *rapid.T, o, next *rental.Order, effects []rental.Effect) {
	planned := false
	for _, e := range effects {
		switch e := e.(type) {
		case rental.Create:
			planned = true
			if len(next.Intents) != len(o.Intents)+1 || e.Number != len(next.Intents) {
				t.Fatalf("asks for intent %d of %d without having recorded it", e.Number, len(next.Intents))
			}
		case rental.Cancel:
			if i := next.HeldIntent(); i == nil || i.RentalID != e.RentalID || next.State != rental.Cancelling {
				t.Fatalf("cancels rental %d in %s", e.RentalID, next.State)
			}
		case rental.Probe:
			if next.State != rental.Provisioning || e.Port == 0 || e.Host == "" {
				t.Fatalf("probes %s:%d in %s", e.Host, e.Port, next.State)
			}
		}
	}
	if planned != (len(next.Intents) > len(o.Intents)) {
		t.Fatal("an intent was recorded and is not asked for")
	}
	if next.State == rental.Cancelling && o.State != rental.Cancelling && len(effects) == 0 {
		t.Fatal("CANCELLING without a cancel")
	}
	if next.State.Terminal() && len(effects) > 0 {
		t.Fatalf("%s and still does %v", next.State, effects)
	}
}

// TestAnySequence plays random events and then brings the order to its end: nothing may hold it back for ever.
func TestAnySequence(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o := drawOrder(t)
		j := &judge{settled: map[string]int{}, wanted: map[string]bool{}, at: t0}
		if rapid.IntRange(0, 9).Draw(t, "begun") > 0 {
			o = j.decide(t, o, rental.Asked{})
		}
		for range rapid.IntRange(0, 40).Draw(t, "events") {
			j.at = j.at.Add(rapid.SampledFrom([]time.Duration{0, 0, time.Second, time.Second, minute, 4 * minute, 11 * minute, 25 * time.Hour}).Draw(t, "time"))
			o = j.decide(t, o, drawEvent(t, &o))
		}
		if o.State == rental.New {
			return
		}
		o = j.decide(t, o, rental.EndAsked{Operation: cancelOp("last"), By: "local"})
		number := len(o.Intents)
		for _, e := range []rental.Event{rental.Recovered{}, rental.Absent{Number: number}, rental.Gone{Number: number}} {
			o = j.decide(t, o, e)
		}
		if !o.State.Terminal() || len(o.Cancels) > 0 || !o.CreateSettled {
			t.Fatalf("cannot be brought to its end: %s, %d cancels wait", o.State, len(o.Cancels))
		}
	})
}

// TestPatienceEnds lets only time pass: every order that holds nothing ends, and every rental is asked to end.
func TestPatienceEnds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o := drawOrder(t)
		j := &judge{settled: map[string]int{}, wanted: map[string]bool{}, at: t0}
		o = j.decide(t, o, rental.Asked{})
		for range rapid.IntRange(0, 12).Draw(t, "events") {
			j.at = j.at.Add(rapid.SampledFrom([]time.Duration{0, time.Second, minute}).Draw(t, "time"))
			o = j.decide(t, o, drawEvent(t, &o))
		}
		for range 3 {
			j.at = j.at.Add(25 * time.Hour)
			o = j.decide(t, o, rental.Tick{ProbeProven: true})
		}
		forever := o.EndsAt.IsZero() && o.State == rental.Running
		if !o.State.Terminal() && o.State != rental.Cancelling && o.Wanted == nil && !forever {
			t.Fatalf("still %s after three days, planned end %s", o.State, o.EndsAt)
		}
	})
}
