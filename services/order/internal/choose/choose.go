// Package choose picks the server an order asks for next.
//
// It guarantees that what it picks meets the ask, is not above the ceiling in USD per hour and whole server, is priced
// in a coin the server takes and the wallet can pay, and is the cheapest of those with fees. It refuses unpriced coins
// and bids below a floor. It is pure: the offers, the wallet and the servers to leave alone are handed in.
package choose

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/money"
	"github.com/renthook/renthook/services/order/internal/ledger"
	"github.com/renthook/renthook/services/order/internal/rental"
)

// spotWorth is how far below on demand a spot floor must lie to be worth the risk of being outbid: 5 %.
var spotWorth = decimal.MustNew(95, 2)

// Terms are what the settings and the account add to an ask.
type Terms struct {
	// MinReliability applies unless the ask names its own: 0..1.
	MinReliability float64
	// SpotHeadroom is what a bid lies above the floor: 1.02.
	SpotHeadroom decimal.Decimal
	// Fees are counted in ranking and against balances.
	Fees ledger.Fees
	// Balances per coin; nil when the wallet has not been read, and then nothing is held against a coin.
	Balances map[string]decimal.Decimal
	// Leave says why a server must be left alone: held by another of our orders, blocked, tried before.
	Leave map[int64]string
}

// Choice is the server to ask for, and how.
type Choice struct {
	Offer market.Offer
	Quote market.Quote
	Type  market.Type
	// PerDay is to be sent: the required price or the bid, per DAY, whole server, in Quote.Currency.
	PerDay decimal.Decimal
	// USDPerHour is PerDay in USD per hour, whole server, before fees; Paid the same with fees.
	USDPerHour, Paid decimal.Decimal
	// Reserved is USD: Paid × duration (24 h for "never") plus the creation fee.
	Reserved decimal.Decimal
	// Shortened is the rental length the host allows when it is below what was asked; zero otherwise.
	Shortened time.Duration
	// Why counts what else was listed and why it was not taken, a sentence.
	Why string
}

// Choose returns the best choice, or nil and a sentence that counts why nothing was taken.
func Choose(ask rental.Ask, offers []market.Offer, t Terms) (*Choice, string) {
	c := chooser{ask: ask, terms: t, refused: map[string][]int64{}}
	for n := range offers {
		c.look(&offers[n])
	}
	if len(c.choices) == 0 {
		return nil, c.why(len(offers))
	}
	slices.SortFunc(c.choices, func(a, b Choice) int {
		return cmp.Or(
			cmpBool(a.Shortened != 0, b.Shortened != 0), // a shorter rental only when nothing else fits
			cmpBool(a.Offer.Bait, b.Offer.Bait),
			a.Paid.Cmp(b.Paid),
			cmp.Compare(b.Offer.Reliability, a.Offer.Reliability),
			cmp.Compare(a.Offer.ServerID, b.Offer.ServerID),
		)
	})
	best := c.choices[0]
	best.Why = c.counted(len(offers), mostNamed)
	return &best, ""
}

func cmpBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

type chooser struct {
	ask     rental.Ask
	terms   Terms
	choices []Choice
	// refused are the servers not taken, by reason.
	refused map[string][]int64
	// cheapest is USD per hour of the cheapest server that fails by its price alone.
	cheapest decimal.Decimal
}

func (c *chooser) refuse(o *market.Offer, reason string) {
	c.refused[reason] = append(c.refused[reason], o.ServerID)
}

func (c *chooser) look(o *market.Offer) {
	if reason := c.unfit(o); reason != "" {
		c.refuse(o, reason)
		return
	}
	found := false
	reason := "no coin it takes is priced"
	for _, q := range o.OnDemand {
		choice, why := c.price(o, q)
		if choice == nil {
			reason = cmp.Or(why, reason)
			continue
		}
		c.choices = append(c.choices, *choice)
		found = true
	}
	if c.ask.MarketType == string(market.Spot) || len(o.OnDemand) == 0 && c.ask.MarketType != string(market.OnDemand) {
		for _, q := range o.Spot {
			if slices.ContainsFunc(o.OnDemand, func(d market.Quote) bool { return d.Currency == q.Currency }) {
				continue // priced above, together with its on-demand price
			}
			choice, why := c.bid(o, q, decimal.Zero)
			if choice == nil {
				reason = cmp.Or(why, reason)
				continue
			}
			c.choices = append(c.choices, *choice)
			found = true
		}
	}
	if !found {
		c.refuse(o, reason)
	}
}

