package overdue_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/renthook/renthook/services/internal/ends"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/watchdog/internal/overdue"
)

var asked = time.Date(2026, 3, 1, 12, 0, 0, 500_000_000, time.UTC)

const margin = 10 * time.Minute

func known() ends.End {
	return ends.End{Order: "ord_1", Attempt: 1, RentalID: 700, ServerID: 7, Image: "cuda", Markers: []int{20001, 30002}, Asked: asked, End: asked.Add(time.Hour)}
}

func unknown() ends.End {
	e := known()
	e.RentalID = 0
	return e
}

func row() market.Rental {
	return market.Rental{ID: 700, ServerID: 7, Image: "cuda", Created: asked.Truncate(time.Second), TCPPorts: map[int]int{22: 1001, 20001: 1002, 30002: 1003}}
}

func TestFind(t *testing.T) {
	t.Parallel()
	due := asked.Add(time.Hour + margin)
	for name, c := range map[string]struct {
		list []ends.End
		row  func(r *market.Rental)
		at   time.Time
		want bool
	}{
		"named, margin just over":                {[]ends.End{known()}, nil, due, true},
		"named, a moment early":                  {[]ends.End{known()}, nil, due.Add(-time.Nanosecond), false},
		"named, its end just now":                {[]ends.End{known()}, nil, asked.Add(time.Hour), false},
		"named, ports gone":                      {[]ends.End{known()}, func(r *market.Rental) { r.TCPPorts = nil }, due, true},
		"named, another image as the market has": {[]ends.End{known()}, func(r *market.Rental) { r.Image = "docker.io/cuda" }, due, true},
		"named, on another server":               {[]ends.End{known()}, func(r *market.Rental) { r.ServerID = 8 }, due, false},
		"named, shows another's ports":           {[]ends.End{known()}, func(r *market.Rental) { delete(r.TCPPorts, 30002) }, due, false},
		"over":                                   {[]ends.End{known()}, func(r *market.Rental) { r.Expired = true }, due, false},
		"marked":                                 {[]ends.End{unknown()}, nil, due, true},
		"marked, a moment early":                 {[]ends.End{unknown()}, nil, due.Add(-time.Nanosecond), false},
		"marked, the second one of an ask":       {[]ends.End{known()}, func(r *market.Rental) { r.ID = 701 }, due, true},
		"one marker missing":                     {[]ends.End{unknown()}, func(r *market.Rental) { delete(r.TCPPorts, 30002) }, due, false},
		"the installation's marker missing":      {[]ends.End{unknown()}, func(r *market.Rental) { delete(r.TCPPorts, 20001) }, due, false},
		"no ports shown":                         {[]ends.End{unknown()}, func(r *market.Rental) { r.TCPPorts = nil }, due, false},
		"asked without markers":                  {[]ends.End{without(unknown())}, nil, due, false},
		"named, asked without markers":           {[]ends.End{without(known())}, nil, due, true},
		"marked, another server":                 {[]ends.End{unknown()}, func(r *market.Rental) { r.ServerID = 8 }, due, false},
		"marked, another image":                  {[]ends.End{unknown()}, func(r *market.Rental) { r.Image = "other" }, due, false},
		"marked, clocks two minutes apart":       {[]ends.End{unknown()}, func(r *market.Rental) { r.Created = r.Created.Add(-120 * time.Second) }, due, true},
		"marked, from before":                    {[]ends.End{unknown()}, func(r *market.Rental) { r.Created = r.Created.Add(-121 * time.Second) }, due, false},
		"marked, a day later":                    {[]ends.End{unknown()}, func(r *market.Rental) { r.Created = r.Created.Add(24 * time.Hour) }, due.Add(48 * time.Hour), false},
		"without an end":                         {[]ends.End{endless(known())}, nil, due.Add(1000 * time.Hour), false},
		"marked, without an end":                 {[]ends.End{endless(unknown())}, nil, due.Add(1000 * time.Hour), false},
		"another's": {[]ends.End{known()}, func(r *market.Rental) {
			*r = market.Rental{ID: 9, ServerID: 7, Image: "cuda", Created: asked, TCPPorts: map[int]int{22: 1, 20001: 2}}
		}, due, false},
		"nothing listed": {nil, nil, due, false},
		"named by one not due, marked by one due": {[]ends.End{unknown(), later(known())}, nil, due, false},
		"marked by one due and one not":           {[]ends.End{unknown(), later(unknown())}, nil, due, false},
		"a number that another server has now":    {[]ends.End{unknown(), moved(known())}, nil, due, false},
	} {
		r := row()
		if c.row != nil {
			c.row(&r)
		}
		found := overdue.Find(c.list, []market.Rental{r}, c.at, margin)
		if got := len(found) == 1 && found[0].ID == r.ID; got != c.want || len(found) > 1 {
			t.Errorf("%s: found %+v, want it found: %v", name, found, c.want)
		}
	}
}

