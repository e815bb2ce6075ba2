package lease

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// acquire waits until the lease is this contender's; it returns an error only when ctx ends.
func (l *Lease) acquire(ctx context.Context) (*Held, error) {
	for quiet := false; ; {
		held, err := l.try(ctx)
		switch {
		case err == nil:
			return held, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, jetstream.ErrKeyExists):
			quiet = false
		case !quiet:
			l.log.WarnContext(ctx, "cannot contend for the lease, trying on", "error", err.Error())
			quiet = true
		}
		l.await(ctx)
	}
}

// try takes the lease if it is free, or if an attempt of this contender whose answer got lost took it before.
func (l *Lease) try(ctx context.Context) (*Held, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.TTL/2)
	defer cancel()
	begun := sinceBoot()
	held := &Held{ttl: l.cfg.TTL}
	err := l.bucket.Do(ctx, func(kv jetstream.KeyValue) error {
		revision, err := kv.Create(ctx, l.cfg.Key, []byte(l.value), jetstream.KeyTTL(l.cfg.TTL))
		if err == nil {
			held.renewed(revision, begun)
		}
		return err
	})
	if !errors.Is(err, jetstream.ErrKeyExists) {
		return held, err
	}
	if revision, ours := l.mine(ctx); ours {
		begun = sinceBoot()
		if revision, err := l.write(ctx, revision); err == nil {
			held.renewed(revision, begun)
			return held, nil
		}
	}
	return nil, err
}

// await returns when the key may be free: when it was removed or lapsed, and in any case after a third of the TTL.
func (l *Lease) await(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.TTL/3)
	defer cancel()
	err := l.bucket.Do(ctx, func(kv jetstream.KeyValue) error {
		watcher, err := kv.Watch(ctx, l.cfg.Key, jetstream.MetaOnly())
		if err != nil {
			return err
		}
		defer func() { _ = watcher.Stop() }()
		taken := false
		for {
			select {
			case e, open := <-watcher.Updates():
				switch {
				case !open:
					return errors.New("the watch ended")
				case e == nil && taken:
					// What stood there has been seen; now for what happens.
				case e == nil || e.Operation() != jetstream.KeyValuePut:
					return nil
				default:
					taken = true
				}
			case <-ctx.Done():
				return nil
			}
		}
	})
	if err != nil {
		sleep(ctx, min(time.Second, l.cfg.TTL/3))
	}
}
