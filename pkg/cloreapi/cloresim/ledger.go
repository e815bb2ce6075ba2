package cloresim

import (
	"encoding/json"
	"slices"
	"time"
)

// mostCalls bounds the ledger of calls; older ones are dropped. Gaps and violations are kept per account and last.
const mostCalls = 10_000

// call is one call as the market saw it.
type call struct {
	N        int64           `json:"n"`
	At       time.Time       `json:"at"`
	EndedAt  time.Time       `json:"ended_at,omitzero"`
	Endpoint string          `json:"endpoint"`
	Key      string          `json:"key"`
	Request  json.RawMessage `json:"request,omitempty"`
	Status   int             `json:"status"`
	Code     int             `json:"code"`
	Error    string          `json:"error,omitempty"`
	Applied  bool            `json:"applied"`
}

// arrive enters a call into the ledger.
func (w *world) arrive(at time.Time, endpoint, key string, request json.RawMessage) *call {
	c := &call{N: w.nextCall, At: at, Endpoint: endpoint, Key: key, Request: request}
	w.nextCall++
	w.changed.next = true
	w.enter(c)
	if key == "" {
		return c
	}
	a := w.account(key)
	if !a.LastCall.IsZero() {
		gap := at.Sub(a.LastCall).Milliseconds()
		least(&a.GapAnyMS, gap)
		if endpoint == "create_order" {
			least(&a.GapCreateMS, gap)
		}
	}
	a.LastCall = at
	w.changed.account(a)
	return c
}

func (w *world) enter(c *call) {
	if i, ok := w.findCall(c.N); ok {
		w.calls[i] = c
		return
	}
	if len(w.calls) >= mostCalls {
		w.calls = slices.Delete(w.calls, 0, len(w.calls)-mostCalls+1)
	}
	w.calls = append(w.calls, c)
	w.changed.call(c)
}

func (w *world) findCall(n int64) (int, bool) {
	return slices.BinarySearchFunc(w.calls, n, func(c *call, n int64) int { return int(c.N - n) })
}

func least(least **int64, n int64) {
	if *least == nil || n < **least {
		*least = &n
	}
}

// early says whether a call comes too early for the limits of its key, and counts it. A call that is refused for
// it does not push the next one back. create_order was refused in recordings when any call had come shortly
// before, so its longer limit counts from those too.
func (w *world) early(at time.Time, endpoint string, a *account) bool {
	gap := callGap
	if endpoint == "create_order" {
		gap = createGap
	}
	if !a.LastTaken.IsZero() && at.Sub(a.LastTaken) < gap {
		a.Violations++
		w.changed.account(a)
		return true
	}
	a.LastTaken = at
	w.changed.account(a)
	return false
}

// Overlap says that two rentals of one account with the same marker ports were live together: one request that
// was carried out twice.
type Overlap struct {
	Rentals [2]int64 `json:"rentals"`
	Key     string   `json:"key"`
	MS      int64    `json:"ms"`
}

// firstMarkerPort is where container ports begin that nothing listens on by custom: a set of them tells requests
// apart.
const firstMarkerPort = 20000

func (r *rental) markers() []int {
	var ms []int
	for _, p := range r.Ports {
		if p.Container >= firstMarkerPort {
			ms = append(ms, p.Container)
		}
	}
	return ms
}

func (w *world) overlaps(now time.Time) []Overlap {
	overlaps := []Overlap{}
	for i, a := range w.rentals {
		markers := a.markers()
		if len(markers) == 0 {
			continue
		}
		for _, b := range w.rentals[i+1:] {
			if a.Key != b.Key || !slices.Equal(markers, b.markers()) {
				continue
			}
			end := now
			for _, r := range []*rental{a, b} {
				if !r.Ended.IsZero() && r.Ended.Before(end) {
					end = r.Ended
				}
			}
			if b.Created.Before(end) {
				overlaps = append(overlaps, Overlap{[2]int64{a.ID, b.ID}, a.Key, end.Sub(b.Created).Milliseconds()})
			}
		}
	}
	return overlaps
}
