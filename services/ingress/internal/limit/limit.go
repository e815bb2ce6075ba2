// Package limit bounds how often an address and a client may ask, over all replicas.
//
// It guarantees one count per address and per client however many processes there are. When the broker is away, and
// so the count with it, requests go on: nothing can be spent then, and a sender must hear "temporarily unavailable",
// not "rate limit". It refuses to believe a forwarding header of anybody but a trusted proxy.
package limit

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/renthook/renthook/pkg/throttle"
)

// timeout bounds one question, so that a slow broker does not hold requests up.
const timeout = time.Second

// Taker is a *throttle.Throttle.
type Taker interface {
	Take(ctx context.Context, key string, l throttle.Limit) (throttle.Decision, error)
}

// Limiter decides.
type Limiter struct {
	taker     Taker
	ready     func() error
	perMinute int
	log       *slog.Logger
	// away remembers that the log has it, until the count is back.
	away atomic.Bool
}

// New makes a Limiter of perMinute requests, 0 for no limit. While ready gives an error nothing is asked.
func New(t Taker, ready func() error, perMinute int, log *slog.Logger) *Limiter {
	return &Limiter{taker: t, ready: ready, perMinute: perMinute, log: log}
}

// Address counts a request of an address. The addresses of one IPv6 network of 64 bits count as one: a single host has them all.
func (l *Limiter) Address(ctx context.Context, a netip.Addr) throttle.Decision {
	if a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return l.take(ctx, "address:"+p.String())
		}
	}
	return l.take(ctx, "address:"+a.String())
}

// Client counts a request of a client.
func (l *Limiter) Client(ctx context.Context, name string) throttle.Decision {
	return l.take(ctx, "client:"+name)
}

// take gives a Decision with a Limit of 0 when there is none, or when it could not be asked for.
func (l *Limiter) take(ctx context.Context, key string) throttle.Decision {
	open := throttle.Decision{Allowed: true}
	if l.perMinute <= 0 {
		return open
	}
	err := l.ready()
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		var d throttle.Decision
		if d, err = l.taker.Take(ctx, key, throttle.Limit{N: l.perMinute, Per: time.Minute}); err == nil {
			if l.away.Swap(false) {
				l.log.InfoContext(ctx, "requests are counted again")
			}
			return d
		}
	}
	if !l.away.Swap(true) {
		l.log.WarnContext(ctx, "requests are not counted: the broker does not answer", "error", err.Error())
	}
	return open
}

// mostHops bounds how far a chain of proxies is followed.
const mostHops = 32

// Addr is the address of whoever sent a request: the peer, or, when the peer is a trusted proxy, the last address of X-Forwarded-For
// that is not one. The zero Addr when it cannot be told.
func Addr(r *http.Request, trusted []netip.Prefix) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	a = a.Unmap()
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && len(hops)-i <= mostHops && contains(trusted, a); i-- {
		next, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		a = next.Unmap()
	}
	return a
}

func contains(trusted []netip.Prefix, a netip.Addr) bool {
	for _, p := range trusted {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
