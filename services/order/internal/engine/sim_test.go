package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/pkg/journal"
	"github.com/renthook/renthook/pkg/seal"
	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/order/internal/engine"
	"github.com/renthook/renthook/services/order/internal/ledger"
	"github.com/renthook/renthook/services/order/internal/pace"
	"github.com/renthook/renthook/services/order/internal/prove"
	"github.com/renthook/renthook/services/order/internal/rental"
	"github.com/renthook/renthook/services/order/internal/world"
)

// TestSim lets the real engine live through storms: a market that lies, a journal that fails before and after storing,
// crashes, duplicates, humans on the same account. Afterwards the market's own ledger is held against the journal.
// RENTHOOK_SEEDS says how many seeds, RENTHOOK_SEED which one alone.
// row:8 row:19 row:30 row:31 row:32 row:33 row:35 row:36 row:37 row:38 row:45 row:47 row:48 row:50 row:54
func TestSim(t *testing.T) {
	t.Parallel()
	seeds := 30
	if n, err := strconv.Atoi(os.Getenv("RENTHOOK_SEEDS")); err == nil {
		seeds = n
	}
	first := uint64(1)
	if n, err := strconv.ParseUint(os.Getenv("RENTHOOK_SEED"), 10, 64); err == nil {
		first, seeds = n, 1
	}
	var mu sync.Mutex
	var total tally
	workers := uint64(min(runtime.GOMAXPROCS(0), seeds))
	t.Run("workers", func(t *testing.T) {
		for n := range workers {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				t.Parallel()
				for seed := first + n; seed < first+uint64(seeds); seed += workers {
					synctest.Test(t, func(t *testing.T) {
						one := simulate(t, seed)
						mu.Lock()
						defer mu.Unlock()
						total.add(one)
					})
					if t.Failed() {
						t.Fatalf("seed %d: run it alone with RENTHOOK_SEED=%d", seed, seed)
					}
				}
			})
		}
	})
	t.Logf("%d seeds: %+v", seeds, total)
	if t.Failed() {
		return
	}
	if seeds > 10 && total.Running == 0 || total.Crashes == 0 || total.Creates < seeds || total.Cancels == 0 {
		t.Errorf("the storm was none: %+v", total)
	}
}

// tally is what the seeds went through together.
type tally struct{ Orders, Running, Creates, Cancels, Crashes, Humans int }

func (t *tally) add(o tally) {
	t.Orders += o.Orders
	t.Running += o.Running
	t.Creates += o.Creates
	t.Cancels += o.Cancels
	t.Crashes += o.Crashes
	t.Humans += o.Humans
}

// store is the journal of an account in memory: it outlives crashes, and fences.
type store struct {
	mu      sync.Mutex
	records []journal.Record
	epoch   uint64
}

// pen is one writer of the store; it dies by chance, before or after an append is stored.
type pen struct {
	store *store
	epoch uint64
	dead  bool
	// fail says what becomes of an append: 0 stored, 1 not stored, 2 stored and reported failed, 3 no room.
	fail func() int
}

var errPen = errors.New("the journal went away")

func (s *store) put(entries []journal.Entry) (first, last uint64) {
	first = uint64(len(s.records)) + 1
	for _, e := range entries {
		s.records = append(s.records, journal.Record{Seq: uint64(len(s.records)) + 1, Subject: e.Subject, Header: e.Header, Data: e.Data, Time: time.Now()})
	}
	return first, uint64(len(s.records))
}

func (p *pen) Append(_ context.Context, entries ...journal.Entry) (first, last uint64, err error) {
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	if p.dead || p.epoch != p.store.epoch {
		return 0, 0, journal.ErrDead
	}
	switch p.fail() {
	case 1:
		p.dead = true
		return 0, 0, errPen
	case 2:
		p.store.put(entries)
		p.dead = true
		return 0, 0, errPen
	case 3:
		return 0, 0, journal.ErrFull
	}
	first, last = p.store.put(entries)
	return first, last, nil
}

