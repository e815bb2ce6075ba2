package bus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Msg is one delivery of a message to a consumer.
type Msg struct {
	// Subject, Header and Data as they were published.
	Subject string
	Header  nats.Header
	Data    []byte
	// Stream and Consumer it came by.
	Stream, Consumer string
	// Sequence in the stream.
	Sequence uint64
	// Delivered counts the deliveries of this message, this one included; those cut off by a shutdown too.
	Delivered uint64
	// Pending is how many messages waited behind it.
	Pending uint64
	// Time the stream stored it.
	Time time.Time
}

// A Handler does the work of one message and says nothing of acknowledgements. nil: done. Permanent(err): never
// again, into the dead letters. After(d): come back in d. Any other error, and a panic: again, with backoff.
//
// ctx ends when the consumer stops, and when the broker could not be told in time that the work goes on, so that
// the message may be with another worker already. It carries the message's trace.
type Handler func(ctx context.Context, m Msg) error

// Permanent marks err as one that no repetition can cure: the message goes to the dead letters with err's text
// as its reason. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// After asks for the message again in d; it is no failure.
func After(d time.Duration) error { return &afterError{d} }

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

type afterError struct{ after time.Duration }

func (e *afterError) Error() string { return "come back in " + e.after.String() }

// ErrStopping is the cause of a handler's context when the consumer stops.
var ErrStopping = errors.New("the consumer is stopping")

// errOverdue is the cause of a handler's context when its message may be with another worker.
var errOverdue = errors.New("the broker could not be told that the message is being worked on")

// Options of a consumer.
type Options struct {
	// Workers handle messages at the same time; 1 when 0. One worker takes one message at a time in the order of
	// the stream; for the order to hold through redeliveries too, the consumer's MaxAckPending must be 1.
	Workers int
	// DeadLetter is the subject that refused messages are copied to; required.
	DeadLetter string
	// MaxDeliver is the delivery after which a message is refused before the handler sees it again: a handler
	// that takes the process down must not do so for ever. 0: no bound, the handler counts for itself.
	MaxDeliver int
	// MaxPanics is how many panics of the handler one message is granted in this process; 3 when 0.
	MaxPanics int
	// Backoff before the first repetition, doubled each time up to MaxBackoff; 1 s and 1 min when 0.
	Backoff, MaxBackoff time.Duration
	// Idle is how long messages may be pending without a delivery before the iterator is opened anew; 10 s when
	// 0, at least 2 s.
	Idle time.Duration
}

func (o Options) withDefaults() Options {
	o.Workers = max(o.Workers, 1)
	if o.MaxPanics == 0 {
		o.MaxPanics = 3
	}
	if o.Backoff == 0 {
		o.Backoff = time.Second
	}
	if o.MaxBackoff == 0 {
		o.MaxBackoff = time.Minute
	}
	if o.Idle == 0 {
		o.Idle = 10 * time.Second
	}
	o.Idle = max(o.Idle, 2*time.Second)
	return o
}

// Consume hands the messages of a durable consumer to h until ctx ends, then returns nil; messages in hand are
// given back at once. It waits for the broker as long as it is away, opens the iterator anew when it fails or
// stalls, and creates the consumer again, as it was, when somebody removed it. It returns an error only for
// options it cannot work with and for a consumer that does not exist when it starts.
func (c *Conn) Consume(ctx context.Context, stream, consumer string, h Handler, opts Options) error {
	if h == nil || opts.DeadLetter == "" {
		return fmt.Errorf("consume %s/%s: a handler and a subject for dead letters are needed", stream, consumer)
	}
	p := &pump{
		conn: c, stream: stream, name: consumer, handler: h, opts: opts.withDefaults(),
		log: c.log.With("stream", stream, "consumer", consumer), panics: map[uint64]int{},
	}
	if err := p.load(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("consume %s/%s: %w", stream, consumer, err)
	}
	var workers sync.WaitGroup
	for range p.opts.Workers {
		workers.Go(func() { p.work(ctx) })
	}
	workers.Wait()
	return nil
}

// pump moves the messages of one consumer to one handler.
type pump struct {
	conn         *Conn
	stream, name string
	handler      Handler
	opts         Options
	log          logger
	// cfg is the consumer as it was when Consume began.
	cfg jetstream.ConsumerConfig

	mu sync.Mutex
	// panics by sequence, of messages not done with yet.
	panics map[uint64]int
}

