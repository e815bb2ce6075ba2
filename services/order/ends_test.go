package order

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/renthook/renthook/pkg/journal"
	"github.com/renthook/renthook/pkg/seal"
	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/services/internal/ends"
	"github.com/renthook/renthook/services/order/internal/rental"
	"github.com/renthook/renthook/services/order/internal/world"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// shelf is an exporter over a world and a journal of the test's own.
type shelf struct {
	*exporter
	// recorded is what the journal holds; next says what becomes of the next append.
	recorded map[string]*rental.Order
	next     string
	check    func()
	logged   bytes.Buffer
}

type fataler interface{ Fatal(args ...any) }

func newShelf(t fataler, dir string) *shelf {
	box, err := seal.New(secret.New(strings.Repeat("k", seal.KeyBytes)))
	if err != nil {
		t.Fatal(err)
	}
	s := &shelf{recorded: map[string]*rental.Order{}, check: func() {}}
	s.exporter = &exporter{
		path: filepath.Join(dir, "ends.sealed"), box: box, log: slog.New(slog.NewJSONHandler(&s.logged, nil)), world: world.New("main"), pending: map[string]pendingEnd{},
		list: ends.List{Account: "main", Key: "fingerprint", By: "order-1"},
	}
	s.hold(true)
	return s
}

var errAnswer = errors.New("no answer")

// Append is the journal: it stores, or is full, or loses the answer before or after it has stored.
func (s *shelf) Append(_ context.Context, entries ...journal.Entry) (first, last uint64, err error) {
	s.check()
	if s.next == "" || s.next == "stored" {
		for _, e := range entries {
			var r struct{ Internal world.Internal }
			if err := json.Unmarshal(e.Data, &r); err != nil {
				return 0, 0, err
			}
			s.recorded[r.Internal.Order.ID] = r.Internal.Order
		}
	}
	s.check()
	switch s.next {
	case "":
		return 1, 1, nil
	case "full":
		return 0, 0, fmt.Errorf("append: %w", journal.ErrFull)
	default:
		return 0, 0, errAnswer
	}
}
func (s *shelf) Last() uint64  { return 0 }
func (s *shelf) Epoch() uint64 { return 0 }

func (s *shelf) record(t fataler, o *rental.Order) error {
	data, err := json.Marshal(map[string]any{"internal": world.Internal{Order: o}})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = exportsAhead{s, s.exporter}.Append(context.Background(), journal.Entry{Data: data})
	return err
}

