package watchdog_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/renthook/renthook/pkg/cloreapi"
	"github.com/renthook/renthook/pkg/seal"
	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/services/internal/ends"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/market/clore"
	"github.com/renthook/renthook/services/internal/settings"
	"github.com/renthook/renthook/services/watchdog"
)

// shop is a market that notes when it was called.
type shop struct {
	rows []market.Rental
	// lies are how many cancels change nothing; vanish has what is cancelled not listed any more.
	lies   int
	vanish bool
	limit  int
	// failing are what the next reads answer; onRead is called at each.
	failing []error
	onRead  func()

	reads, calls []time.Time
	cancelled    []int64
	throttle     int
}

func (s *shop) call() { s.calls = append(s.calls, time.Now()) }

func (s *shop) Rentals(_ context.Context, withEnded bool) (market.Rentals, error) {
	s.call()
	s.reads = append(s.reads, time.Now())
	if s.onRead != nil {
		s.onRead()
	}
	if len(s.failing) > 0 {
		err := s.failing[0]
		s.failing = s.failing[1:]
		return market.Rentals{}, err
	}
	return market.Rentals{Began: time.Now(), Rentals: slices.Clone(s.rows), Limit: s.limit, WithEnded: withEnded}, nil
}

func (s *shop) Cancel(_ context.Context, id int64, _ string) market.Outcome {
	s.call()
	s.cancelled = append(s.cancelled, id)
	if s.throttle > 0 {
		s.throttle--
		return market.Outcome{Verdict: market.Unknown, Reason: "code-5", Sent: true, Throttled: true}
	}
	if s.lies > 0 {
		s.lies--
		return market.Outcome{Verdict: market.Done, Reason: "code-0", Sent: true}
	}
	for n := range s.rows {
		if s.rows[n].ID == id {
			s.rows[n].Expired = true
		}
	}
	if s.vanish {
		s.rows = slices.DeleteFunc(s.rows, func(r market.Rental) bool { return r.ID == id })
	}
	return market.Outcome{Verdict: market.Done, Reason: "code-0", Sent: true}
}

// house is a watchdog over a shop and a list in a file.
type house struct {
	*shop
	t      *testing.T
	config watchdog.Config
	box    *seal.Box
	log    bytes.Buffer
}

const (
	margin   = 10 * time.Minute
	interval = 5 * time.Minute
	gap      = 1200 * time.Millisecond
)

func newHouse(t *testing.T) *house {
	t.Helper()
	box, err := seal.New(secret.New(strings.Repeat("k", seal.KeyBytes)))
	if err != nil {
		t.Fatal(err)
	}
	return &house{shop: &shop{}, t: t, box: box, config: watchdog.Config{
		EndsFile: filepath.Join(t.TempDir(), ends.File), Account: "main", Key: "fingerprint", Margin: margin, Interval: interval, CallGap: gap, CallTimeout: 15 * time.Second,
	}}
}

func (h *house) export(list ...ends.End) { h.exportAs(func(*ends.List) {}, list...) }

func (h *house) exportAs(change func(l *ends.List), list ...ends.End) {
	h.t.Helper()
	l := ends.List{Account: "main", Key: "fingerprint", By: "order-1", Exported: time.Now(), Ends: list}
	change(&l)
	if err := ends.Write(h.config.EndsFile, h.box, l); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) watchdog() *watchdog.Watchdog {
	h.t.Helper()
	w, err := watchdog.New(h.config, watchdog.Deps{Log: slog.New(slog.NewTextHandler(&h.log, nil)), Box: h.box, Market: h.shop})
	if err != nil {
		h.t.Fatal(err)
	}
	return w
}

// run has the watchdog run for a time, and gives the market's view of it.
func (h *house) run(d time.Duration) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), d)
	defer cancel()
	if err := h.watchdog().Run(ctx); err != nil {
		h.t.Error(err)
	}
}

// rent adds a rental of ours and gives its entry, to end after a time.
func (h *house) rent(id int64, d time.Duration) ends.End {
	now := time.Now()
	h.rows = append(h.rows, market.Rental{ID: id, ServerID: id * 10, Image: "cuda", Created: now.Truncate(time.Second), TCPPorts: map[int]int{22: 1, 20001: 2, int(30000 + id): 3}})
	return ends.End{Order: "ord_x", Attempt: 1, RentalID: id, ServerID: id * 10, Image: "cuda", Markers: []int{20001, int(30000 + id)}, Asked: now, End: now.Add(d)}
}

