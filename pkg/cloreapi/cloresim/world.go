package cloresim

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/govalues/decimal"
)

// account is one API key: a wallet of its own, and the memory of its calls.
type account struct {
	Key string `json:"key"`
	// Deposits are what each coin began with.
	Deposits map[string]decimal.Decimal `json:"deposits"`
	// LastCall is the arrival of the last call, LastTaken of the last one that the rate limit let pass.
	LastCall  time.Time `json:"last_call,omitzero"`
	LastTaken time.Time `json:"last_taken,omitzero"`
	// GapAnyMS and GapCreateMS are the smallest gaps between the arrivals of two calls, and before a create_order;
	// nil while there was none.
	GapAnyMS    *int64 `json:"gap_any_ms,omitempty"`
	GapCreateMS *int64 `json:"gap_create_ms,omitempty"`
	// Violations counts calls that came too early.
	Violations int `json:"violations"`
}

// pending is a call that takes effect later than it is answered.
type pending struct {
	Call     int64     `json:"call"`
	Endpoint string    `json:"endpoint"`
	Key      string    `json:"key"`
	Body     []byte    `json:"body"`
	Due      time.Time `json:"due"`
	Step     Step      `json:"step"`
}

// world is everything the market knows. It performs no I/O besides the reservation of public ports: what changed is
// handed to the store by take. All of it is guarded by the simulator's lock; time is an argument.
type world struct {
	settings settings
	rates    map[string]decimal.Decimal
	host     string

	servers map[int64]*server
	// order is the order of the listing: ids descending.
	order []int64
	// added are rows that control calls listed beside the inventory.
	added []json.RawMessage

	rentals  []*rental
	byID     map[int64]*rental
	accounts map[string]*account
	calls    []*call
	scripts  map[string][]Step
	pending  []*pending

	nextRental, nextCall int64
	// reserve finds a free public port for an ssh server.
	reserve func() (int, error)

	// hostKey is the seed of the ssh servers' host key.
	hostKey []byte

	changed changes
}

func newWorld() *world {
	return &world{
		servers: map[int64]*server{}, byID: map[int64]*rental{}, accounts: map[string]*account{},
		scripts: map[string][]Step{}, nextRental: 1_980_001, nextCall: 1,
	}
}

// stock replaces the servers.
func (w *world) stock(listings []*listing) {
	w.servers, w.order = make(map[int64]*server, len(listings)), make([]int64, 0, len(listings))
	for _, l := range listings {
		w.servers[l.id] = &server{listing: l}
		w.order = append(w.order, l.id)
	}
}

// list adds a server where its id belongs.
func (w *world) list(l *listing) *server {
	s := &server{listing: l}
	w.servers[l.id] = s
	at, _ := slices.BinarySearchFunc(w.order, l.id, func(a, b int64) int { return int(b - a) })
	w.order = slices.Insert(w.order, at, l.id)
	return s
}

// account finds or opens the account of a key.
func (w *world) account(key string) *account {
	a := w.accounts[key]
	if a == nil {
		a = &account{Key: key, Deposits: make(map[string]decimal.Decimal, len(w.rates))}
		for coin, rate := range w.rates {
			a.Deposits[coin] = over(w.settings.BalanceUSD, rate).Round(8)
		}
		w.accounts[key] = a
		w.changed.account(a)
	}
	return a
}

// mine are the rentals of a key.
func (w *world) mine(key string) []*rental {
	var mine []*rental
	for _, r := range w.rentals {
		if r.Key == key {
			mine = append(mine, r)
		}
	}
	return mine
}

// cost is what a rental took from its wallet up to t, fees included.
func (r *rental) cost(t time.Time) decimal.Decimal {
	ended := !r.Ended.IsZero() && !t.Before(r.Ended)
	if ended && r.total != nil {
		return *r.total
	}
	cost := plus(r.CreationFee, r.withFee(r.spend(t)))
	if ended {
		r.total = &cost
	}
	return cost
}

// withFee adds the renter's fee to what is charged.
func (r *rental) withFee(spend decimal.Decimal) decimal.Decimal {
	fee := onDemandFee
	if r.Spot {
		fee = spotFee
	}
	return plus(spend, times(spend, fee))
}

// balance is what is left of a coin at t.
func (w *world) balance(a *account, coin string, t time.Time) decimal.Decimal {
	left := a.Deposits[coin]
	for _, r := range w.rentals {
		if r.Key == a.Key && r.Currency == coin {
			left = minus(left, r.cost(t))
		}
	}
	return left.Round(8)
}

// due is something that happens by itself.
type due struct {
	at time.Time
	do func(at time.Time)
}

// advance lets happen what was due up to now, in the order of time.
func (w *world) advance(now time.Time) {
	for {
		next := w.nextDue(now)
		if next.do == nil || next.at.After(now) {
			return
		}
		next.do(next.at)
	}
}

// nextDue is the earliest thing that is due by now; do is nil when there is none.
func (w *world) nextDue(now time.Time) due {
	var next due
	offer := func(d due) {
		if next.do == nil || d.at.Before(next.at) {
			next = d
		}
	}
	for _, p := range w.pending {
		offer(due{p.Due, func(at time.Time) { w.applyPending(p, at) }})
	}
	broke := w.settings.BalanceOut == "end"
	seen := map[[2]string]bool{}
	for _, r := range w.rentals {
		if !r.Ended.IsZero() {
			continue
		}
		offer(due{r.Created.Add(time.Duration(r.MRLSeconds) * time.Second), func(at time.Time) { w.endRental(r, at, "mrl") }})
		if wallet := [2]string{r.Key, r.Currency}; broke && !seen[wallet] {
			seen[wallet] = true
			if at, ok := w.emptyBy(r.Key, r.Currency, now); ok {
				offer(due{at, func(at time.Time) { w.endAll(r.Key, r.Currency, at) }})
			}
		}
	}
	return next
}

// emptyBy says whether the balance of a coin is used up by now, and when it was.
func (w *world) emptyBy(key, coin string, now time.Time) (time.Time, bool) {
	left := w.balance(w.account(key), coin, now)
	if !left.IsNeg() {
		return time.Time{}, false
	}
	burn, began := decimal.Zero, time.Time{}
	for _, r := range w.rentals {
		if _, holds := r.holdsAt(now); r.Key == key && r.Currency == coin && holds {
			burn = plus(burn, r.withFee(spendOf(r.Price, time.Second)))
			if r.Created.After(began) {
				began = r.Created
			}
		}
	}
	if !burn.IsPos() {
		return now, true
	}
	seconds, _, ok := over(left.Neg(), burn).Ceil(0).Int64(0)
	at := now.Add(-time.Duration(seconds) * time.Second)
	if !ok || at.Before(began) {
		at = began
	}
	return at, true
}

// endAll ends what an account pays with a coin.
func (w *world) endAll(key, coin string, at time.Time) {
	for _, r := range w.mine(key) {
		if r.Currency == coin && r.Ended.IsZero() {
			w.endRental(r, at, "balance")
		}
	}
}

// endRental ends a rental and lets the next bid have the server.
func (w *world) endRental(r *rental, at time.Time, reason string) {
	if at.Before(r.Created) {
		at = r.Created
	}
	r.end(at, reason)
	w.changed.rental(r)
	w.auction(w.servers[r.Server], at)
}
