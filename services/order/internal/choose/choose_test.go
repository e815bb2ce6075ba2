package choose_test

import (
	"strings"
	"testing"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/money"
	"github.com/renthook/renthook/services/order/internal/choose"
	"github.com/renthook/renthook/services/order/internal/ledger"
	"github.com/renthook/renthook/services/order/internal/rental"
)

const (
	usd    = "USD-Blockchain"
	tokens = "CLORE-Blockchain"
	btc    = "bitcoin"
)

func dec(s string) decimal.Decimal { return decimal.MustParse(s) }

// rates are USD for one unit of a coin.
var rates = map[string]string{usd: "1", tokens: "0.01", btc: "50000"}

// quote is a price per day in a coin that is priced and taken.
func quote(coin, perDay string) market.Quote {
	q := market.Quote{Currency: coin, PerDay: dec(perDay), USDRate: dec(rates[coin]), Priced: true, Allowed: true}
	q.USDPerHour, _ = money.USDPerHour(q.PerDay, q.USDRate)
	return q
}

func notAllowed(q market.Quote) market.Quote { q.Allowed = false; return q }
func unpriced(q market.Quote) market.Quote {
	q.Priced, q.USDRate, q.USDPerHour = false, decimal.Zero, decimal.Zero
	return q
}

// offer is a good RTX 4090 for a price per day in USD.
func offer(id int64, perDay string, change ...func(*market.Offer)) market.Offer {
	o := market.Offer{
		ServerID: id, GPU: "rtx-4090", GPUCount: 1, VRAMGB: 24, MaxRental: 72 * time.Hour, Reliability: 0.99,
		Country: "US", CUDA: "12.8", DownMbps: 500, UpMbps: 100, RAMGB: 64, DiskGB: 100,
	}
	if perDay != "" {
		o.OnDemand = []market.Quote{quote(usd, perDay)}
	}
	for _, c := range change {
		c(&o)
	}
	return o
}

func spot(q ...market.Quote) func(*market.Offer) { return func(o *market.Offer) { o.Spot = q } }

func ask(change ...func(*rental.Ask)) rental.Ask {
	a := rental.Ask{GPU: "rtx-4090", Ceiling: dec("0.5"), MarketType: "any", Currency: "auto", Duration: 24 * time.Hour}
	for _, c := range change {
		c(&a)
	}
	return a
}

func terms(change ...func(*choose.Terms)) choose.Terms {
	t := choose.Terms{
		MinReliability: 0.8, SpotHeadroom: dec("1.02"), Fees: ledger.Fees{OnDemand: dec("0.05"), Spot: dec("0.0125"), Creation: dec("0.10")},
		Leave: map[int64]string{},
	}
	for _, c := range change {
		c(&t)
	}
	return t
}

// traps are what a market holds to be mistaken for an RTX 4090 under 0.50 USD per hour, which is 12 USD per day.
func traps() []market.Offer {
	return []market.Offer{
		offer(1, "0.45", func(o *market.Offer) { o.GPU = "rtx-3060" }),
		offer(2, "2", func(o *market.Offer) { o.GPU = "rtx-4090-laptop" }),
		offer(3, "", func(o *market.Offer) {
			o.OnDemand = []market.Quote{notAllowed(quote(tokens, "100")), quote(usd, "13")}
		}),
		offer(4, "11.76"),
		offer(5, "12.24"),
		offer(6, "3", func(o *market.Offer) { o.Reliability = 0.3 }),
		offer(7, "3", func(o *market.Offer) { o.MaxRental = 6 * time.Hour }),
		offer(8, "3", func(o *market.Offer) { o.GPU, o.GPUCount = "mixed", 6 }),
		offer(9, "3", func(o *market.Offer) { o.Rented = true }),
		offer(10, "", func(o *market.Offer) { o.OnDemand = []market.Quote{unpriced(quote(btc, "0.00001"))} }),
	}
}

func without(offers []market.Offer, ids ...int64) []market.Offer {
	var rest []market.Offer
	for _, o := range offers {
		keep := true
		for _, id := range ids {
			keep = keep && o.ServerID != id
		}
		if keep {
			rest = append(rest, o)
		}
	}
	return rest
}

