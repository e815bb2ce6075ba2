package journal_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/journal"
)

func config(name string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: name, Subjects: []string{"log." + name + ".>"}, Discard: jetstream.DiscardNew, MaxBytes: 64 << 20,
		DenyDelete: true, DenyPurge: true, AllowAtomicPublish: true, Duplicates: 100 * time.Millisecond, MaxMsgSize: 64 << 10,
	}
}

func open(t testing.TB, c *bus.Conn, name string) *journal.Journal {
	t.Helper()
	if err := c.EnsureStream(t.Context(), config(name)); err != nil {
		t.Fatal(err)
	}
	return journal.Open(c.JetStream(), name)
}

func entry(name, subject, body string) journal.Entry {
	return journal.Entry{Subject: "log." + name + "." + subject, Data: []byte(body), Header: nats.Header{"Own": {body}}}
}

func claim(t testing.TB, j *journal.Journal, name, writer string, last uint64) *journal.Writer {
	t.Helper()
	w, err := j.Claim(t.Context(), writer, last, entry(name, "holder", writer))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func appendTo(t testing.TB, w *journal.Writer, entries ...journal.Entry) (first, last uint64) {
	t.Helper()
	first, last, err := w.Append(t.Context(), entries...)
	if err != nil {
		t.Fatal(err)
	}
	return first, last
}

func replay(t testing.TB, j *journal.Journal, from uint64) []journal.Record {
	t.Helper()
	var records []journal.Record
	if _, err := j.Replay(t.Context(), from, func(r journal.Record) error {
		records = append(records, r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return records
}

func TestJournal_AppendAndReplay(t *testing.T) {
	t.Parallel()
	j := open(t, bustest.Start(t).Connect(t), "A")
	if records := replay(t, j, 0); len(records) != 0 {
		t.Fatalf("an empty journal has %d records", len(records))
	}
	w := claim(t, j, "A", "one", 0)
	if w.Epoch() != 1 || w.Last() != 1 {
		t.Fatalf("epoch %d last %d", w.Epoch(), w.Last())
	}
	if first, last := appendTo(t, w, entry("A", "x", "1")); first != 2 || last != 2 {
		t.Fatalf("stored at %d to %d", first, last)
	}
	batch := make([]journal.Entry, journal.MaxBatch)
	for i := range batch {
		batch[i] = entry("A", "y", fmt.Sprint(i))
	}
	if first, last := appendTo(t, w, batch...); first != 3 || last != 1002 {
		t.Fatalf("stored at %d to %d", first, last)
	}
	appendTo(t, w, entry("A", "x", "2"), entry("A", "x", "3"))

	records := replay(t, j, 0)
	if len(records) != 1004 {
		t.Fatalf("%d records", len(records))
	}
	for i, r := range records {
		if r.Seq != uint64(i+1) || r.Writer != "one" || r.Epoch != 1 || r.Header.Get("Own") != string(r.Data) || r.Time.IsZero() {
			t.Fatalf("record %d: %+v", i, r)
		}
	}
	if records[2].AppendID != records[1001].AppendID || records[1].AppendID == records[2].AppendID {
		t.Error("the records of one append, and only they, share an id")
	}
	if records := replay(t, j, 1003); len(records) != 2 || string(records[1].Data) != "3" {
		t.Fatalf("from the middle: %+v", records)
	}
	if last, err := j.Replay(t.Context(), 1005, nil); last != 1004 || err != nil {
		t.Fatalf("from the end: %d %v", last, err)
	}
	if _, err := j.Replay(t.Context(), 1006, nil); !errors.Is(err, journal.ErrAhead) {
		t.Fatalf("from beyond the end: %v", err)
	}
}

// row:13 row:27
func TestWriter_TheSecondFencesTheFirst(t *testing.T) {
	t.Parallel()
	j := open(t, bustest.Start(t).Connect(t), "A")
	one := claim(t, j, "A", "one", 0)
	appendTo(t, one, entry("A", "x", "1"))
	if _, err := j.Claim(t.Context(), "late", 1, entry("A", "holder", "late")); !errors.Is(err, journal.ErrFenced) {
		t.Fatalf("a claim after an older end: %v", err)
	}
	two := claim(t, j, "A", "two", 2)
	if two.Epoch() != 3 {
		t.Fatalf("epoch %d", two.Epoch())
	}
	for range 2 {
		if _, _, err := one.Append(t.Context(), entry("A", "x", "2")); !errors.Is(err, journal.ErrFenced) {
			t.Fatalf("the first after the second: %v", err)
		}
	}
	if _, _, err := one.Append(t.Context(), entry("A", "x", "2")); !errors.Is(err, journal.ErrDead) {
		t.Fatalf("a fenced writer: %v", err)
	}
	appendTo(t, two, entry("A", "x", "3"), entry("A", "x", "4"))
	if n := len(replay(t, j, 0)); n != 5 {
		t.Fatalf("%d records", n)
	}
}

func TestWriter_RacesHaveOneWinner(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	j := open(t, s.Connect(t), "A")
	journals := []*journal.Journal{j, journal.Open(s.Connect(t).JetStream(), "A"), journal.Open(s.Connect(t).JetStream(), "A")}
	last := uint64(0)
	for round := range 100 {
		// Half of the rounds race claims, the others appends of writers that both believe in the same end.
		var mu sync.Mutex
		var won []*journal.Writer
		var wg sync.WaitGroup
		for i, j := range journals {
			wg.Go(func() {
				w, err := j.Claim(context.Background(), fmt.Sprintf("w%d-%d", round, i), last, entry("A", "holder", "h"))
				if err == nil && round%2 == 1 {
					_, _, err = w.Append(context.Background(), entry("A", "x", "1"), entry("A", "x", "2"))
				}
				if err != nil && !errors.Is(err, journal.ErrFenced) {
					t.Errorf("round %d: %v", round, err)
				}
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					won = append(won, w)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("round %d has %d winners", round, len(won))
		}
		last = won[0].Last()
	}
	if records := replay(t, j, 0); len(records) != 100+2*50 {
		t.Fatalf("%d records", len(records))
	}
}

func TestFollow_SeesAppendsAsTheyCome(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	j := open(t, s.Connect(t), "A")
	w := claim(t, j, "A", "one", 0)
	appendTo(t, w, entry("A", "x", "1"), entry("A", "y", "2"))

	follow := func(from uint64, filter ...string) <-chan journal.Record {
		ctx, cancel := context.WithCancel(context.Background())
		records, done := make(chan journal.Record, 100), make(chan error, 1)
		go func() {
			done <- journal.Open(s.Connect(t).JetStream(), "A").Follow(ctx, from, filter, func(r journal.Record) error {
				records <- r
				return nil
			})
		}()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Follow: %v", err)
			}
		})
		return records
	}
	all, some := follow(2), follow(0, "log.A.x")
	appendTo(t, w, entry("A", "x", "3"))
	s.Restart()
	bustest.Eventually(t, "an append after the restart", func() bool {
		_, _, err := w.Append(t.Context(), entry("A", "x", "4"))
		return err == nil
	})
	for _, want := range []string{"1", "2", "3", "4"} {
		if r := <-all; string(r.Data) != want {
			t.Fatalf("all: got %s at %d, want %s", r.Data, r.Seq, want)
		}
	}
	for _, want := range []string{"1", "3", "4"} {
		if r := <-some; string(r.Data) != want {
			t.Fatalf("filtered: got %s at %d, want %s", r.Data, r.Seq, want)
		}
	}
}
