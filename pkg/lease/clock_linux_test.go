package lease

import (
	"testing"
	"testing/synctest"
	"time"
)

// The wall clock, and Go's own, may step: a lease is measured by the clock since boot alone. In the bubble both of the
// others jump while hardly any time passes.
// row:25 row:26
func TestRemaining_NoOtherClockCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &Held{ttl: time.Minute, since: sinceBoot()}
		before := time.Now()
		time.Sleep(time.Hour)
		if since := time.Since(before); since != time.Hour {
			t.Fatalf("the clock stepped by %s: the test tests nothing", since)
		}
		if left := h.Remaining(); left < 30*time.Second || left > time.Minute {
			t.Errorf("%s remain of a minute", left)
		}
	})
}