func (p *pen) Last() uint64 {
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	return uint64(len(p.store.records))
}

func (p *pen) Epoch() uint64 { return p.epoch }

// dice are thrown by the storm and by what it meets, at once.
type dice struct {
	// drawn come before chance's numbers.
	drawn []uint64
	mu    sync.Mutex
	rng   *rand.Rand
}

func (d *dice) IntN(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.IntN(n)
}

func (d *dice) Uint64() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.drawn) > 0 {
		n := d.drawn[0]
		d.drawn = d.drawn[1:]
		return n
	}
	return d.rng.Uint64()
}

// rig is one simulated installation.
type rig struct {
	t      *testing.T
	rng    *dice
	config engine.Config
	market *liar
	// account and books stand before the market where a test wants to; nil is the market itself.
	account market.Account
	books   engine.Books
	store   *store
	box     *seal.Box

	mu       sync.Mutex
	commands []engine.Command
	holder   *engine.Holder
	world    *world.World
	pen      *pen
	stop     context.CancelFunc
	stormy   bool
	full     time.Time
	crashes  int
	running  sync.WaitGroup
	// spoil is what becomes of an append in place of chance.
	spoil func() int
	// tight says that the journal is nearly full.
	tight atomic.Bool
}

func simConfig() engine.Config {
	return engine.Config{
		Account: "main", Clients: map[string]engine.Client{"local": {CancelAny: false, Create: true, Cancel: true, Control: true}},
		Image: "nvidia/cuda:12", Ports: map[int]string{22: "tcp"}, Currency: "auto", MaxDuration: 2 * time.Hour, Ceiling: dec("5"),
		OrdersPerHour: 100, CreatesPerHour: 1000, LiveRentals: 100, MaxCandidates: 5, MinReliability: 0.8, SpotHeadroom: dec("1.02"), FailedBootUSD: dec("5"),
		Fees: ledger.Fees{OnDemand: dec("0.05"), Spot: dec("0.0125"), Creation: dec("0.1")}, RequiredPrice: true, Markers: 2, ProbeSSH: true,
		CallTimeout: simTimeout, BootDeadline: 4 * time.Minute, PlaceDeadline: 30 * time.Minute, SweepInterval: 45 * time.Second, LeaseTTL: 30 * time.Second,
		Prove: prove.Config{Window: 180 * time.Second, WindowBlind: 600 * time.Second, InstallationPort: engine.InstallationPort(7)},
		Pace:  pace.Config{CallGap: simCallGap, CreateGap: simCreateGap},
	}
}

func simulate(t *testing.T, seed uint64) tally {
	rng := &dice{rng: rand.New(rand.NewPCG(seed, 0x72656e74))}
	box, err := seal.New(secret.New(strings.Repeat("k", 40)))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, rng: rng, config: simConfig(), market: newLiar(rand.New(rand.NewPCG(seed, 1))), store: &store{}, box: box, stormy: true}
	r.limit()
	r.boot()
	storm := time.Now().Add(time.Duration(8+rng.IntN(12)) * time.Minute)
	for time.Now().Before(storm) {
		time.Sleep(time.Duration(1+rng.IntN(20)) * time.Second)
		switch rng.IntN(10) {
		case 0, 1, 2:
			r.ask()
		case 3:
			r.cancelSome()
		case 4, 5:
			r.market.disturb(r.config.Image)
		case 6:
			r.crash()
			time.Sleep(time.Duration(rng.IntN(20)) * time.Second)
			r.boot()
		case 7:
			r.again()
		case 8:
			r.extendSome()
		case 9:
			r.brake()
		}
	}
	// Calm: everything must come to rest.
	r.mu.Lock()
	r.stormy = false
	r.mu.Unlock()
	r.market.mu.Lock()
	r.market.lying = false
	r.market.mu.Unlock()
	if rng.IntN(2) == 0 {
		r.crash()
		r.boot()
	}
	if rng.IntN(4) > 0 {
		r.publishAs("control", "resume", "calm", `{}`)
		r.publishAs("control", "resume", "calm-local", `{"client":"local"}`)
	}
	time.Sleep(40 * time.Minute)
	out := r.check()
	r.crash()
	r.running.Wait()
	return out
}

