package clore

import (
	"slices"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/pkg/cloreapi"
	"github.com/renthook/renthook/services/internal/market"
)

// Coins as the market names them.
const (
	bitcoin = "bitcoin"
	clore   = "CLORE-Blockchain"
	usd     = "USD-Blockchain"
)

// baitSpread is by how much the dearest coin of a server may exceed its cheapest, both in USD by the market's own
// figures. Servers beyond it were seen to refuse the cheap coin.
var baitSpread = decimal.MustParse("1.15")

// statedRates gathers, per coin, the rates that the rows of one answer imply: price.usd over the coin's price.
type statedRates map[string][]decimal.Decimal

// add takes what a row states and says whether it contradicts itself.
func (r statedRates) add(stated *cloreapi.PriceUSD, onDemand []market.Quote) (bait bool) {
	// fact:rate-from-the-row
	if stated == nil {
		return false
	}
	var least, most decimal.Decimal
	for coin, n := range map[string]cloreapi.Number{
		bitcoin: stated.OnDemandBTC, clore: stated.OnDemandCLORE, usd: stated.OnDemandUSD,
	} {
		perDay, err := positive(n)
		if err != nil {
			continue
		}
		if least.IsZero() || perDay.Cmp(least) < 0 {
			least = perDay
		}
		if perDay.Cmp(most) > 0 {
			most = perDay
		}
		for i := range onDemand {
			if onDemand[i].Currency != coin {
				continue
			}
			if rate, err := perDay.Quo(onDemand[i].PerDay); err == nil && rate.IsPos() {
				r[coin] = append(r[coin], rate)
			}
		}
	}
	limit, err := least.Mul(baitSpread)
	return err == nil && most.Cmp(limit) > 0
}

// medians gives one rate per coin; of an even number the upper middle one, so that doubt makes things dearer.
func (r statedRates) medians() map[string]decimal.Decimal {
	out := make(map[string]decimal.Decimal, len(r))
	for coin, rates := range r {
		slices.SortFunc(rates, decimal.Decimal.Cmp)
		out[coin] = rates[len(rates)/2].Trim(0)
	}
	return out
}
