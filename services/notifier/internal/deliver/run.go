package deliver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/renthook/renthook/pkg/bus"
	deliveryv1 "github.com/renthook/renthook/proto/gen/renthook/delivery/v1"
	"github.com/renthook/renthook/services/internal/topology"
)

// resumeTimeout bounds learning what one endpoint has open.
const resumeTimeout = 30 * time.Second

// Run delivers until ctx ends, then returns nil once every worker has. The consumers must exist.
func (d *Deliverer) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	defer all.Wait()
	caughtUp := make(chan struct{})
	all.Go(func() { d.follow(ctx, sync.OnceFunc(func() { close(caughtUp) })) })
	// Before the past is known, a delivery would count its attempts from one.
	select {
	case <-caughtUp:
	case <-ctx.Done():
		return nil
	}
	all.Go(func() { d.look(ctx) })
	for _, t := range d.targets {
		all.Go(func() {
			if err := d.serve(ctx, t); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// serve works one target's consumer until ctx ends.
func (d *Deliverer) serve(ctx context.Context, t Target) error {
	w := &worker{Deliverer: d, target: t, lane: d.lanes[t.Endpoint]}
	if err := d.resume(ctx, w.lane); err != nil {
		return fmt.Errorf("learn what endpoint %s has open: %w", t.Endpoint, err)
	}
	opts := bus.Options{Workers: 1, DeadLetter: topology.DeadLetter(topology.Deliveries, Consumer(t.Endpoint))}
	if t.Shared {
		opts.Workers = sharedWorkers
	}
	return d.bus.Consume(ctx, topology.Deliveries, Consumer(t.Endpoint), w.handle, opts)
}

// resume reads the deliveries that were handed out before and are not acknowledged: those after the consumer's ack
// floor that no record has settled.
func (d *Deliverer) resume(ctx context.Context, l *lane) error {
	ctx, cancel := context.WithTimeout(ctx, resumeTimeout)
	defer cancel()
	js := d.bus.JetStream()
	consumer, err := js.Consumer(ctx, topology.Deliveries, Consumer(l.endpoint))
	if err != nil {
		return err
	}
	info := consumer.CachedInfo()
	if info.NumAckPending == 0 {
		return nil
	}
	out, err := js.OrderedConsumer(ctx, topology.Deliveries, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{topology.DeliveriesTo(l.endpoint)},
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy, OptStartSeq: info.AckFloor.Stream + 1,
		InactiveThreshold: resumeTimeout,
	})
	if err != nil {
		return err
	}
	state, err := out.Info(ctx)
	if err != nil || state.NumPending == 0 {
		return err
	}
	messages, err := out.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		delivery := &deliveryv1.Delivery{}
		// One that cannot be read is for the handler to say.
		if meta.Sequence.Stream <= info.Delivered.Stream && (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(m.Data(), delivery) == nil {
			l.resume(delivery, time.Now())
		}
		if meta.Sequence.Stream >= info.Delivered.Stream || meta.NumPending == 0 {
			return nil
		}
	}
}

// follow folds ATTEMPTS into the lanes, those of other replicas included, and calls caughtUp once everything
// recorded before it began is in. It starts over after errors, which is harmless: the fold takes repetitions.
func (d *Deliverer) follow(ctx context.Context, caughtUp func()) {
	for ctx.Err() == nil {
		err := d.followOnce(ctx, caughtUp)
		if ctx.Err() != nil {
			return
		}
		d.log.WarnContext(ctx, "following the attempts ended, starting over", "error", err.Error())
		sleep(ctx, time.Second)
	}
}

func (d *Deliverer) followOnce(ctx context.Context, caughtUp func()) error {
	// No attempt at a delivery is older than the delivery.
	since := time.Now().Add(-retention)
	consumer, err := d.bus.JetStream().OrderedConsumer(ctx, topology.Attempts, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &since,
	})
	if err != nil {
		return fmt.Errorf("open the attempts: %w", err)
	}
	info, err := consumer.Info(ctx)
	if err != nil {
		return fmt.Errorf("read how many attempts there are: %w", err)
	}
	if info.NumPending == 0 {
		caughtUp()
	}
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("read the attempts: %w", err)
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("next attempt: %w", err)
		}
		a := &deliveryv1.Attempt{}
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(m.Data(), a); err != nil {
			d.log.ErrorContext(ctx, "an attempt cannot be read", "subject", m.Subject(), "error", err.Error())
		} else if l := d.lanes[a.GetEndpoint()]; l != nil {
			l.apply(a, time.Now())
		}
		if meta, err := m.Metadata(); err == nil && meta.NumPending == 0 {
			caughtUp()
		}
	}
}

// look watches the windows: a full one holds up every delivery behind it, and somebody must hear of that.
func (d *Deliverer) look(ctx context.Context) {
	for {
		for _, t := range d.targets {
			d.lanes[t.Endpoint].forget(time.Now())
			consumer, err := d.bus.JetStream().Consumer(ctx, topology.Deliveries, Consumer(t.Endpoint))
			if err != nil {
				break // the broker is away; readiness says so
			}
			info := consumer.CachedInfo()
			d.inWindow.Record(ctx, int64(info.NumAckPending), metric.WithAttributes(attribute.String("endpoint", t.Endpoint)))
			if info.NumAckPending >= window {
				d.log.ErrorContext(ctx, "the window of an endpoint is full of deliveries in back-off; those behind wait",
					"endpoint", t.Endpoint, "waiting", info.NumPending)
			}
		}
		if !sleep(ctx, lookEvery) {
			return
		}
	}
}

// sleep waits for d and says whether ctx is still on.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
