package bus_test

import (
	"context"
	"os"
	"testing"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
)

func TestMain(m *testing.M) {
	otel.SetTextMapPropagator(propagation.TraceContext{})
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		println(err.Error())
		code = 1
	}
	os.Exit(code)
}

func TestTrace_OneFromPublisherToHandler(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	recorder := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)).Tracer("test")
	c := bustest.Connect(t, bus.Config{URL: s.URL(), Tracer: tracer, Template: func(string) string { return "cmd.*" }})
	ensure(t, c, once("CMD", "cmd.>"))
	durable(t, c, "CMD")

	ctx, span := tracer.Start(t.Context(), "root")
	m := &nats.Msg{Subject: "cmd.1"}
	if _, err := c.Publish(ctx, m); err != nil {
		t.Fatal(err)
	}
	span.End()
	if m.Header != nil {
		t.Errorf("the caller's message was changed: %v", m.Header)
	}
	handled := make(chan trace.SpanContext, 1)
	stop := consume(t, c, "CMD", func(ctx context.Context, m bus.Msg) error {
		// The header's name must be as NATS clients of any language look it up.
		if m.Header.Get("traceparent") == "" {
			t.Errorf("headers: %v", m.Header)
		}
		handled <- trace.SpanContextFromContext(ctx)
		return nil
	}, bus.Options{})
	if got := <-handled; got.TraceID() != span.SpanContext().TraceID() {
		t.Errorf("the handler's trace is %s, the publisher's %s", got.TraceID(), span.SpanContext().TraceID())
	}
	stop()
	names := map[string]trace.SpanKind{}
	for _, s := range recorder.Ended() {
		names[s.Name()] = s.SpanKind()
	}
	if names["publish cmd.*"] != trace.SpanKindProducer || names["process cmd.*"] != trace.SpanKindConsumer {
		t.Errorf("spans: %v", names)
	}
}
