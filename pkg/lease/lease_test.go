package lease

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
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

func TestNew_RefusesWhatCannotLapse(t *testing.T) {
	t.Parallel()
	js := bustest.Start(t).Connect(t).JetStream()
	good := Config{JS: js, Bucket: leases, Key: "job", Holder: "one", TTL: MinTTL}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"short":         func(c *Config) { c.TTL = MinTTL - time.Second },
		"broken second": func(c *Config) { c.TTL = MinTTL + time.Millisecond },
		"history":       func(c *Config) { c.Bucket.History = 2 },
		"no marker":     func(c *Config) { c.Bucket.LimitMarkerTTL = 0 },
		"no key":        func(c *Config) { c.Key = "" },
		"no holder":     func(c *Config) { c.Holder = "" },
		"no connection": func(c *Config) { c.JS = nil },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRun_RenewedBeyondItsTTL(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	c := s.Connect(t)
	one := contend(t, c, "one", 6*time.Second)
	h := <-one.held
	first := h.lastRevision()
	// Four thirds of the TTL: without renewals that renew it the key would be gone by now.
	bustest.Eventually(t, "several renewals", func() bool { return h.lastRevision() >= first+4 })
	if left := h.Remaining(); left <= 0 {
		t.Errorf("remaining %s", left)
	}
	select {
	case err := <-one.lost:
		t.Errorf("lost: %v", err)
	default:
	}
}

// row:27
func TestRun_HolderThatVanishedIsFollowedWhenItsLeaseLapses(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	p := s.Proxy(t)
	one := contend(t, bustest.Connect(t, bus.Config{URL: p.URL()}), "one", 2*time.Second)
	h := <-one.held
	two := contend(t, s.Connect(t), "two", 2*time.Second)
	p.Down()
	if err := <-one.lost; !errors.Is(err, ErrLost) {
		t.Errorf("cause: %v", err)
	}
	if left := h.Remaining(); left > 0 {
		t.Errorf("lost with %s left", left)
	}
	<-two.held
}

func TestRun_BrokerThatHangsDoesNotKeepTheLeaseAlive(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	p := s.Proxy(t)
	one := contend(t, bustest.Connect(t, bus.Config{URL: p.URL()}), "one", 2*time.Second)
	h := <-one.held
	p.Deafen()
	if err := <-one.lost; !errors.Is(err, ErrLost) {
		t.Errorf("cause: %v", err)
	}
	if left := h.Remaining(); left > 0 {
		t.Errorf("lost with %s left", left)
	}
	// The other has it while the first still hears nothing.
	two := contend(t, s.Connect(t), "two", 2*time.Second)
	<-two.held
	p.Heal()
	select {
	case <-one.held:
		t.Error("both hold the lease")
	case <-time.After(time.Second):
	}
}

func TestRun_BrokerThatLostItsMemory(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	one := contend(t, s.Connect(t), "one", MinTTL)
	<-one.held
	s.Restart()
	// The bucket is gone. The holder makes it again and goes on, since by its own count the lease lasts.
	js := s.Connect(t).JetStream()
	bustest.Eventually(t, "the key in a new bucket", func() bool {
		kv, err := js.KeyValue(t.Context(), leases.Bucket)
		if err != nil {
			return false
		}
		_, err = kv.Get(t.Context(), "job")
		return err == nil
	})
	two := contend(t, s.Connect(t), "two", MinTTL)
	select {
	case <-two.held:
		t.Error("both hold the lease")
	case <-time.After(time.Second):
	}
	select {
	case err := <-one.lost:
		t.Errorf("lost: %v", err)
	default:
	}
	one.stop()
	<-two.held
}

func TestRun_TakenAwayEndsTheWork(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	c := s.Connect(t)
	one := contend(t, c, "one", 3*time.Second)
	<-one.held
	// What a broker that lost its memory can do: grant the key to somebody else.
	kv, err := c.JetStream().KeyValue(t.Context(), leases.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), "job", []byte("another")); err != nil {
		t.Fatal(err)
	}
	if err := <-one.lost; !errors.Is(err, ErrLost) {
		t.Errorf("cause: %v", err)
	}
	// It does not take the other's key with it.
	if e, err := kv.Get(t.Context(), "job"); err != nil || string(e.Value()) != "another" {
		t.Errorf("the other's key: %v %v", e, err)
	}
}

func TestTry_AnAnswerThatGotLostIsNotAnothersLease(t *testing.T) {
	t.Parallel()
	c := bustest.Start(t).Connect(t)
	l, err := newLease(Config{JS: c.JetStream(), Bucket: leases, Key: "job", Holder: "one", TTL: MinTTL})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.try(t.Context()); err != nil {
		t.Fatal(err)
	}
	h, err := l.try(t.Context())
	if err != nil || h.Remaining() <= 0 {
		t.Fatalf("its own key bars a contender: %v", err)
	}
	// Likewise a renewal that was stored unheard: the next one finds another revision, and its own value.
	if _, err := l.write(t.Context(), h.lastRevision()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.extend(t.Context(), h); err != nil {
		t.Fatalf("its own renewal bars the next: %v", err)
	}
}

// row:27
func TestRun_ManyContendersOneHolder(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	c := s.Connect(t)
	ctx, cancel := context.WithCancel(context.Background())
	var inside, turns atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			l, err := New(Config{JS: c.JetStream(), Bucket: leases, Key: "job", Holder: "x", TTL: MinTTL})
			if err != nil {
				t.Errorf("New: %v", err)
				return
			}
			for ctx.Err() == nil {
				if err := l.Run(ctx, func(context.Context, *Held) error {
					if n := inside.Add(1); n != 1 {
						t.Errorf("%d hold the lease", n)
					}
					turns.Add(1)
					inside.Add(-1)
					return nil
				}); err != nil {
					t.Errorf("Run: %v", err)
				}
			}
		})
	}
	bustest.Eventually(t, "many turns", func() bool { return turns.Load() > 30 })
	cancel()
	all.Wait()
}
