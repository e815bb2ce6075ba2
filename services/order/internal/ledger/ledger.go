// Package ledger reckons what orders cost: what has been spent, what is held back for rentals that live or may live, and
// what burns per hour. Everything follows from the intents of the journal, so nothing is kept beside it that could
// disagree: an intent reserves from the moment it is recorded, before its call, and until its end is proved.
//
// It guarantees that what it says is never below what the market can have charged at the prices known: unknown
// outcomes count as rentals, ends count when they are proved, and what cannot be reckoned is an error, which callers take
// for "over the limit". Amounts are USD, fees included. It is pure.
package ledger

import (
	"fmt"
	"slices"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/services/internal/money"
	"github.com/renthook/renthook/services/order/internal/rental"
)

// Fees are the market's: parts of the price (0.05 is 5 %), and USD once a create.
type Fees struct{ OnDemand, Spot, Creation decimal.Decimal } // fact:renters-fee

// Part is what is added to the price of a market type.
func (f Fees) Part(marketType string) decimal.Decimal {
	if marketType == "spot" {
		return f.Spot
	}
	return f.OnDemand
}

// Paid is price (USD per hour) with the fee of a market type, without the creation fee.
func (f Fees) Paid(price decimal.Decimal, marketType string) (decimal.Decimal, error) {
	fee, err := money.Times(price, f.Part(marketType))
	if err != nil {
		return decimal.Zero, err
	}
	return money.Add(price, fee)
}

// Limits are USD; zero is none. Account-wide, or one client's.
type Limits struct {
	// BurnPerHour is what all live rentals together may cost an hour.
	BurnPerHour decimal.Decimal
	// SpendPerDay and SpendPerMonth count calendar days and months of Zone.
	SpendPerDay, SpendPerMonth decimal.Decimal
}

// None says that nothing is limited.
func (l Limits) None() bool {
	return l.BurnPerHour.IsZero() && l.SpendPerDay.IsZero() && l.SpendPerMonth.IsZero()
}

// Span is a stretch of time, its end not included.
type Span struct{ From, To time.Time }

// Day is the calendar day of a moment in its own zone.
func Day(at time.Time) Span {
	y, m, d := at.Date()
	return Span{time.Date(y, m, d, 0, 0, 0, 0, at.Location()), time.Date(y, m, d+1, 0, 0, 0, 0, at.Location())}
}

// Month is the calendar month of a moment in its own zone.
func Month(at time.Time) Span {
	y, m, _ := at.Date()
	return Span{time.Date(y, m, 1, 0, 0, 0, 0, at.Location()), time.Date(y, m+1, 1, 0, 0, 0, 0, at.Location())}
}

func (s Span) holds(at time.Time) bool { return !at.Before(s.From) && at.Before(s.To) }

// overlap is how long a stretch lies within another.
func (s Span) overlap(from, to time.Time) time.Duration {
	if from.Before(s.From) {
		from = s.From
	}
	if to.After(s.To) {
		to = s.To
	}
	return max(to.Sub(from), 0)
}

// hourly is what an intent costs an hour: the price the market shows, before it shows one the price sent.
func hourly(i *rental.Intent, f Fees) (decimal.Decimal, error) {
	perDay := i.PerDay
	if i.RealPerDay.IsPos() {
		perDay = i.RealPerDay
	}
	usd, err := money.USDPerHour(perDay, i.USDRate)
	if err != nil {
		return decimal.Zero, err
	}
	return f.Paid(usd, i.Type)
}

// until is when an intent stops billing, as far as is known: its proved end; else its planned end, or now when that has
// passed without proof; with no planned end, the end of the span.
func until(o *rental.Order, i *rental.Intent, s Span, now time.Time) time.Time {
	switch {
	case i.Outcome == rental.Over:
		return i.EndedAt
	case o.EndsAt.IsZero():
		return s.To
	case o.EndsAt.Before(now):
		return now
	}
	return o.EndsAt
}

