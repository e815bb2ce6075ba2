//go:build chaos

package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// soakAsks is how many orders are asked for, one in five for what is listed; soakFor is how long the storm lasts.
	soakAsks = 200
	soakFor  = 5 * time.Minute
	// resumeWithin is when creates must go on after their holder was killed, with the default lease and time-out.
	resumeWithin = 85 * time.Second
)

// soakTimes are the windows of a confirmation, shortened; the lease and the time-out of a call are the default ones.
var soakTimes = []string{
	"order.confirm_window=20s", "order.confirm_window_blind=40s", "order.call_timeout=15s", "order.lease_ttl=30s",
	"limits.orders_per_hour=100000", "limits.creates_per_hour=100000", "limits.live_rentals=100000", "limits.requests_per_minute=100000",
}

// signal reaches the process itself and nobody else.
func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%s %s: %v", s, p.name, err)
	}
}

// Three order processes contend for one account while each is killed, frozen and thawed, most often when it is about to
// ask for a server. In the end the market's ledger and the journal agree, and nothing is rented twice.
func TestSoak_ThreeProcessesOneAccount(t *testing.T) {
	a := startApart(t, simulate(t, "--boot", "0s", "--visible", "300ms"), soakTimes...)
	control(t, a.Market, "/sim/v1/script", slowCreates)
	first := a.units["order"]
	orders := []*unit{first}
	for n, at := range freeAddresses(t, 4) {
		if n%2 == 1 {
			continue
		}
		more := &unit{program: first.program, env: first.env, args: append(append([]string(nil), first.args...), "--set", "order.grpc_address="+at, "--set", "telemetry.address="+freeAddresses(t, 20)[19-n])}
		more.start(t)
		orders = append(orders, more)
	}
	s := &senders{a: a, cb: listen(t)}
	for n := range soakAsks {
		q := s.soakAsk(n)
		s.asks = append(s.asks, q)
		s.running.Go(func() { s.send(t.Context(), q) })
	}
	var killed []time.Time
	var frozen [][2]time.Time
	end := time.Now().Add(soakFor)
	for time.Now().Before(end) {
		u := orders[rand.IntN(len(orders))]
		if rand.IntN(3) > 0 {
			// The one that holds the account is met in the last moment before its call.
			asking := func() int { return strings.Count(u.log.String(), "asking for a server") }
			before, patient := asking(), time.Now().Add(10*time.Second)
			for asking() == before && time.Now().Before(patient) {
				pauseTest(t, time.Millisecond)
			}
		}
		switch rand.IntN(3) {
		case 0:
			killed = append(killed, time.Now())
			u.kill()
			pauseTest(t, time.Duration(rand.IntN(3000))*time.Millisecond)
			u.start(t)
		case 1:
			from := time.Now()
			u.signal(t, syscall.SIGSTOP)
			pauseTest(t, time.Duration(rand.IntN(45000))*time.Millisecond)
			u.signal(t, syscall.SIGCONT)
			frozen = append(frozen, [2]time.Time{from, time.Now()})
		default:
			// For a moment: what was about to be sent goes out all the same, late.
			u.signal(t, syscall.SIGSTOP)
			pauseTest(t, time.Duration(rand.IntN(3000))*time.Millisecond)
			u.signal(t, syscall.SIGCONT)
		}
		pauseTest(t, time.Duration(rand.IntN(3000))*time.Millisecond)
	}
	s.running.Wait()
	ops := s.settle(t)
	l := market(t, a.Market)
	s.judgeLedger(t, l, ops)
	worst := time.Duration(0)
	for _, at := range killed {
		next := time.Time{}
		for _, c := range l.Calls {
			if c.Endpoint == "create_order" && c.At.After(at) {
				next = c.At
				break
			}
		}
		if next.IsZero() {
			continue // nothing was left to ask for
		}
		// Another kill or freeze meanwhile begins the wait anew.
		since := at
		for _, other := range killed {
			if other.After(since) && other.Before(next) {
				since = other
			}
		}
		for _, f := range frozen {
			if f[1].After(since) && f[0].Before(next) {
				since = f[1]
			}
		}
		worst = max(worst, next.Sub(since))
		if next.Sub(since) > resumeWithin {
			t.Errorf("creates went on %s after the kill at %s", next.Sub(since), at.Format(time.TimeOnly))
		}
	}
	t.Logf("%d kills; the longest wait for a create after one: %s; %d creates, %d rentals, %d live", len(killed), worst.Round(time.Second), l.calls("create_order"), len(l.Rentals), l.live())
}

// pauseTest lets the storm's own time pass.
func pauseTest(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.FailNow()
	}
}

// soakAsk is the nth order: one in five is for what is listed.
func (s *senders) soakAsk(n int) *chaosAsk {
	q := &chaosAsk{n: n, key: fmt.Sprint("soak-", n), route: "create-order", rents: n%5 == 0}
	model := "RTX 9999"
	if q.rents {
		model = "RTX 4090"
	}
	q.body = fmt.Sprintf(`{"gpu_type":%q,"max_price":2,"callback_url":"%s/%d","env":{"CHAOS":"%d"}}`, model, s.cb.URL, n, n)
	return q
}
