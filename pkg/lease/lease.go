// Package lease lets one of several processes do a job, by a key that lives only as long as it is renewed.
//
// It guarantees that a lapsed or released lease is taken over by a contender, that the context of the work ends no
// later than the lease itself as counted on this machine, also when the broker hangs, and that the count starts
// when the last successful renewal was begun and runs on while the machine sleeps. It creates its bucket when that
// is missing, since one in memory is gone after a restart of the broker.
//
// It refuses to be a lock: a process that is frozen between looking at Remaining and acting is not stopped by it,
// and a broker that lost its memory grants the lease anew while the old holder still counts. It is for liveness;
// what must not happen twice needs a fence of its own.
package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/renthook/renthook/pkg/internal/bucket"
)

// MinTTL is the shortest lease: renewals must survive a restart of the broker.
const MinTTL = 10 * time.Second

// releaseTimeout bounds giving the lease back.
const releaseTimeout = 2 * time.Second

// Config of a lease.
type Config struct {
	// JS is where the bucket is.
	JS jetstream.JetStream
	// Bucket is created when it is missing. It must keep one revision per key, since a lapsed one would otherwise
	// show the one before it, and have a LimitMarkerTTL, without which the broker lets no key lapse.
	Bucket jetstream.KeyValueConfig
	// Key is the job.
	Key string
	// Holder is who asks, for people to read: service and host.
	Holder string
	// TTL in whole seconds, at least MinTTL: how long a holder that vanished bars the others.
	TTL time.Duration
	// Logger; slog.Default when nil.
	Logger *slog.Logger
}

// Lease contends for one key.
type Lease struct {
	cfg    Config
	bucket *bucket.Bucket
	log    *slog.Logger
	// value marks this contender's own writes: the holder's name and a random id.
	value string
}

// New checks cfg; it touches nothing on the broker.
func New(cfg Config) (*Lease, error) {
	if cfg.TTL < MinTTL {
		return nil, fmt.Errorf("lease %s: ttl %s is below %s", cfg.Key, cfg.TTL, MinTTL)
	}
	return newLease(cfg)
}

func newLease(cfg Config) (*Lease, error) {
	switch {
	case cfg.JS == nil || cfg.Key == "" || cfg.Holder == "":
		return nil, errors.New("lease: a connection, a key and a holder are needed")
	case cfg.TTL <= 0 || cfg.TTL%time.Second != 0:
		return nil, fmt.Errorf("lease %s: ttl %s is not in whole seconds", cfg.Key, cfg.TTL)
	case cfg.Bucket.History > 1 || cfg.Bucket.LimitMarkerTTL <= 0:
		return nil, fmt.Errorf("lease %s: bucket %s must keep one revision and have a limit marker", cfg.Key, cfg.Bucket.Bucket)
	}
	l := &Lease{cfg: cfg, bucket: bucket.New(cfg.JS, cfg.Bucket), log: cfg.Logger, value: cfg.Holder + " " + nuid.Next()}
	if l.log == nil {
		l.log = slog.Default()
	}
	l.log = l.log.With("lease", cfg.Key, "holder", cfg.Holder)
	return l, nil
}

// Held is a lease in hand. It is safe for concurrent use.
type Held struct {
	ttl time.Duration

	mu       sync.Mutex
	revision uint64
	// since is when the last successful renewal was begun, on the clock that runs through suspend.
	since time.Duration
}

// Remaining is how long the lease lasts without another renewal; not positive when it is lost.
func (h *Held) Remaining() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.since + h.ttl - sinceBoot()
}

func (h *Held) renewed(revision uint64, since time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.revision, h.since = revision, since
}

func (h *Held) lastRevision() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.revision
}

// ErrLost is the cause of the work's context when the lease is lost.
var ErrLost = errors.New("the lease is lost")

// Run contends for the lease until ctx ends, then returns nil. While it holds the lease it calls fn with a context
// that ends when ctx does or the lease is lost; fn must return soon after. When fn returns, the lease is released,
// so that another takes over at once; if fn returned while the lease was still held and ctx had not ended, Run
// returns what fn returned, otherwise it goes on contending.
func (l *Lease) Run(ctx context.Context, fn func(ctx context.Context, h *Held) error) error {
	for ctx.Err() == nil {
		held, err := l.acquire(ctx)
		if err != nil {
			return nil //nolint:nilerr // acquire fails only when ctx ends
		}
		l.log.InfoContext(ctx, "the lease is ours")
		lost, err := l.hold(ctx, held, fn)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // fn was told to stop
		}
		if !lost {
			return err
		}
		l.log.WarnContext(ctx, "the lease is lost, contending again")
	}
	return nil
}

