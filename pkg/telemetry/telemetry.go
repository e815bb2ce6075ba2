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
	otellog "go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	sdklog "go.opentelemetry.io/otel/sdk/log"
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
	closers  []func(context.Context) error

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
	t := &Telemetry{registry: prometheus.NewRegistry()}
	t.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	// OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES are stronger than what we say of ourselves.
	res, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", c.Service), attribute.String("service.version", c.Version)), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("read the OTEL_ variables about this process: %w", err)
	}
	err = errors.Join(t.openMetrics(ctx, c, res), t.openTraces(ctx, c, res), t.openLogs(ctx, c, res))
	if err != nil {
		return nil, errors.Join(err, t.Shutdown(ctx))
	}
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	return t, nil
}

func (t *Telemetry) openMetrics(ctx context.Context, c Config, res *resource.Resource) error {
	pull, err := otelprom.New(otelprom.WithRegisterer(t.registry))
	if err != nil {
		return fmt.Errorf("make the Prometheus exporter: %w", err)
	}
	options := []sdkmetric.Option{sdkmetric.WithResource(res), sdkmetric.WithReader(pull)}
	if asked(c, "METRICS") {
		push, err := autoexport.NewMetricReader(ctx)
		if err != nil {
			return fmt.Errorf("make the metrics exporter of the OTEL_ variables: %w", err)
		}
		options = append(options, sdkmetric.WithReader(push))
	}
	t.metrics = sdkmetric.NewMeterProvider(options...)
	t.closers = append(t.closers, t.metrics.Shutdown)
	return nil
}

func (t *Telemetry) openTraces(ctx context.Context, c Config, res *resource.Resource) error {
	options := []sdktrace.TracerProviderOption{sdktrace.WithResource(res)}
	if asked(c, "TRACES") {
		exporter, err := autoexport.NewSpanExporter(ctx)
		if err != nil {
			return fmt.Errorf("make the trace exporter of the OTEL_ variables: %w", err)
		}
		options = append(options, sdktrace.WithBatcher(exporter))
	}
	t.traces = sdktrace.NewTracerProvider(options...)
	t.closers = append(t.closers, t.traces.Shutdown)
	return nil
}

func (t *Telemetry) openLogs(ctx context.Context, c Config, res *resource.Resource) (err error) {
	var provider otellog.LoggerProvider
	if asked(c, "LOGS") {
		exporter, err := autoexport.NewLogExporter(ctx)
		if err != nil {
			return fmt.Errorf("make the log exporter of the OTEL_ variables: %w", err)
		}
		logs := sdklog.NewLoggerProvider(sdklog.WithResource(res), sdklog.WithProcessor(sdklog.NewBatchProcessor(exporter)))
		t.closers = append(t.closers, logs.Shutdown)
		provider = logs
	}
	t.logger, err = newLogger(c, provider)
	return err
}

// asked says that the standard variables want a signal exported.
func asked(c Config, signal string) bool {
	if strings.EqualFold(c.Getenv("OTEL_SDK_DISABLED"), "true") {
		return false
	}
	exporter := c.Getenv("OTEL_" + signal + "_EXPORTER")
	if exporter == "" {
		return c.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || c.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
	}
	// Prometheus is always served, on the admin handler.
	return exporter != "none" && exporter != "prometheus"
}

// newLogger writes lines, and exports them as well when there is somewhere to.
func newLogger(c Config, exporter otellog.LoggerProvider) (*slog.Logger, error) {
	var level slog.Level
	if c.Level != "" {
		if err := level.UnmarshalText([]byte(c.Level)); err != nil {
			return nil, fmt.Errorf("log level %q: want debug, info, warn or error", c.Level)
		}
	}
	h, err := newHandler(c.Output, c.Format, level)
	if err != nil {
		return nil, err
	}
	h = h.WithAttrs([]slog.Attr{slog.String("service", c.Service), slog.String("version", c.Version)})
	if exporter != nil {
		h = slog.NewMultiHandler(h, exported{to: exporter.Logger(c.Service), level: level})
	}
	return slog.New(h), nil
}

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

// Shutdown sends what is still to be exported. Lines logged later are still written, but not exported.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var problems []error
	for _, stop := range t.closers {
		problems = append(problems, stop(ctx))
	}
	return errors.Join(problems...)
}