func TestTraps(t *testing.T) {
	t.Parallel()
	c, why := choose.Choose(ask(), traps(), terms())
	if c == nil || c.Offer.ServerID != 4 || c.Type != market.OnDemand || !c.PerDay.Equal(dec("11.76")) || !c.USDPerHour.Equal(dec("0.49")) || c.Shortened != 0 {
		t.Fatalf("got %+v (%s), want server 4 at 0.49 USD per hour", c, why)
	}
	// With the fees: 0.49 × 1.05, for 24 hours and a started minute, and 0.10 once.
	if !c.Paid.Equal(dec("0.5145")) || !c.Reserved.Equal(dec("12.456575")) {
		t.Errorf("paid %s, reserved %s", c.Paid, c.Reserved)
	}
	c, why = choose.Choose(ask(), without(traps(), 4), terms())
	if c == nil || c.Offer.ServerID != 7 || c.Shortened != 6*time.Hour || !c.Reserved.Equal(dec("0.8896875")) {
		t.Fatalf("got %+v (%s), want server 7, shortened to the 6 hours its host allows", c, why)
	}
	c, why = choose.Choose(ask(), without(traps(), 4, 7), terms())
	want := "8 listed: 3 another model, 2 above the ceiling, 1 no coin it takes is priced, 1 reliability below 0.8, 1 rented; the cheapest is 0.51 USD per hour, the ceiling 0.50"
	if c != nil || why != want {
		t.Errorf("got %+v, %q\nwant none, %q", c, why, want)
	}
	if c, why = choose.Choose(ask(), nil, terms()); c != nil || why != "none is listed" {
		t.Errorf("got %+v, %q", c, why)
	}
}