func TestRun_OneReadAnIntervalWhileAllIsWell(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.export(h.rent(1, 24*time.Hour))
		h.run(time.Hour + time.Second)
		if len(h.reads) != 13 || len(h.calls) != 13 {
			t.Errorf("%d reads, %d calls in an hour", len(h.reads), len(h.calls))
		}
	})
}

func TestRun_EndsWhatIsOverdueAndNothingElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		begun := time.Now()
		first, second, due := h.rent(1, time.Hour), h.rent(2, time.Hour), h.rent(3, 30*time.Hour)
		second.RentalID = 0 // asked for, and never seen by renthook
		h.rent(4, 0)        // somebody else's
		endless := h.rent(5, 0)
		endless.End = time.Time{}
		h.export(first, second, due, endless)
		h.run(3 * time.Hour)
		slices.Sort(h.cancelled)
		if !slices.Equal(h.cancelled, []int64{1, 2}) {
			t.Errorf("cancelled %v", h.cancelled)
		}
		cancels := slices.DeleteFunc(slices.Clone(h.calls), func(at time.Time) bool { return slices.Contains(h.reads, at) })
		if early := cancels[0].Sub(begun); early < time.Hour+margin || early > time.Hour+margin+interval+time.Minute {
			t.Errorf("the first cancel came after %s", early)
		}
		if !strings.Contains(h.log.String(), "ended by the watchdog") || !strings.Contains(h.log.String(), "ends_stale") {
			t.Errorf("it said\n%s", h.log.String())
		}
	})
}

// A cancel that is answered and changes nothing is repeated, each time later, until the market shows the rental gone.
func TestRun_CancelsAreRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.export(h.rent(1, -margin))
		h.lies = 4
		h.run(10 * time.Minute)
		if len(h.cancelled) != 5 || !h.rows[0].Expired {
			t.Errorf("%d cancels", len(h.cancelled))
		}
		if len(h.reads) > 8 {
			t.Errorf("%d reads in ten minutes", len(h.reads))
		}
	})
}

// The account's calls keep their distance, and more of it after the market said too many.
func TestRun_KeepsDistance(t *testing.T) {
	t.Parallel()
	for _, throttled := range []int{0, 3} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t)
			var list []ends.End
			for id := range int64(6) {
				list = append(list, h.rent(id+1, -margin))
			}
			h.throttle = throttled
			if throttled > 0 {
				h.failing = []error{&market.ThrottledError{Endpoint: "my_orders"}}
			}
			h.export(list...)
			h.run(30 * time.Minute)
			most := time.Duration(0)
			for n := 1; n < len(h.calls); n++ {
				between := h.calls[n].Sub(h.calls[n-1])
				if between < gap {
					t.Errorf("calls %d and %d are %s apart", n-1, n, between)
				}
				if n < 8 {
					most = max(most, between)
				}
			}
			if throttled > 0 && most < 8*gap {
				t.Errorf("after %d code 5 in a row calls are %s apart at most", throttled, most)
			}
			for _, r := range h.rows {
				if !r.Expired {
					t.Errorf("rental %d lives", r.ID)
				}
			}
		})
	}
}

// A list that is missing, broken or another's ends nothing, whatever is overdue by it.
func TestRun_FailsClosed(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(h *house, e ends.End){
		"none":   func(*house, ends.End) {},
		"broken": func(h *house, e ends.End) { h.export(e); spoilFile(h) },
		"another account's": func(h *house, e ends.End) {
			h.exportAs(func(l *ends.List) { l.Account = "other" }, e)
		},
		"another key's": func(h *house, e ends.End) {
			h.exportAs(func(l *ends.List) { l.Key = "other" }, e)
		},
		"another installation's": func(h *house, e ends.End) {
			mine := h.box
			h.box, _ = seal.New(secret.New(strings.Repeat("x", seal.KeyBytes)))
			h.export(e)
			h.box = mine
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t)
			spoil(h, h.rent(1, -time.Hour))
			h.run(time.Hour)
			if len(h.cancelled) != 0 {
				t.Errorf("%s: cancelled %v", name, h.cancelled)
			}
			if !strings.Contains(h.log.String(), "ends_unreadable") {
				t.Errorf("%s: it said\n%s", name, h.log.String())
			}
			if ended, err := h.watchdog().Once(t.Context(), time.Minute); ended != 0 || err == nil {
				t.Errorf("%s: once: %d %v", name, ended, err)
			}
		})
	}
}

