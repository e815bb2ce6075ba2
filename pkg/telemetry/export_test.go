package telemetry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/pkg/telemetry"
)

// collector is an OTLP receiver that keeps what came, by path.
type collector struct {
	*httptest.Server
	mu   sync.Mutex
	seen map[string]string
}

func collect(t *testing.T) *collector {
	t.Helper()
	c := &collector{seen: map[string]string{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.seen[r.URL.Path] += string(body)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) at(path string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[path]
}

const hush = "hush-hush-hush"

// work does a little of everything under one Telemetry, and shuts it down.
func work(t *testing.T, c telemetry.Config) {
	t.Helper()
	tel, err := telemetry.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := tel.Tracer("test").Start(t.Context(), "span-of-work")
	counter, err := tel.Meter("test").Int64Counter("counter-of-work")
	if err != nil {
		t.Fatal(err)
	}
	counter.Add(ctx, 1)
	log := tel.Logger().With("key", secret.New(hush)).WithGroup("g").With("n", 7, "yes", true)
	log.InfoContext(ctx, "line-of-work", "err", errors.New("error-of-work"), "at", time.Now(), "took", 3*time.Second, "share", 0.5,
		"any", struct{ Key secret.String }{secret.New(hush)}, slog.Group("in", "token", secret.New(hush)), slog.Attr{})
	log.DebugContext(ctx, "line-below")
	span.End()
	// A context of its own: t.Context is over when a test cleans up, and so may a process's be.
	end, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := tel.Shutdown(end); err != nil {
		t.Error(err)
	}
}

func TestEverythingIsExportedWhereTheVariablesSay(t *testing.T) {
	c := collect(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment=here")
	work(t, telemetry.Config{Service: "service-of-work", Version: "1.2.3", Output: io.Discard})
	for path, parts := range map[string][]string{
		"/v1/traces":  {"span-of-work"},
		"/v1/metrics": {"counter-of-work"},
		"/v1/logs":    {"line-of-work", "error-of-work", secret.Mask, "g.in.token", "g.n", "INFO"},
	} {
		got := c.at(path)
		for _, part := range append(parts, "service-of-work", "1.2.3", "deployment") {
			if !strings.Contains(got, part) {
				t.Errorf("%s holds no %q in %d bytes", path, part, len(got))
			}
		}
		if strings.Contains(got, hush) || strings.Contains(got, "line-below") {
			t.Errorf("%s holds a secret, or a line below the level", path)
		}
	}
}

func TestNothingIsExportedUnasked(t *testing.T) {
	c := collect(t)
	for _, variables := range []map[string]string{
		{"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL, "OTEL_SDK_DISABLED": "true"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "prometheus", "OTEL_LOGS_EXPORTER": "none"},
	} {
		t.Run("", func(t *testing.T) {
			for name, value := range variables {
				t.Setenv(name, value)
			}
			work(t, telemetry.Config{Service: "x", Output: io.Discard})
		})
	}
	for _, path := range []string{"/v1/traces", "/v1/metrics", "/v1/logs"} {
		if got := c.at(path); got != "" {
			t.Errorf("%s got %d bytes", path, len(got))
		}
	}
}

func TestVariablesThatMakeNoSenseAreRefused(t *testing.T) {
	for name, value := range map[string]string{
		"OTEL_TRACES_EXPORTER": "pigeon", "OTEL_METRICS_EXPORTER": "pigeon", "OTEL_LOGS_EXPORTER": "pigeon", "OTEL_RESOURCE_ATTRIBUTES": "nonsense",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			if _, err := telemetry.New(t.Context(), telemetry.Config{Service: "x", Output: io.Discard}); err == nil {
				t.Error("taken")
			}
		})
	}
}

func TestSecretsAreNotLogged(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"json", "text"} {
		var out bytes.Buffer
		work(t, telemetry.Config{Service: "x", Format: format, Output: &out, Level: "debug", Getenv: func(string) string { return "" }})
		if text := out.String(); strings.Contains(text, hush) || !strings.Contains(text, "line-of-work") || !strings.Contains(text, "line-below") {
			t.Errorf("%s: %s", format, text)
		}
	}
}

func TestTheTraceOfACallerIsGoneOnWith(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	tel := open(t, telemetry.Config{Service: "x", Output: &out})
	const id = "0af7651916cd43dd8448eb211c80319c"
	carrier := propagation.MapCarrier{"traceparent": "00-" + id + "-b7ad6b7169203331-01"}
	ctx := propagation.TraceContext{}.Extract(t.Context(), carrier)
	ctx, span := tel.Tracer("test").Start(ctx, "more")
	defer span.End()
	tel.Logger().WarnContext(ctx, "said")
	if !strings.Contains(out.String(), `"trace_id":"`+id+`"`) {
		t.Errorf("%s", out.String())
	}
}