// TestUnfit holds, one by one, what a server must meet. Each would be the cheapest.
func TestUnfit(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		ask   func(*rental.Ask)
		offer func(*market.Offer)
		why   string
	}{
		{"model", func(*rental.Ask) {}, func(o *market.Offer) { o.GPU = "rtx-4090-d" }, "another model"},
		{"count", func(a *rental.Ask) { a.Count = 1 }, func(o *market.Offer) { o.GPUCount = 2 }, "another number of GPUs"},
		{"rented", func(*rental.Ask) {}, func(o *market.Offer) { o.Rented = true }, "rented"},
		{"reliability", func(*rental.Ask) {}, func(o *market.Offer) { o.Reliability = 0.79 }, "reliability below 0.8"},
		{"reliability asked", func(a *rental.Ask) { a.Requirements.MinReliability = 0.95 }, func(o *market.Offer) { o.Reliability = 0.94 }, "reliability below 0.95"},
		{"GPU memory", func(a *rental.Ask) { a.Requirements.MinVRAMGB = 24 }, func(o *market.Offer) { o.VRAMGB = 23 }, "too little GPU memory"},
		{"memory", func(a *rental.Ask) { a.Requirements.MinRAMGB = 64 }, func(o *market.Offer) { o.RAMGB = 63 }, "too little memory"},
		{"disk", func(a *rental.Ask) { a.Requirements.MinDiskGB = 100 }, func(o *market.Offer) { o.DiskGB = 0 }, "too little disk"},
		{"download", func(a *rental.Ask) { a.Requirements.MinDownMbps = 500 }, func(o *market.Offer) { o.DownMbps = 499 }, "network too slow"},
		{"upload", func(a *rental.Ask) { a.Requirements.MinUpMbps = 100 }, func(o *market.Offer) { o.UpMbps = 99 }, "network too slow"},
		{"country", func(a *rental.Ask) { a.Requirements.Countries = []string{"de", "us"} }, func(o *market.Offer) { o.Country = "RU" }, "another country"},
		{"country unknown", func(a *rental.Ask) { a.Requirements.Countries = []string{"US"} }, func(o *market.Offer) { o.Country = "" }, "another country"},
		{"CUDA", func(a *rental.Ask) { a.Requirements.MinCUDA = "12.8" }, func(o *market.Offer) { o.CUDA = "12.7" }, "CUDA too old"},
		{"CUDA by number, not by letter", func(a *rental.Ask) { a.Requirements.MinCUDA = "12.8" }, func(o *market.Offer) { o.CUDA = "9.10" }, "CUDA too old"},
		{"CUDA unknown", func(a *rental.Ask) { a.Requirements.MinCUDA = "12" }, func(o *market.Offer) { o.CUDA = "" }, "CUDA too old"},
		{"currency", func(a *rental.Ask) { a.Currency = usd }, func(o *market.Offer) { o.OnDemand = []market.Quote{quote(tokens, "1")} }, "another currency"},
		{"coin not taken", func(*rental.Ask) {}, func(o *market.Offer) { o.OnDemand[0].Allowed = false }, "no coin it takes is priced"},
		{"coin not priced", func(*rental.Ask) {}, func(o *market.Offer) { o.OnDemand[0] = unpriced(o.OnDemand[0]) }, "no coin it takes is priced"},
		{"coin priced at nothing", func(*rental.Ask) {}, func(o *market.Offer) { o.OnDemand[0].USDRate = decimal.Zero }, "no coin it takes is priced"},
		{"no price", func(*rental.Ask) {}, func(o *market.Offer) { o.OnDemand[0].PerDay = decimal.Zero }, "no coin it takes is priced"},
		{"above the ceiling", func(*rental.Ask) {}, func(o *market.Offer) { o.OnDemand[0] = quote(usd, "12.00000001") }, "above the ceiling"},
		{"no spot price", func(a *rental.Ask) { a.MarketType = "spot" }, func(o *market.Offer) { o.Spot = nil }, "no spot price"},
		{"spot only, on demand asked", func(a *rental.Ask) { a.MarketType = "on-demand" }, func(o *market.Offer) { o.OnDemand, o.Spot = nil, []market.Quote{quote(usd, "1")} }, "no coin it takes is priced"},
		{"spot coin not taken", func(a *rental.Ask) { a.MarketType = "spot" }, func(o *market.Offer) { o.Spot = []market.Quote{notAllowed(quote(usd, "1"))} }, "no coin it takes is priced"},
		{"spot coin not taken, however dear", func(a *rental.Ask) { a.MarketType = "spot" }, func(o *market.Offer) { o.Spot = []market.Quote{notAllowed(quote(usd, "100"))} }, "no coin it takes is priced"},
		{"spot floor above the ceiling", func(a *rental.Ask) { a.MarketType = "spot" }, func(o *market.Offer) { o.Spot = []market.Quote{quote(tokens, "1201")} }, "above the ceiling"},
		{"spot floor too near on demand", func(a *rental.Ask) { a.MarketType = "spot" }, func(o *market.Offer) { o.Spot = []market.Quote{quote(usd, "4.76")} }, "spot floor too near the on-demand price"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			good, bad := offer(1, "5"), offer(2, "5")
			if ask(tt.ask).MarketType == "spot" {
				good.Spot, bad.Spot = []market.Quote{quote(usd, "2")}, []market.Quote{quote(usd, "2")}
			}
			tt.offer(&bad)
			if c, why := choose.Choose(ask(tt.ask), []market.Offer{bad}, terms()); c != nil || !strings.Contains(why, "1 listed: 1 "+tt.why) {
				t.Errorf("got %+v, %q; want none: %s", c, why, tt.why)
			}
			if c, why := choose.Choose(ask(tt.ask), []market.Offer{bad, good}, terms()); c == nil || c.Offer.ServerID != 1 {
				t.Errorf("beside a good one: got %+v, %q", c, why)
			}
		})
	}
	c, why := choose.Choose(ask(), []market.Offer{offer(1, "5")}, terms(func(t *choose.Terms) { t.Leave[1] = "tried before" }))
	if c != nil || !strings.Contains(why, "1 tried before") {
		t.Errorf("left alone: got %+v, %q", c, why)
	}
	if c, _ := choose.Choose(ask(func(a *rental.Ask) { a.Requirements.MinCUDA = "12.8" }), []market.Offer{offer(1, "5", func(o *market.Offer) { o.CUDA = "12.10" })}, terms()); c == nil {
		t.Error("CUDA 12.10 is not older than 12.8")
	}
	if c, _ := choose.Choose(ask(func(a *rental.Ask) { a.Requirements.MinReliability = 0.2 }), []market.Offer{offer(1, "5", func(o *market.Offer) { o.Reliability = 0.3 })}, terms()); c == nil {
		t.Error("a reliability asked for replaces the setting, also downwards")
	}
}