const (
	pauseShort = 100 * time.Millisecond
	pauseLong  = 5 * time.Second
	// pullExpiry is how long one pull request waits at the broker.
	pullExpiry = 30 * time.Second
)

// load reads the consumer's configuration, waiting for the broker while it is away.
func (p *pump) load(ctx context.Context) error {
	for pause := pauseShort; ; pause = min(2*pause, pauseLong) {
		consumer, err := p.conn.js.Consumer(ctx, p.stream, p.name)
		switch {
		case err == nil:
			p.cfg = consumer.CachedInfo().Config
			return nil
		case errors.Is(err, jetstream.ErrConsumerNotFound), errors.Is(err, jetstream.ErrStreamNotFound), ctx.Err() != nil:
			return err
		}
		p.log.Warn("cannot read the consumer, trying on", "error", err.Error())
		sleep(ctx, pause)
	}
}

// work is one worker: it opens an iterator and takes messages from it until ctx ends, opening it anew as needed.
func (p *pump) work(ctx context.Context) {
	pause := pauseShort
	for ctx.Err() == nil {
		taken, err := p.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if taken {
			pause = pauseShort
		}
		p.log.Warn("the iterator ended, opening it anew", "error", err.Error())
		sleep(ctx, pause)
		pause = min(2*pause, pauseLong)
	}
}

// session is the life of one iterator. It says whether it took any message.
func (p *pump) session(ctx context.Context) (taken bool, err error) {
	consumer, err := p.open(ctx)
	if err != nil {
		return false, err
	}
	// One message at a time is pulled: one that waits in a buffer would have its AckWait running.
	messages, err := consumer.Messages(jetstream.PullMaxMessages(1), jetstream.PullExpiry(pullExpiry),
		jetstream.PullHeartbeat(min(p.opts.Idle/4, pullExpiry/2)))
	if err != nil {
		return false, fmt.Errorf("open the iterator: %w", err)
	}
	defer p.giveBack(messages)
	for {
		next, cancel := context.WithTimeout(ctx, p.opts.Idle)
		m, err := messages.Next(jetstream.NextContext(next))
		cancel()
		switch {
		case err == nil:
			taken = true
			p.handle(ctx, m)
		case ctx.Err() != nil:
			return taken, ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			if err := p.stalled(ctx, consumer); err != nil {
				return taken, err
			}
		default:
			return taken, fmt.Errorf("next message: %w", err)
		}
	}
}

// open gets the consumer, creating it as it was when it has vanished.
func (p *pump) open(ctx context.Context) (jetstream.Consumer, error) {
	consumer, err := p.conn.js.Consumer(ctx, p.stream, p.name)
	if err == nil {
		return consumer, nil
	}
	if !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, fmt.Errorf("open consumer: %w", err)
	}
	// From its first message again: handlers stand repetitions, and nothing accepted may be skipped.
	p.log.Error("the consumer has vanished, creating it again")
	if consumer, err = p.conn.js.CreateConsumer(ctx, p.stream, p.cfg); err != nil {
		return nil, fmt.Errorf("create the vanished consumer: %w", err)
	}
	return consumer, nil
}

// stalled is the watchdog's look after a time without delivery.
func (p *pump) stalled(ctx context.Context, consumer jetstream.Consumer) error {
	info, err := consumer.Info(ctx)
	if err != nil {
		return fmt.Errorf("look at the consumer after %s without a message: %w", p.opts.Idle, err)
	}
	full := info.Config.MaxAckPending > 0 && info.NumAckPending >= info.Config.MaxAckPending
	if info.NumPending > 0 && !full && !info.Paused {
		return fmt.Errorf("%d messages pending and none delivered in %s", info.NumPending, p.opts.Idle)
	}
	return nil
}

// giveBack ends an iterator; what was already under way to it goes back to the broker at once.
func (p *pump) giveBack(messages jetstream.MessagesContext) {
	messages.Drain()
	for {
		m, err := messages.Next(jetstream.NextMaxWait(time.Second))
		if err != nil {
			break
		}
		_ = m.Nak()
	}
	messages.Stop()
}

func (p *pump) backoff(delivered uint64) time.Duration {
	d := p.opts.Backoff << min(max(delivered, 1)-1, 20)
	if d <= 0 || d > p.opts.MaxBackoff {
		d = p.opts.MaxBackoff
	}
	// Half of it at random, so that a crowd that failed together does not come back together.
	return d/2 + rand.N(d/2+1) //nolint:gosec // no secret hangs on it
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
