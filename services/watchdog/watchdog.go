// Package watchdog ends what renthook rented and did not end, when everything of renthook is down.
//
// It needs no broker and no other service: only the market and the sealed list of ends that the order service keeps. It
// guarantees that it ends nothing but rentals which that list proves ours, and none before its end and a margin have
// passed; that it goes on until the market shows them gone; and that it reads the market once per interval while nothing
// is overdue. It cannot rent: what it holds of the market has no such call. It refuses a list that it cannot read whole,
// or of another account or key, and then ends nothing.
//
// A list may be old: that is what it is when renthook is down. It still holds, since an end that is moved is in the list
// before it is moved; but it is told.
package watchdog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/renthook/renthook/pkg/seal"
	"github.com/renthook/renthook/services/internal/ends"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/settings"
	"github.com/renthook/renthook/services/watchdog/internal/overdue"
)

// Config is what the operator says.
type Config struct {
	// EndsFile is where the list is.
	EndsFile string
	// Account and Key are whose list it must be: ours for the account, and the fingerprint of its key on the market.
	Account, Key string
	// Margin is how long after its end a rental must still be there.
	Margin time.Duration
	// Interval is the time between two looks while nothing is overdue.
	Interval time.Duration
	// CallGap is the least time from the end of one call to the start of the next; CallTimeout bounds one.
	CallGap, CallTimeout time.Duration
}

// FromSettings takes what the watchdog needs.
func FromSettings(s settings.Settings) Config {
	return Config{
		EndsFile: s.Order.EndsFile, Account: s.Account.Name, Key: s.KeyFingerprint(), Margin: s.Watchdog.Margin, Interval: s.Watchdog.Interval,
		CallGap: s.Market.CallGap, CallTimeout: s.Order.CallTimeout,
	}
}

// Market is the account as the watchdog may use it.
type Market interface {
	Rentals(ctx context.Context, withEnded bool) (market.Rentals, error)
	Cancel(ctx context.Context, id int64, issue string) market.Outcome
}

// Deps are the live things it works with.
type Deps struct {
	Log *slog.Logger
	// Box opens the list.
	Box    *seal.Box
	Market Market
}

const (
	// staleAfter is the age from which a list is told as old: the order service writes it every minute. A longer margin
	// allows more.
	staleAfter = 15 * time.Minute
	// goneAfter is how many whole lists in a row must lack a rental before it is gone without being shown as ended.
	goneAfter = 3
	// backOffAtMost bounds the time between two looks while something is overdue.
	backOffAtMost = time.Minute
)

// Watchdog looks, and ends what is overdue. One goroutine uses it.
type Watchdog struct {
	config Config
	deps   Deps

	// gap is the spacing of calls now; free is when the next may start.
	gap  time.Duration
	free time.Time
	// chased are rentals that were found overdue and are not proved gone: how many lists in a row lacked each.
	chased map[int64]int
	// called says that a cancel has gone out for it.
	called map[int64]bool
	// ended counts rentals that were cancelled here and are proved gone.
	ended int
	// stale says that the newest list was old when it was read.
	stale bool
}

// New makes a Watchdog; nothing is read before Run or Once.
func New(c Config, d Deps) (*Watchdog, error) {
	if c.EndsFile == "" {
		return nil, errors.New("order.ends_file is not set: without the list nothing can be told from other people's rentals")
	}
	if d.Log == nil {
		d.Log = slog.Default()
	}
	return &Watchdog{config: c, deps: d, gap: c.CallGap, chased: map[int64]int{}, called: map[int64]bool{}}, nil
}

// Run looks until ctx ends: once per interval, and sooner while something is overdue.
func (w *Watchdog) Run(ctx context.Context) error {
	for failed := 0; ctx.Err() == nil; {
		due, err := w.look(ctx)
		wait := w.config.Interval
		if due {
			wait = w.backOff(failed)
			failed++
		} else {
			failed = 0
		}
		if err != nil && ctx.Err() == nil {
			w.deps.Log.ErrorContext(ctx, "the watchdog could not do its work", "error", err.Error(), "again_in", wait.String())
		}
		_ = pause(ctx, wait)
	}
	return nil
}

// ErrStale says that nothing was to be done, by a list that is older than it should be.
var ErrStale = errors.New("the list of ends is old: renthook, or what copies the list, seems to be down")

// Once looks, ends what is overdue, and looks again until the market shows it gone, for a time at most. It returns how many
// rentals it had ended; an error says that something is left, that it could not look, or that the list is old.
func (w *Watchdog) Once(ctx context.Context, atMost time.Duration) (ended int, err error) {
	bounded, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	for failed := 0; ; failed++ {
		due, err := w.look(bounded)
		switch {
		case !due && err == nil && w.stale && w.ended == 0:
			return 0, ErrStale
		case !due:
			return w.ended, err
		}
		if pause(bounded, w.backOff(failed)) != nil {
			return w.ended, errors.Join(fmt.Errorf("after %s overdue rentals are not proved gone", atMost), err)
		}
	}
}

// backOff is the wait after so many looks that left something overdue.
func (w *Watchdog) backOff(n int) time.Duration {
	return min(5*w.config.CallGap<<min(n, 8), backOffAtMost)
}

