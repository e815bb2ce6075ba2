package telemetry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/metric"

	"github.com/renthook/renthook/pkg/telemetry"
)

func open(t *testing.T, c telemetry.Config) *telemetry.Telemetry {
	t.Helper()
	c.Getenv = func(string) string { return "" }
	tel, err := telemetry.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tel.Shutdown(t.Context()) })
	return tel
}

func get(tel *telemetry.Telemetry, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

func TestLinesCarryServiceVersionAndTrace(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	tel := open(t, telemetry.Config{Service: "order", Version: "1.2.3", Output: &out})
	ctx, span := tel.Tracer("test").Start(t.Context(), "work")
	tel.Logger().InfoContext(ctx, "rented", "order_id", "ord_1")
	span.End()
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"service": "order", "version": "1.2.3", "order_id": "ord_1", "trace_id": span.SpanContext().TraceID().String(), "span_id": span.SpanContext().SpanID().String(),
	} {
		if line[key] != want {
			t.Errorf("%s is %v, want %s", key, line[key], want)
		}
	}
}

func TestReadinessSaysWhy(t *testing.T) {
	t.Parallel()
	tel := open(t, telemetry.Config{Service: "x"})
	broken := errors.New("the broker is away")
	tel.AddCheck("bus", func() error { return broken })
	tel.AddCheck("market", func() error { return nil })
	if w := get(tel, "/readyz"); w.Code != http.StatusServiceUnavailable || w.Body.String() != "[-] bus: the broker is away\n[+] market\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := get(tel, "/livez"); w.Code != http.StatusOK {
		t.Errorf("/livez depends on something: %d", w.Code)
	}
	broken = nil
	if w := get(tel, "/readyz"); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestTwoInOneProcessCountApart(t *testing.T) {
	t.Parallel()
	a, b := open(t, telemetry.Config{Service: "a"}), open(t, telemetry.Config{Service: "b"})
	counter, err := a.Meter("m").Int64Counter("renthook.orders", metric.WithUnit("{order}"))
	if err != nil {
		t.Fatal(err)
	}
	counter.Add(t.Context(), 3)
	if text := get(a, "/metrics").Body.String(); !strings.Contains(text, "renthook_orders_total") {
		t.Errorf("a does not count:\n%s", text)
	}
	if text := get(b, "/metrics").Body.String(); strings.Contains(text, "renthook_orders_total") {
		t.Error("b counts what a did")
	}
}

func TestUnknownLevelAndFormatAreRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []telemetry.Config{{Level: "loud"}, {Format: "xml"}} {
		if _, err := telemetry.New(t.Context(), c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}

func TestProfilesAreServed(t *testing.T) {
	t.Parallel()
	tel := open(t, telemetry.Config{Service: "x"})
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/goroutine"} {
		if w := get(tel, path); w.Code != http.StatusOK {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	// The command line may hold a secret.
	if w := get(tel, "/debug/pprof/cmdline"); w.Code != http.StatusNotFound {
		t.Errorf("the command line is served: %d", w.Code)
	}
}
