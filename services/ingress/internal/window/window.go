// Package window makes equal asks that carry no key one command for some time.
//
// It guarantees that whichever replica is asked, and however many at once, all asks within the window get the token of
// the first. It refuses to go on when the broker does not answer: an ask that cannot be compared is not admitted.
package window

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/renthook/renthook/services/internal/admit"
)

// Most is the longest window: what the bucket keeps.
const Most = time.Hour

const (
	// timeout bounds one question.
	timeout = 2 * time.Second
	// rounds bounds how often a key may lapse between two steps of one call; each is unlikely after the other.
	rounds = 8
)

// Bucket is the part of jetstream.KeyValue that is needed.
type Bucket interface {
	Create(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (uint64, error)
	Get(ctx context.Context, key string) (jetstream.KeyValueEntry, error)
}

// Window stores the token of the first ask under what the others have in common with it; it lapses by itself.
type Window struct {
	open func(ctx context.Context) (Bucket, error)
	ttl  time.Duration
}

// New makes a window of d, 0 for none, in whole seconds, rounded up; open gives the bucket.
func New(d time.Duration, open func(ctx context.Context) (Bucket, error)) (*Window, error) {
	if d < 0 || d > Most {
		return nil, fmt.Errorf("a window of %s: want 0 to %s", d, Most)
	}
	return &Window{open: open, ttl: (d + time.Second - 1).Truncate(time.Second)}, nil
}

// Token gives the token of the first of the asks that have all parts in common within the window. Whether it is the
// first is not said: the command's own subject knows that better. The error is admit.ErrUnavailable with its cause.
func (w *Window) Token(ctx context.Context, parts ...string) (string, error) {
	token := admit.Fresh()
	if w.ttl == 0 {
		return token, nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	bucket, err := w.open(ctx)
	if err != nil {
		return "", admit.ErrUnavailable.Wrap(err)
	}
	key := digest(parts)
	for range rounds {
		_, err := bucket.Create(ctx, key, []byte(token), jetstream.KeyTTL(w.ttl))
		if err == nil {
			return token, nil
		}
		if !errors.Is(err, jetstream.ErrKeyExists) {
			return "", admit.ErrUnavailable.Wrap(fmt.Errorf("open a window: %w", err))
		}
		stored, err := bucket.Get(ctx, key)
		if err == nil {
			return string(stored.Value()), nil
		}
		if !errors.Is(err, jetstream.ErrKeyNotFound) {
			return "", admit.ErrUnavailable.Wrap(fmt.Errorf("read a window: %w", err))
		}
	}
	return "", admit.ErrUnavailable.Wrap(errors.New("open a window: it lapses faster than it is read"))
}

// digest is 128 bits over parts that cannot run into each other.
func digest(parts []string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s\n", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
