package throttle

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"pgregory.net/rapid"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
)

var limits = jetstream.KeyValueConfig{
	Bucket: "LIMITS", History: 1, Storage: jetstream.MemoryStorage, TTL: time.Hour, MaxBytes: 1 << 20,
}

// shared are the throttles of n replicas on connections of their own, with one clock that stands still.
func shared(t testing.TB, s *bustest.Server, n int) (replicas []*Throttle, clock *atomic.Int64) {
	t.Helper()
	clock = &atomic.Int64{}
	clock.Store(time.Now().UnixNano())
	for range n {
		c := s.Connect(t)
		r := New(Config{JS: c.JetStream(), Bucket: limits})
		r.now = func() time.Time { return time.Unix(0, clock.Load()) }
		replicas = append(replicas, r)
	}
	return replicas, clock
}

func TestTake_ExactAcrossReplicas(t *testing.T) {
	t.Parallel()
	replicas, _ := shared(t, bustest.Start(t), 4)
	limit := Limit{N: 25, Per: time.Minute}
	var granted atomic.Int64
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			d, err := replicas[i%4].Take(t.Context(), "one key", limit)
			if err != nil {
				t.Errorf("Take: %v", err)
			}
			if d.Allowed {
				granted.Add(1)
			}
		})
	}
	wg.Wait()
	if granted.Load() != 25 {
		t.Fatalf("%d granted, want 25", granted.Load())
	}
}

func TestTake_Decisions(t *testing.T) {
	t.Parallel()
	replicas, clock := shared(t, bustest.Start(t), 2)
	limit := Limit{N: 3, Per: 30 * time.Second}
	for i, step := range []struct {
		after time.Duration
		want  Decision
	}{
		{0, Decision{Allowed: true, Limit: 3, Remaining: 2, Reset: 10 * time.Second}},
		{0, Decision{Allowed: true, Limit: 3, Remaining: 1, Reset: 20 * time.Second}},
		{5 * time.Second, Decision{Allowed: true, Limit: 3, Remaining: 0, Reset: 25 * time.Second}},
		{0, Decision{Limit: 3, RetryAfter: 5 * time.Second, Reset: 25 * time.Second}},
		{0, Decision{Limit: 3, RetryAfter: 5 * time.Second, Reset: 25 * time.Second}},
		{5 * time.Second, Decision{Allowed: true, Limit: 3, Reset: 30 * time.Second}},
		{9 * time.Second, Decision{Limit: 3, RetryAfter: time.Second, Reset: 21 * time.Second}},
		{time.Hour / 2, Decision{Allowed: true, Limit: 3, Remaining: 2, Reset: 10 * time.Second}},
	} {
		clock.Add(int64(step.after))
		// The replicas take turns: what one granted, the other knows.
		got, err := replicas[i%2].Take(t.Context(), "key", limit)
		if err != nil || got != step.want {
			t.Errorf("step %d: %+v %v, want %+v", i, got, err, step.want)
		}
	}
	if d, err := replicas[0].Take(t.Context(), "another key: with ünusual characters", limit); err != nil || !d.Allowed {
		t.Errorf("another key: %+v %v", d, err)
	}
}

// Whatever the steps, a limit grants no more than N at once and one more per Per/N, and never refuses below that.
func TestGrant_Property(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := Limit{N: rapid.IntRange(1, 20).Draw(t, "n"), Per: time.Duration(rapid.IntRange(20, 100_000).Draw(t, "per")) * time.Millisecond}
		every := limit.Per / time.Duration(limit.N)
		begin := time.Unix(1_000_000, 0)
		now, tat := begin, time.Time{}
		// The reference: a bucket of N tokens, counted in fractions of time.
		room := every * time.Duration(limit.N)
		tokens := room
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			step := time.Duration(rapid.Int64Range(0, int64(limit.Per)).Draw(t, "step"))
			now, tokens = now.Add(step), min(tokens+step, room)
			var d Decision
			tat, d = grant(limit, tat, now)
			if want := tokens >= every; d.Allowed != want {
				t.Fatalf("step %d: allowed %t, want %t", i, d.Allowed, want)
			}
			if d.Allowed {
				tokens -= every
			} else if d.RetryAfter != every-tokens {
				t.Fatalf("step %d: retry after %s, want %s", i, d.RetryAfter, every-tokens)
			}
			if d.Remaining != int(tokens/every) && d.Allowed || d.Reset != room-tokens {
				t.Fatalf("step %d: %+v with %s of tokens", i, d, tokens)
			}
		}
	})
}