// of is what one intent costs within a span.
func of(o *rental.Order, i *rental.Intent, f Fees, s Span, now time.Time) (decimal.Decimal, error) {
	// fact:creation-fee-in-usd fact:spend-without-fees fact:spend-grows-by-the-second
	if i.Outcome != rental.Over && !i.Outcome.Live() {
		return decimal.Zero, nil
	}
	end := until(o, i, s, now)
	cost := decimal.Zero
	if d := s.overlap(i.At, end); d > 0 {
		perHour, err := hourly(i, f)
		if err != nil {
			return decimal.Zero, err
		}
		if cost, err = times(perHour, d); err != nil {
			return decimal.Zero, err
		}
	}
	if i.Outcome == rental.Over && s.holds(i.At) && s.holds(end) && i.Spend.IsPos() {
		// The market's own figure, when the whole rental lies in the span and it is the larger one.
		spent, err := money.Times(i.Spend, i.USDRate)
		if err == nil {
			spent, err = f.Paid(spent, i.Type)
		}
		if err != nil {
			return decimal.Zero, err
		}
		cost = cost.Max(spent)
	}
	if s.holds(i.At) {
		return money.Add(cost, f.Creation)
	}
	return cost, nil
}

// Reserve is what an intent comes to until ends, creation fee included.
func (f Fees) Reserve(i *rental.Intent, ends time.Time) (decimal.Decimal, error) {
	perHour, err := hourly(i, f)
	if err != nil {
		return decimal.Zero, err
	}
	cost, err := times(perHour, max(ends.Sub(i.At), 0))
	if err != nil {
		return decimal.Zero, err
	}
	return money.Add(cost, f.Creation)
}

var secondsPerHour = decimal.MustNew(3600, 0)

// times is USD per hour × a time, whole seconds counted up.
func times(perHour decimal.Decimal, d time.Duration) (decimal.Decimal, error) {
	seconds, err := decimal.New(int64((d+time.Second-1)/time.Second), 0)
	if err != nil {
		return decimal.Zero, err
	}
	sum, err := money.Times(perHour, seconds)
	if err != nil {
		return decimal.Zero, err
	}
	return sum.Quo(secondsPerHour)
}

// Committed is what orders have cost and can still come to within a span.
func Committed(orders []*rental.Order, f Fees, s Span, now time.Time) (decimal.Decimal, error) {
	sum := decimal.Zero
	for _, o := range orders {
		for n := range o.Intents {
			cost, err := of(o, &o.Intents[n], f, s, now)
			if err != nil {
				return decimal.Zero, fmt.Errorf("order %s, attempt %d: %w", o.ID, n+1, err)
			}
			if sum, err = money.Add(sum, cost); err != nil {
				return decimal.Zero, err
			}
		}
	}
	return sum, nil
}

// Spent is what orders have cost within a span up to now.
func Spent(orders []*rental.Order, f Fees, s Span, now time.Time) (decimal.Decimal, error) {
	if now.Before(s.To) {
		s.To = now
	}
	return Committed(orders, f, s, now)
}

// Burn is what orders cost per hour while everything that may bill does.
func Burn(orders []*rental.Order, f Fees) (decimal.Decimal, error) {
	sum := decimal.Zero
	for _, o := range orders {
		for n := range o.Intents {
			i := &o.Intents[n]
			if !i.Outcome.Live() {
				continue
			}
			perHour, err := hourly(i, f)
			if err != nil {
				return decimal.Zero, fmt.Errorf("order %s, attempt %d: %w", o.ID, n+1, err)
			}
			if sum, err = money.Add(sum, perHour); err != nil {
				return decimal.Zero, err
			}
		}
	}
	return sum, nil
}

// Over says that a limit would be passed.
type Over struct {
	// Setting is the limit's name, "spend_per_day"; Limit and Sum are USD.
	Setting    string
	Limit, Sum decimal.Decimal
	// Again is when asking again can help; zero when only an end or a higher limit can.
	Again time.Time
	// Err is why the sum could not be reckoned, which counts as over.
	Err error
}