// TestRank holds which of two that fit is taken.
func TestRank(t *testing.T) {
	t.Parallel()
	bait := func(o *market.Offer) { o.Bait = true }
	short := func(o *market.Offer) { o.MaxRental = time.Hour }
	tests := []struct {
		name    string
		offers  []market.Offer
		balance map[string]string
		want    int64
		coin    string
	}{
		{"the cheaper", []market.Offer{offer(1, "10"), offer(2, "9")}, nil, 2, usd},
		{"the cheaper by its coin's rate", []market.Offer{offer(1, "10"), offer(2, "", func(o *market.Offer) { o.OnDemand = []market.Quote{quote(tokens, "999")} })}, nil, 2, tokens},
		{"the cheaper coin of one server", []market.Offer{offer(1, "10", func(o *market.Offer) { o.OnDemand = append(o.OnDemand, quote(tokens, "900")) })}, nil, 1, tokens},
		{"the dearer coin, where the wallet is", []market.Offer{offer(1, "10", func(o *market.Offer) { o.OnDemand = append(o.OnDemand, quote(tokens, "900")) })}, map[string]string{usd: "20"}, 1, usd},
		{"with fees: spot a little dearer than on demand is cheaper", []market.Offer{offer(1, "10"), offer(2, "11", spot(quote(usd, "10")))}, nil, 2, usd},
		{"with fees: but not much dearer", []market.Offer{offer(1, "9.7"), offer(2, "11", spot(quote(usd, "10")))}, nil, 1, usd},
		{"the more reliable of equals", []market.Offer{offer(1, "10"), offer(2, "10", func(o *market.Offer) { o.Reliability = 1 })}, nil, 2, usd},
		{"the first of equals", []market.Offer{offer(2, "10"), offer(1, "10")}, nil, 1, usd},
		{"bait last", []market.Offer{offer(1, "1", bait), offer(2, "10")}, nil, 2, usd},
		{"bait never hidden", []market.Offer{offer(1, "1", bait), offer(2, "13")}, nil, 1, usd},
		{"a shorter rental last", []market.Offer{offer(1, "1", short), offer(2, "10")}, nil, 2, usd},
		{"a shorter rental only when no other matches, not even bait", []market.Offer{offer(1, "1", short), offer(2, "10", bait)}, nil, 2, usd},
		{"no limit of the host's is no shorter rental", []market.Offer{offer(1, "1", func(o *market.Offer) { o.MaxRental = 0 }), offer(2, "10")}, nil, 1, usd},
		{"the host's limit just at the order's end", []market.Offer{offer(1, "1", func(o *market.Offer) { o.MaxRental = 24 * time.Hour }), offer(2, "10")}, nil, 1, usd},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			terms := terms()
			if tt.balance != nil {
				terms.Balances = map[string]decimal.Decimal{}
				for coin, b := range tt.balance {
					terms.Balances[coin] = dec(b)
				}
			}
			c, why := choose.Choose(ask(), tt.offers, terms)
			if c == nil || c.Offer.ServerID != tt.want || c.Quote.Currency != tt.coin {
				t.Errorf("got %+v (%s), want server %d in %s", c, why, tt.want, tt.coin)
			}
		})
	}
}

// TestBids holds the price sent, by market type. Prices are USD per day; the ceiling is 12.
func TestBids(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, marketType, onDemand, floor string
		ceiling                           string // USD per hour
		want                              market.Type
		perDay                            string
	}{
		{"any: spot is worth it", "any", "10", "5", "0.5", market.Spot, "5.1"},
		{"any: the floor just worth it", "any", "10", "9.5", "0.5", market.Spot, "9.5"},
		{"any: the floor not worth it", "any", "10", "9.51", "0.5", market.OnDemand, "10"},
		{"any: no spot price", "any", "10", "", "0.5", market.OnDemand, "10"},
		{"any: no on-demand price", "any", "", "5", "0.5", market.Spot, "5.1"},
		{"any: on demand above the ceiling", "any", "24", "5", "0.5", market.Spot, "5.1"},
		{"any: both above the ceiling", "any", "24", "13", "0.5", "", ""},
		{"spot: headroom", "spot", "10", "5", "0.5", market.Spot, "5.1"},
		{"spot: at most 0.95 of on demand", "spot", "10", "9.4", "0.5", market.Spot, "9.5"},
		{"spot: the floor beyond 0.95 of on demand", "spot", "10", "9.6", "0.5", "", ""},
		{"spot: at most the ceiling", "spot", "24", "11.9", "0.5", market.Spot, "12"},
		{"spot: the floor at the ceiling", "spot", "24", "12", "0.5", market.Spot, "12"},
		{"spot: the floor above the ceiling", "spot", "24", "12.01", "0.5", "", ""},
		{"spot: no on-demand price", "spot", "", "5", "0.5", market.Spot, "5.1"},
		{"spot: cut to the coin's smallest unit", "spot", "", "1.23456789", "0.5", market.Spot, "1.25925924"},
		{"on demand: however cheap the spot", "on-demand", "10", "1", "0.5", market.OnDemand, "10"},
		{"on demand: at the ceiling", "on-demand", "12", "", "0.5", market.OnDemand, "12"},
		{"on demand: only a spot price", "on-demand", "", "1", "0.5", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := offer(1, tt.onDemand)
			if tt.floor != "" {
				o.Spot = []market.Quote{quote(usd, tt.floor)}
			}
			c, why := choose.Choose(ask(func(a *rental.Ask) { a.MarketType, a.Ceiling = tt.marketType, dec(tt.ceiling) }), []market.Offer{o}, terms())
			switch {
			case c == nil && tt.want != "":
				t.Errorf("none: %s; want %s at %s", why, tt.want, tt.perDay)
			case c != nil && (tt.want == "" || c.Type != tt.want || !c.PerDay.Equal(dec(tt.perDay))):
				t.Errorf("got %s at %s, want %s at %s", c.Type, c.PerDay, tt.want, tt.perDay)
			}
		})
	}
}

