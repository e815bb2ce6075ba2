// Package telemetry tells what a process does: logs as lines of JSON, traces and metrics by OpenTelemetry's standard
// variables, Prometheus, health and profiles on one admin handler.
//
// It guarantees that several Telemetries in one process share nothing but OpenTelemetry's propagator, that every log
// line carries the trace it belongs to, and that readiness says by name why it is not given. It refuses levels and
// formats it does not know. It exports nothing anywhere unless the standard variables ask for it.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"os"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Config says who speaks, and how.
type Config struct {
	// Service and Version stand on every line, span and metric.
	Service, Version string
	// Output of log lines; os.Stderr when nil.
	Output io.Writer
	// Level is debug, info, warn or error; info when empty. Format is json or text; json when empty.
	Level, Format string
	// Getenv reads the standard variables; os.Getenv when nil.
	Getenv func(string) string
}

// Telemetry is one process's, or one test's.
type Telemetry struct {
	logger   *slog.Logger
	registry *prometheus.Registry
	traces   *sdktrace.TracerProvider
	metrics  *sdkmetric.MeterProvider

	mu     sync.Mutex
	checks []check
}

type check struct {
	name string
	fn   func() error
}

// New makes it. Shutdown must be called.
func New(ctx context.Context, c Config) (*Telemetry, error) {
	if c.Output == nil {
		c.Output = os.Stderr
	}
	if c.Getenv == nil {
		c.Getenv = os.Getenv
	}
	logger, err := newLogger(c)
	if err != nil {
		return nil, err
	}
	t := &Telemetry{logger: logger, registry: prometheus.NewRegistry()}
	t.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	res := resource.NewSchemaless(attribute.String("service.name", c.Service), attribute.String("service.version", c.Version))

	pull, err := otelprom.New(otelprom.WithRegisterer(t.registry))
	if err != nil {
		return nil, fmt.Errorf("make the Prometheus exporter: %w", err)
	}
	readers := []sdkmetric.Option{sdkmetric.WithResource(res), sdkmetric.WithReader(pull)}
	if asked(c, "METRICS") {
		push, err := autoexport.NewMetricReader(ctx)
		if err != nil {
			return nil, fmt.Errorf("make the metrics exporter of the OTEL_ variables: %w", err)
		}
		readers = append(readers, sdkmetric.WithReader(push))
	}
	t.metrics = sdkmetric.NewMeterProvider(readers...)

	spans := []sdktrace.TracerProviderOption{sdktrace.WithResource(res)}
	if asked(c, "TRACES") {
		exporter, err := autoexport.NewSpanExporter(ctx)
		if err != nil {
			return nil, fmt.Errorf("make the trace exporter of the OTEL_ variables: %w", err)
		}
		spans = append(spans, sdktrace.WithBatcher(exporter))
	}
	t.traces = sdktrace.NewTracerProvider(spans...)
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	return t, nil
}

// asked says that the standard variables want a signal exported.
func asked(c Config, signal string) bool {
	exporter := c.Getenv("OTEL_" + signal + "_EXPORTER")
	if exporter == "" {
		return c.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || c.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
	}
	// Prometheus is always served, on the admin handler.
	return exporter != "none" && exporter != "prometheus"
}

func newLogger(c Config) (*slog.Logger, error) {
	var level slog.Level
	if c.Level != "" {
		if err := level.UnmarshalText([]byte(c.Level)); err != nil {
			return nil, fmt.Errorf("log level %q: want debug, info, warn or error", c.Level)
		}
	}
	options := &slog.HandlerOptions{Level: level}
	var h slog.Handler
	switch c.Format {
	case "", "json":
		h = slog.NewJSONHandler(c.Output, options)
	case "text":
		h = slog.NewTextHandler(c.Output, options)
	default:
		return nil, fmt.Errorf("log format %q: want json or text", c.Format)
	}
	return slog.New(traced{h}).With("service", c.Service, "version", c.Version), nil
}

// traced adds the trace of the context to a line.
type traced struct{ slog.Handler }

func (h traced) Handle(ctx context.Context, r slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		r.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h traced) WithAttrs(a []slog.Attr) slog.Handler { return traced{h.Handler.WithAttrs(a)} }

func (h traced) WithGroup(name string) slog.Handler { return traced{h.Handler.WithGroup(name)} }

// Logger writes lines.
func (t *Telemetry) Logger() *slog.Logger { return t.logger }

// Tracer makes spans of the package named.
func (t *Telemetry) Tracer(name string) trace.Tracer { return t.traces.Tracer(name) }

// Meter makes instruments of the package named.
func (t *Telemetry) Meter(name string) metric.Meter { return t.metrics.Meter(name) }

// AddCheck makes readiness depend on fn, which must answer at once: nil when all is well, else why not.
func (t *Telemetry) AddCheck(name string, fn func() error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.checks = append(t.checks, check{name, fn})
}

// Handler serves /metrics, /livez, /readyz and /debug/pprof. It is for operators: bind it where only they are.
func (t *Telemetry) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", t.ready)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// ready lists every check, and fails when one does.
func (t *Telemetry) ready(w http.ResponseWriter, _ *http.Request) {
	t.mu.Lock()
	checks := t.checks
	t.mu.Unlock()
	status := http.StatusOK
	var b strings.Builder
	for _, c := range checks {
		if err := c.fn(); err != nil {
			status = http.StatusServiceUnavailable
			fmt.Fprintf(&b, "[-] %s: %v\n", c.name, err)
			continue
		}
		fmt.Fprintf(&b, "[+] %s\n", c.name)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, b.String())
}

// Shutdown sends what is still to be exported.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	return errors.Join(t.traces.Shutdown(ctx), t.metrics.Shutdown(ctx))
}
