// Package throttle is a rate limit that all replicas share.
//
// It guarantees that however many processes ask at once, no more is granted than the limit allows: the state is one
// value per key on the broker, changed only by compare and set (the generic cell rate algorithm, which needs no
// more than one time). A refusal costs nothing on the broker once a process has seen that the key is over its
// limit. A lost bucket is created again and every limit starts afresh.
//
// It refuses to decide what happens when the broker is away: Take returns the error and the caller lets through or
// not. Times are those of the machines that ask, so their clocks must agree to well within the limit's period.
package throttle

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/renthook/renthook/pkg/internal/bucket"
)

// attempts bounds the compare-and-set of one Take; under contention each round has one winner.
const attempts = 64

// ErrContended says that the key changed under every attempt. It is not a verdict.
var ErrContended = errors.New("too many replicas ask for this key at once")

// Limit grants N in each Per, all at once or spread.
type Limit struct {
	N   int
	Per time.Duration
}

// Decision on one request.
type Decision struct {
	// Allowed says whether the request may go on.
	Allowed bool
	// Limit is the limit's N; Remaining is how many more would be granted right now.
	Limit, Remaining int
	// RetryAfter is when one more will be granted, 0 when Allowed. Reset is when all N will be.
	RetryAfter, Reset time.Duration
}

// Config of a throttle.
type Config struct {
	// JS is where the bucket is.
	JS jetstream.JetStream
	// Bucket is created when it is missing. Its TTL, when set, must be at least the longest Per.
	Bucket jetstream.KeyValueConfig
}

// Throttle decides. It is safe for concurrent use.
type Throttle struct {
	cfg    Config
	bucket *bucket.Bucket
	now    func() time.Time

	mu   sync.Mutex
	keys map[string]*cell
}

// New makes a throttle; it touches nothing on the broker.
func New(cfg Config) *Throttle {
	return &Throttle{cfg: cfg, bucket: bucket.New(cfg.JS, cfg.Bucket), now: time.Now, keys: map[string]*cell{}}
}

// cell is what this process knows of one key. Its lock keeps the process from contending with itself.
type cell struct {
	// lock is held by who has put a value in.
	lock chan struct{}
	// known says that tat and revision were read or written by this process.
	known bool
	// tat is the theoretical arrival time: when everything granted so far is paid for; it only grows. revision is
	// where it stood, 0 for nowhere.
	tat      time.Time
	revision uint64
	// users counts those who hold or want the lock; guarded by Throttle.mu.
	users int
}

const (
	// mostKeys bounds what a process remembers; it costs only speed to forget.
	mostKeys = 4096
	// patience bounds one Take, the wait for others of this process included.
	patience = 3 * time.Second
)

// Take asks for one request under key, which may be any text. It takes at most 3 seconds.
func (t *Throttle) Take(ctx context.Context, key string, l Limit) (Decision, error) {
	if l.N <= 0 || l.Per < time.Duration(l.N) {
		return Decision{}, fmt.Errorf("throttle: a limit of %d in %s cannot be kept", l.N, l.Per)
	}
	if ttl := t.cfg.Bucket.TTL; ttl > 0 && l.Per > ttl {
		return Decision{}, fmt.Errorf("throttle: a limit per %s needs a bucket that keeps its keys as long, not %s", l.Per, ttl)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	name := hash(key)
	c, err := t.enter(ctx, name)
	if err != nil {
		return Decision{}, fmt.Errorf("throttle: %w", err)
	}
	defer t.leave(c)
	d, err := t.take(ctx, name, c, l)
	if err != nil {
		// The last write may have been stored: read before the next.
		c.known = false
		return Decision{}, fmt.Errorf("throttle: %w", err)
	}
	return d, nil
}

func (t *Throttle) take(ctx context.Context, name string, c *cell, l Limit) (Decision, error) {
	for range attempts {
		if !c.known {
			if err := t.load(ctx, name, c); err != nil {
				return Decision{}, err
			}
		}
		next, d := grant(l, c.tat, t.now())
		// Others only move the time on, so what was read once is enough to refuse.
		if !d.Allowed {
			return d, nil
		}
		err := t.store(ctx, name, c, next)
		if err == nil {
			return d, nil
		}
		if !errors.Is(err, jetstream.ErrKeyExists) && !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			return Decision{}, err
		}
		c.known = false
		// A pause of random length parts those who lost the same round.
		timer := time.NewTimer(rand.N(2 * time.Millisecond)) //nolint:gosec // no secret hangs on it
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return Decision{}, ctx.Err()
		}
	}
	return Decision{}, ErrContended
}

// grant is the algorithm: one request moves the time on by Per/N, and may not move it further than Per ahead.
func grant(l Limit, tat, now time.Time) (next time.Time, d Decision) {
	every := l.Per / time.Duration(l.N)
	if tat.Before(now) {
		tat = now
	}
	next = tat.Add(every)
	d = Decision{Limit: l.N}
	if ahead := next.Sub(now); ahead > every*time.Duration(l.N) {
		d.RetryAfter, d.Reset = ahead-every*time.Duration(l.N), tat.Sub(now)
		return tat, d
	}
	d.Allowed, d.Reset = true, next.Sub(now)
	d.Remaining = int((every*time.Duration(l.N) - d.Reset) / every)
	return next, d
}

func (t *Throttle) store(ctx context.Context, name string, c *cell, next time.Time) error {
	value := []byte(strconv.FormatInt(next.UnixNano(), 10))
	return t.bucket.Do(ctx, func(kv jetstream.KeyValue) error {
		var revision uint64
		var err error
		if c.revision == 0 {
			revision, err = kv.Create(ctx, name, value)
		} else {
			revision, err = kv.Update(ctx, name, value, c.revision)
		}
		if err == nil {
			c.tat, c.revision = next, revision
		}
		return err
	})
}

func (t *Throttle) load(ctx context.Context, name string, c *cell) error {
	return t.bucket.Do(ctx, func(kv jetstream.KeyValue) error {
		e, err := kv.Get(ctx, name)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			c.known, c.tat, c.revision = true, time.Time{}, 0
			return nil
		}
		if err != nil {
			return err
		}
		nanos, err := strconv.ParseInt(string(e.Value()), 10, 64)
		if err != nil {
			return fmt.Errorf("the value of %s is not a time: %w", name, err)
		}
		c.known, c.tat, c.revision = true, time.Unix(0, nanos), e.Revision()
		return nil
	})
}

// hash makes any text a key of the bucket, and keeps addresses of callers out of it.
func hash(key string) string {
	sum := sha256.Sum256([]byte(key))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

func (t *Throttle) enter(ctx context.Context, name string) (*cell, error) {
	t.mu.Lock()
	c := t.keys[name]
	if c == nil {
		if len(t.keys) >= mostKeys {
			t.evict()
		}
		c = &cell{lock: make(chan struct{}, 1)}
		t.keys[name] = c
	}
	c.users++
	t.mu.Unlock()
	select {
	case c.lock <- struct{}{}:
		return c, nil
	case <-ctx.Done():
		t.mu.Lock()
		defer t.mu.Unlock()
		c.users--
		return nil, ctx.Err()
	}
}

func (t *Throttle) leave(c *cell) {
	<-c.lock
	t.mu.Lock()
	defer t.mu.Unlock()
	c.users--
}

// evict forgets some keys nobody is at. Map order is random enough.
func (t *Throttle) evict() {
	room := mostKeys / 8
	for name, c := range t.keys {
		if c.users == 0 {
			delete(t.keys, name)
			if room--; room == 0 {
				return
			}
		}
	}
}
