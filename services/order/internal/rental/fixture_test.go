package rental_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/services/order/internal/rental"
)

// t0 is when every order of these tests is asked for. Its deadlines: boot 10 min after adoption, place 30 min, planned
// end 24 h after the plan.
var t0 = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func dec(s string) decimal.Decimal { return decimal.MustParse(s) }

func asked(change ...func(*rental.Order)) rental.Order {
	o := rental.Order{
		ID: "ord_1", Client: "local", Account: "main", Created: t0, Updated: t0, CommandSeq: 7,
		Create: rental.Operation{ID: "op_order-create_k", Command: "order.create", Seq: 7, Callback: &rental.Callback{URL: "https://a.example/hook", Seed: true}},
		Ask: rental.Ask{
			GPU: "rtx-4090", Ceiling: dec("0.5"), CeilingGiven: true, CeilingAsked: dec("0.5"), MarketType: "any", Currency: "auto",
			Image: "img", Ports: map[int]string{22: "tcp"}, Duration: 24 * time.Hour, GPUAsSent: "RTX 4090", PriceAsSent: "0.5",
		},
		Policy:  rental.Policy{MaxCandidates: 5, BootDeadline: 10 * time.Minute, OutbidAfter: 2 * time.Minute, FailedBootUSD: dec("0.50"), ProbeSSH: true},
		PlaceBy: t0.Add(30 * time.Minute), EndsAt: t0.Add(24 * time.Hour),
	}
	for _, c := range change {
		c(&o)
	}
	return o
}

// intent is for 9.6 USD per day: 0.40 an hour under a ceiling of 0.50.
func intent(server int64, change ...func(*rental.Intent)) rental.Intent {
	i := rental.Intent{
		Server: rental.Server{ID: server, GPU: "rtx-4090", GPUCount: 1}, Type: "on-demand", Currency: "USD-Blockchain",
		PerDay: dec("9.6"), USDRate: dec("1"), USDPerHour: dec("0.4"), Markers: []int{31000, 32000 + int(server)}, Image: "img",
		Baseline: 100, Reserved: dec("10"), CallBy: t0.Add(time.Hour), Epoch: 1,
	}
	for _, c := range change {
		c(&i)
	}
	return i
}

func spot(i *rental.Intent) { i.Type = "spot" }

// sight is an honest row of the rental of intent(…).
func sight(id int64, up bool, change ...func(*rental.Sighting)) rental.Sighting {
	s := rental.Sighting{
		RentalID: id, Currency: "USD-Blockchain", PerDay: dec("9.6"), Started: t0, Up: up, GPUs: []string{"NVIDIA GeForce RTX 4090"},
		Spend: dec("0.01"), Access: rental.Access{Host: "n1.example", TCPPorts: map[int]int{22: 1022, 31000: 1023, 32001: 1024}},
	}
	for _, c := range change {
		c(&s)
	}
	return s
}

func cancelOp(n string) rental.Operation {
	return rental.Operation{ID: "op_order-cancel_" + n, Command: "order.cancel", Seq: 8}
}

func extendOp(n string) rental.Operation {
	return rental.Operation{ID: "op_order-extend_" + n, Command: "order.extend", Seq: 9}
}

// step is one event at t0 + after.
type step struct {
	after time.Duration
	event rental.Event
}

// after plays steps onto an order. Every step must be legal.
func after(t testing.TB, o rental.Order, steps ...step) (rental.Order, []rental.Effect) {
	t.Helper()
	var effects []rental.Effect
	for n, s := range steps {
		next, e, err := rental.Decide(o, s.event, t0.Add(s.after))
		if err != nil {
			t.Fatalf("step %d, %T in %s: %v", n, s.event, o.State, err)
		}
		o, effects = next, e
	}
	return o, effects
}

// Steps that bring an order on its way.
var (
	accept    = step{0, rental.Asked{}}
	plan      = step{time.Second, rental.Planned{Intent: intent(1)}}
	planSpot  = step{time.Second, rental.Planned{Intent: intent(1, spot)}}
	unknown   = step{2 * time.Second, rental.Called{Number: 1, Reason: "code-0"}}
	look      = step{2 * time.Second, rental.Called{Number: 1, Look: true, Reason: "server-already-rented"}}
	refused   = step{2 * time.Second, rental.Called{Number: 1, Refused: true, Reason: "server-offline"}}
	absent    = step{5 * time.Minute, rental.Absent{Number: 1, Reason: "3 good reads"}}
	seenDown  = step{3 * time.Second, rental.Seen{Number: 1, Sighting: sight(101, false)}}
	seenUp    = step{4 * time.Second, rental.Seen{Number: 1, Sighting: sight(101, true)}}
	answers   = step{5 * time.Second, rental.Probed{Number: 1, OK: true}}
	gone      = step{10 * time.Minute, rental.Gone{Number: 1, Spend: dec("0.02"), Proof: "listed as finished"}}
	cancelled = step{6 * time.Second, rental.EndAsked{Operation: cancelOp("c"), By: "local"}}
	noOffer   = step{time.Second, rental.NoOffer{Reason: "3 listed: 3 rented"}}
)

func record(effects []rental.Effect) *rental.Record {
	for _, e := range effects {
		if r, ok := e.(rental.Record); ok {
			return &r
		}
	}
	return nil
}

// others are the effects beside the record.
func others(effects []rental.Effect) []rental.Effect {
	var rest []rental.Effect
	for _, e := range effects {
		if _, ok := e.(rental.Record); !ok {
			rest = append(rest, e)
		}
	}
	return rest
}

// settledBy gives the failure by which a record settles an operation; false when it does not.
func settledBy(r *rental.Record, operation string) (*rental.Failure, bool) {
	if r == nil {
		return nil, false
	}
	for _, s := range r.Settled {
		if s.Operation.ID == operation {
			return s.Failure, true
		}
	}
	return nil, false
}

// fataler is a test, or one draw of a property.
type fataler interface {
	Helper()
	Fatal(args ...any)
}

func text(t fataler, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func illegal(err error) bool { return errors.Is(err, rental.ErrIllegal) }