func spoilFile(h *house) {
	b, err := os.ReadFile(h.config.EndsFile)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(h.config.EndsFile, b[:len(b)-9], 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// An end that is moved while the market is being read holds.
func TestRun_ExtendedMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		e := h.rent(1, -margin)
		h.export(e)
		h.onRead = func() {
			e.End = time.Now().Add(time.Hour)
			h.export(e)
		}
		h.run(2 * interval)
		if len(h.cancelled) != 0 {
			t.Errorf("cancelled %v", h.cancelled)
		}
	})
}

func TestOnce(t *testing.T) {
	t.Parallel()
	failed := errors.New("no answer")
	for name, c := range map[string]struct {
		prepare func(h *house)
		ended   int
		says    string
		cancels int
	}{
		"nothing to do":      {func(h *house) { h.export(h.rent(1, time.Hour)) }, 0, "", 0},
		"nothing listed":     {func(h *house) { h.export() }, 0, "", 0},
		"ended":              {func(h *house) { h.export(h.rent(1, -margin)) }, 1, "", 1},
		"several":            {func(h *house) { h.export(h.rent(1, -margin), h.rent(2, -margin), h.rent(3, -margin+time.Minute)) }, 2, "", 2},
		"over by itself":     {func(h *house) { h.export(h.rent(1, -margin)); h.rows = nil }, 0, "", 0},
		"it vanishes":        {func(h *house) { h.export(h.rent(1, -margin)); h.vanish = true }, 1, "", 1},
		"a list that is cut": {func(h *house) { h.export(h.rent(1, -margin)); h.rent(2, 0); h.vanish, h.limit = true, 1 }, 0, "not proved gone", 1},
		"no effect at first": {func(h *house) { h.export(h.rent(1, -margin)); h.lies = 2 }, 1, "", 3},
		"no effect ever":     {func(h *house) { h.export(h.rent(1, -margin)); h.lies = 1000 }, 0, "not proved gone", 8},
		"an old list": {func(h *house) {
			h.exportAs(func(l *ends.List) { l.Exported = l.Exported.Add(-16 * time.Minute) }, h.rent(1, time.Hour))
		}, 0, "the list of ends is old", 0},
		"ended by an old list": {func(h *house) {
			h.exportAs(func(l *ends.List) { l.Exported = l.Exported.Add(-48 * time.Hour) }, h.rent(1, -margin))
		}, 1, "", 1},
		"unreadable market, nothing due": {func(h *house) { h.export(h.rent(1, time.Hour)); h.failing = []error{failed} }, 0, "no answer", 0},
		"unreadable market at first":     {func(h *house) { h.export(h.rent(1, -margin)); h.failing = []error{failed, failed} }, 1, "", 1},
		"a key that is not taken": {func(h *house) {
			h.export(h.rent(1, time.Hour))
			h.failing = []error{&market.KeyError{Endpoint: "my_orders"}}
		}, 0, "does not accept the API key", 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t)
			c.prepare(h)
			ended, err := h.watchdog().Once(t.Context(), 5*time.Minute)
			if ended != c.ended || len(h.cancelled) != c.cancels {
				t.Errorf("%s: ended %d by %d cancels, want %d by %d", name, ended, len(h.cancelled), c.ended, c.cancels)
			}
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v, want %q", name, err, c.says)
			}
		})
	}
}

// What the watchdog holds of the market has no call by which it could rent.
func TestItCannotRent(t *testing.T) {
	t.Parallel()
	var held watchdog.Market = clore.NewEnder(cloreapi.NewEnder(cloreapi.Config{}))
	if _, ok := held.(interface {
		Create(context.Context, market.CreateRequest) market.Outcome
	}); ok {
		t.Error("it can rent")
	}
}

func TestFromSettings(t *testing.T) {
	t.Parallel()
	s := settings.Defaults()
	if _, err := watchdog.New(watchdog.FromSettings(s), watchdog.Deps{}); err == nil || !strings.Contains(err.Error(), "order.ends_file") {
		t.Errorf("without a list: %v", err)
	}
	s.Order.EndsFile = "ends.sealed"
	c := watchdog.FromSettings(s)
	if c.Account != "main" || c.Key != s.KeyFingerprint() || c.Margin != 10*time.Minute || c.Interval != 5*time.Minute || c.CallGap != gap || c.CallTimeout == 0 {
		t.Errorf("%+v", c)
	}
}