// limit gives some installations limits that bind.
func (r *rig) limit() {
	c := &r.config
	switch r.rng.IntN(4) {
	case 0:
		c.Limits.BurnPerHour = dec("1.1")
	case 1:
		c.Limits.SpendPerDay, c.Limits.SpendPerMonth = dec("4"), dec("3.5")
	case 2:
		c.OrdersPerHour, c.LiveRentals = 5, 3
	}
	if r.rng.IntN(2) == 0 {
		cl := c.Clients["local"]
		cl.Limits.BurnPerHour, cl.LiveRentals = dec("0.8"), 4
		c.Clients["local"] = cl
	}
}

// withinLimits replays the journal and reckons, with plain numbers, what was held at every revision that asked for a
// server and how many orders were taken in every hour.
func (r *rig) withinLimits() {
	c, local := r.config, r.config.Clients["local"]
	number := func(d decimal.Decimal) float64 { f, _ := d.Float64(); return f }
	w := world.New("main")
	asked := 0
	var accepted []time.Time
	for _, rec := range r.store.records {
		if err := w.Apply(rec); err != nil {
			r.t.Fatal(err)
		}
		parts, err := topology.ParseOrderEvent(rec.Subject)
		if err != nil {
			r.t.Fatal(err)
		}
		if o := w.Order(parts.ID); parts.Event == "accepted" && o != nil {
			accepted = append(accepted, o.Created)
			live := 0
			for _, other := range w.Live() {
				if other.Client == "local" {
					live++
				}
			}
			if most := min(c.LiveRentals, max(local.LiveRentals, 1)); local.LiveRentals > 0 && live > most || live > c.LiveRentals {
				r.t.Errorf("record %d: %d orders live", rec.Seq, live)
			}
		}
		open := 0
		for _, o := range w.Orders() {
			open += len(o.Intents)
		}
		if open == asked {
			continue
		}
		asked = open
		burn, spend := 0.0, 0.0
		for _, o := range w.Orders() {
			for _, i := range o.Intents {
				rate := 1.05
				if i.Type == "spot" {
					rate = 1.0125
				}
				hourly := number(i.PerDay) / 24 * number(i.USDRate) * rate
				switch i.Outcome {
				case rental.Open, rental.Placed:
					burn += hourly
					spend += 0.1 + hourly*o.EndsAt.Sub(i.At).Hours()
				case rental.Over:
					spend += 0.1 + hourly*max(i.EndedAt.Sub(i.At).Hours(), 0)
				}
			}
		}
		const rounding = 1e-3 // seconds are counted up
		for _, l := range []struct{ is, most float64 }{
			{burn, number(c.Limits.BurnPerHour)}, {burn, number(local.Limits.BurnPerHour)}, {spend, number(c.Limits.SpendPerDay)}, {spend, number(c.Limits.SpendPerMonth)},
		} {
			if l.most > 0 && l.is > l.most+rounding {
				r.t.Errorf("record %d: %.4f of %.4f USD", rec.Seq, l.is, l.most)
			}
		}
	}
	for n := c.OrdersPerHour; n < len(accepted); n++ {
		if since := accepted[n].Sub(accepted[n-c.OrdersPerHour]); since < time.Hour {
			r.t.Errorf("%d orders were accepted within %s", c.OrdersPerHour+1, since)
		}
	}
}

