package deliver

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
	deliveryv1 "github.com/renthook/renthook/proto/gen/renthook/delivery/v1"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/notifier/internal/channel"
)

// senderFunc is a channel of one function.
type senderFunc func(ctx context.Context) channel.Result

func (f senderFunc) Send(ctx context.Context, _ *deliveryv1.Delivery, _ time.Time) channel.Result {
	return f(ctx)
}

// bench is one worker over a real broker, its messages handed to it by the test.
type bench struct {
	*worker
	t      *testing.T
	server *bustest.Server
	conn   *bus.Conn
	posts  atomic.Int32
}

func newBench(t *testing.T, send senderFunc) *bench {
	t.Helper()
	b := &bench{t: t, server: bustest.Start(t)}
	b.conn = b.server.Connect(t)
	sizes := topology.DefaultSizes()
	sizes.AttemptsBytes = 16 << 20
	if err := b.conn.EnsureStream(t.Context(), topology.AttemptsStream(sizes)); err != nil {
		t.Fatal(err)
	}
	target := Target{Endpoint: "cb-00", Sender: senderFunc(func(ctx context.Context) channel.Result {
		b.posts.Add(1)
		return send(ctx)
	})}
	d, err := New(Config{Schedule: []time.Duration{0, time.Minute, time.Minute}}, Deps{Bus: b.conn, Logger: slog.New(slog.DiscardHandler), Meter: noop.Meter{}}, []Target{target})
	if err != nil {
		t.Fatal(err)
	}
	b.worker = &worker{Deliverer: d, target: target, lane: d.lanes["cb-00"]}
	return b
}

func (b *bench) message(seq int, age time.Duration) bus.Msg {
	b.t.Helper()
	d := of(seq, "ord_a", "https://r.example")
	d.Client = "local"
	body, err := protojson.Marshal(d)
	if err != nil {
		b.t.Fatal(err)
	}
	return bus.Msg{Data: body, Time: time.Now().Add(-age)}
}

// recorded gives the newest attempt with an outcome, nil when there is none.
func (b *bench) recorded(outcome string) *deliveryv1.Attempt {
	b.t.Helper()
	raw, err := b.conn.LastBySubject(b.t.Context(), topology.Attempts, topology.DeliveryEvent("local", "cb-00", outcome))
	if errors.Is(err, bus.ErrNotFound) {
		return nil
	}
	if err != nil {
		b.t.Fatal(err)
	}
	a := &deliveryv1.Attempt{}
	if err := protojson.Unmarshal(raw.Data, a); err != nil {
		b.t.Fatal(err)
	}
	return a
}

func delivered(context.Context) channel.Result {
	return channel.Result{Verdict: channel.Delivered, Status: 200}
}

func refusing(context.Context) channel.Result {
	return channel.Result{Verdict: channel.Retry, Status: 500, Reason: "answered 500"}
}

func TestHandle_SentIsNotSentAgainWhenTheRecordFails(t *testing.T) {
	t.Parallel()
	b := newBench(t, delivered)
	b.server.Stop()
	if err := b.handle(t.Context(), b.message(1, 0)); err == nil {
		t.Fatal("the record cannot have been written")
	}
	b.server.Resume()
	bustest.Eventually(t, "the attempt to be recorded", func() bool { return b.handle(t.Context(), b.message(1, 0)) == nil })
	if n := b.posts.Load(); n != 1 {
		t.Errorf("%d POSTs, want one", n)
	}
	if a := b.recorded(Delivered); a == nil || a.GetNumber() != 1 {
		t.Errorf("recorded: %v", a)
	}
	if err := b.handle(t.Context(), b.message(1, 0)); err != nil || b.posts.Load() != 1 {
		t.Errorf("a settled delivery again: %v, %d POSTs", err, b.posts.Load())
	}
}

func TestHandle_FailedAttemptIsCountedAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, refusing)
	if err := b.handle(t.Context(), b.message(1, 0)); err == nil {
		t.Fatal("a failed attempt comes back later")
	}
	a := b.recorded(Retrying)
	due := a.GetNextTime().AsTime()
	if turn := b.lane.enter(of(1, "ord_a", "https://r.example"), due.Add(-time.Second)); turn.verdict != wait || turn.after != time.Second {
		t.Errorf("before it is due: %+v", turn)
	}
	if turn := b.lane.enter(of(1, "ord_a", "https://r.example"), due); turn.verdict != attempt || turn.number != 2 {
		t.Errorf("when it is due: %+v, want the second attempt", turn)
	}
}

func TestHandle_CutOffIsNoAttempt(t *testing.T) {
	t.Parallel()
	stopping := errors.New("stopping")
	ctx, cancel := context.WithCancelCause(t.Context())
	b := newBench(t, func(post context.Context) channel.Result {
		cancel(stopping)
		<-post.Done()
		return channel.Result{Verdict: channel.Retry, Reason: "the connection failed"}
	})
	if err := b.handle(ctx, b.message(1, 0)); !errors.Is(err, stopping) {
		t.Errorf("%v, want the reason of the stop", err)
	}
	if turn := b.lane.enter(of(1, "ord_a", "https://r.example"), time.Now()); turn.verdict != attempt || turn.number != 1 {
		t.Errorf("afterwards: %+v, want the first attempt", turn)
	}
}

func TestHandle_PostInTheAirIsFinishedWhileStopping(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	b := newBench(t, func(post context.Context) channel.Result {
		cancel()
		if err := post.Err(); err != nil {
			t.Errorf("the POST was cut off: %v", err)
		}
		return delivered(post)
	})
	if err := b.handle(ctx, b.message(1, 0)); err != nil {
		t.Error(err)
	}
	if b.recorded(Delivered) == nil {
		t.Error("not recorded")
	}
}

func TestHandle_GivenUpOnRecordBeforeTheStreamLetsGo(t *testing.T) {
	t.Parallel()
	b := newBench(t, refusing)
	if err := b.handle(t.Context(), b.message(1, 0)); err == nil {
		t.Fatal("a failed attempt comes back later")
	}
	// An old follower of it is given up without an attempt, an old one that may be tried has its try.
	if err := b.handle(t.Context(), b.message(2, patience+time.Minute)); err != nil {
		t.Errorf("an old follower: %v", err)
	}
	if a := b.recorded(Failed); a.GetDeliveryId() != "ORDERS_MAIN-2" || a.GetNumber() != 0 || b.posts.Load() != 1 {
		t.Errorf("%v after %d POSTs", a, b.posts.Load())
	}
	b = newBench(t, refusing)
	if err := b.handle(t.Context(), b.message(3, patience+time.Minute)); err != nil {
		t.Errorf("an old delivery: %v", err)
	}
	if a := b.recorded(Failed); a.GetNumber() != 1 || !strings.Contains(a.GetError(), "given up") {
		t.Errorf("%v", a)
	}
}