// hold keeps the lease alive while fn works.
func (l *Lease) hold(ctx context.Context, h *Held, fn func(context.Context, *Held) error) (lost bool, err error) {
	work, cancel := context.WithCancelCause(ctx)
	renewals, stop := context.WithCancel(context.WithoutCancel(ctx))
	var keeper sync.WaitGroup
	keeper.Go(func() { l.renew(renewals, h, func() { cancel(ErrLost) }) })
	keeper.Go(func() { expire(renewals, h, func() { cancel(ErrLost) }) })
	defer func() {
		stop()
		keeper.Wait()
		lost = errors.Is(context.Cause(work), ErrLost)
		cancel(nil)
		// Also a lost one: a renewal may have come through just too late. It goes only if it is still ours.
		l.release(ctx, h)
	}()
	return false, fn(work, h)
}

// expire ends the work when the lease runs out, whatever the broker does.
func expire(ctx context.Context, h *Held, lost func()) {
	for {
		left := h.Remaining()
		if left <= 0 {
			lost()
			return
		}
		// Timers stand still while the machine sleeps, so look again at least each second.
		if !sleep(ctx, min(left, time.Second)) {
			return
		}
	}
}

// renew writes the key anew each third of the TTL, until the lease is lost or ctx ends.
func (l *Lease) renew(ctx context.Context, h *Held, lost func()) {
	for wait := l.cfg.TTL / 3; sleep(ctx, wait); {
		begun := sinceBoot()
		revision, err := l.extend(ctx, h)
		switch {
		case err == nil:
			h.renewed(revision, begun)
			wait = l.cfg.TTL / 3
		case errors.Is(err, ErrLost):
			lost()
			return
		case ctx.Err() == nil:
			l.log.WarnContext(ctx, "the lease could not be renewed, trying on", "error", err.Error(),
				"remaining_ms", h.Remaining().Milliseconds())
			wait = l.cfg.TTL / 12
		}
	}
}

// extend is one renewal. It returns ErrLost when the key is another's.
func (l *Lease) extend(ctx context.Context, h *Held) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.TTL/6)
	defer cancel()
	revision, err := l.write(ctx, h.lastRevision())
	if err == nil || !wrongRevision(err) && !bucket.Gone(err) {
		return revision, err
	}
	// Either a renewal whose answer got lost stands there, or the key is another's, or there is none, because the
	// broker lost its memory. While the lease lasts by our own count, no key means that it is ours to set.
	held, err := l.try(ctx)
	if errors.Is(err, jetstream.ErrKeyExists) {
		return 0, ErrLost
	}
	if err != nil {
		return 0, err
	}
	return held.lastRevision(), nil
}

// write stores the key for another TTL if revision is its last one. kv.Update would drop the TTL.
func (l *Lease) write(ctx context.Context, revision uint64) (uint64, error) {
	m := &nats.Msg{Subject: "$KV." + l.cfg.Bucket.Bucket + "." + l.cfg.Key, Data: []byte(l.value), Header: nats.Header{}}
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(revision, 10))
	m.Header.Set(jetstream.MsgTTLHeader, l.cfg.TTL.String())
	ack, err := l.cfg.JS.PublishMsg(ctx, m)
	if err != nil {
		return 0, fmt.Errorf("renew: %w", err)
	}
	return ack.Sequence, nil
}

// mine says whether the key is this contender's, and its revision.
func (l *Lease) mine(ctx context.Context) (revision uint64, ours bool) {
	err := l.bucket.Do(ctx, func(kv jetstream.KeyValue) error {
		e, err := kv.Get(ctx, l.cfg.Key)
		if err == nil {
			revision, ours = e.Revision(), string(e.Value()) == l.value
		}
		return err
	})
	return revision, ours && err == nil
}

func wrongRevision(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// release gives the lease back. If that fails it lapses by itself.
func (l *Lease) release(ctx context.Context, h *Held) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	err := l.bucket.Do(ctx, func(kv jetstream.KeyValue) error {
		return kv.Delete(ctx, l.cfg.Key, jetstream.LastRevision(h.lastRevision()))
	})
	switch {
	case err == nil:
		l.log.InfoContext(ctx, "the lease is released")
	case !wrongRevision(err):
		l.log.WarnContext(ctx, "the lease could not be released and lapses by itself", "error", err.Error())
	}
}

// sleep waits for d and says whether ctx still lasts.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
