package clore

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/pkg/cloreapi"
	"github.com/renthook/renthook/services/internal/gpu"
	"github.com/renthook/renthook/services/internal/market"
)

// spotRatesEvery is how often rates are asked of spot_marketplace at most: the market moves them about every ten
// minutes, and each call is one less for orders.
const spotRatesEvery = 10 * time.Minute

// OffersConfig is the data of an Offers.
type OffersConfig struct {
	// Rates are USD for one unit of a coin, for coins whose rate the market does not state.
	Rates map[string]decimal.Decimal
}

// Lister lists the marketplace; *cloreapi.Public does.
type Lister interface {
	Marketplace(ctx context.Context) (*cloreapi.Marketplace, error)
}

// SpotReader reads rates beside the queue of bids; *cloreapi.Reader does.
type SpotReader interface {
	SpotMarketplace(ctx context.Context, server int64) (*cloreapi.SpotMarket, error)
}

// Offers lists the market. It is safe for concurrent use.
type Offers struct {
	lister Lister
	spot   SpotReader
	rates  map[string]decimal.Decimal

	mu    sync.Mutex
	names names
	// asked is when spot_marketplace was asked last, spotRates what it said.
	asked     time.Time
	spotRates map[string]decimal.Decimal
}

var _ market.Offers = (*Offers)(nil)

// NewOffers makes an adapter over a client that needs no key. spot may be nil: then rates come from the listing and
// from the configuration only.
func NewOffers(cfg OffersConfig, lister Lister, spot SpotReader) *Offers {
	return &Offers{lister: lister, spot: spot, rates: cfg.Rates}
}

// Offers lists the market with one call, and rarely a second one for rates. It returns a *market.ThrottledError on
// code 5. An answer of which hardly a row makes sense is of unknown shape, and an error.
func (o *Offers) Offers(ctx context.Context) (market.Listing, error) {
	listing := market.Listing{Began: time.Now()}
	answer, err := o.lister.Marketplace(ctx)
	if err != nil {
		return market.Listing{}, readError("marketplace", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	listing.Digest = answer.Digest
	listing.Dropped = answer.Unreadable
	listing.Offers = make([]market.Offer, 0, len(answer.Servers))
	seen := make(map[int64]bool, len(answer.Servers))
	stated := statedRates{}
	for i := range answer.Servers {
		s := &answer.Servers[i]
		offer, ok := o.names.offer(s)
		if !ok || seen[s.ID] {
			listing.Dropped++
			continue
		}
		seen[s.ID] = true
		offer.Bait = stated.add(s.Price.USD, offer.OnDemand)
		listing.Offers = append(listing.Offers, offer)
	}
	if rows := len(listing.Offers) + listing.Dropped; 10*len(listing.Offers) < rows {
		return market.Listing{}, fmt.Errorf("marketplace: %d of %d rows make no sense", listing.Dropped, rows)
	}
	listing.Rates = o.allRates(ctx, listing.Offers, stated)
	price(listing.Offers, listing.Rates)
	return listing, nil
}

// allRates gives each coin of the offers the best rate known.
func (o *Offers) allRates(ctx context.Context, offers []market.Offer, stated statedRates) map[string]market.Rate {
	rates := make(map[string]market.Rate)
	for coin, usd := range o.rates {
		rates[coin] = market.Rate{USD: usd, Source: "setting"}
	}
	answer := stated.medians()
	if o.spot != nil {
		if server := unstated(offers, answer); server != 0 && time.Since(o.asked) >= spotRatesEvery {
			o.asked = time.Now()
			o.askSpot(ctx, server)
		}
		for coin, usd := range o.spotRates {
			rates[coin] = market.Rate{USD: usd, Source: "spot_marketplace"}
		}
	}
	for coin, usd := range answer {
		rates[coin] = market.Rate{USD: usd, Source: "answer"}
	}
	return rates
}

// askSpot keeps what was known when the call fails: a listing is worth more than the newest rate of a rare coin.
func (o *Offers) askSpot(ctx context.Context, server int64) {
	// fact:rate-from-the-queue
	m, err := o.spot.SpotMarketplace(ctx, server)
	if err != nil {
		return
	}
	known := make(map[string]decimal.Decimal, len(m.Rates))
	for coin, n := range m.Rates {
		if usd, err := positive(n); err == nil {
			known[coin] = usd
		}
	}
	if len(known) > 0 {
		o.spotRates = known
	}
}

// unstated is a server with a price in a coin whose rate the answer does not state; zero when there is none.
func unstated(offers []market.Offer, stated map[string]decimal.Decimal) int64 {
	for i := range offers {
		for _, quotes := range [][]market.Quote{offers[i].OnDemand, offers[i].Spot} {
			for j := range quotes {
				if _, ok := stated[quotes[j].Currency]; !ok {
					return offers[i].ServerID
				}
			}
		}
	}
	return 0
}

// names keeps what is computed from, or shared by, the texts of thousands of rows.
type names struct {
	models map[string]gpu.Model
	texts  map[string]string
}

// mostNames bounds each memory; the market shows some hundreds of each.
const mostNames = 4096

func (n *names) model(text string) gpu.Model {
	m, ok := n.models[text]
	if !ok {
		if n.models == nil || len(n.models) >= mostNames {
			n.models = map[string]gpu.Model{}
		}
		m = gpu.Parse(text)
		n.models[text] = m
	}
	return m
}

func (n *names) text(s string) string {
	t, ok := n.texts[s]
	if !ok {
		if n.texts == nil || len(n.texts) >= mostNames {
			n.texts = map[string]string{}
		}
		t = s
		n.texts[s] = s
	}
	return t
}
