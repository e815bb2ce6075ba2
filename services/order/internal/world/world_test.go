package world_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
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
	"github.com/renthook/renthook/services/order/internal/world"
)

func dec(s string) decimal.Decimal { return decimal.MustParse(s) }

// log is a journal in memory: what the engine appends, in its own form.
type log struct {
	mu      sync.Mutex
	records []journal.Record
}

func (l *log) Append(_ context.Context, entries ...journal.Entry) (first, last uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first = uint64(len(l.records)) + 1
	for _, e := range entries {
		l.records = append(l.records, journal.Record{Seq: uint64(len(l.records)) + 1, Subject: e.Subject, Header: e.Header, Data: e.Data, Time: time.Now()})
	}
	return first, uint64(len(l.records)), nil
}

func (l *log) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint64(len(l.records))
}

func (l *log) Epoch() uint64 { return 1 }

// honest is a market with two servers that grants everything at once.
type honest struct {
	mu      sync.Mutex
	rentals []market.Rental
}

func (h *honest) Offers() []market.Offer {
	q := market.Quote{Currency: "USD-Blockchain", PerDay: dec("9.6"), USDPerHour: dec("0.4"), USDRate: dec("1"), Priced: true, Allowed: true}
	var all []market.Offer
	for id := range int64(2) {
		all = append(all, market.Offer{ServerID: id + 1, GPU: "rtx-4090", GPUCount: 1, Reliability: 1, OnDemand: []market.Quote{q}})
	}
	return all
}

func (h *honest) Book(gpu string) []market.Offer {
	if gpu != "rtx-4090" {
		return nil
	}
	return h.Offers()
}
func (h *honest) Poll() uint64             { return 1 }
func (h *honest) Fresh(time.Time) bool     { return true }
func (h *honest) Changed() <-chan struct{} { return nil }

func (h *honest) Rentals(context.Context, bool) (market.Rentals, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return market.Rentals{Began: time.Now(), Rentals: append([]market.Rental{}, h.rentals...), Limit: 50, WithEnded: true}, nil
}

func (h *honest) Wallets(context.Context) ([]market.Wallet, error) {
	return []market.Wallet{{Currency: "USD-Blockchain", Balance: dec("100")}}, nil
}

func (h *honest) Create(_ context.Context, r market.CreateRequest) market.Outcome {
	h.mu.Lock()
	defer h.mu.Unlock()
	ports := map[int]int{}
	for port := range r.Ports {
		ports[port] = port + 1
	}
	h.rentals = append(h.rentals, market.Rental{
		ID: int64(len(h.rentals)) + 500, ServerID: r.ServerID, Type: r.Type, Currency: r.Currency, PerDay: dec("9.6"), Image: r.Image,
		Created: time.Now().Truncate(time.Second), Up: true, TCPPorts: ports, Host: "n1", Spend: dec("0.1"),
	})
	return market.Outcome{Verdict: market.Unknown, Reason: "code-0", Sent: true}
}

func (h *honest) Cancel(_ context.Context, id int64, _ string) market.Outcome {
	h.mu.Lock()
	defer h.mu.Unlock()
	for n := range h.rentals {
		if r := &h.rentals[n]; r.ID == id {
			r.Expired, r.Ended, r.TCPPorts = true, time.Now(), nil
		}
	}
	return market.Outcome{Verdict: market.Done, Sent: true}
}

// ssh is a connection on which an ssh server speaks.
func ssh(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() {
		_, _ = theirs.Write([]byte("SSH-2.0-x\r\n"))
		_ = theirs.Close()
	}()
	return ours, nil
}

// command is one command of client local, with the sequence it has in the stream of commands.
func command(seq uint64, verb, key, body string) engine.Command {
	c := topology.Command{Client: "local", Noun: "order", Verb: verb, Key: key}
	return engine.Command{Subject: c.Subject(), ContentType: "application/json", Body: []byte(body), Seq: seq, Time: time.Now()}
}

