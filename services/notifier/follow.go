package notifier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/renthook/renthook/pkg/bus"
	deliveryv1 "github.com/renthook/renthook/proto/gen/renthook/delivery/v1"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/notifier/internal/compose"
)

// retention is how long DELIVERIES refuses a delivery a second time.
var retention = topology.DeliveriesStream(topology.Sizes{}).MaxAge

func (s *Service) journals() []jetstream.StreamConfig {
	streams := make([]jetstream.StreamConfig, len(s.cfg.Accounts), len(s.cfg.Accounts)+3)
	for i, account := range s.cfg.Accounts {
		streams[i] = topology.OrdersStream(account, s.cfg.Sizes)
	}
	return streams
}

// followConfig takes one record at a time, whichever replica has it: deliveries are enqueued in the journal's order.
func followConfig(account string) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: topology.NotifierConsumer(account), Description: "The notifier's place in the journal of " + account + ".",
		DeliverPolicy: jetstream.DeliverAllPolicy, AckPolicy: jetstream.AckExplicitPolicy,
		AckWait: 30 * time.Second, MaxAckPending: 1, MaxDeliver: -1,
	}
}

func (s *Service) follow(ctx context.Context, account string) error {
	stream, consumer := topology.Orders(account), topology.NotifierConsumer(account)
	return s.bus.Consume(ctx, stream, consumer, s.record, bus.Options{DeadLetter: topology.DeadLetter(stream, consumer)})
}

// record turns one record of a journal into deliveries and stores them. Handled again, it stores nothing.
func (s *Service) record(ctx context.Context, m bus.Msg) error {
	parts, err := topology.ParseOrderEvent(m.Subject)
	if err != nil {
		return bus.Permanent(err)
	}
	if parts.Client == "-" && parts.Event != "alarm" {
		return nil // a fact of the account that nobody asked for and nobody need act on
	}
	if age := time.Since(m.Time); age > retention {
		s.log.WarnContext(ctx, "a record is too old to be told", "event_id", topology.EventID(m.Stream, m.Sequence),
			"order_id", parts.ID, "age", age.String())
		return nil
	}
	ev := &orderv1.OrderEvent{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(m.Data, ev); err != nil {
		return bus.Permanent(fmt.Errorf("decode order event: %w", err))
	}
	deliveries, err := s.deliveries(compose.Event{
		ID: topology.EventID(m.Stream, m.Sequence), Client: parts.Client, Traceparent: m.Header.Get("traceparent"), OrderEvent: ev,
	})
	if err != nil {
		return bus.Permanent(err)
	}
	for _, d := range deliveries {
		if err := s.enqueue(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// deliveries are what an event causes: its callbacks, and a message to every endpoint that wants it.
func (s *Service) deliveries(ev compose.Event) ([]*deliveryv1.Delivery, error) {
	all, err := compose.Callbacks(ev)
	if err != nil {
		return nil, err
	}
	for _, r := range s.routes {
		if !r.filter.Matches(ev.OrderEvent) {
			continue
		}
		body, err := r.render.Render(ev.OrderEvent)
		if err != nil {
			return nil, fmt.Errorf("endpoint %s: %w", r.Name, err)
		}
		all = append(all, compose.Route(ev, r.Name, r.Channel, body))
	}
	return all, nil
}

// enqueue stores a delivery on its subject, which takes one message: a second is the same one.
func (s *Service) enqueue(ctx context.Context, d *deliveryv1.Delivery) error {
	body, err := protojson.Marshal(d)
	if err != nil {
		return bus.Permanent(fmt.Errorf("encode delivery %s: %w", d.GetId(), err))
	}
	_, err = s.bus.Publish(ctx, &nats.Msg{Subject: topology.Delivery(d.GetEndpoint(), d.GetId()), Data: body})
	switch {
	case errors.Is(err, bus.ErrExists):
		return nil
	case errors.Is(err, bus.ErrTooLarge):
		return bus.Permanent(err)
	case err != nil:
		return fmt.Errorf("enqueue delivery %s to %s: %w", d.GetId(), d.GetEndpoint(), err)
	}
	return nil
}
