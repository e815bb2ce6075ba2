// Package overdue decides which rentals of the market are ours and should be over.
//
// It guarantees that a rental is taken as ours only when the list names its number, or when server, image, time and every
// marker port of one ask are its own; that none is overdue before its end and the margin have passed; and that one without
// an end never is. It refuses to guess: a rental that shows no ports, or that several entries claim of which one is not
// due, is left alone. It does no I/O and has no clock.
package overdue

import (
	"slices"
	"time"

	"github.com/renthook/renthook/services/internal/ends"
	"github.com/renthook/renthook/services/internal/market"
)

const (
	// clockSkew is how much earlier than its ask a rental of ours may claim to be created.
	clockSkew = 120 * time.Second
	// markersHold is how long a marker port is not used for another ask: a later rental with it is another ask's.
	markersHold = 24 * time.Hour
)

// Rental is one that should be over and is not.
type Rental struct {
	ID  int64
	End ends.End
}

// Passed says whether the end of an entry is a whole margin ago.
func Passed(e ends.End, now time.Time, margin time.Duration) bool {
	return !e.End.IsZero() && !now.Before(e.End.Add(margin))
}

// Find gives the rows that are ours and overdue, in the order of the rows.
func Find(list []ends.End, rows []market.Rental, now time.Time, margin time.Duration) (found []Rental) {
	for n := range rows {
		row := &rows[n]
		if row.Expired {
			continue
		}
		ours := claims(list, row)
		if len(ours) == 0 || slices.ContainsFunc(ours, func(e ends.End) bool { return !Passed(e, now, margin) }) {
			continue
		}
		found = append(found, Rental{ID: row.ID, End: ours[0]})
	}
	return found
}

// claims are the entries a row belongs to: those that name its number, or else those whose marks it bears.
func claims(list []ends.End, row *market.Rental) []ends.End {
	var named, marked []ends.End
	contradicted := false
	for _, e := range list {
		switch {
		case e.RentalID == row.ID && agrees(e, row):
			named = append(named, e)
		case e.RentalID == row.ID:
			contradicted = true
		case bears(e, row):
			marked = append(marked, e)
		}
	}
	switch {
	case contradicted:
		return nil
	case len(named) > 0:
		return named
	default:
		return marked
	}
}

// agrees says that nothing a named row shows speaks against its being ours. Its ports may not be shown any more.
func agrees(e ends.End, row *market.Rental) bool {
	return row.ServerID == e.ServerID && (len(row.TCPPorts) == 0 || shows(e.Markers, row))
}

// bears says that a row can be nothing but what was asked for.
func bears(e ends.End, row *market.Rental) bool {
	asked := e.Asked.Truncate(time.Second) // the market's times are whole seconds
	return row.ServerID == e.ServerID && row.Image == e.Image && len(e.Markers) > 0 && shows(e.Markers, row) &&
		!row.Created.Before(asked.Add(-clockSkew)) && row.Created.Before(asked.Add(markersHold))
}

// shows says that every marker is among the row's container ports.
func shows(markers []int, row *market.Rental) bool {
	return !slices.ContainsFunc(markers, func(m int) bool {
		_, ok := row.TCPPorts[m]
		return !ok
	})
}