// lived lets a holder live through one of everything and gives its world and its journal.
func lived(t *testing.T) (*world.World, []journal.Record) {
	t.Helper()
	l, m := &log{}, &honest{}
	w := world.New("main")
	entry, err := engine.Holding("main", "holder-1", 1, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Append(t.Context(), entry); err != nil {
		t.Fatal(err)
	}
	if err := w.Apply(l.records[0]); err != nil {
		t.Fatal(err)
	}
	if holder, released := w.Holder(); holder != "holder-1" || released {
		t.Errorf("held by %q, released %v", holder, released)
	}
	box, err := seal.New(secret.New(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	config := engine.Config{
		Account: "main", Holder: "holder-1", Clients: map[string]engine.Client{"local": {Create: true, Cancel: true}},
		Image: "img", Ports: map[int]string{22: "tcp"}, Currency: "auto", MaxDuration: 24 * time.Hour, Ceiling: dec("5"),
		OrdersPerHour: 10, CreatesPerHour: 30, LiveRentals: 10, MaxCandidates: 5, SpotHeadroom: dec("1.02"), FailedBootUSD: dec("0.5"),
		Fees: ledger.Fees{OnDemand: dec("0.05"), Spot: dec("0.0125"), Creation: dec("0.1")}, Markers: 2, ProbeSSH: true,
		CallTimeout: 15 * time.Second, BootDeadline: 10 * time.Minute, PlaceDeadline: 30 * time.Minute, SweepInterval: 45 * time.Second,
		Prove: prove.Config{Window: 180 * time.Second, WindowBlind: 600 * time.Second, InstallationPort: 31000},
		Pace:  pace.Config{CallGap: 1200 * time.Millisecond, CreateGap: 5500 * time.Millisecond}, LeaseTTL: 10 * time.Second,
	}
	var random uint64
	h := engine.NewHolder(config, engine.Deps{
		Log: slog.New(slog.DiscardHandler), World: w, Books: m, Account: m, Box: box, Dial: ssh,
		Remaining: func() time.Duration { return time.Hour }, Random: func() uint64 { random++; return random },
	}, l, false)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	order := `{"spec":{"gpu":"rtx-4090","maxPrice":{"amount":"0.5","currency":"USD"},"callbackUrl":"https://a.example/hook"}}`
	for _, c := range []engine.Command{
		command(3, "create", "runs", order),
		command(4, "create", "ends", order),
		command(5, "create", "none", strings.Replace(order, "rtx-4090", "rtx-9999", 1)),
		command(6, "cancel", "early", `{"orderId":"op_order-create_late"}`),
		command(7, "create", "late", order),
		command(8, "report", "asked", `{}`),
		command(9, "cancel", "number", `{"orderId":"77"}`),
		command(10, "cancel", "nobody", `{"orderId":"ord_none"}`),
		command(11, "create", "senseless", `{"spec":{"gpu":""}}`),
	} {
		if err := h.Command(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	<-time.After(5 * time.Minute) // on the clock of the bubble
	if err := h.Command(ctx, command(12, "cancel", "ends", `{"orderId":"op_order-create_ends"}`)); err != nil {
		t.Fatal(err)
	}
	<-time.After(5 * time.Minute) // on the clock of the bubble
	if err := h.Command(ctx, command(13, "report", "open", `{}`)); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	return w, l.records
}

// told prints everything that can be asked of a world.
func told(t *testing.T, w *world.World) string {
	t.Helper()
	var b strings.Builder
	say := func(what string, v any) {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s: %s\n", what, text)
	}
	say("orders", w.Orders())
	say("live", w.Live())
	say("errands", w.Errands())
	for _, id := range []string{"create_runs", "create_ends", "create_none", "cancel_early", "create_late", "report_asked", "cancel_number", "cancel_nobody", "create_senseless", "cancel_ends", "report_open"} {
		op, ok := w.Operation("local", "op_order-"+id)
		say(id, op)
		say(id+" known", ok)
	}
	for n := range uint64(20) {
		say(fmt.Sprint("handled ", n), w.Handled(n))
	}
	holder, released := w.Holder()
	say("rest", []any{holder, released, w.Last(), w.Probed(), w.Forestalled("local", "op_order-create_late"), w.Find("local", "500"), w.OwnerOf(501)})
	return b.String()
}

// replay folds records into a new world.
func replay(t *testing.T, records []journal.Record) *world.World {
	t.Helper()
	w := world.New("main")
	for _, r := range records {
		if err := w.Apply(r); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// TestReplay folds the records that a holder wrote: the world they make is the world it lived in.
// row:23 row:24
func TestReplay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, records := lived(t)
		states := map[string]int{}
		for _, o := range w.Orders() {
			states[o.State.String()]++
		}
		if want := map[string]int{"RUNNING": 1, "CANCELLED": 2, "FAILED": 1}; fmt.Sprint(states) != fmt.Sprint(want) {
			t.Fatalf("the orders are %v, want %v", states, want)
		}
		again := replay(t, records)
		if was, is := told(t, w), told(t, again); was != is {
			t.Errorf("lived:\n%s\nreplayed:\n%s", was, is)
		}
		// A record that comes twice, as a follower's does beside the writer's, changes nothing: no order goes back.
		before := told(t, again)
		for _, r := range records {
			if err := again.Apply(r); err != nil {
				t.Fatal(err)
			}
			if told(t, again) != before {
				t.Fatalf("record %d came twice and changed the world", r.Seq)
			}
		}
		if !again.Probed() || world.New("main").Probed() {
			t.Error("that ssh once answered from here is to be remembered")
		}
		if holder, released := again.Holder(); holder != "holder-1" || !released {
			t.Errorf("the holder that stopped is %q, let go: %v", holder, released)
		}
		for id, failed := range map[string]bool{"create_runs": false, "create_ends": false, "create_none": true, "cancel_early": true, "create_late": true, "cancel_number": true, "cancel_nobody": true, "create_senseless": true, "cancel_ends": false, "report_asked": false} {
			op, ok := w.Operation("local", "op_order-"+id)
			if !ok || !op.Done || (op.Failure != nil) != failed {
				t.Errorf("%s: known %v, done %v, failure %v; want failed %v", id, ok, op.Done, op.Failure, failed)
			}
		}
		if op, ok := w.Operation("local", "op_order-report_open"); !ok || op.Done || len(w.Errands()) != 1 {
			t.Errorf("the last report is %+v, %v; %d errands are open", op, ok, len(w.Errands()))
		}
	})
}

// TestFind: by its own id, by the operation, by the market's number; never another client's.
func TestFind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _ := lived(t)
		var runs string
		for _, o := range w.Live() {
			runs = o.ID
		}
		for _, ref := range []string{runs, "op_order-create_runs", "500", "clore:500"} {
			if o := w.Find("local", ref); o == nil || o.ID != runs || o.State.String() != "RUNNING" {
				t.Errorf("%q finds %v", ref, o)
			}
			if o := w.Find("other", ref); o != nil {
				t.Errorf("another client finds %s by %q", o.ID, ref)
			}
		}
		for _, ref := range []string{"", "ord_none", "op_order-create_none2", "op_", "77", "0500x", "-500", "99999999999999999999"} {
			if o := w.Find("local", ref); o != nil {
				t.Errorf("%q finds %s", ref, o.ID)
			}
		}
		if w.OwnerOf(500) == nil || w.OwnerOf(77) != nil {
			t.Error("rental 500 is ours, 77 is not")
		}
	})
}

// TestPrune forgets what nobody can ask about any more, and nothing sooner.
func TestPrune(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _ := lived(t)
		before := told(t, w)
		w.Prune(time.Now().Add(topology.CommandRetention-time.Hour), 0)
		if told(t, w) != before {
			t.Error("something was forgotten within the retention of commands")
		}
		w.Prune(time.Now().Add(topology.CommandRetention+time.Hour), 5)
		if _, ok := w.Operation("local", "op_order-create_runs"); ok {
			t.Error("a settled operation is remembered for ever")
		}
		if _, ok := w.Operation("local", "op_order-report_open"); !ok {
			t.Error("an open operation is forgotten")
		}
		if w.Forestalled("local", "op_order-create_late") || w.Handled(4) || !w.Handled(5) || len(w.Orders()) != 4 {
			t.Error("forestalled and handled commands are to go with their stream, orders to stay")
		}
	})
}

