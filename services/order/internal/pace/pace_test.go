package pace_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/renthook/renthook/services/order/internal/pace"
)

var (
	t0     = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	config = pace.Config{CallGap: 1200 * time.Millisecond, CreateGap: 5500 * time.Millisecond}
)

func at(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }

// TestNext asks a pacer, whose last call ended at t0, one question at a time.
func TestNext(t *testing.T) {
	t.Parallel()
	none := time.Time{}
	type question struct {
		at   int
		d    pace.Demand
		kind pace.Kind
		wake int // -1: zero
	}
	tests := []struct {
		name      string
		questions []question
	}{
		{"nothing wanted", []question{{9000, pace.Demand{}, pace.None, -1}}},
		{"not yet wanted", []question{{2000, pace.Demand{Watch: at(7000), Resolve: at(8000), Cancel: at(9000)}, pace.None, 7000}}},
		{"the gap", []question{{1199, pace.Demand{Watch: t0}, pace.None, 1200}, {1200, pace.Demand{Watch: t0}, pace.Watch, -1}}},
		{"the gap holds for a cancel", []question{{1199, pace.Demand{Cancel: t0}, pace.None, 1200}, {1200, pace.Demand{Cancel: t0}, pace.Cancel, -1}}},
		{"the gap holds for a resolve", []question{{1199, pace.Demand{Resolve: t0}, pace.None, 1200}, {1200, pace.Demand{Resolve: t0}, pace.Resolve, -1}}},
		{"the silence before a create", []question{{1200, pace.Demand{Create: t0}, pace.None, 5500}, {5499, pace.Demand{Create: t0}, pace.None, 5500}, {5500, pace.Demand{Create: t0}, pace.Create, -1}}},
		{"cancel before all", []question{{6000, pace.Demand{Cancel: t0, Resolve: t0, Create: t0, Watch: t0}, pace.Cancel, -1}}},
		{"resolve before create", []question{{6000, pace.Demand{Resolve: t0, Create: t0, Watch: t0}, pace.Resolve, -1}}},
		{"create before watch", []question{{6000, pace.Demand{Create: t0, Watch: t0}, pace.Create, -1}}},
		{"a silence is not begun while a resolve is due", []question{{1000, pace.Demand{Create: t0, Resolve: t0}, pace.None, 1200}, {1200, pace.Demand{Create: t0, Resolve: t0}, pace.Resolve, -1}}},
		{"a silence that runs is not broken by a resolve", []question{{1200, pace.Demand{Create: t0, Resolve: at(2000)}, pace.None, 5500}, {2000, pace.Demand{Create: t0, Resolve: at(2000)}, pace.None, 5500}, {5500, pace.Demand{Create: t0, Resolve: at(2000)}, pace.Create, -1}}},
		{"a silence that runs is not broken by a watch", []question{{1200, pace.Demand{Create: t0, Watch: t0}, pace.None, 5500}}},
		{"a silence that runs is broken by a cancel", []question{{1200, pace.Demand{Create: t0}, pace.None, 5500}, {3000, pace.Demand{Create: t0, Cancel: at(3000)}, pace.Cancel, -1}}},
		{"in a silence the time of a cancel is waited for", []question{{1200, pace.Demand{Create: t0, Cancel: at(3000)}, pace.None, 3000}}},
		{"a silence for what is no longer wanted ends", []question{{1200, pace.Demand{Create: t0}, pace.None, 5500}, {2000, pace.Demand{Resolve: t0}, pace.Resolve, -1}}},
		{"a silence given up does not run on", []question{{1200, pace.Demand{Create: t0}, pace.None, 5500}, {1300, pace.Demand{}, pace.None, -1}, {1400, pace.Demand{Create: t0, Resolve: t0}, pace.Resolve, -1}}},
		{"zero times are not wanted", []question{{9000, pace.Demand{Cancel: none, Watch: t0}, pace.Watch, -1}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := pace.New(config, t0)
			for _, q := range tt.questions {
				kind, wake := p.Next(at(q.at), q.d)
				want := none
				if q.wake >= 0 {
					want = at(q.wake)
				}
				if kind != q.kind || !wake.Equal(want) {
					t.Errorf("at %d ms: %s, again at %s; want %s, again at %s", q.at, kind, wake, q.kind, want)
				}
			}
		})
	}
}

// TestEndedBreaksTheSilence: after any call the silence before a create begins anew, and a resolve comes first.
func TestEndedBreaksTheSilence(t *testing.T) {
	t.Parallel()
	p := pace.New(config, t0)
	create := pace.Demand{Create: t0}
	if kind, _ := p.Next(at(1200), create); kind != pace.None {
		t.Fatal(kind)
	}
	p.Ended(at(3000), false) // a cancel
	if kind, wake := p.Next(at(6000), create); kind != pace.None || !wake.Equal(at(8500)) {
		t.Errorf("%s, again at %s", kind, wake)
	}
	p.Ended(at(9000), false) // the create
	if kind, _ := p.Next(at(20000), pace.Demand{Create: t0, Resolve: t0}); kind != pace.Resolve {
		t.Errorf("%s, want the resolve that waited", kind)
	}
}

