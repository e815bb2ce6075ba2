//go:build chaos

package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// chaosGap is the time between two asks, chaosLeast how long they come at least.
	chaosGap   = 50 * time.Millisecond
	chaosLeast = time.Minute
	// downFor is how long what was killed stays down, killGap the time between two kills, if it is ready again by then.
	downFor = time.Second
	killGap = 6 * time.Second
	// chaosRounds is how often each process is killed.
	chaosRounds = 2
	// answerWithin is when a sender gives up on an answer: longer than ingress takes for any.
	answerWithin = 15 * time.Second
	// slowCreates keep creates in the air for most of the time between a plan and its outcome.
	slowCreates = `{"create_order":[{"delay_ms":1500,"repeat":1000}]}`
)

// attempt is one request of a sender, and what came of it.
type attempt struct {
	sent, ended time.Time
	answer
	err error
}

// chaosAsk is something a sender wants; with a key it asks until it is told 200.
type chaosAsk struct {
	n           int
	route, body string
	key         string
	// rents says that what is asked for is listed.
	rents bool
	// cancels is the create that is to be cancelled, nil for another number.
	cancels  *chaosAsk
	attempts []attempt
}

// task is what it was told, empty when it never was.
func (q *chaosAsk) task() string {
	if last := q.attempts[len(q.attempts)-1]; last.code == http.StatusOK {
		return last.TaskID
	}
	return ""
}

func (q *chaosAsk) headers() []string {
	if q.key == "" {
		return nil
	}
	return []string{"Idempotency-Key", q.key}
}

// outage is from the kill of a process until it was ready again.
type outage struct {
	name     string
	from, to time.Time
}

func (o outage) meets(a attempt) bool { return a.sent.Before(o.to) && a.ended.After(o.from) }

// senders send asks at a fixed rate, each without waiting for the others.
type senders struct {
	a       *apart
	cb      *receiver
	running sync.WaitGroup
	asks    []*chaosAsk

	mu sync.Mutex
	// rents and others are creates that were answered 200.
	rents, others []*chaosAsk
}

// next makes the nth ask. In 40 there are 8 cancels, 8 status requests, one create that can be had, and 23 that cannot,
// half of all with a key. Every body differs, so that no two asks count as one.
func (s *senders) next(n int) *chaosAsk {
	q := &chaosAsk{n: n}
	if (n+n/40)%2 == 0 {
		q.key = fmt.Sprint("chaos-", n)
	}
	members := map[string]any{"callback_url": fmt.Sprintf("%s/%d", s.cb.URL, n), "n": n}
	switch {
	case n%5 == 1:
		q.route, members["order_id"] = "cancel-order", 900_000_000+n
		if q.cancels = s.target(n / 5); q.cancels != nil {
			members["order_id"] = q.cancels.task()
		}
	case n%5 == 2:
		q.route = "status"
	default:
		q.rents = n%40 == 0
		q.route, members["gpu_type"], members["max_price"] = "create-order", "RTX 9999", 2
		if q.rents {
			members["gpu_type"] = "RTX 4090"
		}
		// The market's ledger keeps the request, so that a rental can be told to be this ask's without asking renthook.
		members["env"] = map[string]string{"CHAOS": strconv.Itoa(n)}
	}
	body, err := json.Marshal(members)
	if err != nil {
		panic(err) // numbers, texts and a map of them
	}
	q.body = string(body)
	return q
}

// target is whose create the nth cancel is about: one in 12 that rents, one in 4 of nobody.
func (s *senders) target(n int) *chaosAsk {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.others
	switch {
	case n%24 == 1 || n%24 == 13:
		of = s.rents
	case n%4 == 0:
		return nil
	}
	if len(of) == 0 {
		return nil
	}
	return of[rand.IntN(len(of))]
}

