package bus

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// A Difference is one setting that is not as asked.
type Difference struct {
	// Setting by its name on the wire: "max_age".
	Setting string
	// Want and Have as JSON-like text.
	Want, Have string
}

// DriftError says that something on the broker exists but is not as asked. Nothing was changed.
type DriftError struct {
	// Kind is "stream", "consumer" or "bucket".
	Kind string
	// Name of it; a consumer's is "<stream>/<consumer>".
	Name string
	// Differences, at least one.
	Differences []Difference
}

func (e *DriftError) Error() string {
	parts := make([]string, len(e.Differences))
	for i, d := range e.Differences {
		parts[i] = fmt.Sprintf("%s is %s, want %s", d.Setting, d.Have, d.Want)
	}
	return fmt.Sprintf("%s %s is not as configured: %s", e.Kind, e.Name, strings.Join(parts, "; "))
}

// EnsureStream creates the stream if it is missing and verifies it if it is there. It waits for a connection as
// long as ctx allows. Settings that cfg leaves at zero and the broker fills in are not compared.
func (c *Conn) EnsureStream(ctx context.Context, cfg jetstream.StreamConfig) error {
	if err := c.Wait(ctx); err != nil {
		return fmt.Errorf("ensure stream %s: %w", cfg.Name, err)
	}
	// Creating with equal settings is a no-op on the server, so two services that start together both succeed.
	_, err := c.js.CreateStream(ctx, cfg)
	if err == nil {
		return nil
	}
	if !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return fmt.Errorf("create stream %s: %w", cfg.Name, err)
	}
	stream, err := c.js.Stream(ctx, cfg.Name)
	if err != nil {
		return fmt.Errorf("read stream %s: %w", cfg.Name, err)
	}
	return drift("stream", cfg.Name, cfg, stream.CachedInfo().Config)
}

// EnsureConsumer creates the durable consumer if it is missing and verifies it if it is there, like EnsureStream.
func (c *Conn) EnsureConsumer(ctx context.Context, stream string, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	name := cfg.Durable
	if name == "" {
		name = cfg.Name
	}
	if err := c.Wait(ctx); err != nil {
		return nil, fmt.Errorf("ensure consumer %s/%s: %w", stream, name, err)
	}
	consumer, err := c.js.CreateConsumer(ctx, stream, cfg)
	if err == nil {
		return consumer, nil
	}
	if !errors.Is(err, jetstream.ErrConsumerExists) {
		return nil, fmt.Errorf("create consumer %s/%s: %w", stream, name, err)
	}
	if consumer, err = c.js.Consumer(ctx, stream, name); err != nil {
		return nil, fmt.Errorf("read consumer %s/%s: %w", stream, name, err)
	}
	want, have := filters(cfg), filters(consumer.CachedInfo().Config)
	if err := drift("consumer", stream+"/"+name, want, have); err != nil {
		return nil, err
	}
	return consumer, nil
}

// filters writes the two spellings of a consumer's filter as one.
func filters(c jetstream.ConsumerConfig) jetstream.ConsumerConfig {
	if c.FilterSubject != "" {
		c.FilterSubjects, c.FilterSubject = []string{c.FilterSubject}, ""
	}
	c.FilterSubjects = slices.Sorted(slices.Values(c.FilterSubjects))
	return c
}

// EnsureBucket creates the key-value bucket if it is missing and verifies it if it is there, like EnsureStream.
func (c *Conn) EnsureBucket(ctx context.Context, cfg jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	if err := c.Wait(ctx); err != nil {
		return nil, fmt.Errorf("ensure bucket %s: %w", cfg.Bucket, err)
	}
	kv, err := c.js.CreateKeyValue(ctx, cfg)
	if err == nil {
		return kv, nil
	}
	if !errors.Is(err, jetstream.ErrBucketExists) {
		return nil, fmt.Errorf("create bucket %s: %w", cfg.Bucket, err)
	}
	if kv, err = c.js.KeyValue(ctx, cfg.Bucket); err != nil {
		return nil, fmt.Errorf("read bucket %s: %w", cfg.Bucket, err)
	}
	status, err := kv.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read bucket %s: %w", cfg.Bucket, err)
	}
	if err := drift("bucket", cfg.Bucket, cfg, status.Config()); err != nil {
		return nil, err
	}
	return kv, nil
}

// Settings that are not compared at all: words for people, which a new version may choose anew.
var words = map[string]bool{"description": true, "metadata": true}

// Settings whose zero means that the broker, or its operator, decides.
var filled = map[string]bool{
	"name": true, "duplicate_window": true, "num_replicas": true, "first_seq": true, "placement": true, "history": true,
	"ack_wait": true, "max_ack_pending": true, "max_waiting": true, "pause_until": true,
}

// drift compares two values of one configuration struct.
func drift(kind, name string, want, have any) error {
	w, h := reflect.ValueOf(want), reflect.ValueOf(have)
	var found []Difference
	for i := range w.NumField() {
		setting, _, _ := strings.Cut(w.Type().Field(i).Tag.Get("json"), ",")
		wv, hv := w.Field(i), h.Field(i)
		if words[setting] || filled[setting] && wv.IsZero() || same(wv, hv) || setting == "max_bytes" && raised(wv, hv) {
			continue
		}
		found = append(found, Difference{Setting: setting, Want: show(wv), Have: show(hv)})
	}
	if len(found) == 0 {
		return nil
	}
	return &DriftError{Kind: kind, Name: name, Differences: found}
}

// raised says that an operator gave a full stream more room, which must not keep anybody from starting.
func raised(want, have reflect.Value) bool { return want.Int() > 0 && have.Int() > want.Int() }

func same(want, have reflect.Value) bool {
	switch {
	case reflect.DeepEqual(want.Interface(), have.Interface()):
		return true
	case want.Kind() == reflect.Slice:
		return want.Len() == 0 && have.Len() == 0
	case want.CanInt():
		// No limit is 0 here and -1 on the broker.
		return want.Int() <= 0 && have.Int() <= 0
	}
	return false
}

func show(v reflect.Value) string {
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	return fmt.Sprintf("%+v", v.Interface())
}
