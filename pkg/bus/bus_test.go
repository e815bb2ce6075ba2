package bus_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
)

func once(name, subjects string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: name, Subjects: []string{subjects}, MaxMsgsPerSubject: 1, DiscardNewPerSubject: true,
		Discard: jetstream.DiscardNew, Duplicates: 100 * time.Millisecond, MaxBytes: 1 << 20, DenyDelete: true, DenyPurge: true,
	}
}

func ensure(t testing.TB, c *bus.Conn, cfgs ...jetstream.StreamConfig) {
	t.Helper()
	for _, cfg := range cfgs {
		if err := c.EnsureStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
}

func durable(t testing.TB, c *bus.Conn, stream string) {
	t.Helper()
	_, err := c.EnsureConsumer(t.Context(), stream, jetstream.ConsumerConfig{
		Durable: "worker", AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// consume runs Consume until the test or stop ends it, and fails the test when it does not end.
func consume(t testing.TB, c *bus.Conn, stream string, h bus.Handler, opts bus.Options) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	if opts.DeadLetter == "" {
		opts.DeadLetter = "dlq." + stream
	}
	go func() { done <- c.Consume(ctx, stream, "worker", h, opts) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Consume: %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("Consume did not end")
		}
	}
	t.Cleanup(stop)
	return stop
}

func publish(t testing.TB, c *bus.Conn, subject, body string) bus.Ack {
	t.Helper()
	ack, err := c.Publish(t.Context(), &nats.Msg{Subject: subject, Data: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	return ack
}

func TestConsume_InOrderAndAcknowledged(t *testing.T) {
	t.Parallel()
	c := bustest.Start(t).Connect(t)
	ensure(t, c, once("CMD", "cmd.>"))
	durable(t, c, "CMD")
	for i := range 50 {
		publish(t, c, fmt.Sprintf("cmd.%d", i), fmt.Sprint(i))
	}
	got := make(chan string, 100)
	stop := consume(t, c, "CMD", func(_ context.Context, m bus.Msg) error { got <- string(m.Data); return nil }, bus.Options{})
	for i := range 50 {
		if s := <-got; s != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, s)
		}
	}
	stop()
	consumer, err := c.JetStream().Consumer(t.Context(), "CMD", "worker")
	if err != nil {
		t.Fatal(err)
	}
	if i := consumer.CachedInfo(); i.NumAckPending != 0 || i.AckFloor.Stream != 50 {
		t.Fatalf("unacknowledged: %+v", i)
	}
}
