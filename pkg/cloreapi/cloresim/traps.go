package cloresim

import (
	"encoding/json"
	"math/rand/v2"

	"github.com/govalues/decimal"
)

// The traps of a generated inventory stand at these ids whatever the seed, and do not drift. Someone who asks for
// an RTX 4090 at no more than 0.50 USD per hour has exactly one right answer: [TrapRight].
const (
	// TrapRight is an RTX 4090 at 0.49 USD per hour on demand, 0.45 on spot.
	TrapRight int64 = 110_001 + iota
	// TrapAbove is an RTX 4090 at 0.51 USD per hour on demand, 0.505 on spot.
	TrapAbove
	// TrapPerDay is an RTX 3060 at 0.45 USD per DAY: a price read as hourly makes it look like 0.45 per hour.
	TrapPerDay
	// TrapLaptop is an "RTX 4090 Laptop GPU" at 0.30 USD per hour.
	TrapLaptop
	// TrapD is an "RTX 4090 D" at 0.35 USD per hour.
	TrapD
	// TrapCoin is an RTX 4090 at 0.20 USD per hour in a coin it does not take, and 0.90 in those it takes.
	TrapCoin
	// TrapUnreliable is an RTX 4090 at 0.40 USD per hour of reliability 0.3.
	TrapUnreliable
	// TrapShort is an RTX 4090 at 0.42 USD per hour that may be rented for six hours at most.
	TrapShort
	// TrapMixed has an RTX 4090 among "Mixed GPUs", at 0.40 USD per hour.
	TrapMixed
	// TrapRented is an RTX 4090 at 0.30 USD per hour that somebody else has.
	TrapRented
	// TrapNaN is an RTX 4090 whose prices are the string "NaN".
	TrapNaN
	// TrapHuge is an RTX 4090 whose prices are 1e300.
	TrapHuge
	// TrapNegative is an RTX 4090 whose prices are negative.
	TrapNegative
	// TrapNoCoins is an RTX 4090 whose price maps are empty.
	TrapNoCoins
	// TrapNoPrice is an RTX 4090 without a price.
	TrapNoPrice
	// TrapNoSpecs is a server without specs, at 0.10 USD per hour.
	TrapNoSpecs
	// TrapReliabilityNaN is an RTX 4090 at 0.38 USD per hour whose reliability is the string "NaN".
	TrapReliabilityNaN
)

// trapRows makes the traps. Their hardware is the same for every seed.
func trapRows(rates map[string]decimal.Decimal) []*row {
	make4090 := func(id, onDemand, spot int64) *row {
		return trapRow(id, rtx4090, onDemand, spot, rates)
	}
	laptop, d, rtx3060 := rtx4090, rtx4090, model{name: "NVIDIA GeForce RTX 3060", vram: 12, watts: 170}
	laptop.name, laptop.vram, laptop.watts = "NVIDIA GeForce RTX 4090 Laptop GPU", 16, 150
	d.name = "NVIDIA GeForce RTX 4090 D"

	perDay45 := trapRow(TrapPerDay, rtx3060, 1, 1, rates)
	perDay45.Price = priceMember(decimal.MustNew(45, 2), decimal.MustNew(40, 2), everyCoin, rates)

	coin := make4090(TrapCoin, 9000, 8800)
	coin.AllowedCoins = []string{"bitcoin", "USD-Blockchain"}
	coin.Price = withCoin(coin.Price, "CLORE-Blockchain", perDay(2000), rates)

	unreliable := make4090(TrapUnreliable, 4000, 3800)
	unreliable.Reliability = json.Number("0.3")
	short := make4090(TrapShort, 4200, 4000)
	short.MRL = 6
	mixed := make4090(TrapMixed, 4000, 3800)
	mixed.Specs.GPU, mixed.GPUArray = "2x Mixed GPUs", []string{" RTX 4090", " RTX 3060"}
	rented := make4090(TrapRented, 3000, 2500)
	rented.Rented = true

	broken := func(id int64, price string) *row {
		r := make4090(id, 4000, 3800)
		r.Price = json.RawMessage(price)
		return r
	}
	noPrice := broken(TrapNoPrice, "")
	noPrice.Price = nil
	noSpecs := make4090(TrapNoSpecs, 1000, 900)
	noSpecs.Specs, noSpecs.GPUArray = nil, nil
	reliability := make4090(TrapReliabilityNaN, 3800, 3600)
	reliability.Reliability = "NaN"

	return []*row{
		make4090(TrapRight, 4900, 4500), make4090(TrapAbove, 5100, 5050), perDay45,
		trapRow(TrapLaptop, laptop, 3000, 2800, rates), trapRow(TrapD, d, 3500, 3300, rates),
		coin, unreliable, short, mixed, rented,
		broken(TrapNaN, `{"on_demand":{"bitcoin":"NaN","USD-Blockchain":"NaN"},"spot":{"bitcoin":"NaN","USD-Blockchain":"NaN"}}`),
		broken(TrapHuge, `{"on_demand":{"bitcoin":1e300,"USD-Blockchain":1e300},"spot":{"bitcoin":1e300,"USD-Blockchain":1e300}}`),
		broken(TrapNegative, `{"on_demand":{"bitcoin":-0.0001,"USD-Blockchain":-9.6},"spot":{"bitcoin":-0.0001,"USD-Blockchain":-9.6}}`),
		broken(TrapNoCoins, `{"on_demand":{},"spot":{}}`),
		noPrice, noSpecs, reliability,
	}
}

func trapRow(id int64, m model, onDemand, spot int64, rates map[string]decimal.Decimal) *row {
	r := hardware(rand.New(rand.NewPCG(0, uint64(id))), id, m, 1) //nolint:gosec // the same hardware for every seed
	r.MRL, r.Reliability, r.AllowedCoins, r.CUDAVersion = 720, json.Number("0.9987"), everyCoin, "12.8"
	r.Price = priceMember(perDay(onDemand), perDay(spot), everyCoin, rates)
	return r
}

// withCoin changes the price in one coin, on demand and spot, and what the market says of it in USD.
func withCoin(price json.RawMessage, coin string, usd decimal.Decimal, rates map[string]decimal.Decimal) json.RawMessage {
	members, err := readObject(price)
	if err != nil {
		return price
	}
	changed := func(name string) []coinPrice {
		ps := readPrices(find(members, name))
		for i := range ps {
			if ps[i].coin == coin {
				ps[i].amount = inCoin(usd, rates[coin], coin)
			}
		}
		return ps
	}
	onDemand := changed("on_demand")
	o := openObject()
	o.raw("on_demand", priceList(onDemand))
	o.raw("spot", priceList(changed("spot")))
	o.raw("usd", usdMember(onDemand, rates))
	o.raw("original_usd", find(members, "original_usd"))
	return o.close()
}
