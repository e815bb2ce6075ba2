package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/services/internal/market"
)

func dec(s string) decimal.Decimal { return decimal.MustParse(s) }

// lot is one rental in the simulated market's own ledger: what is really billed.
type lot struct {
	market.Rental
	human bool
	// shownFrom is when my_orders first lists it; upFrom when its container runs.
	shownFrom, upFrom time.Time
	// gone is when billing stopped; zero while it goes on.
	gone time.Time
}

func (l *lot) live() bool { return l.gone.IsZero() }

// liar is a market that keeps an honest ledger and lies about it. It is used by one call at a time, as the market is,
// and counts it as a violation when it is not.
type liar struct {
	mu     sync.Mutex
	rng    *rand.Rand
	lying  bool
	nextID int64
	lots   []*lot
	offers []market.Offer
	// lists are earlier answers, for stale ones.
	lists []market.Rentals

	busy    bool
	lastEnd time.Time
	// graceUntil: a process that just died may have a call out, which its successor cannot know of. Creates wait for it
	// all the same.
	graceUntil time.Time
	violations []string
	creates    int
	// cancelled counts cancels by rental.
	cancelled map[int64]int
}

const (
	simCallGap   = 1200 * time.Millisecond
	simCreateGap = 5500 * time.Millisecond
	simTimeout   = 15 * time.Second
)

func newLiar(rng *rand.Rand) *liar {
	m := &liar{rng: rng, lying: true, nextID: 1000, cancelled: map[int64]int{}}
	for id := range int64(12) {
		perDay := decimal.MustNew(int64(700+rng.IntN(500)), 2) // 7 to 12 USD per day
		hour, err := perDay.Quo(dec("24"))
		if err != nil {
			panic(err)
		}
		q := market.Quote{Currency: "USD-Blockchain", PerDay: perDay, USDPerHour: hour, USDRate: dec("1"), Priced: true, Allowed: true}
		o := market.Offer{ServerID: id + 1, GPU: "rtx-4090", FullName: "NVIDIA GeForce RTX 4090", GPUCount: 1, Reliability: 0.99, OnDemand: []market.Quote{q}}
		if rng.IntN(2) == 0 {
			s := q
			s.PerDay, _ = perDay.Mul(dec("0.8"))
			s.USDPerHour, _ = s.PerDay.Quo(dec("24"))
			o.Spot = []market.Quote{s}
		}
		m.offers = append(m.offers, o)
	}
	return m
}

// begin and end hold the market's rate rules against the caller.
func (m *liar) begin(create bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	gap := simCallGap
	if create {
		gap = simCreateGap
	}
	if m.busy && (create || time.Now().After(m.graceUntil)) {
		m.violations = append(m.violations, "two calls at once")
	}
	if since := time.Since(m.lastEnd); !m.lastEnd.IsZero() && since < gap && (create || time.Now().After(m.graceUntil)) {
		m.violations = append(m.violations, fmt.Sprintf("a call %s after the last (create %v)", since, create))
	}
	m.busy = true
}

func (m *liar) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy, m.lastEnd = false, time.Now()
}

// chance is true p times in a hundred, while the market lies.
func (m *liar) chance(p int) bool { return m.lying && m.rng.IntN(100) < p }