// Text is a sentence for whoever asked; whose stands before the setting's name: "limits." or "clients.ci.limits.".
func (o *Over) Text(whose string) string {
	if o.Err != nil {
		return fmt.Sprintf("%s%s: what is spent cannot be reckoned (%v): nothing more is rented", whose, o.Setting, o.Err)
	}
	unit := "USD"
	if o.Setting == "burn_per_hour" {
		unit = "USD per hour"
	}
	text := fmt.Sprintf("%s%s: with it %s %s would be committed, the limit is %s; ", whose, o.Setting, money.Cents(o.Sum), unit, money.Cents(o.Limit))
	if o.Again.IsZero() {
		return text + "cancel one, wait for one to end, or raise the limit"
	}
	return text + "try again at " + o.Again.UTC().Format(time.RFC3339) + ", or raise the limit"
}

// Passes says which limit orders would pass with intent i of order o ending at ends; nil when none. An intent that is
// recorded in o already is counted once, with the new end. now is in the zone that days and months are counted in.
func (l Limits) Passes(orders []*rental.Order, o *rental.Order, i rental.Intent, ends time.Time, f Fees, now time.Time) *Over {
	if l.None() {
		return nil
	}
	with := *o
	with.EndsAt, with.Intents = ends, slices.Clone(o.Intents)
	if n := i.Number - 1; n >= 0 && n < len(with.Intents) {
		with.Intents[n] = i
	} else {
		i.Outcome, i.At = rental.Open, now
		with.Intents = append(with.Intents, i)
	}
	all := slices.DeleteFunc(slices.Clone(orders), func(x *rental.Order) bool { return x.ID == o.ID })
	return l.over(append(all, &with), f, now)
}

// budget is one spending limit, set or not, with the stretch it counts.
type budget struct {
	setting string
	limit   decimal.Decimal
	span    Span
}

func (l Limits) budgets(now time.Time) []budget {
	return []budget{{"spend_per_day", l.SpendPerDay, Day(now)}, {"spend_per_month", l.SpendPerMonth, Month(now)}}
}

// over says which limit is passed by what orders come to.
func (l Limits) over(orders []*rental.Order, f Fees, now time.Time) *Over {
	if l.BurnPerHour.IsPos() {
		sum, err := Burn(orders, f)
		if err != nil || sum.Cmp(l.BurnPerHour) > 0 {
			return &Over{Setting: "burn_per_hour", Limit: l.BurnPerHour, Sum: sum, Err: err}
		}
	}
	for _, c := range l.budgets(now) {
		if !c.limit.IsPos() {
			continue
		}
		sum, err := Committed(orders, f, c.span, now)
		if err != nil || sum.Cmp(c.limit) > 0 {
			return &Over{Setting: c.setting, Limit: c.limit, Sum: sum, Again: c.span.To, Err: err}
		}
	}
	return nil
}

// Use is how far one spending limit is used up.
type Use struct {
	Setting string
	// Limit, Committed and Spent are USD; a Limit of zero is none.
	Limit, Committed, Spent decimal.Decimal
}

// Part is Committed as a share of Limit in whole percent, counted down; zero without a limit.
func (u Use) Part() int {
	if u.Limit.IsZero() {
		return 0
	}
	hundred := decimal.MustNew(100, 0)
	part, err := u.Committed.Mul(hundred)
	if err == nil {
		part, err = part.Quo(u.Limit)
	}
	if err != nil {
		return 100
	}
	whole, _, ok := part.Int64(0)
	if !ok || whole > 1000 {
		return 1000
	}
	if r, err := part.Sub(decimal.MustNew(whole, 0)); err == nil && r.IsNeg() {
		whole-- // Int64 rounds
	}
	return int(whole)
}

// Uses says how far the spending limits are used up, also those that are not set.
func (l Limits) Uses(orders []*rental.Order, f Fees, now time.Time) ([]Use, error) {
	var uses []Use
	for _, c := range l.budgets(now) {
		committed, err := Committed(orders, f, c.span, now)
		if err != nil {
			return nil, err
		}
		spent, err := Spent(orders, f, c.span, now)
		if err != nil {
			return nil, err
		}
		uses = append(uses, Use{Setting: c.setting, Limit: c.limit, Committed: committed, Spent: spent})
	}
	return uses, nil
}
