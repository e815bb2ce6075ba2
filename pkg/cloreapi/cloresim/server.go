package cloresim

import (
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	"github.com/govalues/decimal"
)

// facts are what the control calls changed about a server since a moment; nil members are as listed.
type facts struct {
	Since       time.Time        `json:"since"`
	OnDemandUSD *decimal.Decimal `json:"on_demand_usd_per_day,omitempty"`
	SpotUSD     *decimal.Decimal `json:"spot_usd_per_day,omitempty"`
	Rented      *bool            `json:"rented,omitempty"`
	Reliability *decimal.Decimal `json:"reliability,omitempty"`
	Online      *bool            `json:"online,omitempty"`
	// Boots false: containers stay at mon_container 0. SSH false: the ssh port never answers.
	Boots *bool `json:"boots,omitempty"`
	SSH   *bool `json:"ssh,omitempty"`
	// RefuseCoins are refused with currency-not-allowed although they are listed.
	RefuseCoins []string `json:"refuse_coins,omitempty"`
	Removed     bool     `json:"removed,omitempty"`
}

// mostFacts bounds how far back a stale answer can see changes made by control calls.
const mostFacts = 64

// server is a listing, what was changed about it, and who is on it.
type server struct {
	*listing
	history []facts
	rentals []*rental
	shown   shown
}

// at gives the facts that held at a moment.
func (s *server) at(t time.Time) facts {
	for _, f := range slices.Backward(s.history) {
		if !f.Since.After(t) {
			return f
		}
	}
	if len(s.history) == mostFacts {
		return s.history[0]
	}
	return facts{}
}

// change records facts that hold from f.Since on.
func (s *server) change(f facts) {
	if len(s.history) == mostFacts {
		s.history = slices.Delete(s.history, 0, 1)
	}
	s.history = append(s.history, f)
}

func (s *server) online(t time.Time) bool {
	f := s.at(t)
	return !f.Removed && (f.Online == nil || *f.Online)
}

// hostRented says that the listing itself, or a control call, shows the server as rented by somebody outside.
func (s *server) hostRented(t time.Time) bool {
	if f := s.at(t); f.Rented != nil {
		return *f.Rented
	}
	return s.rented
}

// onDemandHolder is the on-demand rental that holds the server at t.
func (s *server) onDemandHolder(t time.Time) *rental {
	for _, r := range slices.Backward(s.rentals) {
		if !r.Spot && r.liveAt(t) {
			return r
		}
	}
	return nil
}

// bids are the spot orders that stand at t.
func (s *server) bids(t time.Time) []*rental {
	var bids []*rental
	for _, r := range s.rentals {
		if r.Spot && r.liveAt(t) {
			bids = append(bids, r)
		}
	}
	return bids
}

// prices are the sound prices per day at t, by coin, in listing order.
func (w *world) prices(s *server, spot bool, t time.Time) []coinPrice {
	f := s.at(t)
	listed, usd := s.onDemand, f.OnDemandUSD
	if spot {
		listed, usd = s.spot, f.SpotUSD
	}
	if usd != nil {
		return w.priced(*usd, listed, s.allowed)
	}
	factor := w.drift(s, t)
	prices := make([]coinPrice, 0, len(listed))
	for _, p := range listed {
		if p.sound {
			if !factor.IsOne() {
				p.amount = times(p.amount, factor).Ceil(digits(p.coin))
			}
			prices = append(prices, p)
		}
	}
	return prices
}

// priced spreads a price in USD over the coins that were listed, or over the allowed ones where none was.
func (w *world) priced(usd decimal.Decimal, listed []coinPrice, allowed []string) []coinPrice {
	coins := allowed
	if len(listed) > 0 {
		coins = make([]string, len(listed))
		for i, p := range listed {
			coins[i] = p.coin
		}
	}
	var prices []coinPrice
	for _, coin := range coins {
		if rate, ok := w.rates[coin]; ok {
			prices = append(prices, coinPrice{coin: coin, amount: inCoin(usd, rate, coin), sound: true})
		}
	}
	return prices
}

// inCoin is an amount in USD in a coin, rounded up to what the market shows, so that nothing gets cheaper by it.
func inCoin(usd, rate decimal.Decimal, coin string) decimal.Decimal {
	return over(usd, rate).Ceil(digits(coin))
}

func priceIn(prices []coinPrice, coin string) (decimal.Decimal, bool) {
	for _, p := range prices {
		if p.coin == coin && p.sound {
			return p.amount, true
		}
	}
	return decimal.Zero, false
}

// driftPeriod is how long a drifting price stands: spot floors were seen to move about every ten minutes.
const driftPeriod = 10 * time.Minute

// drift is the factor on a server's listed prices at t, a function of seed, server and time alone: nothing needs
// to be kept. It is never below one, so that drift makes no bargain that the inventory does not have.
func (w *world) drift(s *server, t time.Time) decimal.Decimal {
	if !w.settings.Drift || s.steady {
		return decimal.One
	}
	h := fnv.New64a()
	write := func(n int64) { _, _ = h.Write(strconv.AppendInt([]byte{' '}, n, 10)) }
	write(w.settings.Seed)
	write(s.id)
	// Each server turns at its own moment within the period, so that a poller sees a few changes every time.
	phase := int64(h.Sum64() % uint64(driftPeriod/time.Second))
	write((t.Unix() + phase) / int64(driftPeriod/time.Second))
	return decimal.MustNew(1000+int64(h.Sum64()%81), 3)
}

// usdPerDay is what a price list says in USD: stated in USD where it can be, else the first coin with a rate.
func (w *world) usdPerDay(prices []coinPrice) (decimal.Decimal, bool) {
	if usd, ok := priceIn(prices, "USD-Blockchain"); ok {
		return times(usd, w.rates["USD-Blockchain"]), true
	}
	for _, p := range prices {
		if rate, ok := w.rates[p.coin]; ok {
			return times(p.amount, rate), true
		}
	}
	return decimal.Zero, false
}
