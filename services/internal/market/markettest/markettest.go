// Package markettest holds what every adapter of the market port must do, as tests run against a market that obeys.
//
// It guarantees that an adapter which passes reports units, errors and verdicts as the port defines them; it proves
// nothing about the market behind it.
package markettest

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/money"
)

// Fault is something that can be wrong with the next call of an endpoint.
type Fault int

// The faults a market under test can be told to show.
const (
	// Throttled answers "too many requests"; nothing is applied.
	Throttled Fault = iota
	// Garbage answers something that is not the market's format, with HTTP status 200.
	Garbage
	// Unshaped answers the market's format without the list that was asked for.
	Unshaped
	// DroppedBefore closes the connection; nothing was applied.
	DroppedBefore
	// DroppedAfter applies and closes the connection.
	DroppedAfter
	// ServerError applies and answers HTTP 502.
	ServerError
	// NotApplied answers success and applies nothing.
	NotApplied
)

// Endpoint is one call of the port.
type Endpoint int

// The calls of the port.
const (
	Listing Endpoint = iota
	Rentals
	Wallets
	Create
	Cancel
)

// Market is a market under test: the adapters to test, and what makes it obey. It does not limit calls unless told to.
type Market struct {
	Offers  market.Offers
	Account market.Account
	// Stranger is an adapter whose key the market does not accept.
	Stranger market.Account
	// Unreachable is an adapter to an address where nothing listens.
	Unreachable market.Account
	// Free lists at least two servers that can be rented on demand and on spot.
	Free []int64
	// Break makes the next call of an endpoint show a fault.
	Break func(t *testing.T, e Endpoint, f Fault)
	// Broken counts rows of the listing that make no sense, at least one.
	Broken int
	// Unpayable is a server, and a coin that it has a price in and does not take.
	Unpayable struct {
		Server   int64
		Currency string
	}
}