func TestTake_RefusesWithoutTheBrokerAndGrantsNotWithoutIt(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	replicas, clock := shared(t, s, 1)
	limit := Limit{N: 1, Per: time.Minute}
	if d, err := replicas[0].Take(t.Context(), "key", limit); err != nil || !d.Allowed {
		t.Fatalf("first: %+v %v", d, err)
	}
	s.Stop()
	if d, err := replicas[0].Take(t.Context(), "key", limit); err != nil || d.Allowed {
		t.Errorf("over the limit: %+v %v", d, err)
	}
	clock.Add(int64(time.Minute))
	if d, err := replicas[0].Take(t.Context(), "key", limit); err == nil {
		t.Errorf("granted without the broker: %+v", d)
	}
	// The bucket was in memory and is made again.
	s.Resume()
	bustest.Eventually(t, "a decision after the restart", func() bool {
		_, err := replicas[0].Take(t.Context(), "key", limit)
		return err == nil
	})
	if d, err := replicas[0].Take(t.Context(), "key", limit); err != nil || d.Allowed {
		t.Errorf("after the restart: %+v %v", d, err)
	}
}

func TestTake_HangingBrokerDoesNotQueueCallersUp(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	p := s.Proxy(t)
	c := bustest.Connect(t, bus.Config{URL: p.URL()})
	r := New(Config{JS: c.JetStream(), Bucket: limits})
	if _, err := r.Take(t.Context(), "key", Limit{N: 1000, Per: time.Minute}); err != nil {
		t.Fatal(err)
	}
	p.Mute()
	begin := time.Now()
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			if _, err := r.Take(context.Background(), "key", Limit{N: 1000, Per: time.Minute}); err == nil {
				t.Error("granted without an answer")
			}
		})
	}
	wg.Wait()
	// One after the other they would take a minute and a half.
	if took := time.Since(begin); took > 10*patience {
		t.Errorf("30 callers waited %s", took)
	}
}

func TestTake_RefusesLimitsItCannotKeep(t *testing.T) {
	t.Parallel()
	replicas, _ := shared(t, bustest.Start(t), 1)
	for _, l := range []Limit{{}, {N: 1}, {N: -1, Per: time.Second}, {N: 10, Per: 5}, {N: 1, Per: 2 * time.Hour}} {
		if _, err := replicas[0].Take(t.Context(), "key", l); err == nil {
			t.Errorf("%+v: accepted", l)
		}
	}
}

func TestTake_ForgetsKeysWithoutForgettingLimits(t *testing.T) {
	t.Parallel()
	replicas, _ := shared(t, bustest.Start(t), 1)
	r, limit := replicas[0], Limit{N: 1, Per: time.Minute}
	if d, err := r.Take(t.Context(), "first", limit); err != nil || !d.Allowed {
		t.Fatalf("%+v %v", d, err)
	}
	for i := range mostKeys {
		r.keys["filler "+strconv.Itoa(i)] = &cell{lock: make(chan struct{}, 1)}
	}
	if d, err := r.Take(t.Context(), "second", limit); err != nil || !d.Allowed {
		t.Fatalf("%+v %v", d, err)
	}
	if len(r.keys) > mostKeys {
		t.Errorf("%d keys remembered", len(r.keys))
	}
	delete(r.keys, hash("first"))
	if d, err := r.Take(t.Context(), "first", limit); err != nil || d.Allowed {
		t.Errorf("the limit was forgotten: %+v %v", d, err)
	}
}

func BenchmarkTake(b *testing.B) {
	s := bustest.Start(b)
	for _, test := range []struct {
		name  string
		limit Limit
	}{{"granted", Limit{N: 1_000_000_000, Per: time.Hour}}, {"refused", Limit{N: 1, Per: time.Hour}}} {
		b.Run(test.name, func(b *testing.B) {
			r := New(Config{JS: s.Connect(b).JetStream(), Bucket: limits})
			for b.Loop() {
				if _, err := r.Take(b.Context(), test.name, test.limit); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
