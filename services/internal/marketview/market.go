package marketview

import (
	"slices"
	"strings"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/services/internal/market"
)

// Poll is what a snapshot says of the whole market.
type Poll struct {
	// Number counts the polls that could be believed, over all holders: 1, 2, 3, …
	Number uint64
	// Began is when the call was begun: the books are no older.
	Began time.Time
	// Interval is the time between polls then in force.
	Interval time.Duration
	// Servers, Available (not rented), Dropped (rows that made no sense) and Models (with at least one server).
	Servers, Available, Dropped, Models int
	// Rates are USD for one unit of each coin.
	Rates map[string]market.Rate
}

// Market is the whole market as of one poll. It never changes; nothing it returns may be written to.
type Market struct {
	// Poll is where it comes from.
	Poll   Poll
	books  map[string][]market.Offer
	models []Model
}

// Book lists the offers of a model, cheapest first; none for a slug that is not listed.
func (m *Market) Book(gpu string) []market.Offer { return m.books[gpu] }

// Models lists every model with at least one server, by slug.
func (m *Market) Models() []Model { return m.models }

// Price is the least price of a model on one market.
type Price struct {
	// ServerID has it; zero when nothing available is priced in a coin its server takes.
	ServerID int64
	// USDPerHour is for the whole server, before fees.
	USDPerHour decimal.Decimal
}

// Model is one row of the price board.
type Model struct {
	// GPU is the slug, Name the display name.
	GPU, Name string
	// Available counts servers that are not rented, Total all.
	Available, Total int
	// Spot and OnDemand are the least prices among the available.
	Spot, OnDemand Price
}

// Summarize makes the row of a model from its offers.
func Summarize(gpu string, offers []market.Offer) Model {
	m := Model{GPU: gpu, Name: gpu, Total: len(offers)}
	for i := range offers {
		o := &offers[i]
		m.Name = o.Name
		if o.Rented {
			continue
		}
		m.Available++
		m.Spot = cheaper(m.Spot, o.ServerID, o.Spot)
		m.OnDemand = cheaper(m.OnDemand, o.ServerID, o.OnDemand)
	}
	return m
}

func cheaper(best Price, server int64, quotes []market.Quote) Price {
	q, ok := Least(quotes)
	if ok && (best.ServerID == 0 || q.USDPerHour.Cmp(best.USDPerHour) < 0) {
		return Price{ServerID: server, USDPerHour: q.USDPerHour}
	}
	return best
}

// Least is the cheapest quote among those that can be paid: priced, in a coin the server takes.
func Least(quotes []market.Quote) (market.Quote, bool) {
	best := -1
	for i := range quotes {
		q := &quotes[i]
		if q.Priced && q.Allowed && (best < 0 || q.USDPerHour.Cmp(quotes[best].USDPerHour) < 0) {
			best = i
		}
	}
	if best < 0 {
		return market.Quote{}, false
	}
	return quotes[best], true
}

// next is the market after a snapshot: before, with the staged books in place.
func next(before *Market, p Poll, staged map[string][]market.Offer) *Market {
	m := &Market{Poll: p, books: make(map[string][]market.Offer, p.Models)}
	rows := make(map[string]Model, p.Models)
	if before != nil {
		for _, row := range before.models {
			rows[row.GPU] = row
		}
		moved := ratesMoved(before.Poll.Rates, p.Rates)
		for gpu, offers := range before.books {
			if _, ok := staged[gpu]; ok {
				continue
			}
			if moved {
				// Somebody reads the old offers: they stay as they are.
				offers = copyOffers(offers)
				setRates(offers, p.Rates)
			}
			m.books[gpu] = offers
		}
	}
	for gpu, offers := range staged {
		delete(rows, gpu)
		if len(offers) == 0 {
			continue
		}
		setRates(offers, p.Rates)
		m.books[gpu] = offers
		rows[gpu] = Summarize(gpu, offers)
	}
	for _, row := range rows {
		m.models = append(m.models, row)
	}
	slices.SortFunc(m.models, func(a, b Model) int { return strings.Compare(a.GPU, b.GPU) })
	return m
}

// whole says whether the books add up to what the snapshot counted.
func (m *Market) whole() bool {
	servers := 0
	for _, row := range m.models {
		servers += row.Total
	}
	return len(m.models) == m.Poll.Models && servers == m.Poll.Servers
}

func ratesMoved(a, b map[string]market.Rate) bool {
	if len(a) != len(b) {
		return true
	}
	for coin, r := range a {
		if other, ok := b[coin]; !ok || other.USD.Cmp(r.USD) != 0 {
			return true
		}
	}
	return false
}

func copyOffers(offers []market.Offer) []market.Offer {
	out := slices.Clone(offers)
	for i := range out {
		out[i].OnDemand = slices.Clone(out[i].OnDemand)
		out[i].Spot = slices.Clone(out[i].Spot)
	}
	return out
}

// setRates gives each priced quote the rate its USD price was made with: a book is published anew when one moves.
func setRates(offers []market.Offer, rates map[string]market.Rate) {
	for i := range offers {
		for _, quotes := range [][]market.Quote{offers[i].OnDemand, offers[i].Spot} {
			for j := range quotes {
				if quotes[j].Priced {
					quotes[j].USDRate = rates[quotes[j].Currency].USD
				}
			}
		}
	}
}
