package order_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/cloreapi/cloresim"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/topology"
)

func TestOrder_RentsTheRightOneAndRuns(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	op := r.operation("local", r.create("k1", "RTX 4090", "0.50"), "the order to run", settled)
	if f := op.GetFailure(); f != nil {
		t.Fatalf("failed: %s %s", f.GetCode(), f.GetMessage())
	}
	o := op.GetOrder()
	if o.GetState() != orderv1.Order_RUNNING || o.GetMarketOrderId() == 0 || o.GetServer().GetGpu() != "rtx-4090" {
		t.Fatalf("got %v", o)
	}
	s := r.atRest(1)
	got := s.Rentals[len(s.Rentals)-1]
	if got.USD > 0.50 || got.ServerID != o.GetServer().GetId() {
		t.Errorf("rented server %d at %v USD per hour, the order says server %d at %s", got.ServerID, got.USD, o.GetServer().GetId(), o.GetCost().GetUsdPerHour())
	}
	markers := 0
	for _, p := range got.Ports {
		if p >= 20000 && p <= 64999 {
			markers++
		}
	}
	if markers != 2 || !slices.Contains(got.Ports, 22) {
		t.Errorf("ports %v: want 22 and two markers", got.Ports)
	}
	if n := s.calls("create_order"); n != 1 {
		t.Errorf("%d creates, want 1", n)
	}
}

