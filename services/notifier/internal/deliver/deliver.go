// Package deliver makes deliveries: each consumer of DELIVERIES, one per configured endpoint and one per callback
// lane, is worked through by the schedule, and every attempt is recorded in ATTEMPTS.
//
// It guarantees that a delivery ends in exactly one recorded outcome (delivered, failed or refused), that one whose
// outcome is recorded is never sent again, that attempts and due times survive a restart because they are the fold
// of ATTEMPTS, and that a delivery never overtakes an earlier one of its order to the same receiver that is in
// back-off. A receiver that is slow or down delays only itself. On the wire a delivery is at least once: one that was sent while the
// process died before the record is sent again, with the same id and body.
//
// It refuses to count waiting as an attempt. It knows no vendor: what an answer means is the channel's to say. Two
// replicas may hand two events of one order to a receiver in the same moment in either order; the revision tells.
package deliver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/renthook/renthook/pkg/bus"
	deliveryv1 "github.com/renthook/renthook/proto/gen/renthook/delivery/v1"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/notifier/internal/channel"
)

// Outcomes of an attempt; the last token of its subject.
const (
	Delivered = "delivered"
	Retrying  = "retrying"
	Failed    = "failed"
	Refused   = "refused"
)

const (
	// window is how many deliveries of one consumer may be in the air or in back-off.
	window = 256
	// ackWait is the broker's patience with a worker that says nothing. A worker that lives says that it goes on.
	ackWait = 15 * time.Second
	// mostWait is how long a delivery is put off at a time, so that each is looked at several times a day.
	mostWait = 6 * time.Hour
	// stopGrace is how long a POST in the air may go on when the process stops.
	stopGrace = 3 * time.Second
	// sharedWorkers work a lane that several receivers share, so that some are left when a few hang.
	sharedWorkers = 4
	// recordTimeout bounds writing an attempt down, also while the process stops.
	recordTimeout = 5 * time.Second
	// lookEvery is how often the windows are looked at.
	lookEvery = 30 * time.Second
)

// retention is how long DELIVERIES keeps a message; what is older is neither tried nor remembered.
var retention = topology.DeliveriesStream(topology.Sizes{}).MaxAge

// patience is the age at which a delivery that waits is given up on record, while the stream still has it.
var patience = retention - 2*mostWait

// Config of the deliveries.
type Config struct {
	// Schedule: the first try, then the wait after each failure. Empty means DefaultSchedule.
	Schedule []time.Duration
}

// Deps are what deliveries are made with.
type Deps struct {
	Bus    *bus.Conn
	Logger *slog.Logger
	Meter  metric.Meter
}

// Target is one consumer's receivers.
type Target struct {
	// Endpoint is the token in the subjects of its deliveries.
	Endpoint string
	// Sender makes the POSTs.
	Sender channel.Sender
	// Shared says that many receivers share it: a lane of callbacks.
	Shared bool
}

// Deliverer works the targets' consumers.
type Deliverer struct {
	cfg      Config
	bus      *bus.Conn
	log      *slog.Logger
	targets  []Target
	lanes    map[string]*lane
	attempts metric.Int64Counter
	inWindow metric.Int64Gauge
}

