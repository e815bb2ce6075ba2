package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
)

var quick = bus.Options{Backoff: 10 * time.Millisecond, MaxBackoff: 50 * time.Millisecond}

func deadLetters() jetstream.StreamConfig {
	return jetstream.StreamConfig{Name: "DLQ", Subjects: []string{"dlq.>"}, Discard: jetstream.DiscardNew}
}

// buried waits for the nth dead letter and takes it apart.
func buried(t testing.TB, c *bus.Conn, seq uint64) bus.DeadLetter {
	t.Helper()
	var raw *jetstream.RawStreamMsg
	bustest.Eventually(t, "a dead letter", func() bool {
		stream, err := c.JetStream().Stream(t.Context(), "DLQ")
		if err != nil {
			return false
		}
		raw, err = stream.GetMsg(t.Context(), seq)
		return err == nil
	})
	letter, err := bus.ParseDeadLetter(raw.Header, raw.Data)
	if err != nil {
		t.Fatal(err)
	}
	return letter
}

func settled(t testing.TB, c *bus.Conn, stream string, seq uint64) {
	t.Helper()
	bustest.Eventually(t, "every message to be settled", func() bool {
		consumer, err := c.JetStream().Consumer(t.Context(), stream, "worker")
		if err != nil {
			return false
		}
		i := consumer.CachedInfo()
		return i.NumAckPending == 0 && i.NumPending == 0 && i.AckFloor.Stream == seq
	})
}

// row:21
func TestConsume_Verdicts(t *testing.T) {
	t.Parallel()
	c := bustest.Start(t).Connect(t)
	ensure(t, c, once("CMD", "cmd.>"), deadLetters())
	durable(t, c, "CMD")
	var mu sync.Mutex
	calls := map[string]int{}
	consume(t, c, "CMD", func(ctx context.Context, m bus.Msg) error {
		mu.Lock()
		defer mu.Unlock()
		calls[m.Subject]++
		n := calls[m.Subject]
		if m.Delivered != uint64(n) || m.Stream != "CMD" || m.Consumer != "worker" || m.Time.IsZero() || m.Sequence == 0 {
			t.Errorf("call %d: %+v", n, m)
		}
		switch {
		case m.Subject == "cmd.permanent":
			return fmt.Errorf("wrapped: %w", bus.Permanent(errors.New("it makes\nno sense")))
		case m.Subject == "cmd.panic":
			panic("boom")
		case m.Subject == "cmd.later" && n < 3:
			return bus.After(10 * time.Millisecond)
		case m.Subject == "cmd.error" && n < 4:
			return errors.New("not yet")
		}
		return nil
	}, quick)
	header := nats.Header{"Own": {"a", "b"}, "traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, "Nats-Expected-Stream": {"CMD"}}
	if _, err := c.Publish(t.Context(), &nats.Msg{Subject: "cmd.permanent", Data: []byte("bytes"), Header: header}); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"cmd.later", "cmd.panic", "cmd.error", "cmd.fine"} {
		publish(t, c, subject, subject)
	}
	settled(t, c, "CMD", 5)
	mu.Lock()
	defer mu.Unlock()
	for subject, want := range map[string]int{"cmd.permanent": 1, "cmd.panic": 3, "cmd.later": 3, "cmd.error": 4, "cmd.fine": 1} {
		if calls[subject] != want {
			t.Errorf("%s was handled %d times, want %d", subject, calls[subject], want)
		}
	}
	letter := buried(t, c, 1)
	m := letter.Message
	if letter.Reason != "it makes no sense" || letter.Omitted || m.Subject != "cmd.permanent" || string(m.Data) != "bytes" ||
		m.Stream != "CMD" || m.Consumer != "worker" || m.Sequence != 1 || m.Delivered != 1 {
		t.Errorf("dead letter: %+v", letter)
	}
	if fmt.Sprint(m.Header) != fmt.Sprint(header) {
		t.Errorf("headers %v, want %v", m.Header, header)
	}
	if letter := buried(t, c, 2); letter.Message.Subject != "cmd.panic" || !strings.Contains(letter.Reason, "boom") {
		t.Errorf("dead letter: %+v", letter)
	}
}

func TestConsume_DeadLetterIsWrittenBeforeTheMessageIsGivenUp(t *testing.T) {
	t.Parallel()
	c := bustest.Start(t).Connect(t)
	ensure(t, c, once("CMD", "cmd.>"))
	durable(t, c, "CMD")
	var calls atomic.Int64
	consume(t, c, "CMD", func(context.Context, bus.Msg) error {
		calls.Add(1)
		return bus.Permanent(errors.New("no"))
	}, quick)
	publish(t, c, "cmd.1", "1")
	bustest.Eventually(t, "the message to come again while there is no place for it", func() bool { return calls.Load() > 2 })
	ensure(t, c, deadLetters())
	if letter := buried(t, c, 1); string(letter.Message.Data) != "1" {
		t.Errorf("dead letter: %+v", letter)
	}
	settled(t, c, "CMD", 1)
}

