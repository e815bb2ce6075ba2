// Command bench measures renthook in one run, and prints figures as ratios to yardsticks of the same run: a machine's own
// speed, and whoever shares it, falls on both sides alike. Run it by make bench.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"text/tabwriter"
	"time"
)

// root of the repository: the program runs in tools/bench.
const root = "../.."

// recordingFile is what the market listed on one day of 2024.
const recordingFile = "marketplace-2024-05-21.full.json"

func main() {
	if err := bench(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// table is what is printed at the end.
type table struct {
	w                    *tabwriter.Writer
	met, missed, skipped int
}

func (t *table) row(what, figure, ratio, goal string) {
	fmt.Fprintf(t.w, "%s\t%s\t%s\t%s\n", what, figure, ratio, goal)
}

// judged is a row with a goal.
func (t *table) judged(what, figure, ratio, goal string, met bool) {
	word := "NOT MET"
	if met {
		t.met++
		word = "met"
	} else {
		t.missed++
	}
	t.row(what, figure, ratio, goal+": "+word)
}

func (t *table) skip(what, why string) {
	t.skipped++
	t.row(what, "skipped", why, "")
}

func bench() error {
	began := time.Now()
	t := &table{w: tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)}
	recording := filepath.Join(os.Getenv("RENTHOOK_RECORDINGS"), recordingFile)
	if _, err := os.Stat(recording); err != nil {
		recording = ""
	}
	t.row("WHAT", "FIGURE", "RATIO (least … most)", "GOAL")
	for _, part := range []func(*table, string) error{admission, journal, marketplace, decide, memory} {
		if err := part(t, recording); err != nil {
			return err
		}
	}
	fmt.Printf("\n%s/%s, %d cores, %s, %s; medians of %d\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(),
		time.Since(began).Round(time.Second), count)
	if err := t.w.Flush(); err != nil {
		return err
	}
	fmt.Printf("\n%d goals met, %d not met, %d skipped\n", t.met, t.missed, t.skipped)
	return nil
}

// admission is what a signed webhook costs at the door, at equal durability.
func admission(t *table, _ string) error {
	r, err := run("services", "./ingress", "^BenchmarkAdmission$", "-benchtime=2000x")
	if err != nil {
		return err
	}
	for _, connections := range []int{1, 16, 64} {
		m, err := r.of(fmt.Sprintf("BenchmarkAdmission/connections=%d", connections))
		if err != nil {
			return err
		}
		what := fmt.Sprintf("webhooks accepted, %d connections", connections)
		rate, once := m.perSecond("accepted/s"), m["of_publishing"]
		ratio := once.text("of verify + one publish")
		if connections == 16 {
			t.judged(what, rate, ratio, "at least 0.5 (later 0.8)", once.median() >= 0.5)
		} else {
			t.row(what, rate, ratio, "")
		}
		t.row("", "", m["of_bare"].text("of verify alone, which keeps nothing"), "")
	}
	return nil
}

func journal(t *table, _ string) error {
	r, err := run("pkg", "./journal", "^Benchmark(Append|Publish|Replay)$")
	if err != nil {
		return err
	}
	one, err1 := r.of("BenchmarkAppend/sync=always/entries=1")
	publish, err2 := r.of("BenchmarkPublish")
	replay, err3 := r.of("BenchmarkReplay/journal")
	consumer, err4 := r.of("BenchmarkReplay/consumer")
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			return err
		}
	}
	t.row("journal appends, written to disk", one.perSecond("records/s"), over(publish["ns/op"], one["ns/op"]).text("of a publish without a fence"), "")
	t.row("journal records replayed", replay.perSecond("records/s"), over(consumer["ns/op"], replay["ns/op"]).text("of an ordered consumer"), "")
	return nil
}

func marketplace(t *table, recording string) error {
	if recording == "" {
		t.skip("recorded marketplace", "no recording in RENTHOOK_RECORDINGS")
		return nil
	}
	r, err := run("services", "./internal/market/clore", "^BenchmarkRecordedMarketplace$")
	if err != nil {
		return err
	}
	base, err := r.of("BenchmarkRecordedMarketplace/any")
	if err != nil {
		return err
	}
	for _, name := range []string{"parse", "normalise"} {
		m, err := r.of("BenchmarkRecordedMarketplace/" + name)
		if err != nil {
			return err
		}
		t.row("recorded marketplace: "+name, fmt.Sprintf("%.1f ms", m["ns/op"].median()/1e6), over(m["ns/op"], base["ns/op"]).text("of the time of encoding/json into any"), "")
		t.row("", fmt.Sprintf("%.1f MB", m["B/op"].median()/1e6), over(m["B/op"], base["B/op"]).text("of its bytes"), "")
	}
	return nil
}

func decide(t *table, _ string) error {
	r, err := run("services", "./order/internal/rental", "^BenchmarkDecide$")
	if err != nil {
		return err
	}
	seen, err := r.of("BenchmarkDecide/seen")
	if err != nil {
		return err
	}
	life, err := r.of("BenchmarkDecide/life")
	if err != nil {
		return err
	}
	t.row("decision: listed as before", fmt.Sprintf("%.0f ns, %.0f allocs", seen["ns/op"].median(), seen["allocs/op"].median()), "", "")
	t.row("decision: mean over an order's life", fmt.Sprintf("%.0f ns, %.1f allocs", life["ns/decision"].median(),
		life["allocs/op"].median()*life["ns/decision"].median()/life["ns/op"].median()), "", "")
	return nil
}
