package commands

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// leastLimit is what everything in one process needs at least: less would be collecting all the time. What is
	// resident is about 30 MiB more, the program itself.
	leastLimit = 64 << 20
	// judgeEvery is how often the limit is judged anew.
	judgeEvery = 5 * time.Second
)

// keepSmall keeps the process small beside somebody's other work until ctx ends: each poll of the market leaves tens of
// MB behind, which Go would let grow to twice what lives. An operator who set GOGC or GOMEMLIMIT knows better.
func keepSmall(ctx context.Context) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.SetMemoryLimit(leastLimit)
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	go func() {
		for tick := time.NewTicker(judgeEvery); ; {
			select {
			case <-tick.C:
				metrics.Read(live)
				debug.SetMemoryLimit(limit(live[0].Value.Uint64()))
			case <-ctx.Done():
				tick.Stop()
				return
			}
		}
	}()
}

// limit is what Go may hold, in bytes, while that much lives. It grows with what lives: a limit near it would be
// collecting all the time.
func limit(live uint64) int64 { return max(leastLimit, int64(live+live/2)) }
