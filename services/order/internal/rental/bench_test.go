package rental_test

import (
	"testing"
	"time"

	"github.com/renthook/renthook/services/order/internal/rental"
)

// BenchmarkDecide measures one decision: what most events are (a running rental is listed as it was), and the way of
// an order from its command to a running rental and its end.
func BenchmarkDecide(b *testing.B) {
	b.Run("seen", func(b *testing.B) {
		o, _ := after(b, asked(), accept, plan, unknown, seenDown, seenUp, answers)
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := rental.Decide(o, seenUp.event, t0.Add(time.Minute)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("life", func(b *testing.B) {
		life := []step{accept, plan, unknown, seenDown, seenUp, answers, cancelled, gone}
		first := asked()
		b.ReportAllocs()
		for b.Loop() {
			after(b, first, life...)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(life)), "ns/decision")
	})
}