// unfit says why a server does not meet the ask whatever it costs.
func (c *chooser) unfit(o *market.Offer) string {
	// fact:rented-hides-spot
	r := c.ask.Requirements
	least := r.MinReliability
	if least == 0 {
		least = c.terms.MinReliability
	}
	switch {
	case o.GPU != c.ask.GPU:
		return "another model"
	case c.ask.Count != 0 && o.GPUCount != c.ask.Count:
		return "another number of GPUs"
	case o.Rented:
		return "rented"
	case c.terms.Leave[o.ServerID] != "":
		return c.terms.Leave[o.ServerID]
	case o.Reliability < least:
		return fmt.Sprintf("reliability below %g", least)
	case o.VRAMGB < r.MinVRAMGB:
		return "too little GPU memory"
	case o.RAMGB < r.MinRAMGB:
		return "too little memory"
	case o.DiskGB < r.MinDiskGB:
		return "too little disk"
	case o.DownMbps < r.MinDownMbps || o.UpMbps < r.MinUpMbps:
		return "network too slow"
	case len(r.Countries) > 0 && !slices.ContainsFunc(r.Countries, func(cc string) bool { return strings.EqualFold(cc, o.Country) }):
		return "another country"
	case r.MinCUDA != "" && lower(o.CUDA, r.MinCUDA):
		return "CUDA too old"
	}
	return ""
}

// lower compares dotted versions; an unreadable one is lower than any.
func lower(have, want string) bool {
	h, w := strings.Split(have, "."), strings.Split(want, ".")
	for n := range max(len(h), len(w)) {
		var a, b int
		var err error
		if n < len(h) {
			if a, err = strconv.Atoi(h[n]); err != nil {
				return true
			}
		}
		if n < len(w) {
			b, _ = strconv.Atoi(w[n])
		}
		if a != b {
			return a < b
		}
	}
	return false
}

// price makes the choice for one coin: spot where it is asked for or worth it, else on demand.
func (c *chooser) price(o *market.Offer, onDemand market.Quote) (*Choice, string) {
	spot := -1
	for n, q := range o.Spot {
		if q.Currency == onDemand.Currency {
			spot = n
		}
	}
	switch c.ask.MarketType {
	case string(market.OnDemand):
	case string(market.Spot):
		if spot < 0 {
			return nil, "no spot price"
		}
		return c.bid(o, o.Spot[spot], onDemand.PerDay)
	default:
		if spot >= 0 {
			worth, err := money.Times(onDemand.PerDay, spotWorth)
			if err == nil && o.Spot[spot].PerDay.IsPos() && o.Spot[spot].PerDay.Cmp(worth) <= 0 {
				return c.bid(o, o.Spot[spot], onDemand.PerDay)
			}
		}
	}
	return c.choice(o, onDemand, market.OnDemand, onDemand.PerDay)
}

// bid is min(ceiling, floor × headroom, on demand × 0.95), never below the floor. onDemand is zero when unknown.
func (c *chooser) bid(o *market.Offer, floor market.Quote, onDemand decimal.Decimal) (*Choice, string) {
	// fact:bids-keep-eight-decimals fact:spot-map-is-the-floor
	if why, ok := c.payable(floor); !ok {
		return nil, why
	}
	bid, err := money.Times(floor.PerDay, c.terms.SpotHeadroom)
	if err != nil {
		return nil, "price out of range"
	}
	ceiling, err := money.PerDay(c.ask.Ceiling, floor.USDRate)
	if err != nil {
		return nil, "price out of range"
	}
	bid = bid.Min(ceiling)
	if onDemand.IsPos() {
		most, err := money.Times(onDemand, spotWorth)
		if err != nil {
			return nil, "price out of range"
		}
		bid = bid.Min(most)
	}
	bid = bid.Trunc(8)
	if bid.Cmp(floor.PerDay) < 0 {
		if floor.PerDay.Cmp(ceiling) > 0 {
			c.noteCheapest(floor.USDPerHour)
			return nil, "above the ceiling"
		}
		return nil, "spot floor too near the on-demand price"
	}
	return c.choice(o, floor, market.Spot, bid)
}