// TestCoins: spot and on demand are compared coin by coin.
func TestCoins(t *testing.T) {
	t.Parallel()
	o := offer(1, "10", func(o *market.Offer) {
		o.OnDemand = append(o.OnDemand, quote(tokens, "1000"))
		o.Spot = []market.Quote{quote(tokens, "600"), quote(usd, "9.9")}
	})
	c, why := choose.Choose(ask(), []market.Offer{o}, terms())
	if c == nil || c.Type != market.Spot || c.Quote.Currency != tokens || !c.PerDay.Equal(dec("612")) {
		t.Errorf("got %+v (%s), want a bid of 612 CLORE", c, why)
	}
	c, why = choose.Choose(ask(func(a *rental.Ask) { a.Currency = usd }), []market.Offer{o}, terms())
	if c == nil || c.Type != market.OnDemand || c.Quote.Currency != usd {
		t.Errorf("got %+v (%s), want on demand in USD", c, why)
	}
	// Spot asked, in a coin without an on-demand price.
	o.OnDemand, o.Spot = []market.Quote{quote(usd, "10")}, []market.Quote{quote(btc, "0.0001")}
	c, why = choose.Choose(ask(func(a *rental.Ask) { a.MarketType = "spot" }), []market.Offer{o}, terms())
	if c == nil || c.Quote.Currency != btc || !c.PerDay.Equal(dec("0.000102")) {
		t.Errorf("got %+v (%s), want a bid of 0.000102 bitcoin", c, why)
	}
}

// TestBalance: what the whole rental costs must be there, in a coin the server takes; an unread wallet holds nothing
// against a coin.
// row:43
func TestBalance(t *testing.T) {
	t.Parallel()
	for balance, enough := range map[string]bool{"10.70": true, "10.60": false, "0": false, "-5": false} {
		terms := terms(func(t *choose.Terms) { t.Balances = map[string]decimal.Decimal{usd: dec(balance)} })
		c, why := choose.Choose(ask(), []market.Offer{offer(1, "10")}, terms) // 10 × 1.05 + 0.10, and a minute
		if (c != nil) != enough || !enough && !strings.Contains(why, "not enough balance") {
			t.Errorf("balance %s: got %+v, %q", balance, c, why)
		}
	}
	for name, balances := range map[string]map[string]decimal.Decimal{"unread": nil, "empty": {}} {
		c, _ := choose.Choose(ask(), []market.Offer{offer(1, "10")}, terms(func(t *choose.Terms) { t.Balances = balances }))
		if (c != nil) != (name == "unread") {
			t.Errorf("%s wallet: got %+v", name, c)
		}
	}
	c, _ := choose.Choose(ask(func(a *rental.Ask) { a.Duration = 0 }), []market.Offer{offer(1, "10")}, terms())
	if c == nil || c.Reserved.Cmp(dec("10")) < 0 {
		t.Errorf("never: %+v; a day at least is reserved", c)
	}
}