func TestConsume_DeadLetterOfTheLargestMessage(t *testing.T) {
	t.Parallel()
	c := bustest.Start(t).Connect(t)
	big := once("CMD", "cmd.>")
	big.MaxBytes = 0
	ensure(t, c, big, deadLetters())
	durable(t, c, "CMD")
	consume(t, c, "CMD", func(context.Context, bus.Msg) error { return bus.Permanent(errors.New("no")) }, quick)
	body := bytes.Repeat([]byte("x"), int(c.NATS().MaxPayload())-100)
	if _, err := c.Publish(t.Context(), &nats.Msg{Subject: "cmd.big", Data: body}); err != nil {
		t.Fatal(err)
	}
	if letter := buried(t, c, 1); !letter.Omitted || len(letter.Message.Data) != 0 || letter.Message.Sequence != 1 {
		t.Errorf("dead letter: %+v", letter)
	}
}

func TestConsume_MaxDeliver(t *testing.T) {
	t.Parallel()
	c := bustest.Start(t).Connect(t)
	ensure(t, c, once("CMD", "cmd.>"), deadLetters())
	durable(t, c, "CMD")
	var calls atomic.Int64
	opts := quick
	opts.MaxDeliver = 2
	consume(t, c, "CMD", func(context.Context, bus.Msg) error { calls.Add(1); return errors.New("again") }, opts)
	publish(t, c, "cmd.1", "1")
	if letter := buried(t, c, 1); letter.Message.Delivered != 3 {
		t.Errorf("dead letter: %+v", letter)
	}
	if calls.Load() != 2 {
		t.Errorf("handled %d times", calls.Load())
	}
}

// row:21
func TestConsume_PoisonDoesNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	c := bustest.Start(t).Connect(t)
	ensure(t, c, once("CMD", "cmd.>"), deadLetters())
	durable(t, c, "CMD")
	var good atomic.Int64
	opts := quick
	opts.Workers = 4
	consume(t, c, "CMD", func(_ context.Context, m bus.Msg) error {
		if strings.HasPrefix(m.Subject, "cmd.bad") {
			panic("poison")
		}
		good.Add(1)
		return nil
	}, opts)
	for i := range 100 {
		kind := "good"
		if i%10 == 0 {
			kind = "bad"
		}
		publish(t, c, fmt.Sprintf("cmd.%s%d", kind, i), "")
	}
	settled(t, c, "CMD", 100)
	buried(t, c, 10)
	if good.Load() != 90 {
		t.Errorf("%d good ones, want 90", good.Load())
	}
}

func TestConsume_ShutdownGivesBackAtOnce(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	c := s.Connect(t)
	ensure(t, c, once("CMD", "cmd.>"))
	if _, err := c.EnsureConsumer(t.Context(), "CMD", jetstream.ConsumerConfig{
		Durable: "worker", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Hour,
	}); err != nil {
		t.Fatal(err)
	}
	publish(t, c, "cmd.1", "1")
	started, cause := make(chan struct{}), make(chan error, 1)
	stop := consume(t, c, "CMD", func(ctx context.Context, _ bus.Msg) error {
		close(started)
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return ctx.Err()
	}, bus.Options{Backoff: time.Hour, MaxBackoff: time.Hour})
	<-started
	stop()
	if err := <-cause; !errors.Is(err, bus.ErrStopping) {
		t.Errorf("cause: %v", err)
	}
	again := make(chan struct{})
	consume(t, s.Connect(t), "CMD", func(context.Context, bus.Msg) error { close(again); return nil }, bus.Options{})
	<-again
}

// row:7
func TestConsume_LongWorkIsNotDeliveredTwice(t *testing.T) {
	t.Parallel()
	c := bustest.Start(t).Connect(t)
	ensure(t, c, once("CMD", "cmd.>"))
	if _, err := c.EnsureConsumer(t.Context(), "CMD", jetstream.ConsumerConfig{
		Durable: "worker", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 2 * time.Second,
	}); err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int64
	consume(t, c, "CMD", func(ctx context.Context, _ bus.Msg) error {
		calls.Add(1)
		select {
		case <-time.After(7 * time.Second):
		case <-ctx.Done():
			t.Errorf("the work was cut off: %v", context.Cause(ctx))
		}
		return nil
	}, bus.Options{Workers: 2})
	publish(t, c, "cmd.1", "1")
	settled(t, c, "CMD", 1)
	if calls.Load() != 1 {
		t.Errorf("delivered %d times", calls.Load())
	}
}