// boot is a new process: it replays the journal, claims it, and goes on. A process before it that still runs is fenced
// by that, and its supervisor ends it.
func (r *rig) boot() {
	r.mu.Lock()
	if r.stop != nil {
		r.stop()
	}
	r.mu.Unlock()
	r.market.mu.Lock()
	r.market.graceUntil = time.Now().Add(simTimeout + simCallGap)
	r.market.mu.Unlock()
	w := world.New("main")
	r.store.mu.Lock()
	for _, rec := range r.store.records {
		if err := w.Apply(rec); err != nil {
			r.t.Fatal(err)
		}
	}
	_, released := w.Holder()
	last := uint64(len(r.store.records))
	entry, err := engine.Holding("main", fmt.Sprintf("holder-%d", last+1), last+1, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	r.store.put([]journal.Entry{entry})
	r.store.epoch = last + 1
	rec := r.store.records[last]
	r.store.mu.Unlock()
	if err := w.Apply(rec); err != nil {
		r.t.Fatal(err)
	}
	p := &pen{store: r.store, epoch: last + 1, fail: r.fate}
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("RENTHOOK_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	var account market.Account = r.market
	if r.account != nil {
		account = r.account
	}
	var books engine.Books = r.market
	if r.books != nil {
		books = r.books
	}
	h := engine.NewHolder(r.config, engine.Deps{
		Log: log, World: w, Books: books, Account: account, Box: r.box,
		Remaining: func() time.Duration { return 25 * time.Second }, Dial: answer, Random: r.rng.Uint64, Room: func() bool { return !r.tight.Load() },
	}, p, !released)
	ctx, stop := context.WithCancel(context.Background())
	r.mu.Lock()
	if r.stop != nil {
		r.stop() // another boot came in between
	}
	r.holder, r.world, r.pen, r.stop = h, w, p, stop
	r.mu.Unlock()
	r.running.Go(func() {
		err := h.Run(ctx)
		if ctx.Err() == nil {
			// The journal failed under it: another process takes over after a while.
			_ = err
			time.Sleep(5 * time.Second)
			r.mu.Lock()
			current := r.holder == h
			r.mu.Unlock()
			if current {
				r.crash()
				r.boot()
			}
		}
	})
	r.running.Go(func() { r.deliver(ctx, h, w) })
}

// fate is what becomes of an append.
func (r *rig) fate() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.spoil != nil:
		return r.spoil()
	case !r.stormy:
		return 0
	case time.Now().Before(r.full):
		return 3
	case r.rng.IntN(1000) < 3:
		r.full = time.Now().Add(time.Duration(r.rng.IntN(180)) * time.Second)
		return 3
	case r.rng.IntN(100) >= 3:
		return 0
	}
	return 1 + r.rng.IntN(2)
}

// crash ends the process where it stands: nothing more is written, what is out stays out.
func (r *rig) crash() {
	r.mu.Lock()
	p, stop := r.pen, r.stop
	r.crashes++
	r.mu.Unlock()
	p.store.mu.Lock()
	p.dead = true
	p.store.mu.Unlock()
	stop()
}