// Run runs the suite. open makes a new market for each test.
func Run(t *testing.T, open func(t *testing.T) *Market) {
	for name, test := range map[string]func(*testing.T, *Market){
		"a listing makes sense":                         listingMakesSense,
		"a listing that cannot be read is an error":     func(t *testing.T, m *Market) { unreadable(t, m, Listing) },
		"rentals that cannot be read are an error":      func(t *testing.T, m *Market) { unreadable(t, m, Rentals) },
		"balances that cannot be read are an error":     func(t *testing.T, m *Market) { unreadable(t, m, Wallets) },
		"balances are read":                             balances,
		"a bad key is told apart":                       badKey,
		"nothing left this process":                     unreachable,
		"a rental on demand":                            func(t *testing.T, m *Market) { rents(t, m, market.OnDemand) },
		"a rental on spot":                              func(t *testing.T, m *Market) { rents(t, m, market.Spot) },
		"a server that is taken asks for a look":        taken,
		"refusals prove that nothing was rented":        refusals,
		"a create whose answer is lost is unknown":      func(t *testing.T, m *Market) { lost(t, m, DroppedAfter, true) },
		"a create that never came in is unknown":        func(t *testing.T, m *Market) { lost(t, m, DroppedBefore, false) },
		"a create answered by a proxy is unknown":       func(t *testing.T, m *Market) { lost(t, m, ServerError, true) },
		"a create answered success is unknown":          func(t *testing.T, m *Market) { lost(t, m, NotApplied, false) },
		"a create answered too many calls is throttled": throttledCreate,
		"a cancel without effect shows in the list":     uncancelled,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

func listingMakesSense(t *testing.T, m *Market) {
	before := time.Now()
	l := offers(t, m)
	if l.Began.Before(before) || l.Began.After(time.Now()) {
		t.Errorf("began %s, called at %s", l.Began, before)
	}
	if l.Dropped < m.Broken || m.Broken < 1 {
		t.Errorf("%d rows dropped, at least %d make no sense", l.Dropped, m.Broken)
	}
	seen := map[int64]bool{}
	for _, o := range l.Offers {
		if seen[o.ServerID] {
			t.Errorf("server %d is listed twice", o.ServerID)
		}
		seen[o.ServerID] = true
		if o.ServerID <= 0 || o.GPU == "" || o.Name == "" || o.FullName == "" || o.GPUCount < 1 ||
			o.Reliability < 0 || o.Reliability > 1 || len(o.OnDemand)+len(o.Spot) == 0 {
			t.Errorf("this makes no sense: %+v", o)
		}
		for _, quotes := range [][]market.Quote{o.OnDemand, o.Spot} {
			for _, q := range quotes {
				checkQuote(t, o.ServerID, q, l.Rates)
			}
		}
	}
	for _, id := range m.Free {
		if !seen[id] {
			t.Errorf("server %d is not listed", id)
		}
	}
	if again := offers(t, m); l.Digest == "" || again.Digest != l.Digest {
		t.Errorf("the digest of an unchanged market changed from %q to %q", l.Digest, again.Digest)
	}
}

func checkQuote(t *testing.T, server int64, q market.Quote, rates map[string]market.Rate) {
	t.Helper()
	rate, known := rates[q.Currency]
	if !q.PerDay.IsPos() || q.Currency == "" || q.Priced != known {
		t.Errorf("server %d: %+v, rate known: %t", server, q, known)
	}
	if !q.Priced {
		return
	}
	usd, err := money.USDPerHour(q.PerDay, rate.USD)
	if err != nil || usd.Cmp(q.USDPerHour) != 0 || rate.USD.Cmp(q.USDRate) != 0 {
		t.Errorf("server %d: %s %s a day at %s is %s USD an hour, not %s (%v)",
			server, q.PerDay, q.Currency, rate.USD, usd, q.USDPerHour, err)
	}
}

func unreadable(t *testing.T, m *Market, e Endpoint) {
	read := map[Endpoint]func() (int, error){
		Listing: func() (int, error) {
			l, err := m.Offers.Offers(t.Context())
			return len(l.Offers), err
		},
		Rentals: func() (int, error) {
			l, err := m.Account.Rentals(t.Context(), false)
			return len(l.Rentals), err
		},
		Wallets: func() (int, error) {
			l, err := m.Account.Wallets(t.Context())
			return len(l), err
		},
	}[e]
	for _, f := range []Fault{Garbage, Unshaped, ServerError, Throttled} {
		m.Break(t, e, f)
		n, err := read()
		if err == nil || n != 0 {
			t.Errorf("fault %d: %d rows, error %v", f, n, err)
		}
		if _, ok := errors.AsType[*market.ThrottledError](err); ok != (f == Throttled) {
			t.Errorf("fault %d: error %v", f, err)
		}
		if _, ok := errors.AsType[*market.KeyError](err); ok {
			t.Errorf("fault %d is taken for a bad key", f)
		}
	}
	if _, err := read(); err != nil {
		t.Errorf("after the faults: %v", err)
	}
}

func balances(t *testing.T, m *Market) {
	l, err := m.Account.Wallets(t.Context())
	if err != nil || len(l) == 0 {
		t.Fatalf("%d balances, error %v", len(l), err)
	}
	for _, w := range l {
		if w.Currency == "" || !w.Balance.IsPos() {
			t.Errorf("balance %+v", w)
		}
	}
}

func badKey(t *testing.T, m *Market) {
	_, err := m.Stranger.Rentals(t.Context(), false)
	if _, ok := errors.AsType[*market.KeyError](err); !ok {
		t.Errorf("rentals: %v", err)
	}
	_, err = m.Stranger.Wallets(t.Context())
	if _, ok := errors.AsType[*market.KeyError](err); !ok {
		t.Errorf("wallets: %v", err)
	}
	if o := m.Stranger.Create(t.Context(), request(t, m, m.Free[0], market.OnDemand)); o.Verdict != market.Refused {
		t.Errorf("create: %+v", o)
	}
}

func unreachable(t *testing.T, m *Market) {
	o := m.Unreachable.Create(t.Context(), request(t, m, m.Free[0], market.OnDemand))
	if o.Verdict != market.Refused || o.Sent || o.Reason != "not-sent" {
		t.Errorf("create: %+v", o)
	}
	if o := m.Unreachable.Cancel(t.Context(), 1, ""); o.Verdict != market.Refused || o.Sent {
		t.Errorf("cancel: %+v", o)
	}
}

func rents(t *testing.T, m *Market, kind market.Type) {
	asked := time.Now()
	req := request(t, m, m.Free[0], kind)
	if o := m.Account.Create(t.Context(), req); o.Verdict == market.Refused || o.Verdict == market.Look || !o.Sent {
		t.Fatalf("create: %+v", o)
	}
	r := eventually(t, m, "the rental to be up", false, func(r market.Rental) bool { return r.ServerID == req.ServerID && r.Up })
	price := req.RequiredPrice
	if kind == market.Spot {
		price = req.Bid
	}
	if r.Type != kind || r.Currency != req.Currency || r.PerDay.Cmp(price) != 0 || r.Image != req.Image || r.Expired {
		t.Errorf("asked %+v, got %+v", req, r)
	}
	if r.Created.Before(asked.Add(-2*time.Minute)) || r.Created.After(time.Now().Add(2*time.Minute)) {
		t.Errorf("created at %s, asked at %s", r.Created, asked)
	}
	ports := map[int]bool{}
	for container, public := range r.TCPPorts {
		ports[container] = public > 0
	}
	if !maps.Equal(ports, map[int]bool{22: true, 20001: true}) || r.HTTPPort != 8888 || r.Host == "" || len(r.GPUs) == 0 || r.Limit <= 0 {
		t.Errorf("ports %v at %q, http %d, GPUs %q, limit %s", r.TCPPorts, r.Host, r.HTTPPort, r.GPUs, r.Limit)
	}
	if o := m.Account.Cancel(t.Context(), r.ID, "a test"); o.Verdict != market.Done {
		t.Fatalf("cancel: %+v", o)
	}
	ended := eventually(t, m, "the rental to be ended", true, func(e market.Rental) bool { return e.ID == r.ID && e.Expired })
	if ended.Ended.IsZero() || len(ended.TCPPorts) != 0 {
		t.Errorf("ended: %+v", ended)
	}
	if gone := find(t, m, false, func(e market.Rental) bool { return e.ID == r.ID }); gone != nil {
		t.Errorf("still listed: %+v", gone)
	}
}

func taken(t *testing.T, m *Market) {
	req := request(t, m, m.Free[0], market.OnDemand)
	m.Account.Create(t.Context(), req)
	eventually(t, m, "the rental", false, func(r market.Rental) bool { return r.ServerID == req.ServerID })
	if o := m.Account.Create(t.Context(), req); o.Verdict != market.Look {
		t.Errorf("a second create on the server: %+v", o)
	}
}

func refusals(t *testing.T, m *Market) {
	unknown := request(t, m, m.Free[0], market.OnDemand)
	unknown.ServerID = 1 << 40
	unpayable := request(t, m, m.Free[0], market.OnDemand)
	unpayable.ServerID, unpayable.Currency = m.Unpayable.Server, m.Unpayable.Currency
	low := request(t, m, m.Free[0], market.Spot)
	floor := low.Bid
	low.Bid = decimal.MustNew(1, 8)
	for name, req := range map[string]market.CreateRequest{"unknown server": unknown, "coin": unpayable, "bid": low} {
		o := m.Account.Create(t.Context(), req)
		if o.Verdict != market.Refused || o.Reason == "" || !o.Sent {
			t.Errorf("%s: %+v", name, o)
		}
		if name == "bid" && o.MinPrice.Cmp(floor) != 0 {
			t.Errorf("the least bid is %s, told %s", floor, o.MinPrice)
		}
	}
	if r := find(t, m, true, func(market.Rental) bool { return true }); r != nil {
		t.Errorf("rented all the same: %+v", r)
	}
}

func lost(t *testing.T, m *Market, f Fault, applied bool) {
	req := request(t, m, m.Free[0], market.OnDemand)
	m.Break(t, Create, f)
	if o := m.Account.Create(t.Context(), req); o.Verdict != market.Unknown || !o.Sent || o.Reason == "" {
		t.Errorf("create: %+v", o)
	}
	ours := func(r market.Rental) bool { return r.ServerID == req.ServerID }
	if applied {
		eventually(t, m, "the rental", false, ours)
		return
	}
	// A second rental that shows up proves that the list is fresh enough to have shown the first.
	canary := request(t, m, m.Free[1], market.OnDemand)
	m.Account.Create(t.Context(), canary)
	eventually(t, m, "the second rental", false, func(r market.Rental) bool { return r.ServerID == canary.ServerID })
	if r := find(t, m, true, ours); r != nil {
		t.Errorf("rented: %+v", r)
	}
}

func throttledCreate(t *testing.T, m *Market) {
	req := request(t, m, m.Free[0], market.OnDemand)
	m.Break(t, Create, Throttled)
	if o := m.Account.Create(t.Context(), req); o.Verdict != market.Unknown || !o.Throttled {
		t.Errorf("create: %+v", o)
	}
}

func uncancelled(t *testing.T, m *Market) {
	req := request(t, m, m.Free[0], market.OnDemand)
	m.Account.Create(t.Context(), req)
	r := eventually(t, m, "the rental", false, func(r market.Rental) bool { return r.ServerID == req.ServerID })
	m.Break(t, Cancel, NotApplied)
	if o := m.Account.Cancel(t.Context(), r.ID, ""); o.Verdict != market.Done {
		t.Errorf("cancel: %+v", o)
	}
	m.Break(t, Cancel, DroppedAfter)
	if o := m.Account.Cancel(t.Context(), r.ID, ""); o.Verdict != market.Unknown || !o.Sent {
		t.Errorf("cancel whose answer is lost: %+v", o)
	}
	eventually(t, m, "the rental to be ended", true, func(e market.Rental) bool { return e.ID == r.ID && e.Expired })
}

// request asks for a server at what it is listed for, in the first coin it takes.
func request(t *testing.T, m *Market, server int64, kind market.Type) market.CreateRequest {
	t.Helper()
	r := market.CreateRequest{
		ServerID: server, Type: kind, Image: "cloreai/ubuntu22.04-cuda12", Ports: map[int]string{22: "tcp", 20001: "tcp", 8888: "http"},
		SSHPassword: "abcdefghijklmnopqrstuvwx", AutoSSH: true,
	}
	for _, o := range offers(t, m).Offers {
		if o.ServerID != server {
			continue
		}
		quotes, price := o.OnDemand, &r.RequiredPrice
		if kind == market.Spot {
			quotes, price = o.Spot, &r.Bid
		}
		for _, q := range quotes {
			if q.Allowed {
				r.Currency, *price = q.Currency, q.PerDay
				return r
			}
		}
	}
	t.Fatalf("server %d cannot be rented (%s)", server, kind)
	return r
}

func offers(t *testing.T, m *Market) market.Listing {
	t.Helper()
	l, err := m.Offers.Offers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func find(t *testing.T, m *Market, withEnded bool, ok func(market.Rental) bool) *market.Rental {
	t.Helper()
	l, err := m.Account.Rentals(t.Context(), withEnded)
	if err != nil {
		t.Fatal(err)
	}
	if l.WithEnded != withEnded || l.Limit <= 0 {
		t.Errorf("with ended: %t, limit %d", l.WithEnded, l.Limit)
	}
	for i := range l.Rentals {
		if ok(l.Rentals[i]) {
			return &l.Rentals[i]
		}
	}
	return nil
}

// eventually reads the account's list until a rental is as wanted.
func eventually(t *testing.T, m *Market, what string, withEnded bool, ok func(market.Rental) bool) market.Rental {
	t.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for until := time.Now().Add(time.Minute); time.Now().Before(until); <-again.C {
		if r := find(t, m, withEnded, ok); r != nil {
			return *r
		}
	}
	t.Fatalf("waited a minute for %s", what)
	return market.Rental{}
}