// TestChanged wakes whoever waits for the next record.
func TestChanged(t *testing.T) {
	t.Parallel()
	w := world.New("main")
	entry, err := engine.Holding("main", "h", 1, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	changed := w.Changed()
	select {
	case <-changed:
		t.Fatal("changed before any record")
	default:
	}
	if err := w.Apply(journal.Record{Seq: 1, Subject: entry.Subject, Data: entry.Data}); err != nil {
		t.Fatal(err)
	}
	<-changed
	select {
	case <-w.Changed():
		t.Error("the next change has come already")
	default:
	}
	if _, released := world.New("main").Holder(); !released {
		t.Error("over an empty journal nobody holds the account")
	}
}

// TestRefused: what is not understood stops the fold, and leaves the world as it was.
func TestRefused(t *testing.T) {
	t.Parallel()
	subject := topology.OrderEvent("main", "local", "ord_1", "running")
	order := `{"time":"2026-11-24T12:00:00Z","internal":{"order":{"id":"ord_1","state":"RUNNING","intents":[{"number":1,"outcome":"placed"}],"wanted":{"kind":"asked"}}}}`
	tests := map[string]journal.Record{
		"another subject":            {Subject: "renthook.v1.evt.watch.local.w.fired", Data: []byte(order)},
		"no JSON":                    {Subject: subject, Data: []byte(`{`)},
		"no internal part":           {Subject: subject, Data: []byte(`{"time":"2026-11-24T12:00:00Z"}`)},
		"a state of a later version": {Subject: subject, Data: []byte(strings.Replace(order, "RUNNING", "PAUSED", 1))},
		"an outcome of one":          {Subject: subject, Data: []byte(strings.Replace(order, `"placed"`, `"paused"`, 1))},
		"a kind of end of one":       {Subject: subject, Data: []byte(strings.Replace(order, `"asked"`, `"burned"`, 1))},
	}
	for name, r := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := world.New("main")
			r.Seq = 1
			if err := w.Apply(r); err == nil {
				t.Error("it was understood")
			}
			if w.Last() != 0 || len(w.Orders()) != 0 {
				t.Error("it changed the world")
			}
		})
	}
	if err := world.New("main").Apply(journal.Record{Seq: 1, Subject: subject, Data: []byte(order)}); err != nil {
		t.Errorf("the record the others are made from: %v", err)
	}
}

func TestRentalNumber(t *testing.T) {
	t.Parallel()
	for ref, want := range map[string]int64{"500": 500, "clore:500": 500, "0500": 500, "": 0, "0": 0, "-1": 0, "5.0": 0, "ord_1": 0, "clore:": 0, "999999999999999999": 999999999999999999, "1000000000000000000": 0} {
		if n, ok := world.RentalNumber(ref); n != want || ok != (want != 0) {
			t.Errorf("%q: %d, %v", ref, n, ok)
		}
	}
}
