package poll

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/renthook/renthook/pkg/bus"
	marketv1 "github.com/renthook/renthook/proto/gen/renthook/market/v1"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/marketview"
	"github.com/renthook/renthook/services/internal/topology"
)

// bench is a poller without a network, under a clock that jumps.
type bench struct {
	deps Deps
	mu   sync.Mutex

	calls []time.Time
	// answer gives the nth answer, from 0.
	answer    func(n int) (market.Listing, error)
	snapshots []*marketv1.Snapshot
	publish   func(n int) error
	stored    marketview.Stored
	loads     []time.Time
	load      func(n int) error
	published int
}

func newBench() *bench {
	b := &bench{
		answer:  func(int) (market.Listing, error) { return listing(offer(1, "a", "0.5")), nil },
		publish: func(int) error { return nil }, load: func(int) error { return nil },
	}
	b.deps = Deps{
		Offers: b, Logger: slog.New(slog.DiscardHandler),
		Load: func(context.Context) (marketview.Stored, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.loads = append(b.loads, time.Now())
			return b.stored, b.load(len(b.loads) - 1)
		},
		Publish: func(_ context.Context, m *nats.Msg) (bus.Ack, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if err := b.publish(b.published); err != nil {
				return bus.Ack{}, err
			}
			b.published++
			if m.Subject == topology.MarketSnapshot {
				var s marketv1.Snapshot
				if err := protojson.Unmarshal(m.Data, &s); err != nil {
					return bus.Ack{}, err
				}
				b.snapshots = append(b.snapshots, &s)
			}
			// The history is a stream of its own.
			if m.Subject == topology.MarketTick("a") {
				b.published--
			}
			return bus.Ack{Seq: uint64(b.published)}, nil
		},
	}
	return b
}

func (b *bench) Offers(context.Context) (market.Listing, error) {
	b.mu.Lock()
	began, n := time.Now(), len(b.calls)
	b.calls = append(b.calls, began)
	b.mu.Unlock()
	l, err := b.answer(n)
	l.Began = began
	return l, err
}

// run lets the poller work for d, whatever it finds.
func (b *bench) run(p *Poller, d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	for ctx.Err() == nil {
		_ = p.Run(ctx)
	}
}

// gaps between the calls, in seconds.
func (b *bench) gaps() []int {
	var out []int
	for i := 1; i < len(b.calls); i++ {
		out = append(out, int(b.calls[i].Sub(b.calls[i-1]).Round(time.Millisecond).Seconds()))
	}
	return out
}

func equal(t *testing.T, what string, got, want []int) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s %v, want %v", what, got, want)
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%s %v, want %v", what, got, want)
			return
		}
	}
}

func TestOneCallPerInterval(t *testing.T) {
	t.Parallel()
	for name, breakIt := range map[string]func(*bench){
		"all is well": func(*bench) {},
		"the market is away": func(b *bench) {
			b.answer = func(int) (market.Listing, error) { return market.Listing{}, errors.New("away") }
		},
		"the market is slow": func(b *bench) {
			b.answer = func(int) (market.Listing, error) {
				time.Sleep(2 * time.Second)
				return listing(offer(1, "a", "0.5")), nil
			}
		},
		"the broker is away":          func(b *bench) { b.publish = func(int) error { return bus.ErrUnavailable } },
		"the broker is away at times": func(b *bench) { b.load = func(n int) error { return []error{errors.New("away"), nil}[n%2] } },
		"the market shrank and grew": func(b *bench) {
			b.answer = func(n int) (market.Listing, error) { return listing(many("a", 1, 1+n%2*9, "0.5")...), nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench()
				breakIt(b)
				p := New(Config{Interval: 3 * time.Second}, b.deps)
				// The lease comes and goes.
				for range 4 {
					b.run(p, 5*time.Second)
				}
				for i, gap := range b.gaps() {
					if gap < 3 {
						t.Errorf("calls %d and %d are %d s apart", i, i+1, gap)
					}
				}
				if len(b.calls) < 5 {
					t.Errorf("only %d calls in 20 s", len(b.calls))
				}
			})
		})
	}
}

func TestNoCallWithoutKnowingWhatWasPublished(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.load = func(int) error { return errors.New("away") }
		p := New(Config{Interval: 3 * time.Second}, b.deps)
		b.run(p, 10*time.Second)
		if len(b.calls) != 0 || len(b.loads) < 5 || p.Failure() == nil {
			t.Errorf("%d calls, %d loads, failure %v", len(b.calls), len(b.loads), p.Failure())
		}
	})
}

func TestTheNextHolderWaitsOutTheInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			began time.Duration
			want  time.Duration
		}{
			"just polled":      {-time.Second, 2 * time.Second},
			"long ago":         {-time.Hour, 0},
			"a clock is wrong": {time.Hour, 0},
		} {
			b := newBench()
			b.stored.Poll = marketview.Poll{Number: 41, Began: time.Now().Add(c.began), Rates: map[string]market.Rate{}}
			start := time.Now()
			b.run(New(Config{Interval: 3 * time.Second}, b.deps), 2500*time.Millisecond)
			if len(b.calls) != 1 || b.calls[0].Sub(start) != c.want {
				t.Errorf("%s: %d calls, the first after %s", name, len(b.calls), b.calls[0].Sub(start))
			}
			if n := b.snapshots[0].GetPoll(); n != 42 {
				t.Errorf("%s: poll %d", name, n)
			}
		}
	})
}

func TestTooManyRequestsStretchTheInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.answer = func(n int) (market.Listing, error) {
			if n >= 1 && n <= 3 {
				return market.Listing{}, &market.ThrottledError{Endpoint: "marketplace"}
			}
			return listing(offer(1, "a", "0.5")), nil
		}
		b.run(New(Config{Interval: time.Second}, b.deps), 24*time.Second)
		equal(t, "gaps", b.gaps()[:8], []int{1, 2, 4, 8, 4, 2, 1, 1})
		var intervals []int
		for _, s := range b.snapshots[:5] {
			intervals = append(intervals, int(s.GetInterval().AsDuration().Seconds()))
		}
		equal(t, "intervals told", intervals, []int{1, 4, 2, 1, 1})
	})
}

func TestTheStretchHasAnEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.answer = func(int) (market.Listing, error) { return market.Listing{}, &market.ThrottledError{} }
		b.run(New(Config{Interval: time.Second}, b.deps), 80*time.Second)
		equal(t, "gaps", b.gaps(), []int{2, 4, 8, 16, 16, 16, 16})
	})
}

func TestSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		var asked []time.Time
		b.deps.Slot = func(context.Context) (bool, time.Duration) {
			asked = append(asked, time.Now())
			return len(asked)%3 == 0, 700 * time.Millisecond
		}
		start := time.Now()
		b.run(New(Config{Interval: 3 * time.Second}, b.deps), 7*time.Second)
		if len(asked) < 6 || len(b.calls) != 2 {
			t.Fatalf("asked %d times, called %d times", len(asked), len(b.calls))
		}
		if b.calls[0].Sub(start) != 1400*time.Millisecond || b.calls[1].Sub(b.calls[0]) != 4400*time.Millisecond {
			t.Errorf("called at %s and %s", b.calls[0].Sub(start), b.calls[1].Sub(start))
		}
	})
}

func TestOneCallPerIntervalOverAllReplicas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		taken := time.Now().Add(-time.Hour)
		fail := true
		b.deps.Take = func(_ context.Context, interval time.Duration) (bool, time.Duration, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if fail = !fail; fail {
				return false, 0, errors.New("the broker is away")
			}
			if wait := time.Until(taken.Add(interval)); wait > 0 {
				return false, wait, nil
			}
			taken = time.Now()
			return true, 0, nil
		}
		done := make(chan struct{})
		for range 2 {
			go func() {
				b.run(New(Config{Interval: 3 * time.Second}, b.deps), 30*time.Second)
				done <- struct{}{}
			}()
		}
		<-done
		<-done
		for i, gap := range b.gaps() {
			if gap < 3 {
				t.Errorf("calls %d and %d are %d s apart", i, i+1, gap)
			}
		}
		if len(b.calls) < 5 {
			t.Errorf("%d calls", len(b.calls))
		}
	})
}

func TestGivesTheWorkUpWhenAnotherWrites(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.publish = func(n int) error {
			if n == 5 {
				b.published += 3
			}
			return nil
		}
		p := New(Config{Interval: 3 * time.Second}, b.deps)
		if err := p.Run(t.Context()); !errors.Is(err, ErrForeign) || !errors.Is(p.Failure(), ErrForeign) {
			t.Errorf("%v", err)
		}
	})
}

func TestNeverASlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.deps.Slot = func(context.Context) (bool, time.Duration) { return false, 0 }
		p := New(Config{Interval: 3 * time.Second}, b.deps)
		b.run(p, 90*time.Second)
		if len(b.calls) != 0 || !errors.Is(p.Failure(), errDenied) {
			t.Errorf("%d calls, failure %v", len(b.calls), p.Failure())
		}
	})
}

func TestFailureIsForgottenWhenTheMarketIsReadAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.answer = func(n int) (market.Listing, error) {
			if n == 0 {
				return market.Listing{}, errors.New("away")
			}
			return listing(offer(1, "a", "0.5")), nil
		}
		p := New(Config{Interval: 3 * time.Second}, b.deps)
		b.run(p, time.Second)
		if p.Failure() == nil {
			t.Error("no failure")
		}
		b.run(p, 4*time.Second)
		if err := p.Failure(); err != nil {
			t.Error(err)
		}
	})
}
