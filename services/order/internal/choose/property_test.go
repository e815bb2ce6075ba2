package choose_test

import (
	"context"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/govalues/decimal"
	"pgregory.net/rapid"

	"github.com/renthook/renthook/pkg/cloreapi"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/market/clore"
	"github.com/renthook/renthook/services/order/internal/choose"
	"github.com/renthook/renthook/services/order/internal/rental"
)

func rat(d decimal.Decimal) *big.Rat {
	r, _ := new(big.Rat).SetString(d.String())
	return r
}

// usdPerHour reckons without any rounding.
func usdPerHour(perDay, rate decimal.Decimal) *big.Rat {
	return new(big.Rat).Quo(new(big.Rat).Mul(rat(perDay), rat(rate)), big.NewRat(24, 1))
}

// judge holds a choice to what was asked.
func judge(t *rapid.T, a rental.Ask, terms choose.Terms, c *choose.Choice) {
	o := c.Offer
	quotes := o.OnDemand
	if c.Type == market.Spot {
		quotes = o.Spot
	}
	var listed *market.Quote
	for n := range quotes {
		if quotes[n].Currency == c.Quote.Currency {
			listed = &quotes[n]
		}
	}
	switch {
	case usdPerHour(c.PerDay, c.Quote.USDRate).Cmp(rat(a.Ceiling)) > 0:
		t.Fatalf("%s %s per day at rate %s is above the ceiling of %s USD per hour", c.PerDay, c.Quote.Currency, c.Quote.USDRate, a.Ceiling)
	case listed == nil || !listed.Priced || !listed.Allowed || !listed.USDRate.IsPos():
		t.Fatalf("pays in %s, which is not listed, not priced or not taken: %+v", c.Quote.Currency, listed)
	case a.Currency != "auto" && a.Currency != c.Quote.Currency:
		t.Fatalf("pays in %s, asked %s", c.Quote.Currency, a.Currency)
	case o.GPU != a.GPU || o.Rented || o.Reliability < terms.MinReliability || terms.Leave[o.ServerID] != "":
		t.Fatalf("does not fit: %+v", o)
	case a.MarketType != "any" && string(c.Type) != a.MarketType:
		t.Fatalf("%s, asked %s", c.Type, a.MarketType)
	case !c.PerDay.IsPos() || c.Paid.Cmp(c.USDPerHour) < 0 || c.Reserved.Cmp(terms.Fees.Creation) < 0:
		t.Fatalf("sends %s, pays %s, reserves %s", c.PerDay, c.Paid, c.Reserved)
	case c.Shortened > a.Duration || o.MaxRental > 0 && o.MaxRental < a.Duration != (c.Shortened != 0):
		t.Fatalf("asked for %s, the host allows %s, shortened to %s", a.Duration, o.MaxRental, c.Shortened)
	case c.Type == market.OnDemand && !c.PerDay.Equal(listed.PerDay):
		t.Fatalf("sends %s for a price of %s", c.PerDay, listed.PerDay)
	}
	if c.Type != market.Spot {
		return
	}
	if c.PerDay.Cmp(listed.PerDay) < 0 {
		t.Fatalf("bids %s below the floor of %s", c.PerDay, listed.PerDay)
	}
	for _, q := range o.OnDemand {
		if q.Currency == c.Quote.Currency && q.PerDay.IsPos() && rat(c.PerDay).Cmp(new(big.Rat).Mul(rat(q.PerDay), big.NewRat(95, 100))) > 0 {
			t.Fatalf("bids %s, on demand is %s", c.PerDay, q.PerDay)
		}
	}
	if most := new(big.Rat).Mul(rat(listed.PerDay), rat(terms.SpotHeadroom)); rat(c.PerDay).Cmp(most) > 0 {
		t.Fatalf("bids %s, the floor with headroom is %s", c.PerDay, most.FloatString(12))
	}
}

func drawAsk(t *rapid.T, gpus []string) rental.Ask {
	ceiling, _ := decimal.New(rapid.Int64Range(1, 5_000_000).Draw(t, "ceiling"), rapid.IntRange(4, 7).Draw(t, "scale"))
	return ask(func(a *rental.Ask) {
		a.GPU = rapid.SampledFrom(gpus).Draw(t, "gpu")
		a.Ceiling = ceiling
		a.MarketType = rapid.SampledFrom([]string{"any", "spot", "on-demand"}).Draw(t, "type")
		a.Currency = rapid.SampledFrom([]string{"auto", "auto", usd, btc, tokens}).Draw(t, "coin")
		a.Duration = rapid.SampledFrom([]time.Duration{time.Hour, 24 * time.Hour, 400 * time.Hour}).Draw(t, "duration")
	})
}

