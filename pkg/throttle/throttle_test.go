package throttle

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

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