// TestThrottled: "too many requests" doubles the spacing up to a bound, and quiet calls let it decay.
// row:37
func TestThrottled(t *testing.T) {
	t.Parallel()
	p := pace.New(config, t0)
	for _, want := range []int{2, 4, 8, 16, 32, 32} {
		if p.Ended(t0, true); p.Factor() != want {
			t.Fatalf("factor %d, want %d", p.Factor(), want)
		}
	}
	if kind, wake := p.Next(at(1), pace.Demand{Cancel: t0}); kind != pace.None || !wake.Equal(at(32*1200)) {
		t.Errorf("%s, again at %s", kind, wake)
	}
	if kind, wake := p.Next(at(1), pace.Demand{Create: t0}); kind != pace.None || !wake.Equal(at(32*5500)) {
		t.Errorf("%s, again at %s", kind, wake)
	}
	for _, want := range []int{32, 32, 32, 32, 16, 16, 16, 16, 16, 8} {
		if p.Ended(t0, false); p.Factor() != want {
			t.Fatalf("factor %d, want %d", p.Factor(), want)
		}
	}
	if p.Ended(t0, true); p.Factor() != 16 {
		t.Errorf("factor %d after another", p.Factor())
	}
	for range 100 {
		p.Ended(t0, false)
	}
	if p.Factor() != 1 {
		t.Errorf("factor %d when all is well", p.Factor())
	}
}

// TestAnyDemand lets demands come and go on a clock of its own.
// row:37
func TestAnyDemand(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := t0
		p := pace.New(config, now)
		var d pace.Demand
		lastEnd, silent := now, false
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			for _, want := range []*time.Time{&d.Cancel, &d.Resolve, &d.Create, &d.Watch} {
				switch rapid.IntRange(0, 9).Draw(t, "wish") {
				case 0:
					*want = now.Add(time.Duration(rapid.IntRange(-1000, 4000).Draw(t, "when")) * time.Millisecond)
				case 1:
					*want = time.Time{}
				}
			}
			due := func(x time.Time) bool { return !x.IsZero() && !x.After(now) }
			factor := time.Duration(p.Factor())
			if silent = silent && due(d.Create); !silent {
				silent = due(d.Create) && !due(d.Cancel) && !due(d.Resolve)
			}
			kind, wake := p.Next(now, d)
			since := now.Sub(lastEnd)
			wants := map[pace.Kind]time.Time{pace.Cancel: d.Cancel, pace.Resolve: d.Resolve, pace.Create: d.Create, pace.Watch: d.Watch}
			switch {
			case kind == pace.None && wake.IsZero() && (!d.Cancel.IsZero() || !d.Resolve.IsZero() || !d.Create.IsZero() || !d.Watch.IsZero()):
				t.Fatalf("something is wanted and nobody will ask again: %+v", d)
			case kind == pace.None && !wake.IsZero() && !wake.After(now):
				t.Fatalf("nothing may start, and it is to be asked again at once")
			case kind == pace.None:
				now = now.Add(time.Duration(rapid.IntRange(1, 1500).Draw(t, "idle")) * time.Millisecond)
				if rapid.Bool().Draw(t, "wakes") && !wake.IsZero() {
					now = wake
				}
				continue
			case !due(wants[kind]):
				t.Fatalf("%s starts and is not due", kind)
			case since < factor*config.CallGap:
				t.Fatalf("%s starts %s after the last call, factor %d", kind, since, factor)
			case kind == pace.Create && since < factor*config.CreateGap:
				t.Fatalf("a create starts after a silence of %s, factor %d", since, factor)
			case silent && kind != pace.Create && kind != pace.Cancel:
				t.Fatalf("a silence is broken by a %s", kind)
			case due(d.Cancel) && kind != pace.Cancel, due(d.Resolve) && kind == pace.Watch, due(d.Resolve) && kind == pace.Create && !silent:
				t.Fatalf("%s starts before what is more urgent", kind)
			}
			*map[pace.Kind]*time.Time{pace.Cancel: &d.Cancel, pace.Resolve: &d.Resolve, pace.Create: &d.Create, pace.Watch: &d.Watch}[kind] = time.Time{}
			now = now.Add(time.Duration(rapid.IntRange(1, 15000).Draw(t, "call")) * time.Millisecond)
			p.Ended(now, rapid.IntRange(0, 9).Draw(t, "throttled") == 0)
			lastEnd, silent = now, false
		}
	})
}

// TestNobodyStarves keeps creates and reads wanted for ever: both go on, in turn.
func TestNobodyStarves(t *testing.T) {
	t.Parallel()
	p := pace.New(config, t0)
	now, read := t0, t0
	var order []pace.Kind
	for len(order) < 10 {
		kind, wake := p.Next(now, pace.Demand{Create: t0, Resolve: read})
		if kind == pace.None {
			now = wake
			continue
		}
		order = append(order, kind)
		now = now.Add(300 * time.Millisecond)
		p.Ended(now, false)
		if kind == pace.Resolve {
			read = now.Add(2400 * time.Millisecond) // sooner than a silence lasts
		}
	}
	for n, kind := range order {
		if want := []pace.Kind{pace.Resolve, pace.Create}[n%2]; kind != want {
			t.Fatalf("calls went out as %v", order)
		}
	}
}

func TestKindNames(t *testing.T) {
	t.Parallel()
	for kind, want := range map[pace.Kind]string{pace.None: "none", pace.Cancel: "cancel", pace.Resolve: "resolve", pace.Create: "create", pace.Watch: "watch"} {
		if kind.String() != want {
			t.Errorf("%q, want %q", kind.String(), want)
		}
	}
}
