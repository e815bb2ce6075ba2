package journal_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/journal"
)

// rig is a writer behind a proxy, and a clear sight of the journal.
type rig struct {
	t     testing.TB
	proxy *bustest.Proxy
	// behind is the journal through the proxy, clear the one without.
	behind, clear *journal.Journal
	writer        *journal.Writer
}

func newRig(t testing.TB) *rig {
	t.Helper()
	s := bustest.Start(t)
	r := &rig{t: t, clear: open(t, s.Connect(t), "A"), proxy: s.Proxy(t)}
	r.behind = journal.ImpatientlyOpen(journal.Open(bustest.Connect(t, bus.Config{URL: r.proxy.URL()}).JetStream(), "A"))
	r.writer = claim(t, r.behind, "A", "one", 0)
	return r
}

func (r *rig) last() uint64 {
	r.t.Helper()
	state, err := r.clear.State(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return state.Last
}

type result struct {
	first, last uint64
	err         error
}

func (r *rig) append(ctx context.Context, entries ...journal.Entry) <-chan result {
	done := make(chan result, 1)
	go func() {
		first, last, err := r.writer.Append(ctx, entries...)
		done <- result{first, last, err}
	}()
	return done
}

var one = []journal.Entry{entry("A", "x", "1")}

var three = []journal.Entry{entry("A", "x", "1"), entry("A", "y", "2"), entry("A", "x", "3")}

// row:12
func TestAppend_AnswerLostAfterItWasApplied(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		said    string
		entries []journal.Entry
	}{
		{"one", journal.HeaderAppendID, one},
		// The broker answers a batch's first message too; what is lost is the answer to the last.
		{"batch", jetstreamext.BatchCommitHeader, three},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.proxy.MuteAfter(test.said)
			done := r.append(t.Context(), test.entries...)
			want := result{first: 2, last: 1 + uint64(len(test.entries))}
			bustest.Eventually(t, "the records to be stored", func() bool { return r.last() == want.last })
			r.proxy.Heal()
			if got := <-done; got != want {
				t.Fatalf("append: %d %d %v", got.first, got.last, got.err)
			}
			// Nothing twice, and the writer goes on.
			if first, _ := appendTo(t, r.writer, one...); first != want.last+1 || len(replay(t, r.clear, 0)) != int(first) {
				t.Fatalf("the next append is at %d of %d", first, r.last())
			}
		})
	}
}

func TestAppend_LostBeforeItWasApplied(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		fault   func(*bustest.Proxy)
		entries []journal.Entry
	}{
		{"one", (*bustest.Proxy).Deafen, one},
		{"batch", (*bustest.Proxy).Deafen, three},
		// Without the answer to its first message a batch is never committed.
		{"batch without its first answer", (*bustest.Proxy).Mute, three},
		{"batch without its last message", func(p *bustest.Proxy) { p.Lose(jetstreamext.BatchCommitHeader) }, three},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			test.fault(r.proxy)
			done := r.append(t.Context(), test.entries...)
			// Only when the attempt has been given up may the wire come back.
			select {
			case got := <-done:
				t.Fatalf("answered though nothing was stored: %d %d %v", got.first, got.last, got.err)
			case <-time.After(1500 * time.Millisecond):
			}
			if last := r.last(); last != 1 {
				t.Fatalf("the journal ends at %d", last)
			}
			r.proxy.Lose("")
			r.proxy.Heal()
			want := result{first: 2, last: 1 + uint64(len(test.entries))}
			if got := <-done; got != want || r.last() != want.last {
				t.Fatalf("append: %d %d %v, the journal ends at %d", got.first, got.last, got.err, r.last())
			}
		})
	}
}

func TestAppend_OvertakenWhileItsOutcomeIsUnknown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.proxy.Deafen()
	done := r.append(t.Context(), one...)
	two := claim(t, r.clear, "A", "two", 1)
	r.proxy.Heal()
	if got := <-done; !errors.Is(got.err, journal.ErrFenced) {
		t.Fatalf("append: %d %d %v", got.first, got.last, got.err)
	}
	appendTo(t, two, one...)
	if _, _, err := r.writer.Append(t.Context(), one...); !errors.Is(err, journal.ErrDead) {
		t.Fatalf("a fenced writer: %v", err)
	}
}

func TestAppend_OutcomeThatCannotBeLearntKillsTheWriter(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	r.proxy.Mute()
	done := r.append(ctx, one...)
	bustest.Eventually(t, "the record to be stored", func() bool { return r.last() == 2 })
	cancel()
	if got := <-done; !errors.Is(got.err, journal.ErrUnsettled) {
		t.Fatalf("append: %d %d %v", got.first, got.last, got.err)
	}
	r.proxy.Heal()
	if _, _, err := r.writer.Append(t.Context(), one...); !errors.Is(err, journal.ErrDead) {
		t.Fatalf("a writer that does not know its end: %v", err)
	}
	// The successor learns by replay.
	claim(t, r.clear, "A", "two", replay(t, r.clear, 0)[1].Seq)
}

