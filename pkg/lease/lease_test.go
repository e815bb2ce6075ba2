package lease

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
)

var leases = jetstream.KeyValueConfig{
	Bucket: "LEASES", History: 1, Storage: jetstream.MemoryStorage, LimitMarkerTTL: 10 * time.Second, MaxBytes: 1 << 20,
}

// contender runs a lease until stop; its work lasts as long as the lease.
type contender struct {
	held chan *Held
	lost chan error
	stop func()
}

func contend(t testing.TB, c *bus.Conn, holder string, ttl time.Duration) *contender {
	t.Helper()
	l, err := newLease(Config{JS: c.JetStream(), Bucket: leases, Key: "job", Holder: holder, TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	x := &contender{held: make(chan *Held, 10), lost: make(chan error, 10)}
	done := make(chan error, 1)
	go func() {
		done <- l.Run(ctx, func(ctx context.Context, h *Held) error {
			x.held <- h
			<-ctx.Done()
			x.lost <- context.Cause(ctx)
			return ctx.Err()
		})
	}()
	stopped := false
	x.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(x.stop)
	return x
}

func TestRun_OneHoldsAndReleaseHandsOver(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	one := contend(t, s.Connect(t), "one", MinTTL)
	h := <-one.held
	if left := h.Remaining(); left <= 0 || left > MinTTL {
		t.Fatalf("remaining %s", left)
	}
	two := contend(t, s.Connect(t), "two", time.Hour)
	select {
	case <-two.held:
		t.Fatal("both hold the lease")
	case <-time.After(300 * time.Millisecond):
	}
	one.stop()
	// Far sooner than its own hour of patience: it was told.
	<-two.held
}

func TestRun_ReturnsWhatTheWorkReturns(t *testing.T) {
	t.Parallel()
	c := bustest.Start(t).Connect(t)
	l, err := New(Config{JS: c.JetStream(), Bucket: leases, Key: "job", Holder: "one", TTL: MinTTL})
	if err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	for range 2 {
		// The second time only works because the first released.
		if err := l.Run(t.Context(), func(context.Context, *Held) error { return boom }); !errors.Is(err, boom) {
			t.Fatalf("Run: %v", err)
		}
	}
}
