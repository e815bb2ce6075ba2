package cloresim

import (
	"time"

	"github.com/govalues/decimal"
)

// port is one published container port.
type port struct {
	Container int    `json:"container"`
	Kind      string `json:"kind"`
	// Public is the port outside, for tcp.
	Public int `json:"public,omitempty"`
}

// span is a stretch of time; a zero To has not ended.
type span struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to,omitzero"`
}

func (s span) holds(t time.Time) bool { return !t.Before(s.From) && (s.To.IsZero() || t.Before(s.To)) }

// rental is one order: on demand, or a spot bid that holds its server or waits in its queue. It is kept whole, so
// that what was true at any moment can be told later.
type rental struct {
	ID      int64  `json:"id"`
	Server  int64  `json:"server"`
	Key     string `json:"key"`
	Foreign bool   `json:"foreign,omitempty"`
	Spot    bool   `json:"spot,omitempty"`

	Currency string `json:"currency"`
	// Price is per day, whole server, in Currency.
	Price       decimal.Decimal `json:"price"`
	CreationFee decimal.Decimal `json:"creation_fee"`
	// Billed are changes of a spot bid: until when which price was billed before the present one.
	Billed []billed `json:"billed,omitempty"`

	Image       string            `json:"image"`
	Ports       []port            `json:"ports,omitempty"`
	HTTPPub     string            `json:"http_pub,omitempty"`
	SSHPassword string            `json:"ssh_password,omitempty"`
	SSHKey      string            `json:"ssh_key,omitempty"`
	Env         map[string]string `json:"env,omitempty"`
	MRLSeconds  int64             `json:"mrl_seconds"`

	Created time.Time `json:"created"`
	// VisibleMS is how long my_orders does not show it; BootMS how long its container takes, negative for ever.
	VisibleMS int64 `json:"visible_ms"`
	BootMS    int64 `json:"boot_ms"`
	PortsMS   int64 `json:"ports_ms,omitempty"`
	// Held are the stretches during which it held the server and was billed.
	Held      []span    `json:"held,omitempty"`
	Lowered   time.Time `json:"lowered,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
	EndReason string    `json:"end_reason,omitempty"`

	// total is what an ended rental cost, reckoned once: balances are asked for all the time.
	total *decimal.Decimal
}

// billed is what was charged at a price that has changed since.
type billed struct {
	Until time.Time       `json:"until"`
	Price decimal.Decimal `json:"price"`
}

func millis(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

func (r *rental) liveAt(t time.Time) bool {
	return !t.Before(r.Created) && (r.Ended.IsZero() || t.Before(r.Ended))
}

// holdsAt says whether it holds its server at t, and since when.
func (r *rental) holdsAt(t time.Time) (since time.Time, ok bool) {
	for _, h := range r.Held {
		if h.holds(t) {
			return h.From, true
		}
	}
	return time.Time{}, false
}

// upAt says whether the container runs at t. The image is pulled anew each time a bid wins the server.
func (r *rental) upAt(t time.Time) bool {
	since, ok := r.holdsAt(t)
	return ok && r.BootMS >= 0 && !t.Before(since.Add(millis(r.BootMS)))
}

// container is mon_container at t. An ended rental keeps the last value.
func (r *rental) container(t time.Time) int {
	if !r.Ended.IsZero() && !t.Before(r.Ended) {
		t = r.Ended.Add(-time.Nanosecond)
	}
	if r.upAt(t) {
		return 2
	}
	return 0
}

// heldFor is how long it has held its server up to t.
func (r *rental) heldFor(t time.Time) time.Duration {
	var sum time.Duration
	for _, h := range r.Held {
		end := h.To
		if end.IsZero() || end.After(t) {
			end = t
		}
		if end.After(h.From) {
			sum += end.Sub(h.From)
		}
	}
	return sum
}

// spend is what was charged up to t, in Currency, without fees: whole held seconds at the price of their time.
func (r *rental) spend(t time.Time) decimal.Decimal {
	sum, before := decimal.Zero, time.Duration(0)
	charge := func(until time.Time, perDay decimal.Decimal) {
		held := r.heldFor(until).Truncate(time.Second)
		sum, before = plus(sum, spendOf(perDay, held-before)), held
	}
	for _, b := range r.Billed {
		if !b.Until.Before(t) {
			charge(t, b.Price)
			return sum
		}
		charge(b.Until, b.Price)
	}
	charge(t, r.Price)
	return sum
}

// priceAt is the price per day that stood at t.
func (r *rental) priceAt(t time.Time) decimal.Decimal {
	for _, b := range r.Billed {
		if t.Before(b.Until) {
			return b.Price
		}
	}
	return r.Price
}

func (r *rental) hold(t time.Time) { r.Held = append(r.Held, span{From: t}) }

func (r *rental) letGo(t time.Time) {
	if n := len(r.Held); n > 0 && r.Held[n-1].To.IsZero() {
		r.Held[n-1].To = t
	}
}

func (r *rental) end(t time.Time, reason string) {
	r.letGo(t)
	r.Ended, r.EndReason = t, reason
}

// sshPort is the public port of container port 22, zero when it was not asked for.
func (r *rental) sshPort() int {
	for _, p := range r.Ports {
		if p.Container == 22 && p.Kind == "tcp" {
			return p.Public
		}
	}
	return 0
}

// sshPorts are the public ports at which live rentals have an ssh server.
func (w *world) sshPorts() map[int]bool {
	ports := map[int]bool{}
	for _, r := range w.rentals {
		if port := r.sshPort(); port != 0 && r.Ended.IsZero() {
			ports[port] = true
		}
	}
	return ports
}
