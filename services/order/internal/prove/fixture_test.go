package prove_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/order/internal/prove"
	"github.com/renthook/renthook/services/order/internal/rental"
)

// t0 is when the calls of these tests were answered; their intents were recorded ten seconds before.
var t0 = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

const installation = 31000

var config = prove.Config{Window: 180 * time.Second, WindowBlind: 600 * time.Second, InstallationPort: installation}

func dec(s string) decimal.Decimal { return decimal.MustParse(s) }

func at(seconds int) time.Time { return t0.Add(time.Duration(seconds) * time.Second) }

// own is the marker port of the intent for a server.
func own(server int64) int { return 40000 + int(server) }

func intent(number int, server int64, out rental.Outcome) rental.Intent {
	return rental.Intent{
		Number: number, Server: rental.Server{ID: server}, Type: "on-demand", Currency: "USD-Blockchain", PerDay: dec("9.6"), USDRate: dec("1"),
		Markers: []int{installation, own(server)}, Image: "img", Baseline: 100, At: at(-10), CallBy: t0, Outcome: out, Called: true, Reason: "code-0",
	}
}

// order has its newest intent in the state that fits its outcome.
func order(id string, intents ...rental.Intent) *rental.Order {
	o := &rental.Order{ID: id, State: rental.Placing, Intents: intents, EndsAt: at(86400), Updated: at(-10)}
	if i := o.Current(); i != nil {
		switch i.Outcome {
		case rental.Open:
			o.State = rental.Unconfirmed
		case rental.Placed:
			o.State = rental.Running
		}
	}
	return o
}

// open waits to learn whether its call was applied.
func open(id string, server int64) *rental.Order {
	return order(id, intent(1, server, rental.Open))
}

// holds has a rental.
func holds(id string, server, rentalID int64) *rental.Order {
	i := intent(1, server, rental.Placed)
	i.RentalID = rentalID
	return order(id, i)
}

func wanted(o *rental.Order) *rental.Order {
	o.Wanted = &rental.End{Kind: rental.ByCommand}
	if o.HeldIntent() != nil {
		o.State = rental.Cancelling
	}
	return o
}

// row is the rental of the intent for a server, created a second after the intent, with its ports.
func row(id, server int64, change ...func(*market.Rental)) market.Rental {
	r := market.Rental{
		ID: id, ServerID: server, Type: market.OnDemand, Currency: "USD-Blockchain", PerDay: dec("9.6"), Image: "img", Created: at(-9), Host: "n1",
		TCPPorts: map[int]int{22: 1, installation: 2, own(server): 3}, Spend: dec("0.1"),
	}
	for _, c := range change {
		c(&r)
	}
	return r
}

// foreign is a human's rental: same image, same second, another port.
func foreign(id, server int64, change ...func(*market.Rental)) market.Rental {
	return row(id, server, append([]func(*market.Rental){func(r *market.Rental) { r.TCPPorts = map[int]int{22: 1, 8888: 2} }}, change...)...)
}

func noPorts(r *market.Rental)        { r.TCPPorts = nil }
func otherImage(r *market.Rental)     { r.Image = "other" }
func otherCoin(r *market.Rental)      { r.Currency = "bitcoin" }
func tooOld(r *market.Rental)         { r.Created = at(-10 - 121) }
func oldest(r *market.Rental)         { r.Created = at(-10 - 120) }
func belowBaseline(r *market.Rental)  { r.ID = 100 }
func otherMarker(r *market.Rental)    { r.TCPPorts = map[int]int{22: 1, installation: 2, 50000: 3} }
func onlyOwnMarker(r *market.Rental)  { delete(r.TCPPorts, installation) }
func otherInstalled(r *market.Rental) { r.TCPPorts = map[int]int{22: 1, 33333: 2, 44444: 3} }

func expired(r *market.Rental) {
	r.Expired, r.TCPPorts, r.Spend, r.Ended = true, nil, dec("0.2"), at(50)
}

// list is a complete list of rentals, finished ones included.
type list struct {
	at      int
	rows    []market.Rental
	limit   int
	without bool // finished rentals were not asked for
}

func (l list) rentals() market.Rentals {
	if l.limit == 0 {
		l.limit = 100
	}
	return market.Rentals{Began: at(l.at), Rentals: slices.Clone(l.rows), Limit: l.limit, WithEnded: !l.without}
}

// every lists the same rows at each of the times.
func every(rows []market.Rental, times ...int) []list {
	var all []list
	for _, s := range times {
		all = append(all, list{at: s, rows: rows})
	}
	return all
}

func rows(r ...market.Rental) []market.Rental { return r }

// said prints what a read concludes: "a seen 101; b absent".
func said(r prove.Result) string {
	var parts []string
	for _, c := range r.Conclusions {
		switch e := c.Event.(type) {
		case rental.Seen:
			parts = append(parts, fmt.Sprintf("%s seen %d", c.OrderID, e.RentalID))
		case rental.Gone:
			parts = append(parts, fmt.Sprintf("%s gone", c.OrderID))
			if e.RentalID != 0 {
				parts[len(parts)-1] += fmt.Sprintf(" %d", e.RentalID)
			}
		case rental.Absent:
			parts = append(parts, c.OrderID+" absent")
		}
	}
	for _, o := range r.Orphans {
		parts = append(parts, fmt.Sprintf("orphan %d", o.RentalID))
	}
	for _, s := range r.Suspects {
		parts = append(parts, fmt.Sprintf("suspect %d", s.ID))
	}
	for _, s := range r.HeldBack {
		parts = append(parts, fmt.Sprintf("held %d", s.ID))
	}
	if r.Unaccounted > 0 {
		parts = append(parts, fmt.Sprintf("unaccounted %d", r.Unaccounted))
	}
	return strings.Join(parts, "; ")
}

// read lets a new Prover read the lists and gives what each said.
func read(t *testing.T, orders []*rental.Order, lists ...list) []string {
	t.Helper()
	p := prove.New(config)
	var all []string
	for _, l := range lists {
		all = append(all, said(p.Read(l.rentals(), orders)))
	}
	return all
}
