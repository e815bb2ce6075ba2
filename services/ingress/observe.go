package ingress

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	nooptrace "go.opentelemetry.io/otel/trace/noop"

	"github.com/renthook/renthook/services/ingress/internal/answer"
)

// observe counts, times and traces every request by its route, never by its path, and turns a panic into a plain 500.
func observe(tracer trace.Tracer, meter metric.Meter, log *slog.Logger, door func(path string) (http.Handler, string)) (http.Handler, error) {
	if tracer == nil {
		tracer = nooptrace.NewTracerProvider().Tracer("")
	}
	if meter == nil {
		meter = noopmetric.NewMeterProvider().Meter("")
	}
	seconds, err := meter.Float64Histogram("http.server.request.duration", metric.WithUnit("s"),
		metric.WithDescription("How long requests took, by route and status."))
	if err != nil {
		return nil, fmt.Errorf("make the histogram of requests: %w", err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		next, route := door(r.URL.Path)
		name := r.Method
		if route != "" {
			name += " " + route
		}
		ctx := otel.GetTextMapPropagator().Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer))
		rec := &recorder{ResponseWriter: w}
		defer func() {
			if p := recover(); p != nil {
				if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(p)
				}
				log.ErrorContext(ctx, "a handler panicked", "route", route, "panic", fmt.Sprint(p))
				if rec.status == 0 {
					answer.JSON(rec, http.StatusInternalServerError, "application/json", map[string]string{"error": "something went wrong on our side"})
				}
			}
			attrs := []attribute.KeyValue{
				attribute.String("http.request.method", method(r.Method)), attribute.String("http.route", route),
				attribute.Int("http.response.status_code", rec.status),
			}
			span.SetAttributes(attrs...)
			if rec.status >= http.StatusInternalServerError {
				span.SetStatus(codes.Error, http.StatusText(rec.status))
			}
			span.End()
			seconds.Record(ctx, time.Since(began).Seconds(), metric.WithAttributes(attrs...))
		}()
		next.ServeHTTP(rec, r.WithContext(ctx))
	}), nil
}

// method bounds what a stranger can make us count.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "_OTHER"
}

// recorder remembers the status.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