// The market applies the create, or not, and says something else. Whatever it says, one rental of ours is at rest, it is
// adopted, no other server was asked, and a human's rental of the same second is left alone.
// row:30 row:31 row:33 row:35 row:36 row:38 row:42 row:50
func TestOrder_OneRentalWhateverTheMarketAnswers(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"reply dropped after applying":  `{"create_order":[{"drop":"after"}]}`,
		"500 after applying":            `{"create_order":[{"status":500,"body":"oops"}]}`,
		"502 after applying":            `{"create_order":[{"status":502,"body":"<html>bad gateway</html>"}]}`,
		"503 after applying":            `{"create_order":[{"status":503,"body":""}]}`,
		"504 after applying":            `{"create_order":[{"status":504,"body":"<html>"}]}`,
		"520 after applying":            `{"create_order":[{"status":520,"body":"error code: 520"}]}`,
		"timeout after applying":        `{"create_order":[{"delay_ms":5000}]}`,
		"half an answer after applying": `{"create_order":[{"body":"{\"co"}]}`,
		"rented by ourselves":           `{"create_order":[{"error":"server-already-rented"}]}`,
		"our own bid":                   `{"create_order":[{"error":"you_already_have_spot_order"}]}`,
		"a word nobody knows":           `{"create_order":[{"error":"something-new"}]}`,
		"code 1 after applying":         `{"create_order":[{"status":500,"code":1}]}`,
		"code 5 after applying":         `{"create_order":[{"status":429,"code":5}]}`,
		"applied late":                  `{"create_order":[{"drop":"before","apply_after_ms":600}]}`,
		"visible late":                  `{"create_order":[{"visible_after_ms":900}]}`,
		"list empty for three reads":    `{"my_orders":[{"empty":true,"repeat":3}]}`,
		"list is HTML for three reads":  `{"my_orders":[{"status":200,"body":"<html>","repeat":3}]}`,
		"list is code 1 for some reads": `{"my_orders":[{"status":500,"code":1,"repeat":4}]}`,
		"list is code 5 for some reads": `{"my_orders":[{"status":429,"code":5,"repeat":2}]}`,
		"list is stale for some reads":  `{"my_orders":[{"stale_ms":600000,"repeat":4}]}`,
		"list is cut for some reads":    `{"my_orders":[{"truncate":1,"repeat":4}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, quick(), cloresim.Config{})
			r.humanRents()
			r.script(script)
			op := r.operation("local", r.create("k", "RTX 4090", "2"), "the order to run", settled)
			if op.GetOrder().GetState() != orderv1.Order_RUNNING {
				t.Fatalf("ended as %s: %v", op.GetOrder().GetState(), op.GetFailure())
			}
			s := r.atRest(1)
			if n := s.calls("create_order"); n != 1 {
				t.Errorf("%d creates, want 1", n)
			}
			if n := s.calls("cancel_order"); n != 0 {
				t.Errorf("%d cancels, want none", n)
			}
			if _, foreign := s.live(); foreign != 1 {
				t.Errorf("%d rentals of the human at rest, want 1", foreign)
			}
		})
	}
}

// humanRents has somebody rent another server on the same account, with the image we use.
func (r *rig) humanRents(ports ...int) {
	r.t.Helper()
	if len(ports) == 0 {
		ports = []int{22, 8888}
	}
	list, err := json.Marshal(ports)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, o := range r.books.Book("rtx-3090") {
		if !o.Rented {
			r.post("/sim/v1/rentals", fmt.Sprintf(`{"server_id":%d,"image":%q,"ports":%s}`, o.ServerID, r.settings.Order.Image, list))
			return
		}
	}
	r.t.Fatal("no free RTX 3090 in the simulator")
}

// row:32
func TestOrder_CodeZeroThatNeverAppearsIsAbsentOnlyAfterTheWindow(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	r.script(`{"create_order":[{"apply":false,"code":0}]}`)
	op := r.operation("local", r.create("k", "RTX 4090", "2"), "the order to run", settled)
	o := op.GetOrder()
	if o.GetState() != orderv1.Order_RUNNING || len(o.GetAttempts()) != 2 {
		t.Fatalf("want RUNNING at the second attempt, got %v", o)
	}
	first, second := o.GetAttempts()[0], o.GetAttempts()[1]
	if first.GetOutcome() != "absent" || first.GetServerId() == second.GetServerId() {
		t.Errorf("attempts %v", o.GetAttempts())
	}
	// Nothing else of ours shows that the list is fresh, so the blind window counts.
	if waited := second.GetTime().AsTime().Sub(first.GetTime().AsTime()); waited < r.settings.Order.ConfirmWindowBlind {
		t.Errorf("asked another server after %s, the window is %s", waited, r.settings.Order.ConfirmWindowBlind)
	}
	r.atRest(1)
}

// row:41
func TestOrder_RefusalsGoOnToTheNextServer(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]string{
		"server-already-rented": `{"apply":false,"error":"server-already-rented"}`,
		"server-offline":        `{"apply":false,"error":"server-offline"}`,
		"currency-not-allowed":  `{"apply":false,"status":500,"error":"currency-not-allowed"}`,
		"code 2":                `{"apply":false,"code":2}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, quick(), cloresim.Config{})
			r.script(`{"create_order":[` + step + `]}`)
			o := r.operation("local", r.create("k", "RTX 4090", "2"), "the order to run", settled).GetOrder()
			if o.GetState() != orderv1.Order_RUNNING || len(o.GetAttempts()) != 2 || o.GetAttempts()[0].GetOutcome() != "refused" {
				t.Fatalf("got %v", o)
			}
			if s := r.atRest(1); s.calls("create_order") != 2 {
				t.Errorf("%d creates, want 2", s.calls("create_order"))
			}
		})
	}
}

// row:43 row:51
func TestOrder_WalletEmptyAndKeyRefusedFail(t *testing.T) {
	t.Parallel()
	for step, code := range map[string]string{
		`{"apply":false,"error":"not_enough_balance"}`: "WALLET_EMPTY",
		`{"apply":false,"status":401,"code":3}`:        "UPSTREAM_AUTH",
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, quick(), cloresim.Config{})
			r.script(`{"create_order":[` + step + `]}`)
			op := r.operation("local", r.create("k", "RTX 4090", "2"), "the order to fail", settled)
			if op.GetFailure().GetCode() != code {
				t.Errorf("got %v", op)
			}
			if s := r.atRest(0); s.calls("create_order") != 1 {
				t.Errorf("%d creates, want 1", s.calls("create_order"))
			}
		})
	}
}

func TestOrder_NoMatchFails(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	op := r.operation("local", r.create("k", "RTX 4090", "0.01"), "the order to fail", settled)
	if op.GetFailure().GetCode() != "NO_MATCHING_SERVER" || op.GetOrder().GetState() != orderv1.Order_FAILED {
		t.Errorf("got %v", op)
	}
	if s := r.atRest(0); s.calls("create_order") != 0 {
		t.Errorf("%d creates, want none", s.calls("create_order"))
	}
}

