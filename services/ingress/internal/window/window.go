// Package window makes equal asks that carry no key one command for some time.
//
// It guarantees that whichever replica is asked, and however many at once, all asks within the window get the token of
// the first. The window is a key in the broker's memory, so that it costs no write to disk; when the broker forgets
// it, the commands themselves, found by a token that is made of the ask and the time, say what was asked before. It
// refuses to go on when the broker does not answer: an ask that cannot be compared is not admitted.
package window

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/renthook/renthook/services/internal/admit"
	"github.com/renthook/renthook/services/internal/topology"
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

// Commands is an *admit.Admitter.
type Commands interface {
	Queued(ctx context.Context, c topology.Command) (at time.Time, ok bool, err error)
}

// Config of the windows.
type Config struct {
	// Length of a window, 0 for none; whole seconds, rounded up; at most Most.
	Length time.Duration
	// Open gives the bucket, made when it is missing.
	Open func(ctx context.Context) (Bucket, error)
	// Commands are looked at for what the bucket has forgotten.
	Commands Commands
}

// Windows finds the token of an ask. It is safe for concurrent use.
type Windows struct {
	cfg Config
	now func() time.Time

	mu     sync.Mutex
	bucket Bucket
}

// New makes the windows and touches nothing yet.
func New(cfg Config) (*Windows, error) {
	if cfg.Length < 0 || cfg.Length > Most {
		return nil, fmt.Errorf("a window of %s: want 0 to %s", cfg.Length, Most)
	}
	cfg.Length = seconds(cfg.Length)
	return &Windows{cfg: cfg, now: time.Now}, nil
}

// seconds rounds up to what the broker knows.
func seconds(d time.Duration) time.Duration { return (d + time.Second - 1).Truncate(time.Second) }

// Token gives the token of the first of the asks, within the window, that have c and all parts in common. Whether it
// is the first is not said: the command's own subject knows that better. The error is admit.ErrUnavailable with its cause.
func (w *Windows) Token(ctx context.Context, c topology.Command, parts ...string) (string, error) {
	if w.cfg.Length == 0 {
		return admit.Fresh(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	token, err := w.token(ctx, c, digest(append([]string{c.Client, c.Noun, c.Verb}, parts...)...))
	if err != nil {
		return "", admit.ErrUnavailable.Wrap(err)
	}
	return token, nil
}

func (w *Windows) token(ctx context.Context, c topology.Command, key string) (string, error) {
	now := w.now()
	token, ttl := w.nth(key, now, 0), w.cfg.Length
	// An ask of the window before this one may still hold; one of this window has the same token anyway.
	c.Key = w.nth(key, now, -1)
	at, stored, err := w.cfg.Commands.Queued(ctx, c)
	if err != nil {
		return "", err
	}
	if left := w.cfg.Length - now.Sub(at); stored && left > 0 {
		token, ttl = c.Key, min(ttl, seconds(left))
	}
	for range rounds {
		first, err := w.claim(ctx, key, token, ttl)
		if !errors.Is(err, jetstream.ErrKeyNotFound) {
			return first, err
		}
	}
	return "", errors.New("a window lapses faster than it is read")
}

// nth is the token of an ask in the window that now lies in, or in one before it. Windows have fixed borders here, so
// that every replica makes the same token without asking; that they overlap as they should is what the bucket is for.
func (w *Windows) nth(key string, now time.Time, n int64) string {
	return digest(key, strconv.FormatInt(now.UnixNano()/int64(w.cfg.Length)+n, 10))
}

// claim stores the token, or gives the one that is stored; ErrKeyNotFound when that one lapsed in between.
func (w *Windows) claim(ctx context.Context, key, token string, ttl time.Duration) (string, error) {
	for again := true; ; again = false {
		bucket, err := w.open(ctx)
		if err != nil {
			return "", err
		}
		_, err = bucket.Create(ctx, key, []byte(token), jetstream.KeyTTL(ttl))
		if err == nil {
			return token, nil
		}
		if again && gone(err) {
			w.forget(bucket)
			continue
		}
		if !errors.Is(err, jetstream.ErrKeyExists) {
			return "", fmt.Errorf("open a window: %w", err)
		}
		stored, err := bucket.Get(ctx, key)
		if err != nil {
			return "", fmt.Errorf("read a window: %w", err)
		}
		return string(stored.Value()), nil
	}
}

// Open makes sure that the bucket is there, so that the first ask does not wait for it.
func (w *Windows) Open(ctx context.Context) error {
	if w.cfg.Length == 0 {
		return nil
	}
	_, err := w.open(ctx)
	return err
}

func (w *Windows) open(ctx context.Context) (Bucket, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bucket == nil {
		b, err := w.cfg.Open(ctx)
		if err != nil {
			return nil, err
		}
		w.bucket = b
	}
	return w.bucket, nil
}

func (w *Windows) forget(b Bucket) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bucket == b {
		w.bucket = nil
	}
}

// gone says whether err is how an operation learns that the bucket is not there any more.
func gone(err error) bool {
	return errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrBucketNotFound)
}

// digest is 128 bits over parts that cannot run into each other.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s\n", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
