package lease

import (
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot is a clock that runs through suspend: a machine that slept must not think its lease still lives.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// Linux has had this clock since 2.6.39; there is nothing safe to go on with.
		panic("read CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(ts.Nano())
}
