package journal_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/journal"
)

// both reads by Replay and by Follow, which must halt alike.
func both(t testing.TB, j *journal.Journal, from uint64, want error) {
	t.Helper()
	ignore := func(journal.Record) error { return nil }
	if _, err := j.Replay(t.Context(), from, ignore); !errors.Is(err, want) {
		t.Errorf("Replay from %d: %v, want %v", from, err, want)
	}
	if want == nil {
		return
	}
	if err := j.Follow(t.Context(), from, nil, ignore); !errors.Is(err, want) {
		t.Errorf("Follow from %d: %v, want %v", from, err, want)
	}
}

func TestRead_HaltsOnAlienRecords(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	c := s.Connect(t)
	header := func(writer, epoch, id string) nats.Header {
		return nats.Header{journal.HeaderWriter: {writer}, journal.HeaderEpoch: {epoch}, journal.HeaderAppendID: {id}}
	}
	// Each journal has a claim at 1, a claim at 2, and this at 3.
	for i, test := range []struct {
		name   string
		header nats.Header
		want   error
	}{
		{"a record in its turn", header("two", "2", "x"), nil},
		{"a claim", header("three", "3", "x"), nil},
		{"no headers", nil, journal.ErrAlien},
		{"no epoch", nats.Header{journal.HeaderWriter: {"two"}, journal.HeaderAppendID: {"x"}}, journal.ErrAlien},
		{"epoch of nothing", header("two", "0", "x"), journal.ErrAlien},
		{"epoch to come", header("two", "4", "x"), journal.ErrAlien},
		{"epoch that is over", header("one", "1", "x"), journal.ErrAlien},
		{"another's epoch", header("one", "2", "x"), journal.ErrAlien},
		{"no writer", header("", "2", "x"), journal.ErrAlien},
		{"no append id", header("two", "2", ""), journal.ErrAlien},
	} {
		t.Run(test.name, func(t *testing.T) {
			name := fmt.Sprintf("J%d", i)
			j := open(t, c, name)
			claim(t, j, name, "one", 0)
			claim(t, j, name, "two", 1)
			if _, err := c.Publish(t.Context(), &nats.Msg{Subject: "log." + name + ".x", Header: test.header}); err != nil {
				t.Fatal(err)
			}
			both(t, j, 1, test.want)
		})
	}
}

// row:17
func TestRead_HaltsOnGaps(t *testing.T) {
	t.Parallel()
	c := bustest.Start(t).Connect(t)
	cfg := config("A")
	cfg.DenyDelete, cfg.DenyPurge = false, false
	if err := c.EnsureStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	j := journal.Open(c.JetStream(), "A")
	w := claim(t, j, "A", "one", 0)
	for range 9 {
		appendTo(t, w, entry("A", "x", ""))
	}
	stream, err := c.JetStream().Stream(t.Context(), "A")
	if err != nil {
		t.Fatal(err)
	}
	both(t, j, 1, nil)
	if err := stream.DeleteMsg(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	both(t, j, 1, journal.ErrGap)
	both(t, j, 7, journal.ErrGap)
	both(t, j, 8, nil)
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	both(t, j, 1, journal.ErrGap)
	both(t, j, 11, nil)
	both(t, j, 12, journal.ErrAhead)
	if first, _ := appendTo(t, w, entry("A", "x", "")); first != 11 {
		t.Errorf("appended at %d", first)
	}
}

// row:18
func TestRead_HaltsOnAJournalThatWasLost(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	c := s.Connect(t)
	j := open(t, c, "A")
	w := claim(t, j, "A", "one", 0)
	for range 4 {
		appendTo(t, w, entry("A", "x", ""))
	}
	before, err := j.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen, done := make(chan uint64, 10), make(chan error, 1)
	go func() {
		done <- journal.Open(s.Connect(t).JetStream(), "A").Follow(context.Background(), 1, nil, func(r journal.Record) error {
			seen <- r.Seq
			return nil
		})
	}()
	for seq := range uint64(5) {
		if got := <-seen; got != seq+1 {
			t.Fatalf("record %d at %d", seq+1, got)
		}
	}
	if err := c.JetStream().DeleteStream(t.Context(), "A"); err != nil {
		t.Fatal(err)
	}
	open(t, c, "A")
	if err := <-done; !errors.Is(err, journal.ErrAhead) && !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("Follow: %v", err)
	}
	after, err := j.State(t.Context())
	if err != nil || after.Created.Equal(before.Created) {
		t.Errorf("the new journal looks like the old one: %+v %+v %v", before, after, err)
	}
	if _, _, err := w.Append(t.Context(), entry("A", "x", "")); !errors.Is(err, journal.ErrFenced) {
		t.Errorf("append to another journal: %v", err)
	}
}

func TestRead_ReturnsTheErrorOfItsFunction(t *testing.T) {
	t.Parallel()
	j := open(t, bustest.Start(t).Connect(t), "A")
	w := claim(t, j, "A", "one", 0)
	appendTo(t, w, entry("A", "x", ""))
	boom := errors.New("boom")
	calls := 0
	fail := func(journal.Record) error { calls++; return boom }
	if _, err := j.Replay(t.Context(), 0, fail); !errors.Is(err, boom) {
		t.Errorf("Replay: %v", err)
	}
	if err := j.Follow(t.Context(), 0, nil, fail); !errors.Is(err, boom) {
		t.Errorf("Follow: %v", err)
	}
	if calls != 2 {
		t.Errorf("%d calls", calls)
	}
	none := journal.Open(bustest.Start(t).Connect(t).JetStream(), "NONE")
	if _, err := none.Replay(t.Context(), 0, fail); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("replay of no journal: %v", err)
	}
	if err := none.Follow(t.Context(), 0, nil, fail); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("follow no journal: %v", err)
	}
}
