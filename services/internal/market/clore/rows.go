package clore

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/pkg/cloreapi"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/money"
)

// Beyond these a row makes no sense. The recorded market: 14 GPUs, 24-48 GB each, 1,440 hours, three coins, names of
// 40 bytes.
const (
	mostGPUs   = 64
	mostVRAMGB = 4096
	mostHours  = 10 * 366 * 24
	mostCoins  = 16
	mostText   = 256
)

// offer turns a row into an offer without rates; false for a row that makes no sense.
func (n *names) offer(s *cloreapi.Server) (market.Offer, bool) {
	// fact:mrl-is-a-maximum-in-hours
	model := n.model(gpuText(s))
	count := max(model.Count, len(s.GPUArray))
	vram, ok1 := within(s.Specs.GPURAM, mostVRAMGB)
	reliability, ok2 := within(s.Reliability, 1)
	if !ok1 || !ok2 || model.Slug == "" || s.ID <= 0 || count > mostGPUs || s.MRL < 0 || s.MRL > mostHours {
		return market.Offer{}, false
	}
	onDemand, ok1 := n.quotes(s.Price.OnDemand, s.AllowedCoins)
	spot, ok2 := n.quotes(s.Price.Spot, s.AllowedCoins)
	if !ok1 || !ok2 || len(onDemand)+len(spot) == 0 {
		return market.Offer{}, false
	}
	return market.Offer{
		ServerID: s.ID, GPU: model.Slug, Name: model.Name, FullName: model.Full, GPUCount: count, VRAMGB: vram,
		Rented: s.Rented, MaxRental: time.Duration(s.MRL) * time.Hour, OnDemand: onDemand, Spot: spot,
		Reliability: reliability, Rating: fact(s.Rating.Avg), Ratings: int(min(max(s.Rating.Cnt, 0), 1<<30)),
		Country: n.text(short(s.Specs.Net.CC)), CUDA: n.text(short(s.CUDAVersion)),
		DownMbps: fact(s.Specs.Net.Down), UpMbps: fact(s.Specs.Net.Up), RAMGB: fact(s.Specs.RAM), DiskGB: diskGB(s.Specs.Disk),
		PCIeGen: int(min(fact(s.Specs.PCIeRev), 1<<10)), PCIeLane: int(min(fact(s.Specs.PCIeWidth), 1<<10)), Owner: s.Owner,
	}, true
}

// gpuText is "8x NVIDIA GeForce RTX 3090", or what gpu_array says of a row without it.
func gpuText(s *cloreapi.Server) string {
	text := s.Specs.GPU
	if strings.TrimSpace(text) == "" && len(s.GPUArray) > 0 {
		text = s.GPUArray[0]
		for _, other := range s.GPUArray {
			if other != text {
				return "Mixed GPUs"
			}
		}
	}
	if len(text) > mostText {
		return ""
	}
	return text
}

// quotes reads a map of prices per day. A coin without a price, or priced zero, is not offered; a price that is no
// amount makes the row nonsense.
func (n *names) quotes(prices map[string]cloreapi.Number, allowed []string) ([]market.Quote, bool) {
	// fact:price-per-day
	if len(prices) > mostCoins {
		return nil, false
	}
	quotes := make([]market.Quote, 0, len(prices))
	for coin, text := range prices {
		if text == "" {
			continue
		}
		perDay, err := money.Parse(string(text))
		if err != nil || coin == "" || len(coin) > mostText {
			return nil, false
		}
		if perDay.IsZero() {
			continue
		}
		quotes = append(quotes, market.Quote{Currency: n.text(coin), PerDay: perDay.Trim(0), Allowed: slices.Contains(allowed, coin)})
	}
	slices.SortFunc(quotes, func(a, b market.Quote) int { return strings.Compare(a.Currency, b.Currency) })
	return quotes, true
}

// within reads a number that an offer is chosen by: absent is zero, anything else must lie in 0..most.
func within(n cloreapi.Number, most float64) (float64, bool) {
	if n == "" {
		return 0, true
	}
	f, err := strconv.ParseFloat(string(n), 64)
	return f, err == nil && f >= 0 && f <= most
}

// fact reads a number that is only shown or filtered by: what makes no sense is zero, "not known".
func fact(n cloreapi.Number) float64 { return max(n.Float(), 0) }

func short(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), 16)], "")
}

// diskGB reads the free size at the end of "SPCCx20Solidx20Statex 96.8613GB"; zero when there is none.
func diskGB(disk string) float64 {
	words := strings.Fields(disk)
	if len(words) == 0 {
		return 0
	}
	size := words[len(words)-1]
	for unit, gb := range map[string]float64{"GB": 1, "TB": 1000, "MB": 0.001} {
		if digits, ok := strings.CutSuffix(size, unit); ok {
			return fact(cloreapi.Number(digits)) * gb
		}
	}
	return 0
}

// price gives each quote with a known rate its USD per hour.
func price(offers []market.Offer, rates map[string]market.Rate) {
	for i := range offers {
		for _, quotes := range [][]market.Quote{offers[i].OnDemand, offers[i].Spot} {
			for j := range quotes {
				q := &quotes[j]
				rate, ok := rates[q.Currency]
				if !ok {
					continue
				}
				// A product beyond what a decimal holds is no price anybody pays: the coin stays unpriced.
				if usd, err := money.USDPerHour(q.PerDay, rate.USD); err == nil {
					q.USDPerHour, q.USDRate, q.Priced = usd.Trim(0), rate.USD, true
				}
			}
		}
	}
}

func positive(n cloreapi.Number) (decimal.Decimal, error) { return money.Positive(string(n)) }