func (c *chooser) noteCheapest(usd decimal.Decimal) {
	if c.cheapest.IsZero() || usd.Cmp(c.cheapest) < 0 {
		c.cheapest = usd
	}
}

// payable says whether a coin may be paid in at all, and why not where there is more to say than that it has no price.
func (c *chooser) payable(q market.Quote) (string, bool) {
	if c.ask.Currency != "" && c.ask.Currency != "auto" && c.ask.Currency != q.Currency {
		return "another currency", false
	}
	return "", q.Allowed && q.Priced && q.USDRate.IsPos()
}

func (c *chooser) choice(o *market.Offer, q market.Quote, typ market.Type, perDay decimal.Decimal) (*Choice, string) {
	if why, ok := c.payable(q); !ok || !perDay.IsPos() {
		return nil, why
	}
	usd, err := money.USDPerHour(perDay, q.USDRate)
	if err != nil {
		return nil, "price out of range"
	}
	if usd.Cmp(c.ask.Ceiling) > 0 {
		c.noteCheapest(usd)
		return nil, "above the ceiling"
	}
	out := Choice{Offer: *o, Quote: q, Type: typ, PerDay: perDay, USDPerHour: usd}
	duration := c.ask.Duration
	if duration == 0 {
		duration = 24 * time.Hour
	}
	if o.MaxRental > 0 && o.MaxRental < c.ask.Duration {
		duration, out.Shortened = o.MaxRental, o.MaxRental
	}
	if err := out.reckon(c.terms.Fees, duration); err != nil {
		return nil, "price out of range"
	}
	if c.terms.Balances != nil && !c.pays(q, out.Reserved) {
		return nil, "not enough balance in a coin it takes"
	}
	return &out, ""
}

// reckon fills in what will be paid and reserved.
func (c *Choice) reckon(fees ledger.Fees, duration time.Duration) (err error) {
	// fact:renters-fee
	if c.Paid, err = fees.Paid(c.USDPerHour, string(c.Type)); err != nil {
		return err
	}
	minutes, err := decimal.New(int64(duration/time.Minute)+1, 0)
	if err != nil {
		return err
	}
	sum, err := money.Times(c.Paid, minutes)
	if err != nil {
		return err
	}
	if sum, err = sum.Quo(decimal.MustNew(60, 0)); err != nil {
		return err
	}
	c.Reserved, err = money.Add(sum, fees.Creation)
	return err
}

// pays says that the balance in the quote's coin covers usd.
func (c *chooser) pays(q market.Quote, usd decimal.Decimal) bool {
	have, err := money.Times(c.terms.Balances[q.Currency], q.USDRate)
	return err == nil && have.Cmp(usd) >= 0
}

// mostNamed bounds how many servers are named for one reason.
const mostNamed = 3

// why says why nothing was taken.
func (c *chooser) why(offers int) string {
	if offers == 0 {
		return "none is listed"
	}
	text := c.counted(offers, 0)
	if c.cheapest.IsPos() {
		text += fmt.Sprintf("; the cheapest is %s USD per hour, the ceiling %s", money.Cents(c.cheapest), money.Cents(c.ask.Ceiling))
	}
	return text
}

// counted counts the reasons, most frequent first, and names some servers of each.
func (c *chooser) counted(offers, named int) string {
	reasons := slices.SortedFunc(maps.Keys(c.refused), func(a, b string) int {
		return cmp.Or(len(c.refused[b])-len(c.refused[a]), strings.Compare(a, b))
	})
	var parts []string
	for _, reason := range reasons {
		servers := c.refused[reason]
		part := fmt.Sprintf("%d %s", len(servers), reason)
		if named > 0 {
			var some []string
			for _, id := range servers[:min(named, len(servers))] {
				some = append(some, strconv.FormatInt(id, 10))
			}
			if len(servers) > named {
				some = append(some, "…")
			}
			part += " (" + strings.Join(some, ", ") + ")"
		}
		parts = append(parts, part)
	}
	text := fmt.Sprintf("%d listed", offers)
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	return text
}