// send sends one ask; one with a key again until it is told 200, as a sender should.
func (s *senders) send(ctx context.Context, q *chaosAsk) {
	for {
		one, cancel := context.WithTimeout(ctx, answerWithin)
		at := attempt{sent: time.Now()}
		at.answer, at.err = s.a.tryHook(one, q.route, q.body, q.headers()...)
		at.ended = time.Now()
		cancel()
		q.attempts = append(q.attempts, at)
		if at.err == nil && at.code == http.StatusOK {
			s.mu.Lock()
			defer s.mu.Unlock()
			switch {
			case q.route != "create-order":
			case q.rents:
				s.rents = append(s.rents, q)
			default:
				s.others = append(s.others, q)
			}
			return
		}
		if q.key == "" {
			return
		}
		pause := 500 * time.Millisecond
		if at.err == nil {
			pause = retryAfter(at.answer)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// retryAfter is what the answer asks to wait, at least a moment.
func retryAfter(a answer) time.Duration {
	n, _ := strconv.Atoi(a.header.Get("Retry-After"))
	return max(time.Duration(n)*time.Second, 100*time.Millisecond)
}

// run sends until stop is closed, and chaosLeast at least, and returns when the last ask is answered.
func (s *senders) run(ctx context.Context, stop <-chan struct{}) {
	tick := time.NewTicker(chaosGap)
	defer tick.Stop()
	least := time.After(chaosLeast)
	for n := 0; stop != nil || least != nil; n++ {
		q := s.next(n)
		s.asks = append(s.asks, q)
		s.running.Go(func() { s.send(ctx, q) })
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		select {
		case <-stop:
			stop = nil
		case <-least:
			least = nil
		default:
		}
	}
	s.running.Wait()
}

// killInTurn kills every process with -9, starts it again a moment later, and waits until it is ready.
func killInTurn(t *testing.T, a *apart) (outages []outage) {
	t.Helper()
	for range chaosRounds {
		for _, name := range []string{"order", "pricewatch", "notifier", "ingress", "nats-server"} {
			u := a.units[name]
			if name == "order" {
				seen := waiting(a.sim.log.String())
				eventually(t, "a create to be in the air", func() bool { return waiting(a.sim.log.String()) > seen })
			}
			select {
			case <-u.done:
				t.Errorf("%s had ended by itself", name)
			default:
			}
			o, up, next := outage{name: name, from: time.Now()}, time.After(downFor), time.After(killGap)
			u.kill()
			<-up
			u.start(t)
			for _, service := range []string{"ingress", "order", "pricewatch", "notifier"} {
				if name == service || name == "nats-server" {
					eventually(t, service+" to be ready", a.units[service].healthy)
				}
			}
			o.to = time.Now()
			outages = append(outages, o)
			select {
			case <-next:
			case <-t.Context().Done():
				return outages
			}
		}
	}
	return outages
}

// Every process is killed in turn while asks come, and in the end the market's own ledger holds what was answered: no
// answer lost, nothing rented twice, everything told.
// row:8 row:22 row:37
func TestChaos_KillEverythingInTurn(t *testing.T) {
	var sets []string
	for _, arg := range killTimes {
		if arg != "--set" {
			sets = append(sets, arg)
		}
	}
	sets = append(sets, "limits.orders_per_hour=100000")
	// Rentals are ready soon: what is to be seen here is creates, and the market takes one in five seconds at best.
	a := startApart(t, simulate(t, "--boot", "0s", "--visible", "300ms"), sets...)
	control(t, a.Market, "/sim/v1/script", slowCreates)
	s := &senders{a: a, cb: listen(t)}
	stop, done := make(chan struct{}), make(chan struct{})
	began := time.Now()
	go func() { defer close(done); s.run(t.Context(), stop) }()
	outages := killInTurn(t, a)
	close(stop)
	<-done
	load := time.Since(began)

	s.judgeAttempts(t, outages)
	ops := s.settle(t)
	rest := time.Since(began) - load
	s.judgeCallbacks(t, ops)
	l := market(t, a.Market)
	s.judgeLedger(t, l, ops)
	s.replay(t)
	for name, u := range a.units {
		select {
		case <-u.done:
			t.Errorf("%s has ended by itself", name)
		default:
		}
	}
	s.report(t, load, rest, outages, l, ops)
}

// judgeAttempts holds every answer: 200 with a task, or 503 with Retry-After while ingress or the broker was away, or
// none while ingress was.
func (s *senders) judgeAttempts(t *testing.T, outages []outage) {
	t.Helper()
	away := func(a attempt, names ...string) bool {
		return slices.ContainsFunc(outages, func(o outage) bool { return slices.Contains(names, o.name) && o.meets(a) })
	}
	for _, q := range s.asks {
		for _, at := range q.attempts {
			switch {
			case at.err != nil && away(at, "ingress") && !errors.Is(at.err, context.DeadlineExceeded):
			case at.err == nil && at.code == http.StatusOK && at.TaskID != "":
			case at.err == nil && at.code == http.StatusServiceUnavailable && at.header.Get("Retry-After") != "" && away(at, "ingress", "nats-server"):
			default:
				t.Errorf("ask %d (%s), sent %s, ended after %s: %v %+v", q.n, q.route, at.sent.Format(time.StampMilli), at.ended.Sub(at.sent), at.err, at.answer)
			}
		}
		if q.key != "" && q.task() == "" {
			t.Errorf("ask %d (%s) with a key was never taken: %+v", q.n, q.route, q.attempts)
		}
	}
}

// settle waits until every task is settled and every order is at rest, those too whose sender never heard of them.
func (s *senders) settle(t *testing.T) map[*chaosAsk]operation {
	t.Helper()
	ops := map[*chaosAsk]operation{}
	for _, q := range s.asks {
		if q.task() != "" {
			s.a.settled(t, q.task())
		}
	}
	eventually(t, "all orders to be at rest", func() bool {
		var live struct {
			Orders []struct {
				State string `json:"state"`
			} `json:"orders"`
			Next string `json:"next_page_token"`
		}
		if s.a.read(t, "/v1/orders?filter=live&page_size=500", &live) != http.StatusOK || live.Next != "" {
			return false
		}
		for _, o := range live.Orders {
			if o.State != "RUNNING" {
				return false
			}
		}
		return true
	})
	// What an order is now, not what it was when its task settled.
	for _, q := range s.asks {
		if q.task() != "" {
			ops[q] = s.a.settled(t, q.task())
		}
	}
	return ops
}

// judgeCallbacks holds what was told: every task that was answered 200, at least once, always as the same delivery,
// and as it is.
func (s *senders) judgeCallbacks(t *testing.T, ops map[*chaosAsk]operation) {
	t.Helper()
	byPath := func() map[string][]received {
		got := map[string][]received{}
		for _, r := range s.cb.all() {
			got[r.path] = append(got[r.path], r)
		}
		return got
	}
	eventually(t, "every callback", func() bool {
		got := byPath()
		for q := range ops {
			if len(got["/"+strconv.Itoa(q.n)]) == 0 {
				return false
			}
		}
		return true
	})
	got := byPath()
	for path, all := range got {
		for _, r := range all {
			if r.header.Get("webhook-id") != all[0].header.Get("webhook-id") {
				t.Errorf("%s was told two things: %s and %s", path, all[0].body, r.body)
			}
		}
	}
	for q, op := range ops {
		var said struct {
			Data struct {
				Operation struct {
					ID        string `json:"id"`
					Succeeded bool   `json:"succeeded"`
				} `json:"operation"`
			} `json:"data"`
		}
		body := got["/"+strconv.Itoa(q.n)][0].body
		if err := json.Unmarshal(body, &said); err != nil || said.Data.Operation.ID != q.task() || said.Data.Operation.Succeeded != (op.Stage == "succeeded") {
			t.Errorf("ask %d was told %s (%v); its operation is %+v", q.n, body, err, op)
		}
	}
}

// judgeLedger compares with the market's ledger: a create that succeeded has one rental, or had it until its cancel;
// one that failed says why and has none; and every rental is somebody's.
func (s *senders) judgeLedger(t *testing.T, l ledger, ops map[*chaosAsk]operation) {
	t.Helper()
	if l.Violations != 0 || len(l.Overlaps) != 0 {
		t.Errorf("%d violations of the market's rules, carried out twice: %s", l.Violations, l.Overlaps)
	}
	live, ever := l.byAsk(t)
	for n := range ever {
		if n >= len(s.asks) || !s.asks[n].rents {
			t.Errorf("%d rentals for ask %d, which could have none", ever[n], n)
		}
	}
	for _, q := range s.asks {
		op, answered := ops[q]
		switch {
		case len(live[q.n]) > 1:
			t.Errorf("ask %d has %d rentals: %v", q.n, len(live[q.n]), live[q.n])
		case !answered:
		case op.Stage == "failed" && op.Failure.Code == "":
			t.Errorf("ask %d failed and does not say why: %+v", q.n, op)
		case q.route == "create-order":
			running := op.Order.State == "RUNNING"
			if running != (len(live[q.n]) == 1) || running && op.Order.MarketOrderID.String() != strconv.FormatInt(live[q.n][0], 10) {
				t.Errorf("ask %d: the market has %v for it, its operation is %+v", q.n, live[q.n], op)
			}
			if op.Stage == "succeeded" && ever[q.n] == 0 {
				t.Errorf("ask %d succeeded without a rental: %+v", q.n, op)
			}
		case q.cancels != nil && (op.Stage != "succeeded" || len(live[q.cancels.n]) != 0):
			t.Errorf("ask %d, the cancel of %d: %+v; the market has %v", q.n, q.cancels.n, op, live[q.cancels.n])
		}
	}
}

// byAsk gives the live rentals of each ask, and how many it ever had, by the requests that the market kept: a rental
// has the ports of its request, whose markers no other has, and the request has the ask's number.
func (l ledger) byAsk(t *testing.T) (live map[int][]int64, ever map[int]int) {
	t.Helper()
	asked := map[string]int{}
	for _, c := range l.Calls {
		if c.Endpoint != "create_order" {
			continue
		}
		var r struct {
			Env   map[string]string `json:"env"`
			Ports map[string]string `json:"ports"`
		}
		if err := json.Unmarshal(c.Request, &r); err != nil {
			t.Fatalf("call %d: %v", c.N, err)
		}
		n, err := strconv.Atoi(r.Env["CHAOS"])
		if err != nil {
			t.Fatalf("call %d rents for nobody: %s", c.N, c.Request)
		}
		var ports []int
		for text := range r.Ports {
			p, _ := strconv.Atoi(text)
			ports = append(ports, p)
		}
		if other, taken := asked[portsKey(ports)]; taken && other != n {
			t.Errorf("asks %d and %d have the same marker ports", other, n)
		}
		asked[portsKey(ports)] = n
	}
	live, ever = map[int][]int64{}, map[int]int{}
	for _, r := range l.Rentals {
		n, ok := asked[portsKey(r.Ports)]
		if !ok {
			t.Errorf("rental %d is nobody's", r.ID)
			continue
		}
		ever[n]++
		if r.EndedAt == nil {
			live[n] = append(live[n], r.ID)
		}
	}
	return live, ever
}

func portsKey(ports []int) string { slices.Sort(ports); return fmt.Sprint(ports) }

// replay sends every ask with a key once more: it is told the same task.
func (s *senders) replay(t *testing.T) {
	t.Helper()
	for _, q := range s.asks {
		if q.key == "" {
			continue
		}
		again := s.a.hook(t, q.route, q.body, q.headers()...)
		if again.code != http.StatusOK || again.TaskID != q.task() || again.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("ask %d again: %+v, was %s", q.n, again, q.task())
		}
	}
}

// report prints the figures, for docs/chaos.md.
func (s *senders) report(t *testing.T, load, rest time.Duration, outages []outage, l ledger, ops map[*chaosAsk]operation) {
	t.Helper()
	count := map[string]int{}
	for _, q := range s.asks {
		count["asks: "+q.route]++
		for _, at := range q.attempts {
			switch {
			case at.err != nil:
				count["attempts without an answer, ingress down"]++
			default:
				count[fmt.Sprint("attempts answered ", at.code)]++
			}
		}
		if op, ok := ops[q]; ok {
			count[strings.TrimSpace(fmt.Sprint("tasks of ", q.route, ": ", op.Stage, " ", op.Failure.Code))]++
		} else {
			count["asks without a key that were never answered 200"]++
		}
	}
	told := map[string]bool{}
	for _, r := range s.cb.all() {
		told[r.path] = true
	}
	count["callbacks received"], count["callbacks received once more"] = len(s.cb.all()), len(s.cb.all())-len(told)
	count["rentals made"], count["rentals live at rest"], count["creates sent to the market"] = len(l.Rentals), l.live(), l.calls("create_order")
	var lines []string
	for what, n := range count {
		lines = append(lines, fmt.Sprintf("%6d %s", n, what))
	}
	slices.SortFunc(lines, func(a, b string) int { return cmp.Compare(a[7:], b[7:]) })
	for _, o := range outages {
		// Until somebody who asked after the kill was told 200.
		heard := o.to.Add(patience)
		refused := 0
		for _, q := range s.asks {
			for _, at := range q.attempts {
				if at.code == http.StatusOK && at.sent.After(o.from) && at.ended.Before(heard) {
					heard = at.ended
				}
				if at.code != http.StatusOK && o.meets(at) {
					refused++
				}
			}
		}
		line := fmt.Sprintf("%-11s killed at %5.1f s: ready after %5.2f s, the next 200 after %5.2f s, %d attempts failed",
			o.name, o.from.Sub(outages[0].from).Seconds(), o.to.Sub(o.from).Seconds(), heard.Sub(o.from).Seconds(), refused)
		// Who takes over waits until the last call of the one before is over.
		create := slices.IndexFunc(l.Calls, func(c call) bool { return c.Endpoint == "create_order" && c.At.After(o.from) })
		if o.name == "order" && create >= 0 {
			line += fmt.Sprintf(", the next create after %.1f s", l.Calls[create].At.Sub(o.from).Seconds())
		}
		lines = append(lines, line)
	}
	t.Logf("asks for %.0f s, %d of them; at rest after %.0f s more\n%s", load.Seconds(), len(s.asks), rest.Seconds(), strings.Join(lines, "\n"))
}
