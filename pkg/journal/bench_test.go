package journal_test

import (
	"fmt"
	"testing"

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

func BenchmarkReplay(b *testing.B) {
	const records = 50_000
	j := open(b, bustest.Start(b).Connect(b), "A")
	w := claim(b, j, "A", "one", 0)
	batch := make([]journal.Entry, journal.MaxBatch)
	for i := range batch {
		batch[i] = journal.Entry{Subject: "log.A.x", Data: make([]byte, 512)}
	}
	for range records / len(batch) {
		appendTo(b, w, batch...)
	}
	for b.Loop() {
		n := 0
		if _, err := j.Replay(b.Context(), 0, func(journal.Record) error { n++; return nil }); err != nil || n != records+1 {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(b.N*records)/b.Elapsed().Seconds(), "records/s")
}