func (r *rig) cancel(key, ref string) string {
	r.t.Helper()
	return r.command("local", "cancel", key, &orderv1.CancelOrder{OrderId: ref, Reason: "no longer needed"})
}

// row:47
func TestOrder_CancelIsRepeatedUntilTheEndIsProved(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	r.script(`{"cancel_order":[{"apply":false,"code":0},{"apply":false,"status":500,"body":"x"}]}`)
	create := r.create("k", "RTX 4090", "2")
	r.operation("local", create, "the order to run", inState(orderv1.Order_RUNNING))
	done := r.operation("local", r.cancel("c", create), "the cancel to settle", settled)
	if done.GetFailure() != nil || done.GetOrder().GetState() != orderv1.Order_CANCELLED {
		t.Fatalf("got %v", done)
	}
	if s := r.atRest(0); s.calls("cancel_order") < 3 {
		t.Errorf("%d cancels, want at least 3", s.calls("cancel_order"))
	}
}

// A cancel that an outage delayed is sent again as soon as the market answers, not when its own patience ends.
func TestOrder_ACancelIsSentAgainWhenTheMarketIsBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	o := r.operation("local", r.create("k", "RTX 4090", "2"), "the order to run", settled).GetOrder()
	r.script(`{"cancel_order":[{"status":502,"apply":false}],"my_orders":[{"status":502,"repeat":3}]}`)
	begun := time.Now()
	r.operation("local", r.cancel("c", o.GetId()), "the cancel to settle", settled)
	if took := time.Since(begun); took > 7*time.Second {
		t.Errorf("the cancel settled after %s: it waited for its own repeat", took)
	}
}