func (m *liar) latency(ctx context.Context) error {
	m.mu.Lock()
	d := time.Duration(50+m.rng.IntN(1500)) * time.Millisecond
	m.mu.Unlock()
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errLie = errors.New("an answer that cannot be read")

func (m *liar) Wallets(ctx context.Context) ([]market.Wallet, error) {
	m.begin(false)
	defer m.end()
	if err := m.latency(ctx); err != nil {
		return nil, err
	}
	return []market.Wallet{{Currency: "USD-Blockchain", Balance: dec("100000")}}, nil
}

func (m *liar) Rentals(ctx context.Context, withEnded bool) (market.Rentals, error) {
	m.begin(false)
	defer m.end()
	r := market.Rentals{Began: time.Now(), WithEnded: withEnded, Limit: 50}
	if err := m.latency(ctx); err != nil {
		return r, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.chance(12) {
		return r, errLie
	}
	now := time.Now()
	for _, l := range m.lots {
		row := l.Rental
		switch {
		case now.Before(l.shownFrom):
			continue
		case !l.live():
			if now.Sub(l.gone) < 2*time.Second {
				break // it lingers
			}
			row.Expired, row.Ended, row.TCPPorts, row.Host = true, l.gone, nil, ""
		}
		row.Up = !now.Before(l.upFrom)
		if row.Created.Add(2*time.Second).After(now) && m.chance(50) {
			row.TCPPorts = nil // not assigned yet
		}
		row.Spend = decimal.MustNew(int64(now.Sub(l.Created)/time.Second), 4)
		r.Rentals = append(r.Rentals, row)
	}
	honest := r
	switch {
	case m.chance(6):
		r.Rentals = nil
	case m.chance(6) && len(r.Rentals) > 1:
		r.Rentals = r.Rentals[:len(r.Rentals)/2]
	case m.chance(6) && len(m.lists) > 0:
		stale := m.lists[len(m.lists)-1]
		r.Rentals = stale.Rentals
	case m.chance(4):
		r.Limit = 1
	}
	m.lists = append(m.lists[max(len(m.lists)-3, 0):], honest)
	return r, nil
}

// Create may or may not be applied, now or up to 40 s later, and may be answered by anything.
func (m *liar) Create(ctx context.Context, r market.CreateRequest) market.Outcome {
	m.begin(true)
	defer m.end()
	m.mu.Lock()
	m.creates++
	never, late, silent := m.chance(10), m.chance(10), m.chance(15)
	refuse := m.chance(12)
	answer := m.rng.IntN(5)
	lying := m.chance(45)
	m.mu.Unlock()
	switch {
	case refuse:
		if err := m.latency(ctx); err != nil {
			return market.Outcome{Verdict: market.Unknown, Reason: "timeout", Sent: true}
		}
		return market.Outcome{Verdict: market.Refused, Reason: "server-offline", Sent: true}
	case never:
	case late:
		m.mu.Lock()
		d := time.Duration(1+m.rng.IntN(40)) * time.Second
		m.mu.Unlock()
		time.AfterFunc(d, func() { m.apply(r) })
	default:
		if !m.apply(r) {
			return market.Outcome{Verdict: market.Look, Reason: "server-already-rented", Sent: true}
		}
	}
	if silent {
		<-ctx.Done()
		return market.Outcome{Verdict: market.Unknown, Reason: "timeout", Sent: true}
	}
	if err := m.latency(ctx); err != nil {
		return market.Outcome{Verdict: market.Unknown, Reason: "timeout", Sent: true}
	}
	out := market.Outcome{Verdict: market.Unknown, Reason: "code-0", Sent: true}
	if lying {
		out.Reason = [...]string{"code-1", "code-5", "status-502", "no-answer", "status-520"}[answer]
		out.Throttled = answer == 1
	}
	return out
}

// apply rents, unless the server is held.
func (m *liar) apply(r market.CreateRequest) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.lots {
		if l.live() && l.ServerID == r.ServerID {
			return false
		}
	}
	perDay := r.RequiredPrice
	if r.Type == market.Spot {
		perDay = r.Bid
	}
	m.add(r.ServerID, r.Image, r.Ports, perDay, r.Type, false)
	return true
}

func (m *liar) add(server int64, image string, ports map[int]string, perDay decimal.Decimal, typ market.Type, human bool) *lot {
	now := time.Now()
	m.nextID += 1 + int64(m.rng.IntN(5))
	l := &lot{human: human, shownFrom: now, upFrom: now.Add(time.Duration(5+m.rng.IntN(90)) * time.Second)}
	if m.chance(50) {
		l.shownFrom = now.Add(time.Duration(m.rng.IntN(60)) * time.Second)
	}
	if m.chance(10) {
		l.upFrom = now.Add(1000 * time.Hour) // never boots
	}
	l.Rental = market.Rental{
		ID: m.nextID, ServerID: server, Type: typ, Currency: "USD-Blockchain", PerDay: perDay, Image: image, Created: now.Truncate(time.Second),
		TCPPorts: map[int]int{}, Host: "n1.example", GPUs: []string{"NVIDIA GeForce RTX 4090"},
	}
	for p, kind := range ports {
		if kind == "tcp" {
			l.TCPPorts[p] = 10000 + m.rng.IntN(40000)
		}
	}
	m.lots = append(m.lots, l)
	return l
}

func (m *liar) Cancel(ctx context.Context, id int64, _ string) market.Outcome {
	m.begin(false)
	defer m.end()
	m.mu.Lock()
	m.cancelled[id]++
	lost, silent := m.chance(20), m.chance(20)
	if !lost {
		for _, l := range m.lots {
			if l.ID == id && l.live() {
				l.gone = time.Now()
			}
		}
	}
	m.mu.Unlock()
	if silent {
		<-ctx.Done()
		return market.Outcome{Verdict: market.Unknown, Reason: "timeout", Sent: true}
	}
	if err := m.latency(ctx); err != nil {
		return market.Outcome{Verdict: market.Unknown, Reason: "timeout", Sent: true}
	}
	return market.Outcome{Verdict: market.Done, Reason: "code-0", Sent: true}
}

// disturb is what happens at a market by itself: humans rent and end, hosts go, bids are topped.
func (m *liar) disturb(image string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch m.rng.IntN(4) {
	case 0:
		server := int64(1 + m.rng.IntN(len(m.offers)))
		for _, l := range m.lots {
			if l.live() && l.ServerID == server {
				return
			}
		}
		m.add(server, image, map[int]string{22: "tcp", 8888: "http"}, dec("9"), market.OnDemand, true)
	case 1:
		for _, l := range m.lots {
			if l.live() && l.human && m.rng.IntN(2) == 0 {
				l.gone = time.Now()
			}
		}
	case 2:
		for _, l := range m.lots {
			if l.live() && !l.human && m.rng.IntN(6) == 0 {
				l.gone = time.Now()
			}
		}
	}
}

// The market as the poller sees it.
func (m *liar) Book(gpu string) []market.Offer {
	m.mu.Lock()
	defer m.mu.Unlock()
	if gpu != "rtx-4090" {
		return nil
	}
	out := append([]market.Offer(nil), m.offers...)
	for n := range out {
		for _, l := range m.lots {
			if l.live() && l.ServerID == out[n].ServerID && m.rng.IntN(3) > 0 { // the flag lags
				out[n].Rented = true
			}
		}
	}
	return out
}

func (m *liar) Poll() uint64             { return uint64(time.Now().Unix() / 15) }
func (m *liar) Fresh(time.Time) bool     { return true }
func (m *liar) Changed() <-chan struct{} { return nil }
