package cloresim

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/govalues/decimal"
)

// generatedEpoch is when the generated bandwidth tests were made; it is fixed, so that a seed gives one inventory.
var generatedEpoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// firstGeneratedID is the highest id of a generated inventory; the listing goes down from there.
const firstGeneratedID = 112_400

// generate makes n servers from a seed, the traps among them: the same for the same seed, number and rates.
func generate(seed int64, n int, rates map[string]decimal.Decimal) ([]*listing, error) {
	rows := trapRows(rates)
	fixed := make(map[int64]bool, len(rows))
	for _, r := range rows {
		fixed[r.ID] = true
	}
	id := int64(firstGeneratedID)
	steps := rand.New(rand.NewPCG(uint64(seed), 0)) //nolint:gosec // a seed gives one inventory
	for i := len(rows); i < n; i++ {
		for id -= 1 + steps.Int64N(30); fixed[id]; {
			id--
		}
		rows = append(rows, generateRow(seed, id, i%8 == 0, rates))
	}
	slices.SortFunc(rows, func(a, b *row) int { return int(b.ID - a.ID) })
	listings := make([]*listing, len(rows))
	for i, r := range rows {
		raw, err := json.Marshal(r)
		if err != nil {
			return nil, fmt.Errorf("generate server %d: %w", r.ID, err)
		}
		l, err := readListing(raw)
		if err != nil {
			return nil, fmt.Errorf("generate server %d: %w", r.ID, err)
		}
		l.steady = fixed[l.id]
		listings[i] = l
	}
	return listings, nil
}

// row is a marketplace row of 2026, in the market's order of members.
type row struct {
	ID           int64           `json:"id"`
	Owner        int64           `json:"owner"`
	MRL          int64           `json:"mrl"`
	Rented       bool            `json:"rented"`
	Price        json.RawMessage `json:"price,omitempty"`
	Specs        *rowSpecs       `json:"specs"`
	Reliability  any             `json:"reliability"`
	AllowedCoins []string        `json:"allowed_coins"`
	Rating       rowRating       `json:"rating"`
	GPUArray     []string        `json:"gpu_array,omitempty"`
	OC           bool            `json:"oc,omitempty"`
	CUDAVersion  string          `json:"cuda_version,omitempty"`
}

type rowRating struct {
	Avg json.Number `json:"avg"`
	Cnt int         `json:"cnt"`
}

type rowSpecs struct {
	MB        string      `json:"mb"`
	CPU       string      `json:"cpu"`
	CPUs      string      `json:"cpus"`
	RAM       json.Number `json:"ram"`
	GPU       string      `json:"gpu"`
	GPURAM    int         `json:"gpuram"`
	Disk      string      `json:"disk"`
	DiskSpeed json.Number `json:"disk_speed"`
	Net       rowNet      `json:"net"`
	Backend   int         `json:"backend_version"`
	PCIeRev   int         `json:"pcie_rev"`
	PCIeWidth int         `json:"pcie_width"`
	PL        []int       `json:"pl"`
	StockPL   []int       `json:"stock_pl"`
	XFS       int         `json:"xfs"`
}

type rowNet struct {
	Up          json.Number `json:"up"`
	Down        json.Number `json:"down"`
	CC          string      `json:"cc"`
	TestHistory []string    `json:"test_history"`
}

// fraction is n/10^scale as the market prints numbers: 2 and 2.5.
func fraction(n int64, scale int) json.Number { return number(decimal.MustNew(n, scale)) }

func pick[T any](r *rand.Rand, of []weighted[T]) T {
	sum := 0
	for _, w := range of {
		sum += w.weight
	}
	at := r.IntN(sum)
	for _, w := range of {
		if at -= w.weight; at < 0 {
			return w.value
		}
	}
	panic("unreachable: the weights sum to more than at")
}

var weightedCatalog = func() []weighted[model] {
	of := make([]weighted[model], len(catalog))
	for i, m := range catalog {
		of[i] = weighted[model]{m, m.weight}
	}
	return of
}()

// generateRow makes one server from seed and id alone. A plain one is a single free RTX 4090 that takes every coin,
// so that an inventory of any size has candidates for a generous ceiling.
func generateRow(seed, id int64, plain bool, rates map[string]decimal.Decimal) *row {
	r := rand.New(rand.NewPCG(uint64(seed), uint64(id))) //nolint:gosec // a seed gives one inventory
	m, count := pick(r, weightedCatalog), 1
	if plain {
		m = rtx4090
	} else {
		count = pickCount(r, m)
	}
	row := hardware(r, id, m, count)
	perGPU := m.low + r.Int64N(m.high-m.low+1)
	if plain {
		perGPU = m.low + r.Int64N(4400)
	}
	// A dozen GPUs cost a little less than twelve times one.
	onDemand := perGPU * int64(count) * int64(100-count+1) / 100
	spot := onDemand * (55 + r.Int64N(36)) / 100
	if m.name == rtx4090.name {
		spot = max(spot, 5200)
	}
	coins, allowed := pickCoins(r)
	row.Rented = r.IntN(100) < 55
	if plain {
		coins, allowed = everyCoin, everyCoin
		row.Rented, row.MRL = false, 1440
		row.Reliability = fraction(9300+r.Int64N(700), 4)
	}
	row.AllowedCoins = allowed
	row.Price = priceMember(perDay(onDemand), perDay(spot), coins, rates)
	return row
}