// row:48
func TestOrder_CancelWhileTheCreateIsUnknown(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"applied":     `{"create_order":[{"drop":"after","visible_after_ms":700}]}`,
		"not applied": `{"create_order":[{"apply":false,"status":502,"body":"<html>"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, quick(), cloresim.Config{})
			r.script(script)
			create := r.create("k", "RTX 4090", "2")
			r.operation("local", create, "the outcome to be unknown", inState(orderv1.Order_UNCONFIRMED))
			cancel := r.operation("local", r.cancel("c", create), "the cancel to settle", settled)
			if cancel.GetFailure() != nil || cancel.GetOrder().GetState() != orderv1.Order_CANCELLED {
				t.Fatalf("got %v", cancel)
			}
			if op := r.operation("local", create, "the create to settle", settled); op.GetFailure().GetCode() != "CANCELLED" {
				t.Errorf("the create settled as %v", op)
			}
			if s := r.atRest(0); s.calls("create_order") != 1 {
				t.Errorf("%d creates, want 1", s.calls("create_order"))
			}
		})
	}
}

func TestOrder_CancelThatArrivesBeforeItsCreate(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	create := topology.Command{Client: "local", Noun: "order", Verb: "create", Key: "k"}.Operation()
	if op := r.operation("local", r.cancel("c", create), "the cancel to settle", settled); op.GetFailure().GetCode() != "NOT_FOUND" {
		t.Errorf("the cancel settled as %v", op)
	}
	r.create("k", "RTX 4090", "2")
	if op := r.operation("local", create, "the create to settle", settled); op.GetOrder().GetState() != orderv1.Order_CANCELLED {
		t.Errorf("the create settled as %v", op)
	}
	if s := r.atRest(0); s.calls("create_order") != 0 || s.calls("cancel_order") != 0 {
		t.Errorf("calls went to the market: %+v", s.Calls)
	}
}

// row:49
func TestOrder_AnotherClientsOrderIsNotFound(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	create := r.create("k", "RTX 4090", "2")
	o := r.operation("local", create, "the order to run", inState(orderv1.Order_RUNNING)).GetOrder()
	for _, ref := range []string{o.GetId(), create, fmt.Sprint(o.GetMarketOrderId()), "ord_nothing", "77"} {
		op := r.operation("other", r.command("other", "cancel", "c-"+strings.ReplaceAll(ref, ".", ""), &orderv1.CancelOrder{OrderId: ref}), "the cancel to settle", settled)
		if op.GetFailure().GetCode() != "NOT_FOUND" {
			t.Errorf("cancel of %s by another client: %v", ref, op)
		}
	}
	if _, err := r.orders.GetOrder(r.as("other"), &orderv1.GetOrderRequest{Id: o.GetId()}); status.Code(err) != codes.NotFound {
		t.Errorf("another client reads the order: %v", err)
	}
	if s := r.atRest(1); s.calls("cancel_order") != 0 {
		t.Errorf("%d cancels went to the market", s.calls("cancel_order"))
	}
}

// A client with leave to end any rental ends a human's; nothing automatic does.
// row:50
func TestOrder_CancelsAHumansRentalOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	r.humanRents()
	human := r.state().Rentals[0].ID
	op := r.operation("local", r.cancel("c", fmt.Sprint(human)), "the cancel to settle", settled)
	if op.GetFailure() != nil {
		t.Fatalf("got %v", op)
	}
	if _, foreign := r.state().live(); foreign != 0 {
		t.Error("the human's rental lives")
	}
	if op := r.operation("local", r.cancel("d", "424242"), "the cancel to settle", settled); op.GetFailure().GetCode() != "NOT_FOUND" {
		t.Errorf("a number that the market does not know: %v", op)
	}
}

// A human's rental that the lists lack for a moment is not told to be gone while it bills: nothing of ours vouches for them.
func TestOrder_AHumansRentalIsGoneOnlyByProof(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	r.humanRents()
	r.script(`{"cancel_order":[{"apply":false}]}`)
	op := r.cancel("c", fmt.Sprint(r.state().Rentals[0].ID))
	bustest.Eventually(t, "the cancel to be sent", func() bool { return r.state().calls("cancel_order") == 1 })
	r.script(`{"my_orders":[{"empty":true,"repeat":4}]}`)
	if op := r.operation("local", op, "the cancel to settle", settled); op.GetFailure() != nil {
		t.Fatalf("got %v", op)
	}
	if _, foreign := r.state().live(); foreign != 0 {
		t.Error("the human's rental lives, and is told to be gone")
	}
}

// The text of a failed cancel names the order the way its sender wrote it.
func TestOrder_AnUnknownNumberIsEchoedAsSent(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	for sent, want := range map[string]string{"424242.0": "order 424242.0 not found", `"0424242"`: "order 0424242 not found", "424242": "order 424242 not found"} {
		key := fmt.Sprintf("%x", sent)
		op := r.command("local", "cancel", key, &orderv1.CancelOrder{
			OrderId: "424242", CallbackUrl: "https://receiver.example/x", Origin: &orderv1.Origin{Door: "seed", SeedCallback: true, OrderAsSent: sent},
		})
		if got := r.operation("local", op, "the cancel to settle", settled).GetFailure().GetMessage(); got != want {
			t.Errorf("%s: %q, want %q", sent, got, want)
		}
	}
}

// row:45
func TestOrder_TwoEndTogetherAndAThirdIsUnconfirmed(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	var running []int64
	for n := range 2 {
		o := r.operation("local", r.create(fmt.Sprint("k", n), "RTX 4090", "2"), "the order to run", settled).GetOrder()
		running = append(running, o.GetMarketOrderId())
	}
	r.script(`{"create_order":[{"drop":"after","visible_after_ms":1500}]}`)
	third := r.create("k2", "RTX 4090", "2")
	r.operation("local", third, "the third to be unconfirmed", inState(orderv1.Order_UNCONFIRMED))
	for _, id := range running {
		r.post(fmt.Sprintf("/sim/v1/rentals/%d/end", id), `{"reason":"host_offline"}`)
	}
	if o := r.operation("local", third, "the third to run", settled).GetOrder(); o.GetState() != orderv1.Order_RUNNING {
		t.Fatalf("the third is %s", o.GetState())
	}
	if o := r.operation("local", r.create("k3", "RTX 4090", "2"), "a fourth to run", settled).GetOrder(); o.GetState() != orderv1.Order_RUNNING {
		t.Fatalf("the fourth is %s", o.GetState())
	}
	r.atRest(2)
}

// row:46
func TestOrder_TheOnlyRentalIsOutbid(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	spot := r.command("local", "create", "k", &orderv1.CreateOrder{Spec: &orderv1.OrderSpec{Gpu: "RTX 4090", MarketType: "spot"}})
	o := r.operation("local", spot, "the order to run", settled).GetOrder()
	if o.GetMarketType() != "spot" || o.GetState() != orderv1.Order_RUNNING {
		t.Fatalf("got %v", o)
	}
	r.post(fmt.Sprintf("/sim/v1/rentals/%d/end", o.GetMarketOrderId()), `{"reason":"outbid"}`)
	r.operation("local", spot, "the order to be interrupted", inState(orderv1.Order_INTERRUPTED))
	if o := r.operation("local", r.create("k2", "RTX 4090", "2"), "another to run", settled).GetOrder(); o.GetState() != orderv1.Order_RUNNING {
		t.Fatalf("the next order is %s", o.GetState())
	}
	r.atRest(1)
}

// Nobody knows whether an outbid rental is closed or waits in the queue: here it waits, and its bid is withdrawn.
// row:46
func TestOrder_OutbidAndStillListed(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{Switches: cloresim.Switches{OutbidEnding: "queued"}})
	spot := r.command("local", "create", "k", &orderv1.CreateOrder{Spec: &orderv1.OrderSpec{Gpu: "RTX 4090", MarketType: "spot"}})
	o := r.operation("local", spot, "the order to run", settled).GetOrder()
	r.post(fmt.Sprintf("/sim/v1/rentals/%d/end", o.GetMarketOrderId()), `{"reason":"outbid"}`)
	r.operation("local", spot, "the order to be interrupted", inState(orderv1.Order_INTERRUPTED))
	r.atRest(0)
}

// row:44
func TestOrder_BootDeadlineEndsItAndTakesAnother(t *testing.T) {
	t.Parallel()
	st := quick()
	st.Order.BootDeadline = time.Second
	r := newRig(t, st, cloresim.Config{Boot: time.Hour})
	create := r.create("k", "RTX 4090", "2")
	o := r.operation("local", create, "a second attempt", func(o *orderv1.Operation) bool { return len(o.GetOrder().GetAttempts()) > 1 }).GetOrder()
	if o.GetAttempts()[0].GetOutcome() != "ended" {
		t.Errorf("attempts %v", o.GetAttempts())
	}
	if ours, _ := r.state().live(); ours > 1 {
		t.Errorf("%d rentals of ours at once", ours)
	}
	r.operation("local", r.cancel("c", create), "the cancel to settle", settled)
	r.atRest(0)
}

func TestOrder_EveryOrderEnds(t *testing.T) {
	t.Parallel()
	st := quick()
	st.Order.MaxDuration = 2 * time.Second
	r := newRig(t, st, cloresim.Config{})
	create := r.create("k", "RTX 4090", "2")
	r.operation("local", create, "the order to end", inState(orderv1.Order_ENDED))
	r.atRest(0)
}

// row:53
func TestOrder_LimitsHoldUnderAFlood(t *testing.T) {
	t.Parallel()
	st := quick()
	st.Limits.OrdersPerHour, st.Limits.LiveRentals = 3, 2
	r := newRig(t, st, cloresim.Config{})
	var ops []string
	for n := range 20 {
		ops = append(ops, r.create(fmt.Sprint("k", n), "RTX 4090", "2"))
	}
	placed, refused := 0, 0
	for _, id := range ops {
		switch op := r.operation("local", id, "the order to settle", settled); {
		case op.GetFailure() == nil:
			placed++
		case op.GetOrder().GetState() == orderv1.Order_REJECTED && strings.HasPrefix(op.GetFailure().GetMessage(), "limits."):
			refused++
		default:
			t.Errorf("%v", op)
		}
	}
	if placed != 2 || refused != 18 {
		t.Errorf("%d placed, %d refused; the limit of live rentals is 2", placed, refused)
	}
	r.atRest(2)
}
