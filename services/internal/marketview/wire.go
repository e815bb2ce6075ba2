package marketview

import (
	"fmt"
	"time"

	"github.com/govalues/decimal"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	marketv1 "github.com/renthook/renthook/proto/gen/renthook/market/v1"
	"github.com/renthook/renthook/services/internal/market"
)

// EncodeOffer turns an offer into what stands on the bus. Rates stand once, in the snapshot, and not in each quote.
func EncodeOffer(o *market.Offer) *marketv1.Offer {
	return &marketv1.Offer{
		ServerId: o.ServerID, Gpu: o.GPU, GpuName: o.Name, GpuFullName: o.FullName, GpuCount: int32(o.GPUCount),
		VramGb: o.VRAMGB, Rented: o.Rented, MaxRentalHours: int32(o.MaxRental / time.Hour),
		OnDemand: encodeQuotes(o.OnDemand), Spot: encodeQuotes(o.Spot),
		Reliability: o.Reliability, Rating: o.Rating, Ratings: int32(o.Ratings), Country: o.Country, Cuda: o.CUDA,
		DownMbps: o.DownMbps, UpMbps: o.UpMbps, RamGb: o.RAMGB, DiskGb: o.DiskGB,
		PcieGen: int32(o.PCIeGen), PcieLanes: int32(o.PCIeLane), Owner: o.Owner, Bait: o.Bait,
	}
}

func encodeQuotes(quotes []market.Quote) []*marketv1.Quote {
	out := make([]*marketv1.Quote, len(quotes))
	for i := range quotes {
		q := &quotes[i]
		out[i] = &marketv1.Quote{Currency: q.Currency, PerDay: q.PerDay.String(), Allowed: q.Allowed}
		if q.Priced {
			out[i].UsdPerHour = q.USDPerHour.String()
		}
	}
	return out
}

// decodeOffers turns a part of a book into offers. One array holds all their quotes.
func decodeOffers(in []*marketv1.Offer, text *interner) ([]market.Offer, error) {
	n := 0
	for _, o := range in {
		n += len(o.GetOnDemand()) + len(o.GetSpot())
	}
	quotes := make([]market.Quote, 0, n)
	out := make([]market.Offer, len(in))
	for i, o := range in {
		from := len(quotes)
		var err error
		if quotes, err = decodeQuotes(quotes, o.GetOnDemand(), text); err != nil {
			return nil, fmt.Errorf("server %d: %w", o.GetServerId(), err)
		}
		mid := len(quotes)
		if quotes, err = decodeQuotes(quotes, o.GetSpot(), text); err != nil {
			return nil, fmt.Errorf("server %d: %w", o.GetServerId(), err)
		}
		out[i] = market.Offer{
			ServerID: o.GetServerId(), GPU: text.of(o.GetGpu()), Name: text.of(o.GetGpuName()),
			FullName: text.of(o.GetGpuFullName()), GPUCount: int(o.GetGpuCount()), VRAMGB: o.GetVramGb(),
			Rented: o.GetRented(), MaxRental: time.Duration(o.GetMaxRentalHours()) * time.Hour,
			OnDemand: quotes[from:mid:mid], Spot: quotes[mid:len(quotes):len(quotes)],
			Reliability: o.GetReliability(), Rating: o.GetRating(), Ratings: int(o.GetRatings()),
			Country: text.of(o.GetCountry()), CUDA: text.of(o.GetCuda()), DownMbps: o.GetDownMbps(), UpMbps: o.GetUpMbps(),
			RAMGB: o.GetRamGb(), DiskGB: o.GetDiskGb(), PCIeGen: int(o.GetPcieGen()), PCIeLane: int(o.GetPcieLanes()),
			Owner: o.GetOwner(), Bait: o.GetBait(),
		}
	}
	return out, nil
}

func decodeQuotes(to []market.Quote, in []*marketv1.Quote, text *interner) ([]market.Quote, error) {
	for _, q := range in {
		perDay, err := decimal.Parse(q.GetPerDay())
		if err != nil {
			return nil, fmt.Errorf("price per day in %s: %w", q.GetCurrency(), err)
		}
		out := market.Quote{Currency: text.of(q.GetCurrency()), PerDay: perDay, Allowed: q.GetAllowed()}
		if s := q.GetUsdPerHour(); s != "" {
			if out.USDPerHour, err = decimal.Parse(s); err != nil {
				return nil, fmt.Errorf("USD per hour in %s: %w", q.GetCurrency(), err)
			}
			out.Priced = true
		}
		to = append(to, out)
	}
	return to, nil
}

// EncodeSnapshot turns what is known of a poll into what stands on the bus.
func EncodeSnapshot(p Poll) *marketv1.Snapshot {
	s := &marketv1.Snapshot{
		Poll: p.Number, BeginTime: timestamppb.New(p.Began), Interval: durationpb.New(p.Interval),
		Servers: int32(p.Servers), Available: int32(p.Available), Dropped: int32(p.Dropped), Models: int32(p.Models),
		UsdRates: make(map[string]string, len(p.Rates)), RateSources: make(map[string]string, len(p.Rates)),
	}
	for coin, r := range p.Rates {
		s.UsdRates[coin], s.RateSources[coin] = r.USD.String(), r.Source
	}
	return s
}

func decodeSnapshot(s *marketv1.Snapshot) (Poll, error) {
	p := Poll{
		Number: s.GetPoll(), Began: s.GetBeginTime().AsTime(), Interval: s.GetInterval().AsDuration(),
		Servers: int(s.GetServers()), Available: int(s.GetAvailable()), Dropped: int(s.GetDropped()), Models: int(s.GetModels()),
		Rates: make(map[string]market.Rate, len(s.GetUsdRates())),
	}
	for coin, text := range s.GetUsdRates() {
		usd, err := decimal.Parse(text)
		if err != nil {
			return Poll{}, fmt.Errorf("rate of %s: %w", coin, err)
		}
		p.Rates[coin] = market.Rate{USD: usd, Source: s.GetRateSources()[coin]}
	}
	return p, nil
}

// interner keeps one copy of each short text that thousands of offers share.
type interner struct{ seen map[string]string }

// mostTexts bounds the interner; models, coins, countries and CUDA versions are some hundreds.
const mostTexts = 8192

func (t *interner) of(s string) string {
	if known, ok := t.seen[s]; ok {
		return known
	}
	if t.seen == nil || len(t.seen) >= mostTexts {
		t.seen = map[string]string{}
	}
	t.seen[s] = s
	return s
}