// look reads list and market once and cancels what is overdue. due says that something is overdue or may be.
func (w *Watchdog) look(ctx context.Context) (due bool, err error) {
	list, err := w.list()
	w.tell(ctx, list, err)
	if err != nil {
		return len(w.chased) > 0, err
	}
	passed := 0
	for _, e := range list.Ends {
		if overdue.Passed(e, time.Now(), w.config.Margin) {
			passed++
		}
	}
	rows, err := w.rentals(ctx)
	if err != nil {
		return passed > 0 || len(w.chased) > 0, err
	}
	found := overdue.Find(list.Ends, rows.Rentals, time.Now(), w.config.Margin)
	w.settle(ctx, rows, found)
	w.deps.Log.InfoContext(ctx, "looked", "ends", len(list.Ends), "passed", passed, "listed", len(rows.Rentals), "overdue", len(found))
	var problems []error
	for _, f := range found {
		problems = append(problems, w.end(ctx, f, rows))
	}
	return len(w.chased) > 0, errors.Join(problems...)
}

// list reads the list of ends, and refuses another's.
func (w *Watchdog) list() (ends.List, error) {
	l, err := ends.Read(w.config.EndsFile, w.deps.Box)
	switch {
	case err != nil:
	case l.Account != w.config.Account:
		err = fmt.Errorf("the list of ends is of account %q, and this is %q", l.Account, w.config.Account)
	case l.Key != w.config.Key:
		err = errors.New("the list of ends is of another key of the market")
	}
	if err != nil {
		return ends.List{}, err
	}
	return l, nil
}

// tell says what is wrong with the list.
func (w *Watchdog) tell(ctx context.Context, l ends.List, err error) {
	if err != nil {
		w.alarm(ctx, "ends_unreadable", "nothing is ended by the watchdog", "error", err.Error())
		return
	}
	age := time.Since(l.Exported).Round(time.Second)
	if w.stale = age > max(staleAfter, w.config.Margin); w.stale {
		w.alarm(ctx, "ends_stale", "renthook, or what copies the list, seems to be down; what is overdue by this list is ended", "age", age.String())
	}
	if age < -staleAfter {
		w.alarm(ctx, "clock", "the list of ends is from the future: one of the clocks is wrong", "age", age.String())
	}
}

func (w *Watchdog) alarm(ctx context.Context, name, reason string, more ...any) {
	w.deps.Log.ErrorContext(ctx, "alarm", append([]any{"alarm", name, "reason", reason}, more...)...)
}

// rentals reads the market's list, the finished ones too: they prove an end.
func (w *Watchdog) rentals(ctx context.Context) (rows market.Rentals, err error) {
	err = w.call(ctx, func(ctx context.Context) (bool, error) {
		rows, err = w.deps.Market.Rentals(ctx, true)
		var throttled *market.ThrottledError
		return errors.As(err, &throttled), err
	})
	var key *market.KeyError
	if errors.As(err, &key) {
		w.alarm(ctx, "market_key", "nothing can be ended by the watchdog", "error", err.Error())
	}
	return rows, err
}

// settle takes off the chase what the market shows to be gone, and what is not overdue any more.
func (w *Watchdog) settle(ctx context.Context, rows market.Rentals, found []overdue.Rental) {
	live, shown := 0, map[int64]bool{}
	for _, row := range rows.Rentals {
		if shown[row.ID] = !row.Expired; !row.Expired {
			live++
		}
	}
	whole := rows.Limit == 0 || live < rows.Limit
	for id := range w.chased {
		alive, there := shown[id]
		switch {
		case there && alive:
			// Back among those to be ended, if it still is.
			delete(w.chased, id)
			continue
		case there:
		case !whole:
			continue
		default:
			if w.chased[id]++; w.chased[id] < goneAfter {
				continue
			}
		}
		delete(w.chased, id)
		if w.called[id] {
			delete(w.called, id)
			w.ended++
			w.deps.Log.WarnContext(ctx, "an overdue rental was ended by the watchdog", "market_order_id", id)
		}
	}
	for _, f := range found {
		w.chased[f.ID] = 0
	}
}

// end cancels one rental that was found overdue. The list is read again in the last moment: its end may have been moved.
func (w *Watchdog) end(ctx context.Context, f overdue.Rental, rows market.Rentals) error {
	log := w.deps.Log.With("market_order_id", f.ID, "order_id", f.End.Order, "attempt", f.End.Attempt, "server_id", f.End.ServerID)
	return w.call(ctx, func(ctx context.Context) (bool, error) {
		list, err := w.list()
		if err != nil {
			return false, err
		}
		still := overdue.Find(list.Ends, rows.Rentals, time.Now(), w.config.Margin)
		if !slices.ContainsFunc(still, func(s overdue.Rental) bool { return s.ID == f.ID }) {
			return false, nil
		}
		log.WarnContext(ctx, "a rental of ours is overdue: ending it", "end", f.End.End.UTC().Format(time.RFC3339))
		w.called[f.ID] = true
		out := w.deps.Market.Cancel(ctx, f.ID, "")
		log.InfoContext(ctx, "cancel answered", "verdict", out.Verdict.String(), "reason", out.Reason)
		return out.Throttled, nil
	})
}

// call makes one call, paced: after one that was throttled the spacing doubles, after others it shrinks back.
func (w *Watchdog) call(ctx context.Context, do func(ctx context.Context) (throttled bool, err error)) error {
	if err := pause(ctx, time.Until(w.free)); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, w.config.CallTimeout)
	defer cancel()
	throttled, err := do(bounded)
	if throttled {
		w.gap = min(2*w.gap, backOffAtMost)
	} else {
		w.gap = max(w.gap/2, w.config.CallGap)
	}
	w.free = time.Now().Add(w.gap)
	return err
}

// pause waits, and says when ctx ended first.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