func drawQuotes(t *rapid.T) []market.Quote {
	var all []market.Quote
	for _, coin := range []string{usd, tokens, btc} {
		if rapid.IntRange(0, 3).Draw(t, "absent") == 0 {
			continue
		}
		price, _ := decimal.New(rapid.Int64Range(0, 2_000_000_000).Draw(t, "price"), rapid.IntRange(0, 12).Draw(t, "scale"))
		rate, _ := decimal.New(rapid.Int64Range(0, 7_000_000).Draw(t, "rate"), rapid.IntRange(0, 9).Draw(t, "scale"))
		all = append(all, market.Quote{
			Currency: coin, PerDay: price, USDRate: rate, Priced: rapid.IntRange(0, 5).Draw(t, "unpriced") > 0,
			Allowed: rapid.IntRange(0, 5).Draw(t, "refused") > 0,
		})
	}
	return all
}

func TestAnyMarket(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := drawAsk(t, []string{"rtx-4090"})
		terms := terms(func(terms *choose.Terms) { terms.Leave[3] = "held" })
		var offers []market.Offer
		for id := range rapid.Int64Range(1, 6).Draw(t, "offers") {
			offers = append(offers, offer(id, "", func(o *market.Offer) {
				o.OnDemand, o.Spot = drawQuotes(t), drawQuotes(t)
				o.GPU = rapid.SampledFrom([]string{"rtx-4090", "rtx-4090", "rtx-4090", "rtx-4090-laptop"}).Draw(t, "model")
				o.Rented = rapid.IntRange(0, 5).Draw(t, "rented") == 0
				o.Bait = rapid.Bool().Draw(t, "bait")
				o.Reliability = rapid.Float64Range(0.7, 1).Draw(t, "reliability")
				o.MaxRental = time.Duration(rapid.IntRange(0, 100).Draw(t, "hours")) * time.Hour
			}))
		}
		c, why := choose.Choose(a, offers, terms)
		if c == nil {
			if why == "" {
				t.Fatal("none is taken and nothing is said")
			}
			return
		}
		judge(t, a, terms, c)
		// Nothing that fits alone and is neither bait nor short may be cheaper.
		for n := range offers {
			other, _ := choose.Choose(a, offers[n:n+1], terms)
			if other != nil && !other.Offer.Bait && other.Shortened == 0 && other.Paid.Cmp(c.Paid) < 0 {
				t.Fatalf("pays %s, server %d would have been %s", c.Paid, other.Offer.ServerID, other.Paid)
			}
		}
	})
}

// TestRecordedMarket asks a recorded market of 3,500 servers for any of its models at any ceiling.
func TestRecordedMarket(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("RENTHOOK_RECORDINGS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "..", "shared", "data", "clore")
	}
	body, err := os.ReadFile(filepath.Join(dir, "marketplace-2024-05-21.full.json"))
	if err != nil {
		t.Skipf("no recording of the market here (RENTHOOK_RECORDINGS): %v", err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
	t.Cleanup(server.Close)
	// The recording states no rates; these are arbitrary.
	rates := map[string]decimal.Decimal{btc: dec("70000"), tokens: dec("0.12"), usd: dec("1")}
	listing, err := clore.NewOffers(clore.OffersConfig{Rates: rates}, cloreapi.NewPublic(cloreapi.Config{BaseURL: server.URL}), nil).Offers(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	books, gpus := map[string][]market.Offer{}, []string{}
	for _, o := range listing.Offers {
		if books[o.GPU] == nil {
			gpus = append(gpus, o.GPU)
		}
		books[o.GPU] = append(books[o.GPU], o)
	}
	if len(listing.Offers) < 3000 || len(books["rtx-4090"]) < 50 {
		t.Fatalf("%d offers, %d RTX 4090", len(listing.Offers), len(books["rtx-4090"]))
	}
	if c, why := choose.Choose(ask(func(a *rental.Ask) { a.Ceiling = dec("5") }), books["rtx-4090"], terms()); c == nil {
		t.Fatalf("no RTX 4090 at 5 USD per hour: %s", why)
	}
	taken := 0
	rapid.Check(t, func(t *rapid.T) {
		a := drawAsk(t, gpus)
		terms := terms()
		if c, _ := choose.Choose(a, books[a.GPU], terms); c != nil {
			taken++
			judge(t, a, terms, c)
		}
	})
	if taken == 0 {
		t.Error("no ask of the property found anything")
	}
}
