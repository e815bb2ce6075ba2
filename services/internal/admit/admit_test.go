package admit_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/fault"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/admit"
	"github.com/renthook/renthook/services/internal/topology"
)

func connect(t *testing.T) *bus.Conn {
	t.Helper()
	conn := bustest.Start(t).Connect(t)
	if err := conn.EnsureStream(t.Context(), topology.CommandsStream(topology.DefaultSizes())); err != nil {
		t.Fatal(err)
	}
	return conn
}

func ask(key, body string) admit.Ask {
	return admit.Ask{
		Command: topology.Command{Client: "local", Noun: "order", Verb: "create", Key: key},
		Body:    &orderv1.CreateOrder{Spec: &orderv1.OrderSpec{Gpu: body}}, Hash: admit.Hash([]byte(body)),
	}
}

func TestAdmit(t *testing.T) {
	t.Parallel()
	conn := connect(t)
	a := admit.New(conn)
	var wg sync.WaitGroup
	receipts := make([]admit.Receipt, 32)
	for i := range receipts {
		wg.Go(func() {
			var err error
			if receipts[i], err = a.Admit(t.Context(), ask("k", "x")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	fresh := 0
	for _, r := range receipts {
		if r.Operation != "op_order-create_k" {
			t.Errorf("%+v", r)
		}
		if !r.Replayed {
			fresh++
		}
	}
	if fresh != 1 {
		t.Errorf("%d are the first", fresh)
	}
	if _, err := a.Admit(t.Context(), ask("k", "y")); !errors.Is(err, admit.ErrMismatch) {
		t.Errorf("another body: %v", err)
	}
	cmd := ask("k", "x").Command
	if at, ok, err := a.Queued(t.Context(), cmd); !ok || err != nil || at.IsZero() {
		t.Errorf("queued: %v, %v, %v", at, ok, err)
	}
	cmd.Key = "other"
	if _, ok, err := a.Queued(t.Context(), cmd); ok || err != nil {
		t.Errorf("never admitted: %v, %v", ok, err)
	}
}

// lossy breaks the next publishes: not applied, or applied and not known.
type lossy struct {
	*bus.Conn
	mu      sync.Mutex
	times   int
	err     error
	applied bool
	read    error
}

func (l *lossy) Publish(ctx context.Context, m *nats.Msg) (bus.Ack, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.times == 0 {
		return l.Conn.Publish(ctx, m)
	}
	l.times--
	if l.applied {
		_, _ = l.Conn.Publish(ctx, m)
	}
	return bus.Ack{}, fmt.Errorf("publish: %w", l.err)
}

func (l *lossy) LastBySubject(ctx context.Context, stream, subject string) (*jetstream.RawStreamMsg, error) {
	if l.read != nil {
		return nil, l.read
	}
	return l.Conn.LastBySubject(ctx, stream, subject)
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	conn := connect(t)
	for i, c := range []struct {
		name    string
		err     error
		times   int
		applied bool
		// unavailable is what is answered now; stored is what becomes of it.
		unavailable, stored bool
	}{
		{"unknown, not applied", bus.ErrUnknown, 1, false, false, true},
		{"unknown, applied", bus.ErrUnknown, 1, true, false, true},
		{"unknown twice, applied", bus.ErrUnknown, 2, true, false, true},
		{"never sent", bus.ErrUnavailable, 1, false, true, false},
		{"forbidden", bus.ErrDenied, 1, false, true, false},
		{"full", bus.ErrFull, 1, false, true, false},
		{"full, and known", bus.ErrFull, 1, true, false, true},
		{"taken for a duplicate", bus.ErrDuplicate, 1, false, true, false},
		{"taken for a duplicate, and known", bus.ErrDuplicate, 1, true, false, true},
	} {
		l := &lossy{Conn: conn, times: c.times, err: c.err, applied: c.applied}
		a, one := admit.New(l), ask(fmt.Sprint("k", i), "x")
		got, err := a.Admit(t.Context(), one)
		f, _ := fault.From(err)
		if c.unavailable != (f != nil && f.Kind == fault.Unavailable && f.RetryAfter > 0) || !c.unavailable && (err != nil || got.Operation != one.Command.Operation()) {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
		if _, ok, err := a.Queued(t.Context(), one.Command); ok != c.stored || err != nil {
			t.Errorf("%s: stored is %v, %v", c.name, ok, err)
		}
		// Whatever it was, asking again settles it.
		if got, err := a.Admit(t.Context(), one); err != nil || got.Replayed != c.stored {
			t.Errorf("%s, again: %+v, %v", c.name, got, err)
		}
	}
	l := &lossy{Conn: conn, read: errors.New("away")}
	if _, err := admit.New(l).Admit(t.Context(), ask("k0", "x")); !errors.Is(err, l.read) {
		t.Errorf("taken, and not readable: %v", err)
	}
	if _, _, err := admit.New(l).Queued(t.Context(), ask("k0", "x").Command); !errors.Is(err, l.read) {
		t.Errorf("not readable: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := admit.New(conn).Admit(ctx, ask("late", "x")); err == nil {
		t.Error("admitted for somebody who is gone")
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for name, token := range map[string]string{
		"key":          admit.Key("local", "k"),
		"other key":    admit.Key("local", "k2"),
		"other client": admit.Key("other", "k"),
		"shifted":      admit.Key("localk", ""),
		"fresh":        admit.Fresh(),
		"fresh again":  admit.Fresh(),
		"second":       admit.Nth(admit.Key("local", "k"), 1),
		"third":        admit.Nth(admit.Key("local", "k"), 2),
	} {
		if len(token) != 32 || !topology.ValidToken(token) {
			t.Errorf("%s is %q", name, token)
		}
		if other, taken := seen[token]; taken {
			t.Errorf("%s and %s are both %s", name, other, token)
		}
		seen[token] = name
	}
	if seen[admit.Key("local", "k")] != "key" || admit.Nth("t", 0) != "t" {
		t.Error("tokens change")
	}
	// What a sender computes by itself: the hash of its bytes.
	if got, want := admit.Hash(nil), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if admit.Hash([]byte("b"), "a") == admit.Hash([]byte("b"), "c") || admit.Hash([]byte("b"), "a") == admit.Hash([]byte("b")) {
		t.Error("the path does not count")
	}
}
