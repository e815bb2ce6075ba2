package order

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/renthook/renthook/pkg/journal"
	"github.com/renthook/renthook/pkg/seal"
	"github.com/renthook/renthook/services/internal/ends"
	"github.com/renthook/renthook/services/order/internal/engine"
	"github.com/renthook/renthook/services/order/internal/rental"
	"github.com/renthook/renthook/services/order/internal/world"
)

const (
	// exportEvery is how often the list of ends is written although nothing changed, so that its age says something.
	exportEvery = time.Minute
	// exportGap is how long a change waits at most while others are written.
	exportGap = time.Second
	// othersFresh is how old a list of another process must be before one that does not hold the account replaces it.
	othersFresh = exportEvery + 30*time.Second
)

// exporter keeps the list of ends for the watchdog. What makes a rental possible or its end later is in the file before it
// is in the journal: whenever the process dies, the file allows no end that is too early and lacks no rental.
type exporter struct {
	path string
	box  *seal.Box
	log  *slog.Logger
	// list is all of a list but its time and ends.
	list  ends.List
	world *world.World

	mu sync.Mutex
	// holding: this process writes the journal, and its list stands over any other.
	holding bool
	// pending are entries, by order, that were written before their record and are not in the world yet.
	pending map[string]pendingEnd
	// wrote is what this process wrote last; failed that it could not, and that this was told.
	wrote  ends.List
	failed bool
}

// pendingEnd is in the world once its order has the revision.
type pendingEnd struct {
	ends.End
	revision uint64
}

// off says that no list is kept.
func (x *exporter) off() bool { return x.path == "" }

// run keeps the list until ctx ends. A process that does not hold the account writes only while ready says that it has read
// the journal to its end: an older state has ends that are too early.
func (x *exporter) run(ctx context.Context, ready func() error) {
	for ctx.Err() == nil {
		changed := x.world.Changed()
		if !x.export(ctx, time.Now(), ready() == nil) {
			pause(ctx, exportGap)
			continue
		}
		pause(ctx, exportGap)
		again := time.NewTimer(exportEvery - exportGap)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-again.C:
		}
		again.Stop()
	}
}

// hold says whether this process writes the journal from now on. At its begin the journal has been read to its end: what
// was pending before is in the world, or was never recorded.
func (x *exporter) hold(holding bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.holding = holding; holding {
		x.pending = map[string]pendingEnd{}
	}
}

// export writes the list if it is due; false when this process cannot know it now.
func (x *exporter) export(ctx context.Context, now time.Time, ready bool) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.holding && !ready {
		return false
	}
	l := x.current()
	if !x.failed && now.Sub(x.wrote.Exported) < exportEvery && slices.EqualFunc(l, x.wrote.Ends, equal) {
		return true
	}
	if !x.holding {
		have, err := ends.Read(x.path, x.box)
		if err == nil && have.By != x.list.By && now.Sub(have.Exported) < othersFresh {
			return true
		}
	}
	x.write(ctx, l, now)
	return true
}

// ahead writes the list before orders are recorded as given, if it would otherwise lack one of their rentals or have it
// end too early.
func (x *exporter) ahead(ctx context.Context, now time.Time, orders ...*rental.Order) {
	x.mu.Lock()
	defer x.mu.Unlock()
	lacks := false
	for _, o := range orders {
		e, bills := endOf(o)
		if !bills {
			continue
		}
		if known := x.world.Order(o.ID); known == nil || !covers(known, e) {
			x.pending[o.ID] = pendingEnd{e, o.Revision}
		}
		n, found := slices.BinarySearchFunc(x.wrote.Ends, e, byOrder)
		lacks = lacks || !found || !notSooner(x.wrote.Ends[n], e)
	}
	if lacks {
		x.write(ctx, x.current(), now)
	}
}

