package ledger_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/govalues/decimal"
	"pgregory.net/rapid"

	"github.com/renthook/renthook/services/order/internal/ledger"
	"github.com/renthook/renthook/services/order/internal/rental"
)

func dec(s string) decimal.Decimal { return decimal.MustParse(s) }

var (
	fees = ledger.Fees{OnDemand: dec("0.05"), Spot: dec("0.0125"), Creation: dec("0.10")}
	noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
)

// one is an order with an intent of 24 USD per day: 1.05 an hour with its fee.
func one(out rental.Outcome, begun, ends time.Duration, change ...func(*rental.Order)) *rental.Order {
	o := &rental.Order{ID: "ord_1", Client: "local", EndsAt: noon.Add(ends), Intents: []rental.Intent{{
		Number: 1, Type: "on-demand", PerDay: dec("12"), USDRate: dec("2"), At: noon.Add(begun), Outcome: out,
	}}}
	if out == rental.Over {
		o.Intents[0].EndedAt = o.EndsAt
	}
	for _, c := range change {
		c(o)
	}
	return o
}

// row:43 row:45
func TestCommitted(t *testing.T) {
	t.Parallel()
	const h = time.Hour
	for _, c := range []struct {
		name string
		o    *rental.Order
		want string
	}{
		{"placed, ends today", one(rental.Placed, 0, 2*h), "2.20"},
		{"unknown outcome counts as placed", one(rental.Open, 0, 2*h), "2.20"},
		{"until midnight only", one(rental.Placed, 0, 48*h), "12.70"},
		{"no end: until midnight", one(rental.Placed, 0, 0, func(o *rental.Order) { o.EndsAt = time.Time{} }), "12.70"},
		{"begun yesterday: no creation fee, from midnight on", one(rental.Placed, -24*h, 2*h), "14.70"},
		{"past its end without proof: until now", one(rental.Placed, -2*h, -h), "2.20"},
		{"ended", one(rental.Over, -2*h, -h), "1.15"},
		{"ended yesterday", one(rental.Over, -26*h, -25*h), "0"},
		{"ended today, begun yesterday", one(rental.Over, -13*h, -h), "11.55"},
		{"ended, the market says more", one(rental.Over, -2*h, -h, func(o *rental.Order) { o.Intents[0].Spend = dec("1") }), "2.20"},
		{"ended, the market says less", one(rental.Over, -2*h, -h, func(o *rental.Order) { o.Intents[0].Spend = dec("0.01") }), "1.15"},
		{"refused", one(rental.Refused, -2*h, h), "0"},
		{"proved absent", one(rental.NotThere, -2*h, h), "0"},
		{"the billed price counts once it is known", one(rental.Placed, 0, h, func(o *rental.Order) { o.Intents[0].RealPerDay = dec("6") }), "0.625"},
		{"spot has its own fee", one(rental.Placed, 0, h, func(o *rental.Order) { o.Intents[0].Type = "spot" }), "1.1125"},
		{"every attempt counts", one(rental.Placed, 0, h, func(o *rental.Order) {
			first := o.Intents[0]
			first.Outcome, first.At, first.EndedAt = rental.Over, noon.Add(-h), noon
			o.Intents = append([]rental.Intent{first}, o.Intents...)
		}), "2.30"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := ledger.Committed([]*rental.Order{c.o}, fees, ledger.Day(noon), noon)
			if err != nil || got.Cmp(dec(c.want)) != 0 {
				t.Fatalf("got %s (%v), want %s", got, err, c.want)
			}
		})
	}
}

// A day is the calendar's in its own zone, also when it has 23 or 25 hours.
func TestDay(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for day, hours := range map[string]float64{"2026-03-29T12:00:00+02:00": 23, "2026-10-25T12:00:00+01:00": 25, "2026-11-24T00:30:00+01:00": 24} {
		at, err := time.Parse(time.RFC3339, day)
		if err != nil {
			t.Fatal(err)
		}
		s := ledger.Day(at.In(berlin))
		if got := s.To.Sub(s.From).Hours(); got != hours || at.Before(s.From) || !at.Before(s.To) || s.From.Hour() != 0 {
			t.Errorf("%s: from %s to %s, %v hours", day, s.From, s.To, got)
		}
	}
	if m := ledger.Month(noon); !m.From.Equal(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)) || !m.To.Equal(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("the month is %v", m)
	}
}

