package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otellog "go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/trace"
)

// newHandler writes lines in a format, with the trace of the context on each.
func newHandler(w io.Writer, format string, level slog.Leveler) (slog.Handler, error) {
	options := &slog.HandlerOptions{Level: level}
	switch format {
	case "", "json":
		return traced{slog.NewJSONHandler(w, options)}, nil
	case "text":
		return traced{slog.NewTextHandler(w, options)}, nil
	}
	return nil, fmt.Errorf("log format %q: want json or text", format)
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

// exported hands lines to OpenTelemetry, which adds the trace itself. Groups become prefixes of keys.
type exported struct {
	to     otellog.Logger
	level  slog.Leveler
	prefix string
	attrs  []attribute.KeyValue
}

func (h exported) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h exported) Handle(ctx context.Context, r slog.Record) error {
	var out otellog.Record
	out.SetTimestamp(r.Time)
	out.SetBody(attribute.StringValue(r.Message))
	// slog's levels are OpenTelemetry's severities, nine lower.
	out.SetSeverity(otellog.Severity(int(r.Level) + 9))
	out.SetSeverityText(r.Level.String())
	out.AddAttributes(h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttributes(flat(nil, h.prefix, a)...)
		return true
	})
	h.to.Emit(ctx, out)
	return nil
}

func (h exported) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.attrs = slices.Clone(h.attrs)
	for _, a := range attrs {
		h.attrs = flat(h.attrs, h.prefix, a)
	}
	return h
}

func (h exported) WithGroup(name string) slog.Handler {
	if name != "" {
		h.prefix += name + "."
	}
	return h
}

// flat appends an attribute, a group's one by one. A value that says itself how it is logged is asked: a secret
// masks itself.
func flat(to []attribute.KeyValue, prefix string, a slog.Attr) []attribute.KeyValue {
	v := a.Value.Resolve()
	key := prefix + a.Key
	switch v.Kind() {
	case slog.KindGroup:
		if a.Key != "" {
			prefix = key + "."
		}
		for _, in := range v.Group() {
			to = flat(to, prefix, in)
		}
		return to
	case slog.KindBool:
		return append(to, attribute.Bool(key, v.Bool()))
	case slog.KindInt64:
		return append(to, attribute.Int64(key, v.Int64()))
	case slog.KindFloat64:
		return append(to, attribute.Float64(key, v.Float64()))
	case slog.KindTime:
		return append(to, attribute.String(key, v.Time().Format(time.RFC3339Nano)))
	}
	if a.Equal(slog.Attr{}) {
		return to
	}
	return append(to, attribute.String(key, v.String()))
}
