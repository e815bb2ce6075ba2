package order_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/govalues/decimal"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/cloreapi"
	"github.com/renthook/renthook/pkg/cloreapi/cloresim"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/market/clore"
	"github.com/renthook/renthook/services/internal/topology"
)

// events counts the records of the journal whose event is one of these words.
func (r *rig) events(words ...string) int {
	r.t.Helper()
	stream, err := r.bus.JetStream().Stream(r.t.Context(), topology.Orders("main"))
	if err != nil {
		r.t.Fatal(err)
	}
	n := 0
	for seq := uint64(1); seq <= stream.CachedInfo().State.LastSeq; seq++ {
		m, err := stream.GetMsg(r.t.Context(), seq)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, w := range words {
			if strings.HasSuffix(m.Subject, "."+w) {
				n++
			}
		}
	}
	return n
}

// patch changes a server of the simulator.
func (r *rig) patch(server int64, body string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPatch, fmt.Sprintf("%s/sim/v1/servers/%d", r.sim.URL, server), strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode >= 300 {
		r.t.Fatalf("patch: HTTP status %d", res.StatusCode)
	}
}

// What takes effect, or shows, only after it was taken for absent is ended: the order has its rental on another server.
// row:34 row:35
func TestOrder_WhatComesAfterTheWindowIsEnded(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"applied":  `{"create_order":[{"drop":"before","apply_after_ms":8000}]}`,
		"listed":   `{"create_order":[{"visible_after_ms":8000}]}`,
		"code 0":   `{"create_order":[{"code":0,"apply_after_ms":8000}]}`,
		"rejected": `{"create_order":[{"status":502,"apply_after_ms":8000}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, quick(), cloresim.Config{})
			r.humanRents()
			r.script(script)
			create := r.create("k", "RTX 4090", "2")
			o := r.operation("local", create, "the order to run", settled).GetOrder()
			if o.GetState() != orderv1.Order_RUNNING || len(o.GetAttempts()) != 2 || o.GetAttempts()[0].GetOutcome() != "absent" {
				t.Fatalf("got %v", o)
			}
			first := o.GetAttempts()[0].GetServerId()
			var s simState
			bustest.Eventually(t, "the late rental to have come and gone", func() bool {
				s = r.state()
				for _, x := range s.Rentals {
					if x.ServerID == first {
						return x.EndedAt != nil
					}
				}
				return false
			})
			ours, foreign := s.live()
			if ours != 1 || foreign != 1 || s.calls("create_order") != 2 {
				t.Errorf("%d of ours live, %d of others, %d creates; want 1, 1, 2", ours, foreign, s.calls("create_order"))
			}
			r.operation("local", create, "the order to run on", inState(orderv1.Order_RUNNING))
		})
	}
}

// The price rose after it was read. Nothing is rented above it, and the order goes on to what can be had.
// row:39
func TestOrder_PriceRoseSinceItWasRead(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	r.post("/sim/v1/servers", `{"id":900001,"gpu":"1x NVIDIA GeForce RTX 4090","on_demand_usd_per_day":"2.4"}`)
	r.books.poll(t)
	r.patch(900001, `{"on_demand_usd_per_day":"96"}`)
	o := r.operation("local", r.command("local", "create", "k", &orderv1.CreateOrder{Spec: &orderv1.OrderSpec{
		Gpu: "RTX 4090", MarketType: "on-demand", MaxPrice: &orderv1.Price{Amount: "2", Currency: "USD", Per: "hour", Scope: "server"},
	}}), "the order to run", settled).GetOrder()
	if o.GetState() != orderv1.Order_RUNNING || len(o.GetAttempts()) != 2 || o.GetAttempts()[0].GetServerId() != 900001 {
		t.Fatalf("got %v", o)
	}
	for _, x := range r.atRest(1).Rentals {
		if x.USD > 2 {
			t.Errorf("rented at %v USD per hour, the ceiling is 2", x.USD)
		}
	}
}

// The market does not hold the price it was asked for: what is billed otherwise is ended, told, and another taken.
// row:40
func TestOrder_BilledAtAnotherPriceIsEnded(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	r.script(`{"create_order":[{"price_factor":1.03}]}`)
	o := r.operation("local", r.create("k", "RTX 4090", "2"), "the order to run", settled).GetOrder()
	if o.GetState() != orderv1.Order_RUNNING || len(o.GetAttempts()) != 2 {
		t.Fatalf("got %v", o)
	}
	if s := r.atRest(1); len(s.Rentals) != 2 || s.calls("cancel_order") == 0 {
		t.Errorf("%d rentals, %d cancels", len(s.Rentals), s.calls("cancel_order"))
	}
	if n := r.events("price_mismatch"); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// Once the wallet is known to be empty the market is not asked again and again.
// row:43
func TestOrder_AnEmptyWalletIsNotAskedFor(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{BalanceUSD: "0.05"})
	fails := func(n int) *orderv1.Failure {
		t.Helper()
		return r.operation("local", r.create(fmt.Sprint("k", n), "RTX 4090", "2"), "the order to fail", settled).GetFailure()
	}
	if f := fails(0); f.GetCode() != "WALLET_EMPTY" && !strings.Contains(f.GetMessage(), "not enough balance") {
		t.Errorf("%v", f)
	}
	bustest.Eventually(t, "the wallet to be read", func() bool { return r.state().calls("wallets") > 0 })
	creates := r.state().calls("create_order")
	for n := range 5 {
		if f := fails(1 + n); f.GetCode() != "NO_MATCHING_SERVER" || !strings.Contains(f.GetMessage(), "not enough balance") {
			t.Errorf("%v", f)
		}
	}
	if s := r.atRest(0); s.calls("create_order") != creates {
		t.Errorf("%d creates with an empty wallet", s.calls("create_order")-creates)
	}
}

// A host goes away under a rental while the list cannot be read: the order says so, with what the market charged to the
// end and not what was seen last, and holds nothing.
// row:45
func TestOrder_AHostGoesAway(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	create := r.create("k", "RTX 4090", "2")
	o := r.operation("local", create, "the order to run", settled).GetOrder()
	r.script(`{"my_orders":[{"status":500,"code":1,"repeat":6}]}`)
	before := r.state().calls("my_orders")
	bustest.Eventually(t, "seconds of reads that fail", func() bool { return r.state().calls("my_orders") >= before+5 })
	r.post(fmt.Sprintf("/sim/v1/rentals/%d/end", o.GetMarketOrderId()), `{"reason":"host_offline"}`)
	o = r.operation("local", create, "the order to be interrupted", inState(orderv1.Order_INTERRUPTED)).GetOrder()
	list, err := clore.NewReader(cloreapi.NewReader(r.api())).Rentals(t.Context(), true)
	if err != nil || len(list.Rentals) != 1 || !list.Rentals[0].Spend.IsPos() {
		t.Fatalf("%+v %v", list, err)
	}
	if spend, err := decimal.Parse(o.GetCost().GetSpend()); err != nil || spend.Cmp(list.Rentals[0].Spend) != 0 {
		t.Errorf("spend %q, the market says %s", o.GetCost().GetSpend(), list.Rentals[0].Spend)
	}
	if s := r.atRest(0); s.calls("cancel_order") != 0 {
		t.Errorf("%d cancels of what is gone", s.calls("cancel_order"))
	}
}

// The key is not accepted for a while: nothing is asked for, and the order goes on when it is.
// row:51
func TestOrder_AKeyThatIsNotAccepted(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	r.script(`{"my_orders":[{"status":401,"code":3,"repeat":8}],"wallets":[{"status":401,"code":3,"repeat":1}]}`)
	before := r.state().calls("my_orders")
	create := r.create("k", "RTX 4090", "2")
	bustest.Eventually(t, "several reads to be refused", func() bool { return r.state().calls("my_orders") >= before+4 })
	bustest.Eventually(t, "an alarm", func() bool { return r.alarmed("key_refused") })
	if n := r.state().calls("create_order"); n != 0 {
		t.Errorf("%d creates without a list of what is rented", n)
	}
	if o := r.operation("local", create, "the order to run", settled).GetOrder(); o.GetState() != orderv1.Order_RUNNING {
		t.Fatalf("got %v", o)
	}
	r.atRest(1)
}

// The consumer starts over while orders are at work: nothing is done twice.
// row:7 row:8 row:9
func TestOrder_DeliveredAgainWhileAtWork(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	for n := range 200 {
		r.command("local", "cancel", fmt.Sprint("none", n), &orderv1.CancelOrder{OrderId: fmt.Sprint("ord_none", n)})
	}
	r.script(`{"create_order":[{"drop":"after","visible_after_ms":1500}]}`)
	create := r.create("k", "RTX 4090", "2")
	r.operation("local", create, "the outcome to be unknown", inState(orderv1.Order_UNCONFIRMED))
	records := r.events("cancel_failed")
	if err := r.bus.JetStream().DeleteConsumer(t.Context(), topology.Commands, topology.OrderConsumer("main")); err != nil {
		t.Fatal(err)
	}
	bustest.Eventually(t, "every command to have come again", func() bool {
		c, err := r.bus.JetStream().Consumer(t.Context(), topology.Commands, topology.OrderConsumer("main"))
		if err != nil {
			return false
		}
		i := c.CachedInfo()
		return i.AckFloor.Stream >= 201 && i.NumPending == 0 && i.NumAckPending == 0
	})
	if o := r.operation("local", create, "the order to run", settled).GetOrder(); o.GetState() != orderv1.Order_RUNNING {
		t.Fatalf("got %v", o)
	}
	if s := r.atRest(1); s.calls("create_order") != 1 || s.calls("cancel_order") != 0 {
		t.Errorf("%d creates, %d cancels", s.calls("create_order"), s.calls("cancel_order"))
	}
	if n := r.events("cancel_failed"); n != records || n != 200 {
		t.Errorf("%d answers to cancels, %d before; want 200", n, records)
	}
}

// logged is a log that can be asked.
type logged struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *logged) says(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.all.String(), text)
}

// Cut off from the broker, the holder cannot record an intent, so it asks for nothing, however good the offer.
// row:13 row:14
func TestOrder_CutOffItAsksForNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	r.stopService(r.service)
	log := &logged{}
	r.log = slog.New(slog.NewTextHandler(log, nil))
	direct, proxy := r.bus, r.nats.Proxy(t)
	r.bus = bustest.Connect(t, bus.Config{URL: proxy.URL()})
	r.start()
	r.bus = direct
	create := r.command("local", "create", "k", &orderv1.CreateOrder{Spec: &orderv1.OrderSpec{
		Gpu: "RTX 4090", MaxPrice: &orderv1.Price{Amount: "0.02", Currency: "USD", Per: "hour", Scope: "server"}, WaitUntil: timestamppb.New(time.Now().Add(time.Hour)),
	}})
	r.operation("local", create, "the order to wait", inState(orderv1.Order_WAITING))
	proxy.Deafen()
	r.post("/sim/v1/servers", `{"id":900001,"gpu":"1x NVIDIA GeForce RTX 4090","on_demand_usd_per_day":"0.24"}`)
	r.books.poll(t)
	bustest.Eventually(t, "the holder to have failed to record it", func() bool { return log.says("holding the account ended") || log.says("is lost") })
	if n := r.state().calls("create_order"); n != 0 {
		t.Errorf("%d creates without a record", n)
	}
	proxy.Heal()
	r.operation("local", create, "the order to run", inState(orderv1.Order_RUNNING))
	if s := r.atRest(1); s.calls("create_order") != 1 {
		t.Errorf("%d creates, want 1", s.calls("create_order"))
	}
}

// Everything the broker knew is lost while a rental runs. It may be ours, so nothing is rented beside it, it is not
// touched, and a person is told; once it is gone, orders go on.
// row:17 row:18
func TestOrder_TheBrokerIsLostWhileARentalRuns(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	o := r.operation("local", r.create("k", "RTX 4090", "2"), "the order to run", settled).GetOrder()
	r.stopService(r.service)
	for _, stream := range []string{topology.Orders("main"), topology.Commands} {
		if err := r.bus.JetStream().DeleteStream(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
	}
	calls := r.state().calls("create_order")
	r.start()
	bustest.Eventually(t, "the service to be ready", func() bool { return r.service.Ready() == nil })
	create := r.create("k2", "RTX 4090", "2")
	bustest.Eventually(t, "a person to be told", func() bool { return r.events("alarm") > 0 })
	r.operation("local", create, "the order to wait for a server", inState(orderv1.Order_PENDING))
	s := r.atRest(1)
	if s.calls("create_order") != calls || s.calls("cancel_order") != 0 {
		t.Errorf("%d creates, %d cancels beside a rental that may be ours", s.calls("create_order")-calls, s.calls("cancel_order"))
	}
	r.post(fmt.Sprintf("/sim/v1/rentals/%d/end", o.GetMarketOrderId()), `{"reason":"host_offline"}`)
	r.operation("local", create, "the order to run", inState(orderv1.Order_RUNNING))
	r.atRest(1)
}

// Two processes hold one account in turn; orders go on when one ends, and each is asked for once.
// row:27
func TestOrder_TwoProcessesOneAccount(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	first, firstOrders := r.service, r.orders
	r.start()
	run := func(n int) {
		t.Helper()
		id := r.create(fmt.Sprint("k", n), "RTX 4090", "2")
		for _, door := range []orderv1.OrderServiceClient{firstOrders, r.orders} { // both tell it
			was := r.orders
			r.orders = door
			if o := r.operation("local", id, "the order to run", settled).GetOrder(); o.GetState() != orderv1.Order_RUNNING {
				t.Fatalf("got %v", o)
			}
			r.orders = was
		}
	}
	for n := range 3 {
		run(n)
	}
	if n := r.events("holder"); n != 1 {
		t.Errorf("%d holders so far, want one", n)
	}
	r.stopService(first)
	firstOrders = r.orders
	for n := range 3 {
		run(3 + n)
	}
	if s := r.atRest(6); s.calls("create_order") != 6 {
		t.Errorf("%d creates for 6 orders", s.calls("create_order"))
	}
}

// frozen is an account whose first create leaves the process only when it is let go, whatever has become of its caller.
type frozen struct {
	market.Account
	once    sync.Once
	entered chan struct{}
	let     chan struct{}
	out     chan market.Outcome
}

func (f *frozen) Create(ctx context.Context, q market.CreateRequest) market.Outcome {
	first := false
	f.once.Do(func() { first = true })
	if !first {
		return f.Account.Create(ctx, q)
	}
	close(f.entered)
	<-f.let
	out := f.Account.Create(context.WithoutCancel(ctx), q)
	f.out <- out
	return out
}

// A process is frozen between its last check and the call, long enough for another to take over and to prove that nothing
// came of it. The call goes out all the same when it thaws: at rest there is one rental.
// row:28
func TestOrder_AFrozenHolderThaws(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	r.stopService(r.service)
	f := &frozen{entered: make(chan struct{}), let: make(chan struct{}), out: make(chan market.Outcome, 1)}
	direct, proxy := r.bus, r.nats.Proxy(t)
	r.bus = bustest.Connect(t, bus.Config{URL: proxy.URL()})
	r.wrap = func(a market.Account) market.Account { f.Account = a; return f }
	r.start()
	r.bus, r.wrap = direct, nil
	create := r.create("k", "RTX 4090", "2")
	<-f.entered
	proxy.Down() // it renews nothing while it is frozen
	r.start()
	o := r.operation("local", create, "the order to run elsewhere", settled).GetOrder()
	if o.GetState() != orderv1.Order_RUNNING || len(o.GetAttempts()) != 2 || o.GetAttempts()[0].GetOutcome() != "absent" {
		t.Fatalf("got %v", o)
	}
	close(f.let)
	<-f.out
	bustest.Eventually(t, "what the frozen call made to be ended", func() bool {
		for _, x := range r.state().Rentals {
			if x.ServerID == o.GetAttempts()[0].GetServerId() {
				return x.EndedAt != nil
			}
		}
		return false
	})
	if s := r.atRest(1); s.calls("create_order") != 2 {
		t.Errorf("%d creates, want 2", s.calls("create_order"))
	}
	proxy.Heal()
}

// A market that refuses for want of money is asked what is left before anybody's next create.
func TestOrder_TheWalletIsReadBeforeTheNextCreate(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	r.script(`{"create_order":[{"apply":false,"error":"not_enough_balance","repeat":9}]}`)
	var orders []string
	for n := range 3 {
		orders = append(orders, r.create(fmt.Sprint("k", n), "RTX 4090", "2"))
	}
	for _, o := range orders {
		if op := r.operation("local", o, "the order to fail", settled); op.GetFailure().GetCode() != "WALLET_EMPTY" {
			t.Errorf("got %v", op.GetFailure())
		}
	}
	refused := false
	for _, c := range r.state().Calls {
		switch c.Endpoint {
		case "create_order":
			if refused {
				t.Error("a create follows a refusal for want of money, and the wallet was not read between")
			}
			refused = true
		case "wallets":
			refused = false
		}
	}
	if creates := r.state().calls("create_order"); creates != 3 {
		t.Errorf("%d creates", creates)
	}
}