// deliver hands every command without a record to the holder, in order, until it has one.
func (r *rig) deliver(ctx context.Context, h *engine.Holder, w *world.World) {
	for n := 0; ctx.Err() == nil; {
		r.mu.Lock()
		var c engine.Command
		if n < len(r.commands) {
			c = r.commands[n]
		}
		r.mu.Unlock()
		if c.Seq == 0 {
			sleep(ctx, 200*time.Millisecond)
			continue
		}
		if err := h.Command(ctx, c); err != nil && !w.Handled(c.Seq) {
			sleep(ctx, time.Second)
			continue
		}
		n++
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (r *rig) publish(verb, key, body string) { r.publishAs("order", verb, key, body) }

func (r *rig) publishAs(noun, verb, key, body string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	subject := topology.Command{Client: "local", Noun: noun, Verb: verb, Key: key}.Subject()
	for _, c := range r.commands {
		if c.Subject == subject {
			return // the broker refuses a second
		}
	}
	r.commands = append(r.commands, engine.Command{Subject: subject, Body: []byte(body), Seq: uint64(len(r.commands)) + 1, Time: time.Now()})
}

func (r *rig) ask() {
	kind := []string{"any", "on-demand", "spot"}[r.rng.IntN(3)]
	price := []string{"0.35", "0.45", "0.6"}[r.rng.IntN(3)]
	r.publish("create", fmt.Sprintf("k%d", r.rng.IntN(1000)), fmt.Sprintf(`{"gpu":"RTX 4090","market_type":%q,"max_price":%q}`, kind, price))
}

// cancelSome ends some order, perhaps one whose create has not come yet, perhaps one that is not there.
func (r *rig) cancelSome() {
	r.publish("cancel", fmt.Sprintf("c%d", r.rng.IntN(1000)), fmt.Sprintf(`{"order_id":"op_order-create_k%d"}`, r.rng.IntN(1000)))
	r.mu.Lock()
	w := r.world
	r.mu.Unlock()
	if live := w.Live(); len(live) > 0 {
		r.publish("cancel", fmt.Sprintf("d%d", r.rng.IntN(1000)), fmt.Sprintf(`{"order_id":%q}`, live[r.rng.IntN(len(live))].ID))
	}
}

// extendSome moves the end of some order, perhaps too far.
func (r *rig) extendSome() {
	r.mu.Lock()
	w := r.world
	r.mu.Unlock()
	if live := w.Live(); len(live) > 0 {
		by := []string{"10m", "1h", "30h"}[r.rng.IntN(3)]
		r.publish("extend", fmt.Sprintf("e%d", r.rng.IntN(1000)), fmt.Sprintf(`{"order_id":%q,"by":%q}`, live[r.rng.IntN(len(live))].ID, by))
	}
}

// brake halts or resumes.
func (r *rig) brake() {
	whose := []string{`{}`, `{"client":"local"}`, `{"close":true}`, `{"client":"local","close":true,"reason":"r"}`}[r.rng.IntN(4)]
	if r.rng.IntN(2) == 0 {
		r.publishAs("control", "halt", fmt.Sprintf("h%d", r.rng.IntN(1000)), whose)
		return
	}
	r.publishAs("control", "resume", fmt.Sprintf("r%d", r.rng.IntN(1000)), `{}`)
	r.publishAs("control", "resume", fmt.Sprintf("l%d", r.rng.IntN(1000)), `{"client":"local"}`)
}

// braked replays the journal: no server is asked for under a halt, and what is said to be closed is.
func (r *rig) braked() {
	w := world.New("main")
	asked := 0
	for _, rec := range r.store.records {
		if err := w.Apply(rec); err != nil {
			r.t.Fatal(err)
		}
		intents := 0
		for _, o := range w.Orders() {
			intents += len(o.Intents)
		}
		if intents > asked && w.Halted("local") != nil {
			r.t.Errorf("record %d asks for a server under a halt", rec.Seq)
		}
		asked = intents
		if !strings.HasSuffix(rec.Subject, ".closed") {
			continue
		}
		var closed struct {
			Internal struct{ Errand struct{ Accepted time.Time } }
		}
		if err := json.Unmarshal(rec.Data, &closed); err != nil || closed.Internal.Errand.Accepted.IsZero() {
			r.t.Fatalf("record %d: %v", rec.Seq, err)
		}
		for _, l := range r.market.lots {
			if o := w.Order(owner(w, l)); o != nil && o.Created.After(closed.Internal.Errand.Accepted) {
				continue // asked for after a resume
			}
			if !l.human && !l.Created.After(rec.Time) && (l.live() || l.gone.After(rec.Time)) {
				r.t.Errorf("record %d says that all is closed, and rental %d bills", rec.Seq, l.ID)
			}
		}
	}
}

// again delivers a command that has its record a second time.
func (r *rig) again() {
	r.mu.Lock()
	h := r.holder
	if len(r.commands) == 0 {
		r.mu.Unlock()
		return
	}
	c := r.commands[r.rng.IntN(len(r.commands))]
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_ = h.Command(ctx, c)
}

// answer is a host whose ssh port speaks.
func answer(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	go func() { _, _ = there.Write([]byte("SSH-2.0-x\r\n")); _ = there.Close() }()
	return here, nil
}

// check holds the market's ledger against the journal.
func (r *rig) check() (out tally) {
	t := r.t
	r.mu.Lock()
	w, commands := r.world, r.commands
	out.Crashes = r.crashes
	r.mu.Unlock()
	r.market.mu.Lock()
	defer r.market.mu.Unlock()

	for _, v := range r.market.violations {
		t.Errorf("rate rules: %s", v)
	}
	for _, c := range commands {
		name, _ := topology.ParseCommand(c.Subject)
		op, ok := w.Operation("local", name.Operation())
		if !ok || !op.Done {
			o := w.Order(op.OrderID)
			t.Errorf("command %s is not settled: known %v, order %s", c.Subject, ok, show(o))
		}
	}
	r.withinLimits()
	r.braked()
	held := map[int64]string{}
	for _, o := range w.Orders() {
		out.Orders++
		if !o.State.Terminal() && o.State != rental.Running {
			t.Errorf("not at rest: %s", show(o))
		}
		if o.State == rental.Running {
			out.Running++
			held[o.HeldIntent().RentalID] = o.ID
		}
	}
	spans := map[string][][2]time.Time{}
	for _, l := range r.market.lots {
		if l.human {
			out.Humans++
			if r.market.cancelled[l.ID] > 0 {
				t.Errorf("a human's rental %d was cancelled", l.ID)
			}
			continue
		}
		id := owner(w, l)
		switch {
		case id == "":
			t.Errorf("rental %d on server %d is nobody's", l.ID, l.ServerID)
		case l.live() && held[l.ID] == "":
			t.Errorf("rental %d of %s bills and no order runs on it: %s", l.ID, id, show(w.Order(id)))
		case !l.live() && held[l.ID] != "":
			t.Errorf("order %s runs on rental %d, which is gone", held[l.ID], l.ID)
		}
		end := l.gone
		if l.live() {
			end = time.Now()
		}
		spans[id] = append(spans[id], [2]time.Time{l.Created, end})
		if o := w.Order(id); o != nil {
			if usd, err := l.PerDay.Quo(dec("24")); err != nil || usd.Cmp(o.Ask.Ceiling) > 0 {
				t.Errorf("rental %d at %s per day, ceiling %s per hour", l.ID, l.PerDay, o.Ask.Ceiling)
			}
		}
	}
	for id, s := range spans {
		if d := overlap(s); d > 120*time.Second {
			t.Errorf("order %s: two rentals for %s", id, d)
		}
	}
	out.Creates = r.market.creates
	for _, n := range r.market.cancelled {
		out.Cancels += n
	}
	return out
}

// owner is the order whose marker a rental carries.
func owner(w *world.World, l *lot) string {
	for _, o := range w.Orders() {
		for _, i := range o.Intents {
			if len(i.Markers) == 2 && l.ServerID == i.Server.ID {
				if _, ok := l.TCPPorts[i.Markers[1]]; ok {
					return o.ID
				}
			}
		}
	}
	return ""
}

// overlap is how long more than one span lasted at once.
func overlap(spans [][2]time.Time) (sum time.Duration) {
	slices.SortFunc(spans, func(a, b [2]time.Time) int { return a[0].Compare(b[0]) })
	var end time.Time
	for _, s := range spans {
		if s[0].Before(end) {
			until := s[1]
			if end.Before(until) {
				until = end
			}
			sum += until.Sub(s[0])
		}
		if s[1].After(end) {
			end = s[1]
		}
	}
	return sum
}

func show(o *rental.Order) string {
	if o == nil {
		return "none"
	}
	b, _ := o.Marshal()
	return string(b)
}
