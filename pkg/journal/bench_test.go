package journal_test

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/journal"
)

func BenchmarkAppend(b *testing.B) {
	for _, sync := range []string{"default", "always"} {
		for _, size := range []int{1, 10} {
			b.Run(fmt.Sprintf("sync=%s/entries=%d", sync, size), func(b *testing.B) {
				var opts []bustest.Option
				if sync == "always" {
					opts = append(opts, bustest.SyncAlways())
				}
				w := claim(b, open(b, bustest.Start(b, opts...).Connect(b), "A"), "A", "one", 0)
				entries := make([]journal.Entry, size)
				for i := range entries {
					entries[i] = journal.Entry{Subject: "log.A.x", Data: make([]byte, 512)}
				}
				for b.Loop() {
					appendTo(b, w, entries...)
				}
				b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "records/s")
			})
		}
	}
}

// BenchmarkPublish is the yardstick of BenchmarkAppend: one message without a fence, to a stream like a journal.
func BenchmarkPublish(b *testing.B) {
	c := bustest.Start(b, bustest.SyncAlways()).Connect(b)
	open(b, c, "A")
	data := make([]byte, 512)
	for b.Loop() {
		if _, err := c.JetStream().Publish(b.Context(), "log.A.x", data); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReplay reads a journal; beside it the yardstick, an ordered consumer that believes what it gets.
func BenchmarkReplay(b *testing.B) {
	const records = 50_000
	c := bustest.Start(b).Connect(b)
	j := open(b, c, "A")
	w := claim(b, j, "A", "one", 0)
	batch := make([]journal.Entry, journal.MaxBatch)
	for i := range batch {
		batch[i] = journal.Entry{Subject: "log.A.x", Data: make([]byte, 512)}
	}
	for range records / len(batch) {
		appendTo(b, w, batch...)
	}
	b.Run("journal", func(b *testing.B) {
		for b.Loop() {
			n := 0
			if _, err := j.Replay(b.Context(), 0, func(journal.Record) error { n++; return nil }); err != nil || n != records+1 {
				b.Fatal(n, err)
			}
		}
		b.ReportMetric(float64(b.N*records)/b.Elapsed().Seconds(), "records/s")
	})
	b.Run("consumer", func(b *testing.B) {
		for b.Loop() {
			consume(b, c, records+1)
		}
		b.ReportMetric(float64(b.N*records)/b.Elapsed().Seconds(), "records/s")
	})
}

// consume reads n messages of stream A.
func consume(b *testing.B, c *bus.Conn, n int) {
	consumer, err := c.JetStream().OrderedConsumer(b.Context(), "A", jetstream.OrderedConsumerConfig{})
	if err != nil {
		b.Fatal(err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		b.Fatal(err)
	}
	defer messages.Stop()
	for range n {
		if _, err := messages.Next(); err != nil {
			b.Fatal(err)
		}
	}
}
