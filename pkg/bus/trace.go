package bus

import (
	"context"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// carrier moves trace context through NATS headers. propagation.HeaderCarrier would write "Traceparent", which
// the case-sensitive look-ups of NATS clients miss.
type carrier nats.Header

func (c carrier) Get(key string) string { return nats.Header(c).Get(key) }
func (c carrier) Set(key, value string) { nats.Header(c).Set(key, value) }
func (c carrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for k := range c {
		keys = append(keys, k)
	}
	return keys
}

func inject(ctx context.Context, h nats.Header) {
	otel.GetTextMapPropagator().Inject(ctx, carrier(h))
}

// Inject writes the trace context of ctx into h, for messages that do not pass through Publish: requests, and
// records of a journal.
func Inject(ctx context.Context, h nats.Header) { inject(ctx, h) }

// Extract gives ctx the trace context that h carries.
func Extract(ctx context.Context, h nats.Header) context.Context {
	return otel.GetTextMapPropagator().Extract(ctx, carrier(h))
}

func (c *Conn) spanName(verb, subject string) string {
	if c.cfg.Template == nil {
		return verb
	}
	return verb + " " + c.cfg.Template(subject)
}

func (c *Conn) startPublish(ctx context.Context, subject string) (context.Context, trace.Span) {
	return c.tracer.Start(ctx, c.spanName("publish", subject), trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(attribute.String("messaging.system", "nats"),
			attribute.String("messaging.destination.name", subject)))
}

func (c *Conn) startProcess(ctx context.Context, m Msg) (context.Context, trace.Span) {
	return c.tracer.Start(Extract(ctx, m.Header), c.spanName("process", m.Subject),
		trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(attribute.String("messaging.system", "nats"),
			attribute.String("messaging.destination.name", m.Subject),
			attribute.String("messaging.consumer.group.name", m.Consumer),
			attribute.Int64("messaging.nats.sequence", int64(m.Sequence)),
			attribute.Int64("messaging.nats.delivered", int64(m.Delivered))))
}

func endSpan(span trace.Span, err error) {
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}
