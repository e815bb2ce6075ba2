package ask

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// mostDuration bounds what can be asked for; longer is a mistake or "never".
const mostDuration = 10 * 365 * 24 * time.Hour

// ParseDuration reads how long a rental may live: "90m", "6h", "2d", "1d12h", or "never".
func ParseDuration(text string) (d time.Duration, never bool, err error) {
	if text == "never" {
		return 0, true, nil
	}
	rest := text
	if days, after, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, false, fmt.Errorf("%q is not a duration such as \"6h\", \"90m\" or \"2d\"", text)
		}
		d, rest = time.Duration(n)*24*time.Hour, after
	}
	if rest != "" || d == 0 {
		more, err := time.ParseDuration(rest)
		if err != nil {
			return 0, false, fmt.Errorf("%q is not a duration such as \"6h\", \"90m\" or \"2d\"", text)
		}
		d += more
	}
	if d <= 0 || d > mostDuration {
		return 0, false, fmt.Errorf("%q is out of range: more than 0, at most 10 years", text)
	}
	return d, false, nil
}

// duration checks text and gives it in units every reader of Go durations knows: days become hours.
func duration(member, text string) (string, error) {
	d, never, err := ParseDuration(text)
	switch {
	case err != nil:
		return "", invalid("%s: %v", member, err)
	case never || !strings.Contains(text, "d"):
		return text, nil
	}
	return d.String(), nil
}
