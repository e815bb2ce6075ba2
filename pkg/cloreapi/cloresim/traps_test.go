package cloresim

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/govalues/decimal"
)

// worldOf is a world without a simulator around it, for what depends on time.
func worldOf(t *testing.T, c Config) *world {
	t.Helper()
	set, err := c.settings()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld()
	if w.rates, err = readRates(c.Rates); err != nil {
		t.Fatal(err)
	}
	listings, err := generate(set.Seed, set.Servers, w.rates)
	if err != nil {
		t.Fatal(err)
	}
	w.settings, w.host = set, "127.0.0.1"
	w.stock(listings)
	ports := 10_000
	w.reserve = func() (int, error) { ports++; return ports, nil }
	return w
}

// candidate is a server that an honest reader of the answer may rent for an RTX 4090 within a day.
type candidate struct {
	id   int64
	best decimal.Decimal
}

// candidates reads a marketplace answer as a careful client would: by model, coins taken, soundness, reliability
// and rental length. The price is USD per hour.
func candidates(t *testing.T, raw []byte, spot bool, ceiling string) []candidate {
	t.Helper()
	var body struct {
		Servers []struct {
			ID    int64                      `json:"id"`
			MRL   int64                      `json:"mrl"`
			Price map[string]json.RawMessage `json:"price"`
			Specs struct {
				GPU string `json:"gpu"`
			} `json:"specs"`
			Rented      bool            `json:"rented"`
			Reliability json.RawMessage `json:"reliability"`
			Allowed     []string        `json:"allowed_coins"`
		} `json:"servers"`
	}
	if err := json.Unmarshal(raw, &body); err != nil {
		t.Fatal(err)
	}
	rates, err := readRates(nil)
	if err != nil {
		t.Fatal(err)
	}
	kind := "on_demand"
	if spot {
		kind = "spot"
	}
	most := decimal.MustParse(ceiling)
	var found []candidate
	for _, s := range body.Servers {
		reliability, sound := readAmount(s.Reliability)
		var count int
		if _, err := fmt.Sscanf(s.Specs.GPU, "%dx NVIDIA GeForce RTX 4090", &count); err != nil ||
			s.Specs.GPU != fmt.Sprintf("%dx NVIDIA GeForce RTX 4090", count) {
			continue
		}
		if s.Rented || !sound || reliability.Cmp(decimal.MustParse("0.8")) < 0 || s.MRL < 24 {
			continue
		}
		c := candidate{id: s.ID, best: most}
		for _, p := range readPrices(s.Price[kind]) {
			hour := over(times(p.amount, rates[p.coin]), hoursPerDay)
			if p.sound && slices.Contains(s.Allowed, p.coin) && hour.Cmp(c.best) <= 0 {
				c.best = hour
			}
		}
		if c.best.Cmp(most) < 0 {
			found = append(found, c)
		}
	}
	return found
}

func join(pieces [][]byte) []byte { return slices.Concat(pieces...) }

func TestGenerate_OneRightAnswerUnderHalfADollar(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for servers, seeds := range map[int]int64{20: 12, 300: 4, 3500: 1} {
		for seed := int64(1); seed <= seeds; seed++ {
			w := worldOf(t, Config{Seed: seed, Servers: servers, Drift: true})
			raw := join(w.marketplace(now.Add(time.Duration(seed)*time.Hour), nil))
			for _, spot := range []bool{false, true} {
				got := candidates(t, raw, spot, "0.5000001")
				if len(got) != 1 || got[0].id != TrapRight {
					t.Errorf("seed %d, %d servers, spot %v: candidates under 0.50 are %v", seed, servers, spot, got)
				}
			}
			if got := candidates(t, raw, false, "1.00"); len(got) < servers/10 {
				t.Errorf("seed %d: of %d servers only %d are candidates under 1.00", seed, servers, len(got))
			}
		}
	}
}

