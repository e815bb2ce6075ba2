package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/renthook/renthook/pkg/seal"
	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/order/internal/engine"
	"github.com/renthook/renthook/services/order/internal/rental"
	"github.com/renthook/renthook/services/order/internal/world"
)

// quiet is an installation over a market that neither lies nor fails, not yet booted.
func quiet(t *testing.T) *rig {
	t.Helper()
	box, err := seal.New(secret.New(strings.Repeat("k", 40)))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, rng: &dice{rng: rand.New(rand.NewPCG(1, 2))}, config: simConfig(), market: newLiar(rand.New(rand.NewPCG(1, 3))), store: &store{}, box: box}
	r.market.lying = false
	return r
}

// over ends the process, as a test in a bubble must.
func (r *rig) over() {
	r.crash()
	r.running.Wait()
}

// asked counts the creates that reached the market.
func (r *rig) asked() int {
	r.market.mu.Lock()
	defer r.market.mu.Unlock()
	return r.market.creates
}

// lives is the world of the process that runs now.
func (r *rig) lives() *world.World {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.world
}

// orderOf is the order of a create by its key; nil when there is none.
func (r *rig) orderOf(key string) *rental.Order {
	return r.lives().Find("local", "op_order-create_"+key)
}

// A thousand commands at once, and more for hours: no hour holds more orders or creates than it may and no budget is passed,
// whatever the market refuses, and every command is answered. Which limit binds first differs.
// row:53 row:54
func TestFlood(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		commands int
		limit    func(*engine.Config)
	}{
		"by the hour": {1000, func(c *engine.Config) { c.OrdersPerHour, c.CreatesPerHour = 10, 9 }},
		"burn":        {200, func(c *engine.Config) { c.Limits.BurnPerHour = dec("1.2") }},
		"the day":     {200, func(c *engine.Config) { c.Limits.SpendPerDay = dec("3") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { flood(t, c.commands, c.limit) })
		})
	}
}

func flood(t *testing.T, commands int, limit func(*engine.Config)) {
	r := quiet(t)
	c := &r.config
	c.MaxDuration, c.PlaceDeadline = 15*time.Minute, 2*time.Hour
	limit(c)
	r.market.lying = true // refusals make further creates
	r.boot()
	for n := range commands {
		r.publish("create", fmt.Sprint("k", n), `{"gpu":"RTX 4090","max_price":"0.6"}`)
	}
	for n := range 12 {
		time.Sleep(10 * time.Minute)
		for i := range 10 {
			r.publish("create", fmt.Sprint("later", n, "-", i), `{"gpu":"RTX 4090","max_price":"0.6"}`)
		}
	}
	r.market.mu.Lock()
	r.market.lying = false
	r.market.mu.Unlock()
	time.Sleep(3 * time.Hour)
	out := r.check()
	var asked []time.Time
	for _, o := range r.lives().Orders() {
		for _, i := range o.Intents {
			asked = append(asked, i.At)
		}
	}
	if out.Orders != commands+120 || len(asked) < 8 {
		t.Errorf("%d orders, %d intents: the limits were not tried", out.Orders, len(asked))
	}
	for _, from := range asked {
		n := 0
		for _, at := range asked {
			if !at.Before(from) && at.Sub(from) < time.Hour {
				n++
			}
		}
		if n > c.CreatesPerHour {
			t.Errorf("%d creates in the hour from %s", n, from)
		}
	}
	r.over()
}

// busyMarket answers "too many requests" for a while.
type busyMarket struct {
	*liar
	mu    sync.Mutex
	until time.Time
	calls []time.Time
}

func (b *busyMarket) Rentals(ctx context.Context, ended bool) (market.Rentals, error) {
	b.mu.Lock()
	b.calls = append(b.calls, time.Now())
	busy := time.Now().Before(b.until)
	b.mu.Unlock()
	if busy {
		return market.Rentals{}, &market.ThrottledError{Endpoint: "my_orders"}
	}
	return b.liar.Rentals(ctx, ended)
}

// Code 5 for half an hour is met with ever fewer calls, not with more; afterwards all goes on.
// row:37
func TestTooManyRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := quiet(t)
		r.config.PlaceDeadline = 2 * time.Hour
		b := &busyMarket{liar: r.market, until: time.Now().Add(30 * time.Minute)}
		r.account = b
		r.boot()
		r.publish("create", "k", `{"gpu":"RTX 4090","max_price":"0.6"}`)
		time.Sleep(30 * time.Minute)
		b.mu.Lock()
		calls := len(b.calls)
		for n := 1; n < calls; n++ {
			if gap := b.calls[n].Sub(b.calls[n-1]); n > 8 && gap < 35*time.Second {
				t.Errorf("call %d of the storm came %s after the last", n, gap)
			}
		}
		b.mu.Unlock()
		if n := r.asked(); calls < 10 || n != 0 {
			t.Errorf("%d reads and %d creates in the storm", calls, n)
		}
		time.Sleep(20 * time.Minute)
		if o := r.orderOf("k"); o == nil || o.State != rental.Running {
			t.Errorf("after the storm: %s", show(o))
		}
		r.check()
		r.over()
	})
}

// staleBooks are books that are old for a while.
type staleBooks struct {
	engine.Books
	until time.Time
}

func (s *staleBooks) Fresh(now time.Time) bool { return !now.Before(s.until) }

// While the marketplace cannot be read nothing is rented from what it showed before; orders wait, within their deadline.
// row:52
func TestTheMarketIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := quiet(t)
		r.books = &staleBooks{Books: r.market, until: time.Now().Add(time.Hour)}
		r.boot()
		r.publish("create", "early", `{"gpu":"RTX 4090","max_price":"0.6"}`)
		time.Sleep(45 * time.Minute)
		r.publish("create", "late", `{"gpu":"RTX 4090","max_price":"0.6"}`)
		time.Sleep(15*time.Minute - time.Second)
		if n := r.asked(); n != 0 {
			t.Errorf("%d creates from an old book", n)
		}
		time.Sleep(10 * time.Minute)
		if o := r.orderOf("early"); o == nil || o.Failure == nil || o.Failure.Code != "PLACE_DEADLINE" {
			t.Errorf("the one whose deadline passed: %s", show(o))
		}
		if o := r.orderOf("late"); o == nil || o.State != rental.Running {
			t.Errorf("the one that could wait: %s", show(o))
		}
		r.check()
		r.over()
	})
}

// A command that breaks its handler is answered and left behind; the next is carried out.
// row:21
func TestPoison(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := quiet(t)
		r.box = nil // sealing breaks, as a defect of ours might
		r.config.SSHKey = "ssh-ed25519 AAAA"
		r.boot()
		r.publish("create", "poison", `{"gpu":"RTX 4090","env":{"A":"b"}}`)
		r.publish("create", "good", `{"gpu":"RTX 4090"}`)
		time.Sleep(10 * time.Minute)
		op, ok := r.lives().Operation("local", "op_order-create_poison")
		if !ok || !op.Done || op.Failure == nil || op.Failure.Code != "INTERNAL" {
			t.Errorf("the poison: %v, %+v", ok, op)
		}
		if o := r.orderOf("good"); o == nil || o.State != rental.Running {
			t.Errorf("the next: %s", show(o))
		}
		r.check()
		r.over()
	})
}