func (s *shelf) read(t fataler) ends.List {
	l, err := ends.Read(s.path, s.box)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// placed is an order with a rental, to end an hour after noon.
func placed(id string, change func(o *rental.Order)) *rental.Order {
	o := &rental.Order{
		ID: id, Client: "local", State: rental.Running, Revision: 1, Created: noon, Updated: noon.Add(10 * time.Minute), EndsAt: noon.Add(time.Hour),
		Intents: []rental.Intent{{Number: 1, Server: rental.Server{ID: 7}, Image: "cuda", Markers: []int{20001, 30001}, At: noon, Outcome: rental.Placed, RentalID: 700}},
	}
	if change != nil {
		change(o)
	}
	return o
}

func TestEndOf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(o *rental.Order)
		bills  bool
		end    time.Time
	}{
		"running":               {nil, true, noon.Add(time.Hour)},
		"not proved either way": {func(o *rental.Order) { o.State, o.Intents[0].Outcome = rental.Unconfirmed, rental.Open }, true, noon.Add(time.Hour)},
		"refused":               {func(o *rental.Order) { o.Intents[0].Outcome = rental.Refused }, false, time.Time{}},
		"over":                  {func(o *rental.Order) { o.Intents[0].Outcome = rental.Over }, false, time.Time{}},
		"not asked yet":         {func(o *rental.Order) { o.Intents = nil }, false, time.Time{}},
		"never":                 {func(o *rental.Order) { o.EndsAt = time.Time{} }, true, time.Time{}},
		"cancelled sooner":      {func(o *rental.Order) { o.Wanted = &rental.End{Kind: rental.ByCommand, At: noon.Add(time.Minute)} }, true, noon.Add(time.Minute)},
		"never, and cancelled": {func(o *rental.Order) {
			o.EndsAt, o.Wanted = time.Time{}, &rental.End{Kind: rental.ByCommand, At: noon.Add(time.Minute)}
		}, true, noon.Add(time.Minute)},
		"at its planned end":           {func(o *rental.Order) { o.Wanted = &rental.End{Kind: rental.ByPlan, At: noon.Add(61 * time.Minute)} }, true, noon.Add(time.Hour)},
		"ended since it does not boot": {func(o *rental.Order) { o.State, o.Ending = rental.Cancelling, "boot" }, true, noon.Add(10 * time.Minute)},
	} {
		e, bills := endOf(placed("ord_1", c.change))
		if bills != c.bills || !e.End.Equal(c.end) {
			t.Errorf("%s: bills %v until %s, want %v %s", name, bills, e.End, c.bills, c.end)
		}
		if bills && (e.Order != "ord_1" || e.Attempt != 1 || e.RentalID != 700 || e.ServerID != 7 || e.Image != "cuda" || len(e.Markers) != 2 || !e.Asked.Equal(noon)) {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// Whatever becomes of appends, and whenever the process ends: the file has every rental that the journal has, and none
// with a sooner end.
func TestEnds_CoverTheJournal(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "ends-")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		s := newShelf(t, dir)
		now := noon
		s.check = func() {
			var have []ends.End
			if l, err := ends.Read(s.path, s.box); err == nil {
				have = l.Ends
			}
			for _, o := range s.recorded {
				listed := func(h ends.End) bool {
					return h.Order == o.ID && h.Attempt == o.Current().Number && (h.End.IsZero() || !o.EndsAt.IsZero() && !h.End.Before(o.EndsAt))
				}
				if e, bills := endOf(o); bills && !slices.ContainsFunc(have, listed) {
					t.Fatalf("the journal has %+v; the file %+v", e, have)
				}
			}
		}
		names := []string{"ord_a", "ord_b", "ord_c"}
		t.Repeat(map[string]func(*rapid.T){
			"record": func(t *rapid.T) {
				id := rapid.SampledFrom(names).Draw(t, "order")
				o := s.recorded[id]
				if o == nil {
					o = placed(id, nil)
				} else {
					next := *o
					next.Intents = append([]rental.Intent(nil), o.Intents...)
					next.Revision++
					switch i := &next.Intents[len(next.Intents)-1]; rapid.IntRange(0, 4).Draw(t, "what") {
					case 0, 1:
						next.EndsAt = next.EndsAt.Add(time.Hour)
					case 2:
						i.Outcome = rental.Over
					case 3:
						if !i.Outcome.Live() {
							next.Intents = append(next.Intents, rental.Intent{Number: i.Number + 1, Server: rental.Server{ID: 8}, Image: "cuda", At: now, Outcome: rental.Open})
						}
					}
					o = &next
				}
				s.next = rapid.SampledFrom([]string{"", "", "", "full", "stored", "lost"}).Draw(t, "becomes")
				err := s.record(t, o)
				switch {
				case err == nil:
					s.check()
					s.export(context.Background(), now, true) // before the world knows
					s.check()
					s.world.Keep(o)
				case !errors.Is(err, journal.ErrFull):
					// The holder ends, and another begins over what the journal has.
					s.hold(false)
					now = now.Add(time.Minute)
					s.export(context.Background(), now, true)
					s.check()
					for _, o := range s.recorded {
						s.world.Keep(o)
					}
					s.hold(true)
				}
			},
			"export": func(*rapid.T) {
				now = now.Add(20 * time.Second)
				s.export(context.Background(), now, true)
			},
			"": func(*rapid.T) { s.check() },
		})
	})
}