// covers says that what is known of an order has an entry of it, or one that ends later.
func covers(known *rental.Order, e ends.End) bool {
	have, bills := endOf(known)
	return bills && notSooner(have, e)
}

// notSooner says that an entry is of the same attempt as another, and ends no sooner.
func notSooner(have, e ends.End) bool {
	return have.Attempt == e.Attempt && (have.End.IsZero() || !e.End.IsZero() && !have.End.Before(e.End))
}

// unrecorded forgets orders that surely were not recorded.
func (x *exporter) unrecorded(orders ...*rental.Order) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, o := range orders {
		delete(x.pending, o.ID)
	}
}

// write replaces the file. A file that cannot be replaced is taken away: it might have a rental end too early.
func (x *exporter) write(ctx context.Context, l []ends.End, now time.Time) {
	list := x.list
	list.Exported, list.Ends = now, l
	err := ends.Write(x.path, x.box, list)
	if err == nil {
		x.wrote, x.failed = list, false
		return
	}
	x.wrote = ends.List{}
	if gone := os.Remove(x.path); gone != nil && !errors.Is(gone, os.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	if !x.failed {
		x.failed = true
		x.log.ErrorContext(ctx, "alarm", "alarm", "ends_not_written", "reason", "the watchdog has no list and ends nothing until it can be written", "error", err.Error())
	}
}

// current is what may bill, sorted.
func (x *exporter) current() []ends.End {
	out := []ends.End{}
	for id, p := range x.pending {
		if o := x.world.Order(id); o != nil && o.Revision >= p.revision {
			delete(x.pending, id)
		} else {
			out = append(out, p.End)
		}
	}
	for _, o := range x.world.Live() {
		if _, ahead := x.pending[o.ID]; ahead {
			continue
		}
		if e, bills := endOf(o); bills {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, byOrder)
	return out
}

// endOf is what may bill of an order, and when that is to be over: as planned, or since its end was decided.
func endOf(o *rental.Order) (e ends.End, bills bool) {
	i := o.Current()
	if i == nil || !i.Outcome.Live() {
		return e, false
	}
	e = ends.End{
		Order: o.ID, Attempt: i.Number, RentalID: i.RentalID, ServerID: i.Server.ID, Image: i.Image, Markers: i.Markers, Asked: i.At, End: o.EndsAt,
	}
	decided := time.Time{}
	switch {
	case o.Wanted != nil:
		decided = o.Wanted.At
	case o.State == rental.Cancelling:
		decided = o.Updated
	}
	if !decided.IsZero() && (e.End.IsZero() || decided.Before(e.End)) {
		e.End = decided
	}
	return e, true
}

// byOrder compares by the order's id: an order has one entry at most.
func byOrder(a, b ends.End) int { return cmp.Compare(a.Order, b.Order) }

func equal(a, b ends.End) bool {
	return a.Order == b.Order && a.Attempt == b.Attempt && a.RentalID == b.RentalID && a.End.Equal(b.End)
}

// exportsAhead is the writer's end of the journal, with the list of ends written before what it must not lack.
type exportsAhead struct {
	engine.Appender
	to *exporter
}

// Append writes the list if it must be, and then the journal.
func (a exportsAhead) Append(ctx context.Context, entries ...journal.Entry) (first, last uint64, err error) {
	var orders []*rental.Order
	for _, e := range entries {
		var record struct {
			Internal world.Internal `json:"internal"`
		}
		if err := json.Unmarshal(e.Data, &record); err != nil {
			return 0, 0, fmt.Errorf("read what is about to be recorded: %w", err)
		}
		if o := record.Internal.Order; o != nil {
			orders = append(orders, o)
		}
	}
	if len(orders) > 0 {
		a.to.ahead(ctx, time.Now(), orders...)
	}
	first, last, err = a.Appender.Append(ctx, entries...)
	if errors.Is(err, journal.ErrFull) {
		a.to.unrecorded(orders...)
	}
	return first, last, err
}