// New makes a deliverer. Endpoint names must be distinct tokens; everything wrong is said at once.
func New(cfg Config, deps Deps, targets []Target) (*Deliverer, error) {
	if len(cfg.Schedule) == 0 {
		cfg.Schedule = DefaultSchedule()
	}
	problems := []error{checkSchedule(cfg.Schedule)}
	d := &Deliverer{cfg: cfg, bus: deps.Bus, log: deps.Logger, targets: targets, lanes: map[string]*lane{}}
	for _, t := range targets {
		if !topology.ValidToken(t.Endpoint) || d.lanes[t.Endpoint] != nil {
			problems = append(problems, fmt.Errorf("endpoint %q: names are distinct and of letters, digits, _ and -", t.Endpoint))
			continue
		}
		d.lanes[t.Endpoint] = newLane(t.Endpoint)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	var err error
	if d.attempts, err = deps.Meter.Int64Counter("renthook.delivery.attempts", metric.WithUnit("{attempt}"),
		metric.WithDescription("Attempts at deliveries by endpoint and outcome.")); err != nil {
		return nil, fmt.Errorf("make counter of attempts: %w", err)
	}
	if d.inWindow, err = deps.Meter.Int64Gauge("renthook.delivery.window", metric.WithUnit("{delivery}"),
		metric.WithDescription("Deliveries of an endpoint in the air or in back-off; full at 256.")); err != nil {
		return nil, fmt.Errorf("make gauge of windows: %w", err)
	}
	return d, nil
}

// Consumer is the durable that serves an endpoint.
func Consumer(endpoint string) string { return "deliver-" + endpoint }

func consumerConfig(endpoint string) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: Consumer(endpoint), Description: "Deliveries to " + endpoint + ".",
		FilterSubject: topology.DeliveriesTo(endpoint), DeliverPolicy: jetstream.DeliverAllPolicy,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxAckPending: window, MaxDeliver: -1,
	}
}

// Ensure creates the consumers that are missing and verifies the rest.
func (d *Deliverer) Ensure(ctx context.Context) error {
	for _, t := range d.targets {
		if _, err := d.bus.EnsureConsumer(ctx, topology.Deliveries, consumerConfig(t.Endpoint)); err != nil {
			return err
		}
	}
	return nil
}

// worker takes one target's deliveries.
type worker struct {
	*Deliverer
	target Target
	lane   *lane
}

// handle makes one attempt at a delivery, or puts it off.
func (w *worker) handle(ctx context.Context, m bus.Msg) error {
	d := &deliveryv1.Delivery{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(m.Data, d); err != nil {
		return bus.Permanent(fmt.Errorf("decode delivery: %w", err))
	}
	now := time.Now()
	t := w.lane.enter(d, now)
	switch t.verdict {
	case done:
		return nil
	case wait:
		if now.Sub(m.Time) > patience {
			r := channel.Result{Verdict: channel.Failed, Reason: "given up: what it has to wait for was not over in time"}
			return w.settle(ctx, d, w.outcome(m, d, t.number, r, now, now))
		}
		return bus.After(min(t.after, mostWait))
	case record:
		return w.settle(ctx, d, t.made)
	}
	defer w.lane.leave(d.GetId())
	result := channel.Result{Verdict: channel.Refused, Reason: "the endpoint is disabled: it said that it is gone"}
	if t.verdict == attempt {
		post, cancel := linger(ctx)
		result = w.target.Sender.Send(post, d, now)
		cancel()
		if ctx.Err() != nil && result.Status == 0 {
			return context.Cause(ctx) // cut off: nothing is known, nothing is counted
		}
	}
	ended := time.Now()
	a := w.outcome(m, d, t.number, result, now, ended)
	w.lane.sent(d, a, result, ended)
	w.tell(d, a, result)
	return w.settle(ctx, d, a)
}

// linger is ctx with stopGrace added to its end.
func linger(ctx context.Context) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		sleep(work, stopGrace)
		cancel()
	})
	return work, func() {
		stop()
		cancel()
	}
}