// perDay is a price per hour in 1/10,000 USD as USD per day.
func perDay(perHour int64) decimal.Decimal { return decimal.MustNew(perHour*24, 4) }

func pickCount(r *rand.Rand, m model) int {
	if m.rig && r.IntN(100) < 60 {
		return 4 + r.IntN(9)
	}
	return pick(r, []weighted[int]{{1, 55}, {2, 25}, {3, 5}, {4, 8}, {6, 3}, {8, 4}})
}

var everyCoin = []string{"bitcoin", "CLORE-Blockchain", "USD-Blockchain"}

// pickCoins follows recordings: a fifth of the servers take one coin, half have no price in USD, and some have a
// price in a coin that they do not take.
func pickCoins(r *rand.Rand) (priced, allowed []string) {
	switch n := r.IntN(100); {
	case n < 10:
		return everyCoin[:1], everyCoin[:1]
	case n < 18:
		return everyCoin[1:2], everyCoin[1:2]
	case n < 45:
		return everyCoin[:2], everyCoin[:2]
	case n < 49:
		return everyCoin, everyCoin[:2]
	case n < 55:
		return everyCoin[1:], everyCoin[1:]
	default:
		return everyCoin, everyCoin
	}
}

// priceMember is the price member of a host that prices in USD.
func priceMember(onDemand, spot decimal.Decimal, coins []string, rates map[string]decimal.Decimal) json.RawMessage {
	list := func(usd decimal.Decimal) []coinPrice {
		var ps []coinPrice
		for _, coin := range coins {
			if rate, ok := rates[coin]; ok {
				ps = append(ps, coinPrice{coin: coin, amount: inCoin(usd, rate, coin), sound: true})
			}
		}
		return ps
	}
	od, floor := list(onDemand), list(spot)
	o := openObject()
	o.raw("on_demand", priceList(od))
	o.raw("spot", priceList(floor))
	o.raw("usd", usdMember(od, rates))
	o.raw("original_usd", originalMember(od, floor, rates))
	return o.close()
}

func hardware(r *rand.Rand, id int64, m model, count int) *row {
	cpu := pick(r, cpus)
	up, down := 500+r.Int64N(90000), 500+r.Int64N(95000)
	row := &row{ID: id, Owner: 100 + r.Int64N(12000), MRL: pick(r, rentalHours), CUDAVersion: pick(r, cudas)}
	row.Specs = &rowSpecs{
		MB: pick(r, boards), CPU: cpu[0], CPUs: cpu[1], RAM: fraction(78000+r.Int64N(2_500_000), 4),
		GPU: fmt.Sprintf("%dx %s", count, m.name), GPURAM: m.vram,
		Disk:      fmt.Sprintf("%s %sGB", pick(r, disks), fraction(500_000+r.Int64N(20_000_000), 4)),
		DiskSpeed: fraction(3000+r.Int64N(300_000), 2),
		Net: rowNet{
			Up: fraction(up, 2), Down: fraction(down, 2), CC: pick(r, countries),
			TestHistory: []string{fmt.Sprintf("S|%d|%s|%s",
				generatedEpoch.Add(-time.Duration(r.IntN(40*24))*time.Hour).Unix(), fraction(down, 2), fraction(up, 2))},
		},
		Backend: 21, PCIeRev: 2 + r.IntN(3), PCIeWidth: 1 << r.IntN(5), XFS: 1,
	}
	for range count {
		row.GPUArray = append(row.GPUArray, shortName(m.name))
		row.Specs.PL = append(row.Specs.PL, m.watts-10*r.IntN(3))
		row.Specs.StockPL = append(row.Specs.StockPL, m.watts)
	}
	row.Rating.Avg = "0"
	if r.IntN(100) < 70 {
		row.Rating.Avg, row.Rating.Cnt = fraction(300+r.Int64N(201), 2), 1+r.IntN(60)
	}
	row.OC = r.IntN(100) < 15
	if r.IntN(300) == 0 {
		row.CUDAVersion = ""
	}
	switch n := r.IntN(100); {
	case n < 8:
		row.Reliability = fraction(r.Int64N(5000), 4)
	case n < 20:
		row.Reliability = fraction(5000+r.Int64N(4000), 4)
	case n < 35:
		row.Reliability = json.Number("1")
	default:
		row.Reliability = fraction(9000+r.Int64N(1000), 4)
	}
	return row
}

// shortName is what gpu_array says: without the maker, behind a space.
func shortName(name string) string {
	name = strings.TrimPrefix(name, "NVIDIA ")
	return " " + strings.TrimPrefix(name, "GeForce ")
}
