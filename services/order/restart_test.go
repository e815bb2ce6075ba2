package order_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/cloreapi/cloresim"
	controlv1 "github.com/renthook/renthook/proto/gen/renthook/control/v1"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/topology"
)

// A process that stops while its create's outcome is unknown leaves an intent; the next one resolves it by reading.
// row:8
func TestOrder_ARestartResolvesWhatWasInFlight(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"applied":     `{"create_order":[{"drop":"after","visible_after_ms":1200}]}`,
		"not applied": `{"create_order":[{"drop":"before"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, quick(), cloresim.Config{})
			r.script(script)
			create := r.create("k", "RTX 4090", "2")
			r.operation("local", create, "the outcome to be unknown", inState(orderv1.Order_UNCONFIRMED))
			r.stopService(r.service)
			r.start()
			o := r.operation("local", create, "the order to run", settled).GetOrder()
			if o.GetState() != orderv1.Order_RUNNING {
				t.Fatalf("got %v", o)
			}
			creates := 1
			if name == "not applied" {
				creates = 2
			}
			if s := r.atRest(1); s.calls("create_order") != creates {
				t.Errorf("%d creates, want %d", s.calls("create_order"), creates)
			}
		})
	}
}

// A consumer that starts over delivers every command again: nothing is done again.
// row:8 row:9
func TestOrder_ReplayedCommandsDoNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	create := r.create("k", "RTX 4090", "2")
	r.operation("local", create, "the order to run", inState(orderv1.Order_RUNNING))
	r.operation("local", r.cancel("c", create), "the cancel to settle", settled)
	r.operation("local", r.create("n", "RTX 4090", "0.01"), "an order to fail", settled)
	r.stopService(r.service)
	calls := r.state().calls("create_order")
	if err := r.bus.JetStream().DeleteConsumer(t.Context(), topology.Commands, topology.OrderConsumer("main")); err != nil {
		t.Fatal(err)
	}
	r.start()
	// A new command is behind the old ones: once it is settled, they have been looked at.
	r.operation("local", r.create("after", "RTX 4090", "0.01"), "the last order to settle", settled)
	if n := r.state().calls("create_order"); n != calls {
		t.Errorf("%d creates after the replay, %d before", n, calls)
	}
	r.atRest(0)
}

// A command that was acknowledged and has no record, as after a crash that moved the consumer's position on, is driven
// by the sweep alone.
// row:10
func TestOrder_TheSweepDrivesWhatTheConsumerSkipped(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	r.operation("local", r.create("first", "RTX 4090", "0.01"), "the consumer to be there", settled)
	r.stopService(r.service)
	create := r.create("k", "RTX 4090", "2")
	consumer, err := r.bus.JetStream().Consumer(t.Context(), topology.Commands, topology.OrderConsumer("main"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := consumer.Next(jetstream.FetchMaxWait(patience))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.DoubleAck(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.operation("local", create, "the order to run", inState(orderv1.Order_RUNNING))
	r.atRest(1)
}

// row:21
func TestOrder_BodiesThatMakeNoSenseAreAnswered(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	for body, code := range map[string]string{
		`{`: "INVALID_JSON", `[]`: "INVALID_JSON", `{"gpu_type":`: "INVALID_JSON", "\xff\xfe": "INVALID_JSON", ``: "INVALID_JSON",
		`{"spec":{"gpu":"RTX 4090","max_price":{"amount":"NaN"}}}`: "INVALID_ARGUMENT", `{"gpu":"RTX 4090","max_pricee":1}`: "UNKNOWN_MEMBER",
	} {
		c := topology.Command{Client: "local", Noun: "order", Verb: "create", Key: fmt.Sprintf("bad%x", body)}
		if _, err := r.bus.JetStream().Publish(t.Context(), c.Subject(), []byte(body)); err != nil {
			t.Fatal(err)
		}
		if op := r.operation("local", c.Operation(), "the command to be answered", settled); op.GetFailure().GetCode() != code {
			t.Errorf("%q: %v", body, op)
		}
	}
	for _, c := range []topology.Command{{Noun: "order", Verb: "dance"}, {Noun: "watch", Verb: "create"}, {Noun: "pizza", Verb: "order"}} {
		c.Client, c.Key = "local", "unknown"
		if _, err := r.bus.JetStream().Publish(t.Context(), c.Subject(), []byte(`{}`)); err != nil {
			t.Fatal(err)
		}
		if op := r.operation("local", c.Operation(), "the command to be answered", settled); op.GetFailure().GetCode() != "NO_SUCH_COMMAND" {
			t.Errorf("%s: %v", c.Subject(), op)
		}
	}
	// Others flow on.
	r.operation("local", r.create("good", "RTX 4090", "2"), "the order to run", inState(orderv1.Order_RUNNING))
	r.atRest(1)
}

func TestOrder_SeedNamesAreTakenOnTheBus(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	c := topology.Command{Client: "local", Noun: "order", Verb: "create", Key: "flat"}
	if _, err := r.bus.JetStream().Publish(t.Context(), c.Subject(), []byte(`{"gpu_type":"RTX 4090","max_price":0.50}`)); err != nil {
		t.Fatal(err)
	}
	o := r.operation("local", c.Operation(), "the order to run", settled).GetOrder()
	if o.GetState() != orderv1.Order_RUNNING || o.GetServer().GetGpu() != "rtx-4090" {
		t.Errorf("got %v", o)
	}
}

func TestRPC_CallersWithoutATokenAreRefusedAndReflectionIsOpen(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	if _, err := r.orders.ListOrders(t.Context(), &orderv1.ListOrdersRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a token: %v", err)
	}
	if _, err := r.orders.ListOrders(r.as("nobody"), &orderv1.ListOrdersRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("with a token of nobody: %v", err)
	}
	stream, err := r.orders.StreamOrderEvents(t.Context(), &orderv1.StreamOrderEventsRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("a stream without a token: %v", err)
	}
	conn := r.conn()
	bustest.Eventually(t, "health to say that it serves", func() bool {
		h, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
		return err == nil && h.GetStatus() == healthpb.HealthCheckResponse_SERVING
	})
	refl, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := refl.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	res, err := refl.Recv()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, s := range res.GetListServicesResponse().GetService() {
		found = found || s.GetName() == orderv1.OrderService_ServiceDesc.ServiceName
	}
	if !found {
		t.Errorf("reflection lists %v", res.GetListServicesResponse())
	}
}

func (r *rig) conn() *grpc.ClientConn {
	r.t.Helper()
	conn, err := grpc.NewClient(r.service.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// A stream that is cut at every event and resumed with the last token sees each event once, in order.
func TestRPC_EventsResumeWithoutGapOrRepeat(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	create := r.create("k", "RTX 4090", "2")
	r.operation("local", create, "the order to run", inState(orderv1.Order_RUNNING))
	id := r.operation("local", r.cancel("c", create), "the cancel to settle", settled).GetOrderId()

	token := "0"
	var revisions []uint64
	for cut := 0; len(revisions) == 0 || revisions[len(revisions)-1] != r.revision(id); cut++ {
		ctx, cancel := context.WithCancel(r.as("local"))
		stream, err := r.orders.StreamOrderEvents(ctx, &orderv1.StreamOrderEventsRequest{OrderId: id, ResumeToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for range 1 + cut%2 {
			res, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			token = res.GetResumeToken()
			revisions = append(revisions, res.GetEvent().GetRevision())
			if res.GetEvent().GetInternal() != nil {
				t.Error("an event shows the writer's own part")
			}
			if res.GetEvent().GetRevision() == r.revision(id) {
				break
			}
		}
		cancel()
	}
	for n, rev := range revisions {
		if rev != uint64(n+1) {
			t.Fatalf("revisions %v: want 1, 2, 3, …", revisions)
		}
	}
}

// A token of another journal is refused for good: coming again with it would never help.
func TestRPC_ATokenAheadOfTheJournalIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	r.operation("local", r.create("k", "RTX 9999", "2"), "the order to fail", settled)
	for _, token := range []string{"99999", "18446744073709551615", "-1", "x"} {
		ctx, cancel := context.WithTimeout(r.as("local"), patience)
		stream, err := r.orders.StreamOrderEvents(ctx, &orderv1.StreamOrderEventsRequest{ResumeToken: token})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("token %s: %v", token, err)
		}
		cancel()
	}
}

func (r *rig) revision(id string) uint64 {
	r.t.Helper()
	got, err := r.orders.GetOrder(r.as("local"), &orderv1.GetOrderRequest{Id: id})
	if err != nil {
		r.t.Fatal(err)
	}
	return got.GetOrder().GetRevision()
}

func TestRPC_TheSameRequestIDIsOneOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	ask := func(price string) (*orderv1.CreateOrderResponse, error) {
		return r.orders.CreateOrder(r.as("local"), &orderv1.CreateOrderRequest{RequestId: "one", Spec: &orderv1.OrderSpec{
			Gpu: "RTX 4090", MaxPrice: &orderv1.Price{Amount: price}, Env: map[string]string{"TOKEN": "canary-in-env"},
		}})
	}
	first, err := ask("2")
	if err != nil || first.GetReplayed() || first.GetOrder().GetId() == "" {
		t.Fatalf("%v %v", first, err)
	}
	again, err := ask("2")
	if err != nil || !again.GetReplayed() || again.GetOperationId() != first.GetOperationId() || again.GetOrder().GetId() != first.GetOrder().GetId() {
		t.Errorf("%v %v", again, err)
	}
	if _, err := ask("3"); err == nil {
		t.Error("the same key with another body is taken")
	}
	r.operation("local", first.GetOperationId(), "the order to run", inState(orderv1.Order_RUNNING))
	// What is sealed is nowhere in clear on the bus, and arrives at the market.
	for _, stream := range []string{topology.Commands, topology.Orders("main")} {
		r.grep(stream, "canary-in-env")
	}
	found := false
	for _, c := range r.state().Calls {
		found = found || c.Endpoint == "create_order" && strings.Contains(string(c.Request), "canary-in-env")
	}
	if !found {
		t.Error("the market was not given the environment")
	}
}

// grep fails when a stream holds text.
func (r *rig) grep(name, text string) {
	r.t.Helper()
	stream, err := r.bus.JetStream().Stream(r.t.Context(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	for seq := uint64(1); seq <= stream.CachedInfo().State.LastSeq; seq++ {
		m, err := stream.GetMsg(r.t.Context(), seq)
		if err != nil {
			r.t.Fatal(err)
		}
		if strings.Contains(string(m.Data), text) || strings.Contains(fmt.Sprint(m.Header), text) {
			r.t.Errorf("%s holds %q in clear at %d", name, text, seq)
		}
	}
}

// A port 22 that never answers does not end a rental as long as no probe has ever succeeded from here.
func TestOrder_UnprobedIsSaidAndNotEnded(t *testing.T) {
	t.Parallel()
	st := quick()
	st.Order.BootDeadline = 1500 * time.Millisecond
	r := newRig(t, st, cloresim.Config{})
	r.stopService(r.service)
	r.dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route") }
	r.start()
	o := r.operation("local", r.create("k", "RTX 4090", "2"), "the order to run", settled).GetOrder()
	if o.GetState() != orderv1.Order_RUNNING || !o.GetUnprobed() {
		t.Errorf("got %v", o)
	}
	if s := r.atRest(1); s.calls("cancel_order") != 0 {
		t.Errorf("%d cancels", s.calls("cancel_order"))
	}
}

// While the broker is away nothing is decided; when it is back, everything goes on.
// row:14
func TestOrder_TheBrokerComesBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	create := r.create("k", "RTX 4090", "2")
	r.operation("local", create, "the order to run", inState(orderv1.Order_RUNNING))
	r.nats.Restart()
	bustest.Eventually(t, "the service to be ready again", func() bool { return r.service.Ready() == nil && r.bus.Ready() == nil })
	r.operation("local", r.cancel("c", create), "the cancel to settle", settled)
	r.operation("local", r.create("k2", "RTX 4090", "2"), "another order to run", inState(orderv1.Order_RUNNING))
	r.atRest(1)
}

// room gives the journal so many bytes more than it holds.
func (r *rig) room(more func(held int64) int64) {
	r.t.Helper()
	name := topology.Orders("main")
	stream, err := r.bus.JetStream().Stream(r.t.Context(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	info, err := stream.Info(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	c := info.Config
	c.MaxBytes = more(int64(info.State.Bytes))
	if _, err := r.bus.JetStream().UpdateStream(r.t.Context(), c); err != nil {
		r.t.Fatal(err)
	}
}

// A nearly full journal rents nothing more; a full one still ends what is to end; and with room everything is caught up.
func TestOrder_JournalWithoutRoom(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	first := r.create("k", "RTX 4090", "2")
	r.operation("local", first, "the first to run", settled)

	for n := range 20 { // so that a fifth of it is room for some records
		r.operation("local", r.create(fmt.Sprint("none", n), "RTX 9999", "2"), "an order for what is not there to fail", settled)
	}

	r.room(func(held int64) int64 { return held + held/5 })
	bustest.Eventually(t, "an alarm", func() bool { return r.alarmed("journal_room") })
	second := r.create("k2", "RTX 4090", "2")
	r.operation("local", second, "the second to be accepted", inState(orderv1.Order_PENDING))

	r.room(func(held int64) int64 { return held })
	cancel := r.cancel("c", first)
	r.atRest(0)
	if creates := r.state().calls("create_order"); creates != 1 {
		t.Errorf("%d creates without room", creates)
	}

	r.room(func(int64) int64 { return 1 << 30 })
	r.operation("local", cancel, "the cancel to settle", settled)
	r.operation("local", second, "the second to run", settled)
	r.atRest(1)
}

// A rental that may be ours bars creates until a person says that it is not; then nothing here ends it.
func TestOrder_ASuspectIsDisowned(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), cloresim.Config{})
	// Over an empty journal a rental with two ports from our range may be ours from before the journal was lost.
	r.humanRents(22, 30001, 40001)
	order := r.create("k", "RTX 4090", "2")
	r.operation("local", order, "the order to be accepted", inState(orderv1.Order_PENDING))
	bustest.Eventually(t, "an alarm", func() bool { return r.alarmed("suspects") })
	if creates := r.state().calls("create_order"); creates != 0 {
		t.Fatalf("%d creates beside a suspect", creates)
	}
	suspect := r.state().Rentals[0].ID
	id := r.publish("local", "control", "disown", "d", &controlv1.Disown{MarketOrderId: suspect})
	if op := r.operation("local", id, "the word to be taken", settled); op.GetFailure() != nil {
		t.Fatalf("the word is not taken: %v", op.GetFailure())
	}
	r.operation("local", order, "the order to run", settled)
	if ours, human := r.state().live(); ours != 1 || human != 1 {
		t.Errorf("%d rentals of ours, %d others", ours, human)
	}
}
