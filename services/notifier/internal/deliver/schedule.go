package deliver

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// DefaultSchedule is when a delivery is tried: at once, then each step after the failure before it; about 76 hours
// in all. Source: the Standard Webhooks specification's example schedule.
func DefaultSchedule() []time.Duration {
	return []time.Duration{
		0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour,
		14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	}
}

// jitter gives the most that is added to a step at random, so that a crowd that failed together comes back spread.
func jitter(step time.Duration) time.Duration { return step / 5 }

// checkSchedule refuses schedules that could not be kept.
func checkSchedule(steps []time.Duration) error {
	if len(steps) == 0 {
		return fmt.Errorf("delivery schedule: no step")
	}
	total := time.Duration(0)
	for _, s := range steps {
		if s < 0 {
			return fmt.Errorf("delivery schedule: step %s is negative", s)
		}
		total += s + jitter(s)
	}
	if total > patience {
		return fmt.Errorf("delivery schedule: %s in all, but a delivery is given up after %s", total, patience)
	}
	return nil
}

// next says how long after failed try number n the next one is due; false when n was the last.
func next(steps []time.Duration, n int) (time.Duration, bool) {
	if n >= len(steps) {
		return 0, false
	}
	step := steps[n]
	return step + rand.N(jitter(step)+1), true //nolint:gosec // no secret hangs on it
}
