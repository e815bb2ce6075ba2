// Package bucket opens key-value buckets that may vanish: those in memory are gone when the broker restarts.
//
// It guarantees that a bucket that is missing is created as configured, at first use and again when an operation
// finds it gone. It refuses to change a bucket that exists.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Bucket is one bucket. It is safe for concurrent use.
type Bucket struct {
	js  jetstream.JetStream
	cfg jetstream.KeyValueConfig

	mu sync.Mutex
	kv jetstream.KeyValue
}

// New describes a bucket and touches nothing yet.
func New(js jetstream.JetStream, cfg jetstream.KeyValueConfig) *Bucket {
	return &Bucket{js: js, cfg: cfg}
}

// Do calls fn with the bucket; when fn finds it gone, the bucket is created and fn called once more.
func (b *Bucket) Do(ctx context.Context, fn func(jetstream.KeyValue) error) error {
	for again := true; ; again = false {
		kv, err := b.open(ctx)
		if err != nil {
			return err
		}
		err = fn(kv)
		if err == nil || !again || !Gone(err) {
			return err
		}
		b.forget(kv)
	}
}

func (b *Bucket) open(ctx context.Context) (jetstream.KeyValue, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.kv != nil {
		return b.kv, nil
	}
	kv, err := b.js.KeyValue(ctx, b.cfg.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = b.js.CreateKeyValue(ctx, b.cfg)
		if errors.Is(err, jetstream.ErrBucketExists) {
			// Another replica was faster, with other settings: use what there is.
			kv, err = b.js.KeyValue(ctx, b.cfg.Bucket)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", b.cfg.Bucket, err)
	}
	b.kv = kv
	return kv, nil
}

func (b *Bucket) forget(kv jetstream.KeyValue) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.kv == kv {
		b.kv = nil
	}
}

// Gone says whether err is how an operation learns that the bucket is not there.
func Gone(err error) bool {
	return errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrBucketNotFound)
}
