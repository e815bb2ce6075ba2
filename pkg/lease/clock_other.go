//go:build !linux

package lease

import "time"

var start = time.Now()

// sinceBoot is Go's monotonic clock, which may stand still while the machine sleeps; production runs on Linux.
func sinceBoot() time.Duration { return time.Since(start) }