func TestConsume_WorkEndsWhenTheBrokerCannotBeTold(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	admin := s.Connect(t)
	ensure(t, admin, once("CMD", "cmd.>"))
	if _, err := admin.EnsureConsumer(t.Context(), "CMD", jetstream.ConsumerConfig{
		Durable: "worker", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Second,
	}); err != nil {
		t.Fatal(err)
	}
	publish(t, admin, "cmd.1", "1")
	p := s.Proxy(t)
	c := bustest.Connect(t, bus.Config{URL: p.URL()})
	calls, cause := make(chan struct{}, 10), make(chan error, 10)
	stop := consume(t, c, "CMD", func(ctx context.Context, _ bus.Msg) error {
		calls <- struct{}{}
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return ctx.Err()
	}, quick)
	<-calls
	p.Down()
	if err := <-cause; err == nil || errors.Is(err, bus.ErrStopping) {
		t.Errorf("cause: %v", err)
	}
	p.Heal()
	<-calls
	stop()
}

func TestConsume_SurvivesRestartsOfTheBroker(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, bustest.SyncAlways())
	c := s.Connect(t)
	ensure(t, c, once("CMD", "cmd.>"))
	if _, err := c.EnsureConsumer(t.Context(), "CMD", jetstream.ConsumerConfig{
		Durable: "worker", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 2 * time.Second,
	}); err != nil {
		t.Fatal(err)
	}
	var seen sync.Map
	opts := quick
	opts.Workers = 2
	consume(t, c, "CMD", func(_ context.Context, m bus.Msg) error { seen.Store(m.Sequence, true); return nil }, opts)
	for i := range 60 {
		m := &nats.Msg{Subject: fmt.Sprintf("cmd.%d", i)}
		bustest.Eventually(t, "the publish to be stored", func() bool {
			_, err := c.Publish(t.Context(), m)
			return err == nil || errors.Is(err, bus.ErrExists)
		})
		if i%20 == 10 {
			s.Restart()
		}
	}
	settled(t, c, "CMD", 60)
	for seq := range uint64(60) {
		if _, ok := seen.Load(seq + 1); !ok {
			t.Errorf("message %d was never handled", seq+1)
		}
	}
}

// row:11
func TestConsume_LostPullRequestIsMadeAgain(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	admin := s.Connect(t)
	ensure(t, admin, once("CMD", "cmd.>"))
	durable(t, admin, "CMD")
	p := s.Proxy(t)
	c := bustest.Connect(t, bus.Config{URL: p.URL()})
	p.Lose("CONSUMER.MSG.NEXT")
	handled := make(chan string, 10)
	consume(t, c, "CMD", func(_ context.Context, m bus.Msg) error { handled <- m.Subject; return nil }, bus.Options{Idle: 2 * time.Second})
	publish(t, admin, "cmd.1", "")
	select {
	case <-handled:
		t.Fatal("handled without a request: the test tests nothing")
	case <-time.After(time.Second):
	}
	p.Lose("")
	<-handled
	if n := c.NATS().Reconnects; n != 0 {
		t.Errorf("%d reconnects: the connection was not what stalled", n)
	}
}

// row:9
func TestConsume_ConsumerRemovedIsMadeAgainAndReplays(t *testing.T) {
	t.Parallel()
	const messages = 500
	c := bustest.Start(t).Connect(t)
	ensure(t, c, once("CMD", "cmd.>"))
	durable(t, c, "CMD")
	var mu sync.Mutex
	calls, effects := 0, map[string]bool{}
	opts := quick
	opts.Workers = 4
	consume(t, c, "CMD", func(_ context.Context, m bus.Msg) error {
		mu.Lock()
		defer mu.Unlock()
		calls++
		effects[m.Subject] = true
		return nil
	}, opts)
	for i := range messages {
		publish(t, c, fmt.Sprintf("cmd.%d", i), "")
	}
	settled(t, c, "CMD", messages)
	if err := c.JetStream().DeleteConsumer(t.Context(), "CMD", "worker"); err != nil {
		t.Fatal(err)
	}
	bustest.Eventually(t, "the consumer to be made again and to replay", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return calls >= 2*messages
	})
	settled(t, c, "CMD", messages)
	if len(effects) != messages {
		t.Errorf("%d effects", len(effects))
	}
}

func TestConsume_RefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	c := bustest.Start(t).Connect(t)
	ensure(t, c, once("CMD", "cmd.>"))
	h := func(context.Context, bus.Msg) error { return nil }
	for name, err := range map[string]error{
		"no handler":     c.Consume(t.Context(), "CMD", "worker", nil, bus.Options{DeadLetter: "dlq"}),
		"no dead letter": c.Consume(t.Context(), "CMD", "worker", h, bus.Options{}),
		"no consumer":    c.Consume(t.Context(), "CMD", "worker", h, bus.Options{DeadLetter: "dlq"}),
		"no stream":      c.Consume(t.Context(), "NONE", "worker", h, bus.Options{DeadLetter: "dlq"}),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
