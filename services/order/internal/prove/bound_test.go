package prove

import (
	"testing"
	"time"

	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/order/internal/rental"
)

// TestMemoryIsBounded: what is remembered of intents goes with them, and of others' rentals with the list.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	p := New(Config{Window: time.Minute, WindowBlind: time.Hour})
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	list := market.Rentals{Began: now, WithEnded: true}
	for id := range int64(mostOthers + 1) {
		list.Rentals = append(list.Rentals, market.Rental{ID: id + 1, TCPPorts: map[int]int{22: 1}})
	}
	o := &rental.Order{ID: "a", State: rental.Unconfirmed, Intents: []rental.Intent{{Number: 1, Server: rental.Server{ID: 7}, Outcome: rental.Open, Called: true}}}
	p.Read(list, []*rental.Order{o})
	if len(p.evidence) != 1 || len(p.others) != mostOthers+1 {
		t.Fatalf("remembers %d intents and %d others", len(p.evidence), len(p.others))
	}
	o.State, o.Intents[0].Outcome = rental.Failed, rental.NotThere
	list.Rentals = list.Rentals[:1]
	p.Read(list, []*rental.Order{o})
	if len(p.evidence) != 0 || len(p.others) != 1 {
		t.Errorf("remembers %d intents and %d others", len(p.evidence), len(p.others))
	}
}