func TestAppend_ContextEndsWhileTheAnswerIsUnderWay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	r.proxy.Mute()
	done := r.append(ctx, one...)
	bustest.Eventually(t, "the record to be stored", func() bool { return r.last() == 2 })
	cancel()
	r.proxy.Heal()
	if got := <-done; got != (result{first: 2, last: 2}) {
		// A slow machine may need longer than the grace; then the writer must say so and nothing else.
		if !errors.Is(got.err, journal.ErrUnsettled) {
			t.Fatalf("append: %d %d %v", got.first, got.last, got.err)
		}
		return
	}
	if _, _, err := r.writer.Append(ctx, one...); !errors.Is(err, context.Canceled) {
		t.Fatalf("append with a context that ended: %v", err)
	}
	appendTo(t, r.writer, one...)
}

// row:14
func TestAppend_BrokerAwayLeavesTheWriterAlive(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.proxy.Down()
	bustest.Eventually(t, "the loss to be noticed", func() bool {
		_, err := r.behind.State(t.Context())
		return errors.Is(err, nats.ErrReconnectBufExceeded)
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if got := <-r.append(ctx, three...); !errors.Is(got.err, journal.ErrUnavailable) {
		t.Fatalf("append: %d %d %v", got.first, got.last, got.err)
	}
	r.proxy.Heal()
	if first, _ := appendTo(t, r.writer, three...); first != 2 {
		t.Fatalf("stored at %d", first)
	}
}

// row:19 row:20
func TestAppend_FullAndTooLargeLeaveTheWriterAlive(t *testing.T) {
	t.Parallel()
	c := bustest.Start(t).Connect(t)
	cfg := config("A")
	cfg.MaxBytes, cfg.MaxMsgSize = 3000, 2000
	if err := c.EnsureStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	j := journal.Open(c.JetStream(), "A")
	w := claim(t, j, "A", "one", 0)
	half := journal.Entry{Subject: "log.A.x", Data: make([]byte, 1200)}
	for _, test := range []struct {
		name    string
		entries []journal.Entry
		want    error
	}{
		{"too large", []journal.Entry{{Subject: "log.A.x", Data: make([]byte, 3000)}}, journal.ErrTooLarge},
		{"above the broker's limit", []journal.Entry{{Subject: "log.A.x", Data: make([]byte, 2<<20)}}, journal.ErrTooLarge},
		{"one of several too large", []journal.Entry{half, {Subject: "log.A.x", Data: make([]byte, 3000)}}, journal.ErrTooLarge},
		{"full by several", []journal.Entry{half, half, half}, journal.ErrFull},
		{"room for this", []journal.Entry{half}, nil},
		{"full", []journal.Entry{half, half}, journal.ErrFull},
		{"full by one", []journal.Entry{{Subject: "log.A.x", Data: make([]byte, 1700)}}, journal.ErrFull},
	} {
		if _, _, err := w.Append(t.Context(), test.entries...); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	cfg.MaxBytes = 1 << 20
	if _, err := c.JetStream().UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if first, _ := appendTo(t, w, half, half); first != 3 {
		t.Errorf("stored at %d", first)
	}
}

func TestAppend_RefusesWhatItCannotFence(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	c := s.Connect(t)
	j := open(t, c, "A")
	open(t, c, "B")
	w := claim(t, j, "A", "one", 0)
	for name, entries := range map[string][]journal.Entry{
		"nothing":         {},
		"too many":        make([]journal.Entry, journal.MaxBatch+1),
		"broker's header": {{Subject: "log.A.x", Header: nats.Header{"Nats-Rollup": {"all"}}}},
		"another journal": {{Subject: "log.B.x"}},
		"no journal":      {{Subject: "nowhere"}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, _, err := w.Append(ctx, entries...); err == nil {
			t.Errorf("%s: stored", name)
		}
		cancel()
	}
	if first, _ := appendTo(t, w, one...); first != 2 {
		t.Errorf("stored at %d", first)
	}
	if _, err := j.Claim(t.Context(), "", 2, entry("A", "holder", "")); err == nil {
		t.Error("a writer without a name")
	}
}

func TestAppend_ClosedConnectionIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	c := s.Connect(t)
	w := claim(t, open(t, c, "A"), "A", "one", 0)
	c.Close()
	if _, _, err := w.Append(t.Context(), one...); !errors.Is(err, journal.ErrUnsettled) && !errors.Is(err, journal.ErrUnavailable) {
		t.Errorf("append: %v", err)
	}
}
