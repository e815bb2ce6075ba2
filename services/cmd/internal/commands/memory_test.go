package commands

import (
	"runtime/debug"
	"testing"
)

func TestLimitLeavesRoomAboveWhatLives(t *testing.T) {
	t.Parallel()
	for live, want := range map[uint64]int64{0: 64 << 20, 40 << 20: 64 << 20, 100 << 20: 150 << 20, 4 << 30: 6 << 30} {
		if got := limit(live); got != want {
			t.Errorf("%d live: a limit of %d, want %d", live, got, want)
		}
	}
}

func TestKeepSmall(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	for _, c := range []struct {
		gogc, limit string
		want        int64
	}{{"100", "", before}, {"", "1GiB", before}, {"", "", leastLimit}} {
		t.Setenv("GOGC", c.gogc)
		t.Setenv("GOMEMLIMIT", c.limit)
		keepSmall(t.Context())
		if got := debug.SetMemoryLimit(-1); got != c.want {
			t.Errorf("GOGC=%q GOMEMLIMIT=%q: a limit of %d, want %d", c.gogc, c.limit, got, c.want)
		}
	}
}
