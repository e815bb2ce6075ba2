package window

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/fault"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/admit"
	"github.com/renthook/renthook/services/internal/topology"
)

var create = topology.Command{Client: "local", Noun: "order", Verb: "create"}

// rig is a broker with the stream of commands, and how to open windows on it.
type rig struct {
	nats     *bustest.Server
	conn     *bus.Conn
	admitter *admit.Admitter
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{nats: bustest.Start(t)}
	r.conn = r.nats.Connect(t)
	if err := r.conn.EnsureStream(t.Context(), topology.CommandsStream(topology.DefaultSizes())); err != nil {
		t.Fatal(err)
	}
	r.admitter = admit.New(r.conn)
	return r
}

func (r *rig) open(ctx context.Context) (Bucket, error) {
	return r.conn.EnsureBucket(ctx, topology.WindowsBucket(1))
}

func (r *rig) windows(t *testing.T, d time.Duration) *Windows {
	t.Helper()
	w, err := New(Config{Length: d, Open: r.open, Commands: r.admitter})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// admit stores the command of a token.
func (r *rig) admit(t *testing.T, token string) {
	t.Helper()
	c := create
	c.Key = token
	if _, err := r.admitter.Admit(t.Context(), admit.Ask{Command: c, Body: &orderv1.CreateOrder{}, Hash: "h"}); err != nil {
		t.Fatal(err)
	}
}

func token(t *testing.T, w *Windows, parts ...string) string {
	t.Helper()
	got, err := w.Token(t.Context(), create, parts...)
	if err != nil || !topology.ValidToken(got) {
		t.Fatalf("%q, %v", got, err)
	}
	return got
}

func TestToken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	two := []*Windows{r.windows(t, time.Minute), r.windows(t, time.Minute)}
	// Their clocks lie on either side of a border.
	border := time.Now().Truncate(time.Minute)
	two[0].now = func() time.Time { return border.Add(-time.Millisecond) }
	two[1].now = func() time.Time { return border }
	tokens := make([]string, 32)
	var wg sync.WaitGroup
	for i := range tokens {
		wg.Go(func() {
			var err error
			if tokens[i], err = two[i%2].Token(t.Context(), create, "/a", "body"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, got := range tokens {
		if got != tokens[0] || len(got) != 32 {
			t.Fatalf("%q and %q", got, tokens[0])
		}
	}
	// Parts do not run into each other.
	for _, parts := range [][]string{{"/a", "body2"}, {"/ab", "ody"}, {"/abody"}, {"/a", "body", ""}} {
		if got := token(t, two[0], parts...); got == tokens[0] {
			t.Errorf("%q: the same token", parts)
		}
	}
	other := create
	other.Client = "other"
	if got, err := two[0].Token(t.Context(), other, "/a", "body"); err != nil || got == tokens[0] {
		t.Errorf("another client: %s, %v", got, err)
	}
}

func TestTokenLapses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	// Half a second is rounded up to the second that the broker knows.
	w := r.windows(t, time.Second/2)
	first := token(t, w, "x")
	r.admit(t, first)
	bustest.Eventually(t, "the window to lapse, and to open again", func() bool { return token(t, w, "x") != first })
}

// What was admitted is found again after the broker has forgotten the windows, on either side of a border, for as long
// as the window lasts and not longer.
func TestForgotten(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.windows(t, time.Hour)
	now := time.Now()
	w.now = func() time.Time { return now }
	first := token(t, w, "x")
	r.admit(t, first)
	sent := now
	for _, c := range []struct {
		after time.Duration
		same  bool
	}{{0, true}, {59 * time.Minute, true}, {61 * time.Minute, false}, {3 * time.Hour, false}} {
		r.nats.Restart()
		bustest.Eventually(t, "the broker to be back", func() bool { return r.conn.Ready() == nil })
		now = sent.Add(c.after)
		var got string
		bustest.Eventually(t, "an answer", func() (ok bool) {
			var err error
			got, err = w.Token(t.Context(), create, "x")
			return err == nil
		})
		if (got == first) != c.same {
			t.Errorf("after %s: the same token is %v", c.after, got == first)
		}
		if again := token(t, w, "x"); again != got {
			t.Errorf("after %s: %s and %s", c.after, got, again)
		}
	}
}

func TestOff(t *testing.T) {
	t.Parallel()
	w, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Open(t.Context()); err != nil {
		t.Error(err)
	}
	if a, b := token(t, w, "x"), token(t, w, "x"); a == b {
		t.Errorf("%s twice", a)
	}
}

// broken is a bucket whose next calls fail: before they are applied, or after.
type broken struct {
	Bucket
	create, get error
	applied     bool
}

func (b *broken) Create(ctx context.Context, key string, v []byte, opts ...jetstream.KVCreateOpt) (uint64, error) {
	if b.create == nil {
		return b.Bucket.Create(ctx, key, v, opts...)
	}
	if b.applied {
		if _, err := b.Bucket.Create(ctx, key, v, opts...); err != nil {
			return 0, err
		}
	}
	return 0, b.create
}

func (b *broken) Get(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	if b.get != nil {
		return nil, b.get
	}
	return b.Bucket.Get(ctx, key)
}

// unread are commands that cannot be read.
type unread struct{ err error }

func (u unread) Queued(context.Context, topology.Command) (time.Time, bool, error) {
	return time.Time{}, false, u.err
}

func TestBroken(t *testing.T) {
	t.Parallel()
	away := errors.New("away")
	for name, b := range map[string]*broken{
		"not created":               {create: away},
		"created, and not answered": {create: away, applied: true},
	} {
		r := newRig(t)
		w := r.windows(t, time.Minute)
		w.cfg.Open = func(ctx context.Context) (_ Bucket, err error) {
			b.Bucket, err = r.open(ctx)
			return b, err
		}
		refuses := func(what string) {
			t.Helper()
			if _, err := w.Token(t.Context(), create, "x"); !unavailable(err) {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
		refuses("a call that fails")
		b.create = nil
		if first, again := token(t, w, "x"), token(t, w, "x"); first != again {
			t.Errorf("%s, then: %s and %s", name, first, again)
		}
		b.get = away
		refuses("a read that fails")
		b.get = jetstream.ErrKeyNotFound
		refuses("there and not there")
		b.get, w.cfg.Commands = nil, unread{away}
		refuses("commands that cannot be read")
		w.cfg.Commands, w.bucket = r.admitter, nil
		w.cfg.Open = func(context.Context) (Bucket, error) { return nil, away }
		refuses("not opened")
	}
	for _, d := range []time.Duration{-1, Most + 1} {
		if _, err := New(Config{Length: d}); err == nil {
			t.Errorf("a window of %s is taken", d)
		}
	}
}

func unavailable(err error) bool {
	f, ok := fault.From(err)
	return ok && f.Kind == fault.Unavailable
}
