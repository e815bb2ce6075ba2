package limit

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/renthook/renthook/pkg/throttle"
)

func TestAddr(t *testing.T) {
	t.Parallel()
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for name, c := range map[string]struct {
		remote string
		header []string
		want   string
	}{
		"no proxy":                       {"203.0.113.9:5", nil, "203.0.113.9"},
		"a stranger's header":            {"203.0.113.9:5", []string{"198.51.100.1"}, "203.0.113.9"},
		"one proxy":                      {"10.0.0.1:5", []string{"198.51.100.1"}, "198.51.100.1"},
		"what a sender put in front":     {"10.0.0.1:5", []string{"192.0.2.7, 198.51.100.1"}, "198.51.100.1"},
		"two proxies":                    {"10.0.0.1:5", []string{"192.0.2.7, 198.51.100.1, 10.0.0.2"}, "198.51.100.1"},
		"two headers":                    {"10.0.0.1:5", []string{"198.51.100.1", "10.0.0.2"}, "198.51.100.1"},
		"proxies alone":                  {"10.0.0.1:5", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		"a proxy without a header":       {"10.0.0.1:5", nil, "10.0.0.1"},
		"nonsense":                       {"10.0.0.1:5", []string{"198.51.100.1, unknown"}, "10.0.0.1"},
		"an IPv4 address in IPv6":        {"[::ffff:10.0.0.1]:5", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		"IPv6":                           {"[fd00::1]:5", []string{"2001:db8::1"}, "2001:db8::1"},
		"an address that cannot be told": {"@", nil, "invalid IP"},
		"more hops than anybody has":     {"10.0.0.1:5", []string{"198.51.100.1" + strings.Repeat(", 10.0.0.2", 100)}, "10.0.0.2"},
	} {
		r := &http.Request{RemoteAddr: c.remote, Header: http.Header{"X-Forwarded-For": c.header}}
		if got := Addr(r, trusted); got.String() != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// taker answers what it is told and remembers the keys.
type taker struct {
	keys []string
	d    throttle.Decision
	err  error
}

func (f *taker) Take(_ context.Context, key string, l throttle.Limit) (throttle.Decision, error) {
	f.keys = append(f.keys, key)
	f.d.Limit = l.N
	return f.d, f.err
}

func TestLimiter(t *testing.T) {
	t.Parallel()
	f := &taker{d: throttle.Decision{RetryAfter: time.Second}}
	away := errors.New("away")
	var ready error
	var logged strings.Builder
	l := New(f, func() error { return ready }, 60, slog.New(slog.NewTextHandler(&logged, nil)))
	if d := l.Client(t.Context(), "local"); d.Allowed || d.Limit != 60 || d.RetryAfter != time.Second {
		t.Errorf("%+v", d)
	}
	for _, a := range []string{"192.0.2.1", "2001:db8:1:2:3::4", "2001:db8:1:2::5", "fe80::1%eth0"} {
		l.Address(t.Context(), netip.MustParseAddr(a))
	}
	l.Address(t.Context(), netip.Addr{})
	if got, want := strings.Join(f.keys, " "), "client:local address:192.0.2.1 address:2001:db8:1:2::/64 address:2001:db8:1:2::/64 address:fe80::/64 address:invalid IP"; got != want {
		t.Errorf("keys %s, want %s", got, want)
	}
	// Without an answer requests go on, and the log says so once.
	f.err = away
	for range 2 {
		if d := l.Client(t.Context(), "local"); !d.Allowed || d.Limit != 0 {
			t.Errorf("%+v", d)
		}
	}
	f.err = nil
	l.Client(t.Context(), "local")
	asked := len(f.keys)
	ready = away
	if d := l.Client(t.Context(), "local"); !d.Allowed || len(f.keys) != asked {
		t.Errorf("%+v, asked %d times", d, len(f.keys)-asked)
	}
	if got := strings.Count(logged.String(), "not counted"); got != 2 || strings.Count(logged.String(), "counted again") != 1 {
		t.Errorf("logged %s", logged.String())
	}
	if d := New(f, func() error { return nil }, 0, slog.Default()).Client(t.Context(), "local"); !d.Allowed {
		t.Errorf("without a limit: %+v", d)
	}
}
