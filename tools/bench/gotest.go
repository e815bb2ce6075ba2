package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// count is how often each benchmark is run.
const count = 3

// figures are what one unit of a benchmark was, each time.
type figures []float64

func (f figures) median() float64 {
	s := slices.Sorted(slices.Values(f))
	return s[len(s)/2]
}

// text is the median ratio, and how far it went.
func (f figures) text(of string) string {
	return fmt.Sprintf("%.2f %s (%.2f … %.2f)", f.median(), of, slices.Min(f), slices.Max(f))
}

// over divides time by time.
func over(a, b figures) figures {
	r := make(figures, min(len(a), len(b)))
	for i := range r {
		r[i] = a[i] / b[i]
	}
	return r
}

// measures are the units of one benchmark.
type measures map[string]figures

func (m measures) perSecond(unit string) string { return fmt.Sprintf("%.0f/s", m[unit].median()) }

// results are the benchmarks of a package by name.
type results map[string]measures

func (r results) of(name string) (measures, error) {
	m, ok := r[name]
	if !ok {
		return nil, fmt.Errorf("no figures of %s", name)
	}
	return m, nil
}

// processors is what the go command ends a benchmark's name with.
var processors = regexp.MustCompile(`-\d+$`)

// run runs a package's benchmarks, all of them once, then again.
func run(module, pkg, pattern string, args ...string) (results, error) {
	fmt.Fprintln(os.Stderr, "bench: measuring", module, pkg)
	all := results{}
	for range count {
		cmd := exec.Command("go", append([]string{"test", "-run=^$", "-bench=" + pattern, "-timeout=5m", pkg}, args...)...)
		// This program is built outside the workspace; what it measures is not.
		cmd.Dir, cmd.Stderr, cmd.Env = filepath.Join(root, module), os.Stderr, append(os.Environ(), "GOWORK=")
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w\n%s", module, pkg, err, out)
		}
		if err := all.add(out); err != nil {
			return nil, fmt.Errorf("%s %s: %w", module, pkg, err)
		}
	}
	return all, nil
}

// add reads lines such as "BenchmarkX-2  100  12.5 ns/op  3 B/op".
func (r results) add(out []byte) error {
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := processors.ReplaceAllString(f[0], "")
		if r[name] == nil {
			r[name] = measures{}
		}
		for i := 2; i+1 < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return fmt.Errorf("read %q: %w", s.Text(), err)
			}
			r[name][f[i+1]] = append(r[name][f[i+1]], v)
		}
	}
	return nil
}