func TestGenerate_TrapsAreWhatTheySay(t *testing.T) {
	t.Parallel()
	w := worldOf(t, Config{Seed: 42, Servers: 100})
	raw := map[int64]map[string]json.RawMessage{}
	var body struct {
		Servers []map[string]json.RawMessage `json:"servers"`
	}
	if err := json.Unmarshal(join(w.marketplace(time.Now(), nil)), &body); err != nil {
		t.Fatal(err)
	}
	for _, s := range body.Servers {
		var id int64
		if err := json.Unmarshal(s["id"], &id); err != nil {
			t.Fatal(err)
		}
		raw[id] = s
	}
	for _, c := range []struct {
		id           int64
		member, want string
	}{
		{TrapRight, "price.on_demand.USD-Blockchain", "11.76"},
		{TrapRight, "price.on_demand.bitcoin", "0.000168"},
		{TrapRight, "price.on_demand.CLORE-Blockchain", "98"},
		{TrapRight, "price.spot.USD-Blockchain", "10.8"},
		{TrapRight, "price.usd.spot", "0"},
		{TrapAbove, "price.on_demand.USD-Blockchain", "12.24"},
		{TrapAbove, "price.spot.USD-Blockchain", "12.12"},
		{TrapPerDay, "price.on_demand.USD-Blockchain", "0.45"},
		{TrapPerDay, "specs.gpu", `"1x NVIDIA GeForce RTX 3060"`},
		{TrapLaptop, "specs.gpu", `"1x NVIDIA GeForce RTX 4090 Laptop GPU"`},
		{TrapD, "specs.gpu", `"1x NVIDIA GeForce RTX 4090 D"`},
		{TrapCoin, "price.on_demand.CLORE-Blockchain", "40"},
		{TrapCoin, "price.usd.on_demand_clore", "4.8"},
		{TrapCoin, "price.on_demand.USD-Blockchain", "21.6"},
		{TrapCoin, "allowed_coins", `["bitcoin","USD-Blockchain"]`},
		{TrapUnreliable, "reliability", "0.3"},
		{TrapShort, "mrl", "6"},
		{TrapMixed, "specs.gpu", `"2x Mixed GPUs"`},
		{TrapRented, "rented", "true"},
		{TrapNaN, "price.on_demand.bitcoin", `"NaN"`},
		{TrapHuge, "price.on_demand.bitcoin", "1e300"},
		{TrapNegative, "price.on_demand.bitcoin", "-0.0001"},
		{TrapNoCoins, "price.on_demand", "{}"},
		{TrapNoPrice, "price", ""},
		{TrapNoSpecs, "specs", "null"},
		{TrapReliabilityNaN, "reliability", `"NaN"`},
	} {
		if got := dig(raw[c.id], c.member); got != c.want {
			t.Errorf("server %d: %s is %s, want %s", c.id, c.member, got, c.want)
		}
	}
}

// dig finds a member by its path.
func dig(o map[string]json.RawMessage, path string) string {
	name, rest := path, ""
	for i := range path {
		if path[i] == '.' {
			name, rest = path[:i], path[i+1:]
			break
		}
	}
	if rest == "" {
		return string(o[name])
	}
	var inner map[string]json.RawMessage
	if json.Unmarshal(o[name], &inner) != nil {
		return ""
	}
	return dig(inner, rest)
}

func TestGenerate_IsAFunctionOfSeedNumberAndRates(t *testing.T) {
	t.Parallel()
	now := time.Now()
	of := func(seed int64) string {
		return string(join(worldOf(t, Config{Seed: seed, Servers: 200, Drift: true}).marketplace(now, nil)))
	}
	if first, again := of(7), of(7); first != again {
		t.Error("one seed gave two inventories")
	}
	if of(7) == of(8) {
		t.Error("two seeds gave one inventory")
	}
}

func TestDrift_MovesPricesButNoTrap(t *testing.T) {
	t.Parallel()
	w := worldOf(t, Config{Servers: 300, Drift: true})
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	moved := 0
	for _, id := range w.order {
		s := w.servers[id]
		before, after := w.prices(s, false, now), w.prices(s, false, now.Add(time.Hour))
		for i, p := range s.onDemand {
			if !p.sound || s.steady {
				continue
			}
			if before[i].amount.Cmp(p.amount) < 0 {
				t.Errorf("server %d drifted below its listed price", id)
			}
			if before[i].amount != after[i].amount {
				moved++
			}
		}
		if s.steady && len(before) > 0 && before[0].amount != s.onDemand[0].amount {
			t.Errorf("trap %d drifted", id)
		}
	}
	if moved < 100 {
		t.Errorf("only %d prices moved within an hour", moved)
	}
}