// What the journal had no room for is no later end: the list goes back to what is recorded.
func TestEnds_FullJournal(t *testing.T) {
	t.Parallel()
	s := newShelf(t, t.TempDir())
	o := placed("ord_1", nil)
	if err := s.record(t, o); err != nil {
		t.Fatal(err)
	}
	s.world.Keep(o)
	s.next = "full"
	if err := s.record(t, placed("ord_1", func(o *rental.Order) { o.Revision++; o.EndsAt = noon.Add(2 * time.Hour) })); !errors.Is(err, journal.ErrFull) {
		t.Fatal(err)
	}
	s.export(t.Context(), time.Now(), true)
	if l := s.read(t); len(l.Ends) != 1 || !l.Ends[0].End.Equal(noon.Add(time.Hour)) {
		t.Errorf("%+v", l)
	}
}

// A list that cannot be written is taken away, told once, and holds up nothing.
func TestEnds_CannotBeWritten(t *testing.T) {
	t.Parallel()
	s := newShelf(t, t.TempDir())
	whole := s.path
	s.path = filepath.Join(t.TempDir(), "gone", "ends.sealed")
	for n := range 3 {
		o := placed(fmt.Sprint("ord_", n), nil)
		if err := s.record(t, o); err != nil {
			t.Fatal(err)
		}
		s.world.Keep(o)
		s.export(t.Context(), noon, true)
	}
	if n := strings.Count(s.logged.String(), "ends_not_written"); n != 1 {
		t.Errorf("told %d times", n)
	}
	// An old list, in a place where a new one cannot be put: it has the old end, and must not stay.
	s.path = whole
	s.export(t.Context(), noon, true)
	if l := s.read(t); len(l.Ends) != 3 {
		t.Fatalf("%+v", l)
	}
	box := s.box
	s.list.By = strings.Repeat("x", 2<<20) // too much to be sealed
	later := placed("ord_0", func(o *rental.Order) { o.Revision++; o.EndsAt = noon.Add(2 * time.Hour) })
	if err := s.record(t, later); err != nil {
		t.Fatal(err)
	}
	if _, err := ends.Read(s.path, box); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the list with the sooner end is still there: %v", err)
	}
}

// Of several processes over one file the holder writes; another only when nobody else does, and when it knows.
func TestEnds_SeveralProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	holder, other := newShelf(t, dir), newShelf(t, dir)
	other.list.By = "order-2"
	other.hold(false)
	if other.export(t.Context(), noon, false) {
		t.Error("written while the journal was not read")
	}
	if _, err := os.Stat(other.path); err == nil {
		t.Error("a file is there")
	}
	holder.export(t.Context(), noon, false)
	by := func(at time.Time) string {
		other.export(t.Context(), at, true)
		return holder.read(t).By
	}
	if got := by(noon.Add(time.Minute)); got != "order-1" {
		t.Errorf("written by %s while the holder does", got)
	}
	if got := by(noon.Add(2 * time.Minute)); got != "order-2" {
		t.Errorf("written by %s though the holder is silent", got)
	}
	holder.export(t.Context(), noon.Add(2*time.Minute), true)
	if got := holder.read(t).By; got != "order-1" {
		t.Errorf("the holder let %s write", got)
	}
}

// A list that says the same is written once a minute, so that its age says something.
func TestEnds_OnceAMinute(t *testing.T) {
	t.Parallel()
	s := newShelf(t, t.TempDir())
	s.world.Keep(placed("ord_1", nil))
	for n := range 10 {
		s.export(t.Context(), noon.Add(time.Duration(n)*6*time.Second), true)
	}
	if l := s.read(t); !l.Exported.Equal(noon) || l.Account != "main" || l.Key != "fingerprint" {
		t.Errorf("%+v", l)
	}
	s.export(t.Context(), noon.Add(time.Minute), true)
	if l := s.read(t); !l.Exported.Equal(noon.Add(time.Minute)) {
		t.Errorf("%+v", l)
	}
}