func without(e ends.End) ends.End { e.Markers = nil; return e }
func endless(e ends.End) ends.End { e.End = time.Time{}; return e }
func later(e ends.End) ends.End   { e.End = e.End.Add(time.Hour); return e }
func moved(e ends.End) ends.End   { e.ServerID++; return e }

// Whatever is listed and shown: only what the list proves ours, and only when its end and the margin have passed.
func TestAnyListAnyRows(t *testing.T) {
	t.Parallel()
	few := func(t *rapid.T, what string, n int) int { return rapid.IntRange(0, n-1).Draw(t, what) }
	ports := func(t *rapid.T) []int {
		return rapid.SliceOfNDistinct(rapid.SampledFrom([]int{22, 20001, 30001, 30002}), 0, 4, rapid.ID).Draw(t, "ports")
	}
	some := 0
	rapid.Check(t, func(t *rapid.T) {
		var list []ends.End
		for range few(t, "entries", 5) {
			e := ends.End{RentalID: int64(few(t, "rental", 4)), ServerID: int64(1 + few(t, "server", 2)), Image: []string{"a", "b"}[few(t, "image", 2)], Markers: ports(t), Asked: asked.Add(time.Duration(few(t, "asked", 3)) * time.Minute)}
			if few(t, "endless", 4) > 0 {
				e.End = asked.Add(time.Duration(few(t, "end", 4)) * margin)
			}
			list = append(list, e)
		}
		var rows []market.Rental
		for n := range few(t, "rows", 4) {
			r := market.Rental{ID: int64(n + 1), ServerID: int64(1 + few(t, "server", 2)), Image: []string{"a", "b"}[few(t, "image", 2)], Created: asked.Add(time.Duration(few(t, "created", 5)-2) * time.Minute), Expired: few(t, "expired", 5) == 0, TCPPorts: map[int]int{}}
			for _, p := range ports(t) {
				r.TCPPorts[p] = p
			}
			rows = append(rows, r)
		}
		now := asked.Add(time.Duration(few(t, "now", 8)) * margin)
		for _, f := range overdue.Find(list, rows, now, margin) {
			some++
			r := rows[f.ID-1]
			proved := slices.ContainsFunc(list, func(e ends.End) bool {
				marks := 0
				for _, m := range e.Markers {
					if _, ok := r.TCPPorts[m]; ok {
						marks++
					}
				}
				marked := marks == len(e.Markers) && marks > 0 && e.Image == r.Image && r.Created.Sub(e.Asked) >= -121*time.Second
				due := !e.End.IsZero() && now.Sub(e.End) >= margin
				return due && e.ServerID == r.ServerID && (e.RentalID == r.ID || marked)
			})
			if !proved || r.Expired {
				t.Fatalf("rental %+v was taken as ours and overdue at %s by %+v", r, now, list)
			}
			for _, e := range list {
				if e.RentalID == r.ID && (e.End.IsZero() || now.Sub(e.End) < margin) {
					t.Fatalf("rental %d is named by an entry that is not due", r.ID)
				}
			}
		}
	})
	if some == 0 {
		t.Error("nothing was ever overdue")
	}
}