// outcome is the attempt as it is recorded.
func (w *worker) outcome(m bus.Msg, d *deliveryv1.Delivery, number int, r channel.Result, began, ended time.Time) *deliveryv1.Attempt {
	a := &deliveryv1.Attempt{
		DeliveryId: d.GetId(), Endpoint: d.GetEndpoint(), Number: int32(number), Status: int32(r.Status), Error: r.Reason,
		Time: timestamppb.New(began), DurationMs: ended.Sub(began).Milliseconds(), OrderId: d.GetOrderId(), EventType: d.GetEventType(),
	}
	switch r.Verdict {
	case channel.Delivered:
		a.Outcome = Delivered
	case channel.Refused:
		a.Outcome = Refused
	case channel.Failed, channel.Gone:
		a.Outcome = Failed
	case channel.Retry:
		step, more := next(w.cfg.Schedule, number)
		due := ended.Add(max(step, r.RetryAfter))
		if !more || due.Sub(m.Time) > patience {
			a.Outcome, a.Error = Failed, r.Reason+"; given up after try "+strconv.Itoa(number)
			break
		}
		a.Outcome, a.NextTime = Retrying, timestamppb.New(due)
	}
	return a
}

// settle records the attempt and says when the delivery is to come back. What was sent and could not be recorded
// is kept, and recorded when the delivery comes again, without another POST.
func (w *worker) settle(ctx context.Context, d *deliveryv1.Delivery, a *deliveryv1.Attempt) error {
	if err := w.record(ctx, d, a); err != nil {
		return fmt.Errorf("record attempt %d at %s: %w", a.GetNumber(), d.GetId(), err)
	}
	w.lane.apply(a, time.Now())
	if a.GetOutcome() == Retrying {
		return bus.After(min(time.Until(a.GetNextTime().AsTime()), mostWait))
	}
	return nil
}

func (w *worker) record(ctx context.Context, d *deliveryv1.Delivery, a *deliveryv1.Attempt) error {
	body, err := protojson.Marshal(a)
	if err != nil {
		return bus.Permanent(err)
	}
	// A stop must not undo what has happened.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	msg := &nats.Msg{Subject: topology.DeliveryEvent(d.GetClient(), d.GetEndpoint(), a.GetOutcome()), Data: body, Header: nats.Header{}}
	msg.Header.Set("Content-Type", "application/json")
	msg.Header.Set("ce-specversion", "1.0")
	msg.Header.Set("ce-id", a.GetDeliveryId()+"-"+strconv.Itoa(int(a.GetNumber())))
	msg.Header.Set("ce-source", "/renthook/delivery/"+d.GetEndpoint())
	msg.Header.Set("ce-type", "delivery."+a.GetOutcome())
	msg.Header.Set("ce-subject", a.GetDeliveryId())
	msg.Header.Set("ce-time", a.GetTime().AsTime().Format(time.RFC3339Nano))
	_, err = w.bus.Publish(ctx, msg)
	if errors.Is(err, bus.ErrUnknown) {
		// Twice the same attempt is harmless: readers go by its number.
		_, err = w.bus.Publish(ctx, msg)
	}
	return err
}

// tell writes the one line and the one count of an attempt. Addresses are not in it.
func (w *worker) tell(d *deliveryv1.Delivery, a *deliveryv1.Attempt, r channel.Result) {
	ctx := context.Background()
	w.attempts.Add(ctx, 1, metric.WithAttributes(
		attribute.String("channel", d.GetChannel()), attribute.String("outcome", a.GetOutcome())))
	level := slog.LevelInfo
	switch {
	case r.Verdict == channel.Gone:
		level = slog.LevelError
	case a.GetOutcome() != Delivered:
		level = slog.LevelWarn
	}
	attrs := []any{
		"delivery_id", d.GetId(), "endpoint", d.GetEndpoint(), "channel", d.GetChannel(), "client", d.GetClient(),
		"order_id", d.GetOrderId(), "event_type", d.GetEventType(), "attempt", a.GetNumber(), "verdict", a.GetOutcome(),
		"status", a.GetStatus(), "dur_ms", a.GetDurationMs(),
	}
	if a.GetError() != "" {
		attrs = append(attrs, "error", a.GetError())
	}
	if a.GetNextTime() != nil {
		attrs = append(attrs, "next_time", a.GetNextTime().AsTime())
	}
	w.log.Log(ctx, level, "delivery attempted", attrs...)
}