// row:54
func TestPasses(t *testing.T) {
	t.Parallel()
	live := one(rental.Placed, -time.Hour, time.Hour) // 2.20 of the day, burns 1.05
	next := rental.Order{ID: "ord_2", Client: "local"}
	i := rental.Intent{Type: "on-demand", PerDay: dec("12"), USDRate: dec("2")}
	for _, c := range []struct {
		name   string
		limits ledger.Limits
		order  *rental.Order
		intent rental.Intent
		ends   time.Duration
		want   string
	}{
		{name: "nothing limited", order: &next, intent: i, ends: 100 * time.Hour},
		{name: "burn holds two", limits: ledger.Limits{BurnPerHour: dec("2.10")}, order: &next, intent: i, ends: time.Hour},
		{name: "burn does not hold two", limits: ledger.Limits{BurnPerHour: dec("2.0999")}, order: &next, intent: i, ends: time.Hour, want: "limits.burn_per_hour: with it 2.10 USD per hour would be committed, the limit is 2.0999; cancel one"},
		{name: "the day holds it", limits: ledger.Limits{SpendPerDay: dec("3.35")}, order: &next, intent: i, ends: time.Hour},
		{name: "the day does not", limits: ledger.Limits{SpendPerDay: dec("3.34")}, order: &next, intent: i, ends: time.Hour, want: "limits.spend_per_day: with it 3.35 USD would be committed, the limit is 3.34; try again at 2026-11-25T00:00:00Z"},
		{name: "the month does not", limits: ledger.Limits{SpendPerDay: dec("100"), SpendPerMonth: dec("3.34")}, order: &next, intent: i, ends: time.Hour, want: "limits.spend_per_month: with it 3.35 USD would be committed, the limit is 3.34; try again at 2026-12-01T00:00:00Z"},
		{name: "a recorded intent counts once", limits: ledger.Limits{SpendPerDay: dec("3.25"), BurnPerHour: dec("1.05")}, order: live, intent: live.Intents[0], ends: 2 * time.Hour},
		{name: "a recorded intent counts with its new end", limits: ledger.Limits{SpendPerDay: dec("3.24")}, order: live, intent: live.Intents[0], ends: 2 * time.Hour, want: "limits.spend_per_day: with it 3.25 USD would be committed, the limit is 3.24; try again at"},
		{name: "what cannot be reckoned is over", limits: ledger.Limits{SpendPerDay: dec("3")}, order: &next, intent: rental.Intent{PerDay: dec("9000000000000000000"), USDRate: dec("9000000000000000000")}, ends: time.Hour, want: "limits.spend_per_day: what is spent cannot be reckoned"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			over := c.limits.Passes([]*rental.Order{live}, c.order, c.intent, noon.Add(c.ends), fees, noon)
			switch {
			case over == nil && c.want != "":
				t.Fatalf("nothing is passed, want %q", c.want)
			case over != nil && (c.want == "" || !strings.HasPrefix(over.Text("limits."), c.want)):
				t.Fatalf("got %q, want %q", over.Text("limits."), c.want)
			}
			if len(live.Intents) != 1 || len(next.Intents) != 0 {
				t.Fatal("the orders were changed")
			}
		})
	}
}

// Whatever the orders are: what was spent is part of what is committed, days add up to no less than the whole, and plain
// numbers agree.
func TestLedgerAddsUp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var orders []*rental.Order
		naive := 0.0
		span := ledger.Span{From: noon.Add(-48 * time.Hour), To: noon.Add(48 * time.Hour)}
		for n := range rapid.IntRange(0, 6).Draw(t, "orders") {
			begun := time.Duration(rapid.IntRange(-3000, 0).Draw(t, "begun")) * time.Minute
			ends := begun + time.Duration(rapid.IntRange(1, 5000).Draw(t, "length"))*time.Minute
			out := rapid.SampledFrom([]rental.Outcome{rental.Open, rental.Placed, rental.Over, rental.Refused, rental.NotThere}).Draw(t, "outcome")
			if out == rental.Over {
				ends = min(ends, 0)
			}
			o := one(out, begun, ends)
			o.ID += string(rune('a' + n))
			orders = append(orders, o)
			if out.Live() || out == rental.Over {
				stop := max(ends, 0)
				if out == rental.Over {
					stop = ends
				}
				naive += 1.05 * max(min(stop, 48*time.Hour)-max(begun, -48*time.Hour), 0).Hours()
				if begun >= -48*time.Hour {
					naive += 0.10
				}
			}
		}
		sum := func(s ledger.Span) float64 {
			d, err := ledger.Committed(orders, fees, s, noon)
			if err != nil {
				t.Fatal(err)
			}
			f, _ := d.Float64()
			return f
		}
		whole := sum(span)
		if math.Abs(whole-naive) > 1e-9*math.Max(1, naive) {
			t.Fatalf("committed %v, plain numbers give %v", whole, naive)
		}
		cut := noon.Add(time.Duration(rapid.IntRange(-2880, 2880).Draw(t, "cut")) * time.Minute)
		if parts := sum(ledger.Span{From: span.From, To: cut}) + sum(ledger.Span{From: cut, To: span.To}); math.Abs(parts-whole) > 1e-9*math.Max(1, whole) {
			t.Fatalf("the parts give %v, the whole %v", parts, whole)
		}
		spent, err := ledger.Spent(orders, fees, span, noon)
		if f, _ := spent.Float64(); err != nil || f > whole+1e-9 {
			t.Fatalf("spent %v of %v committed (%v)", f, whole, err)
		}
	})
}

func TestUses(t *testing.T) {
	t.Parallel()
	l := ledger.Limits{SpendPerDay: dec("2.75"), SpendPerMonth: dec("2.2")}
	uses, err := l.Uses([]*rental.Order{one(rental.Placed, -time.Hour, time.Hour)}, fees, noon)
	if err != nil || len(uses) != 2 {
		t.Fatalf("%v %v", uses, err)
	}
	day, month := uses[0], uses[1]
	if day.Part() != 80 || day.Spent.Cmp(dec("1.15")) != 0 || month.Part() != 100 || day.Setting != "spend_per_day" || month.Setting != "spend_per_month" {
		t.Errorf("got %+v (%d %%), %+v (%d %%)", day, day.Part(), month, month.Part())
	}
	if p := (ledger.Use{Limit: dec("3"), Committed: dec("2.3999")}).Part(); p != 79 {
		t.Errorf("79.99 %% is told as %d", p)
	}
}
