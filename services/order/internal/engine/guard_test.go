package engine

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/renthook/renthook/pkg/journal"
	"github.com/renthook/renthook/services/order/internal/world"
)

type claimed struct{}

func (claimed) Append(context.Context, ...journal.Entry) (first, last uint64, err error) {
	return 0, 0, journal.ErrDead
}
func (claimed) Last() uint64  { return 7 }
func (claimed) Epoch() uint64 { return 7 }

// The last line before the wire, one thing wrong at a time.
func TestGuard(t *testing.T) {
	t.Parallel()
	const timeout = 15 * time.Second
	type call struct {
		stopping, wanted, halted bool
		left, lease              time.Duration
		epoch                    uint64
	}
	fits := call{left: timeout + time.Second, lease: timeout + leaseMargin + time.Second, epoch: 7}
	for name, tt := range map[string]struct {
		change func(*call)
		want   string
	}{
		"it may go out":                {func(*call) {}, ""},
		"the process stops":            {func(c *call) { c.stopping = true }, "this process is stopping"},
		"another writer's intent":      {func(c *call) { c.epoch = 6 }, "the intent is another writer's"},
		"too late for the time-out":    {func(c *call) { c.left = timeout - time.Second }, "too late for the call's whole time-out"},
		"the lease ends with the call": {func(c *call) { c.lease = timeout + leaseMargin/2 }, "the lease does not outlast the call"},
		"the lease ends before":        {func(c *call) { c.lease = timeout - time.Second }, "the lease does not outlast the call"},
		"an end is wanted":             {func(c *call) { c.wanted = true }, "an end is wanted"},
		"halted":                       {func(c *call) { c.halted = true }, "renting was halted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := fits
			tt.change(&c)
			w := world.New("main")
			if c.halted {
				w.Brake(world.Halt{Client: "ci"})
			}
			h := NewHolder(Config{CallTimeout: timeout}, Deps{World: w, Remaining: func() time.Duration { return c.lease }}, claimed{}, false)
			h.creating, h.abortCreate = "ord_1", &atomic.Bool{}
			h.abort("ord_2")
			if c.wanted {
				h.abort("ord_1")
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.stopping {
				cancel()
			}
			if got := h.guard(ctx, h.abortCreate, "ci", time.Now().Add(c.left), c.epoch); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
