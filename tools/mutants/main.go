// Command mutants breaks one rule of the order engine at a time, in a copy of the tree, and says which test notices. It
// fails when none does, when a mutant does not compile, and when its text is not found exactly once, so that the list
// cannot rot unseen. Run it by make mutants; make mutants ONLY=pattern picks some by name.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// mutant is one rule broken.
type mutant struct {
	name string
	// rule is what it breaks, a sentence.
	rule string
	// file is below the root; old must be in it exactly once, and becomes new.
	file, old, new string
	// in is the package whose tests are to notice, when it is not the file's own; run and skip choose among them.
	in, run, skip string
}

// tests is what to run, as arguments of go test.
func (m mutant) tests() []string {
	in := m.in
	if in == "" {
		in = filepath.ToSlash(filepath.Dir(m.file))
	}
	args := []string{"./" + in}
	if m.run != "" {
		args = append(args, "-run="+m.run)
	}
	if m.skip != "" {
		args = append(args, "-skip="+m.skip)
	}
	return args
}

func main() {
	root := flag.String("root", "../..", "the repository")
	only := flag.String("only", "", "run the mutants whose name matches this pattern")
	doc := flag.String("doc", "", "write what killed which mutant to this file, when all were run and killed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *root, *only, *doc); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, root, only, doc string) error {
	began := time.Now()
	chosen, err := choose(only)
	if err != nil {
		return err
	}
	tree, err := copied(ctx, root)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tree) }()
	if err := control(ctx, tree, chosen); err != nil {
		return err
	}
	killers := map[string]string{}
	bad := 0
	for n, m := range chosen {
		killer, err := m.try(ctx, tree)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		word := "killed by " + killer
		switch {
		case err != nil:
			word, bad = "ERROR: "+err.Error(), bad+1
		case killer == "":
			word, bad = "SURVIVED", bad+1
		}
		killers[m.name] = killer
		fmt.Printf("%3d/%d %-34s %s\n", n+1, len(chosen), m.name, word)
	}
	fmt.Printf("%d mutants, %d killed, in %s\n", len(chosen), len(chosen)-bad, time.Since(began).Round(time.Second))
	if bad > 0 {
		return fmt.Errorf("%d of %d mutants are not killed", bad, len(chosen))
	}
	if doc == "" || only != "" {
		return nil
	}
	return os.WriteFile(doc, table(killers), 0o644)
}

func choose(only string) ([]mutant, error) {
	pattern, err := regexp.Compile(only)
	if err != nil {
		return nil, err
	}
	var chosen []mutant
	names := map[string]bool{}
	for _, m := range mutants {
		if names[m.name] {
			return nil, fmt.Errorf("two mutants are called %s", m.name)
		}
		names[m.name] = true
		if pattern.MatchString(m.name) {
			chosen = append(chosen, m)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no mutant is called %q", only)
	}
	return chosen, nil
}

// copied copies what git knows or would know of the tree to a new directory: tests leave things beside their code when
// they fail, and others may be at work in the tree.
func copied(ctx context.Context, root string) (string, error) {
	git := exec.CommandContext(ctx, "git", "-C", root, "ls-files", "-co", "--exclude-standard", "-z")
	git.Stderr = os.Stderr
	list, err := git.Output()
	if err != nil {
		return "", fmt.Errorf("list the tree: %w", err)
	}
	to, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return "", err
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		b, err := os.ReadFile(filepath.Join(root, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted and not yet committed
		}
		if err == nil {
			err = os.MkdirAll(filepath.Join(to, filepath.Dir(name)), 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), b, 0o600)
		}
		if err != nil {
			return "", errors.Join(fmt.Errorf("copy the tree: %w", err), os.RemoveAll(to))
		}
	}
	return to, nil
}

// control runs what is to notice mutants over the unchanged tree: a test that fails there notices nothing.
func control(ctx context.Context, tree string, chosen []mutant) error {
	done := map[string]bool{}
	for _, m := range chosen {
		args := m.tests()
		if key := strings.Join(args, " "); !done[key] {
			done[key] = true
			killer, err := test(ctx, tree, args)
			if err == nil && killer != "" {
				err = fmt.Errorf("%s fails", killer)
			}
			if err != nil {
				return fmt.Errorf("without any mutant, go test %s: %w", key, err)
			}
		}
	}
	return nil
}

// try applies a mutant to the copy, gives the test that notices it, empty when none does, and takes it back.
func (m mutant) try(ctx context.Context, tree string) (killer string, err error) {
	path := filepath.Join(tree, m.file)
	before, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if n := bytes.Count(before, []byte(m.old)); n != 1 || m.old == m.new {
		return "", fmt.Errorf("its text is found %d times in %s, and must be once", n, m.file)
	}
	if err := os.WriteFile(path, bytes.Replace(before, []byte(m.old), []byte(m.new), 1), 0o600); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.WriteFile(path, before, 0o600)) }()
	return test(ctx, tree, m.tests())
}

// event is what go test -json says.
type event struct{ Action, Test, Output string }

var (
	// panicked finds the test in the trace of a panic that took all tests down, so that none is said to have failed.
	panicked = regexp.MustCompile(`(?s)panic: .*?_test\.(Test\w+)`)
	worker   = regexp.MustCompile(`^TestSim/.*`)
	spaces   = regexp.MustCompile(`\s+`)
)

// test runs tests and gives the first of those that failed, by name, the innermost subtest.
func test(ctx context.Context, tree string, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json", "-vet=off", "-count=1", "-timeout=3m"}, args...)...)
	cmd.Dir = tree
	cmd.Env = append(os.Environ(), "GOWORK=") // this program runs without the workspace, the tests in it
	out, err := cmd.CombinedOutput()
	ran := false
	var failed []string
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<26)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue
		}
		switch {
		case e.Action == "build-fail":
			return "", fmt.Errorf("it does not compile: %s", said(out))
		case e.Action == "run":
			ran = true
		case e.Action == "fail" && e.Test != "":
			failed = append(failed, worker.ReplaceAllString(e.Test, "TestSim"))
		}
	}
	switch {
	case !ran:
		return "", fmt.Errorf("no test ran: %s", said(out))
	case err == nil:
		return "", nil
	case len(failed) == 0 && panicked.Match(out):
		return string(panicked.FindSubmatch(out)[1]) + " (panic)", nil
	case len(failed) == 0:
		return "", fmt.Errorf("go test: %w: %s", err, said(out))
	}
	inner := slices.DeleteFunc(slices.Clone(failed), func(name string) bool {
		return slices.ContainsFunc(failed, func(other string) bool { return strings.HasPrefix(other, name+"/") })
	})
	// Last come tests by chance: they notice more, tell less, and not the same in every run.
	last := func(name string) string { return strings.NewReplacer("TestSim", "~~", "TestAny", "~").Replace(name) }
	return slices.MinFunc(inner, func(a, b string) int { return strings.Compare(last(a), last(b)) }), nil
}

// said is what go said, in one line.
func said(out []byte) string {
	var text strings.Builder
	for line := range bytes.Lines(out) {
		var e event
		if json.Unmarshal(line, &e) == nil {
			text.WriteString(e.Output)
		} else {
			text.Write(line)
		}
	}
	s := strings.TrimSpace(spaces.ReplaceAllString(text.String(), " "))
	return s[:min(len(s), 600)]
}

func table(killers map[string]string) []byte {
	var b bytes.Buffer
	b.WriteString("# Mutants\n\n" +
		"`make mutants` breaks one rule of the order engine at a time (tools/mutants/list.go), in a copy of the tree, and\n" +
		"expects a test to notice. It writes this table, and fails when a mutant survives, does not compile, or names a text\n" +
		"that is not there any more.\n\n" +
		"| mutant | rule it breaks | killed by |\n|---|---|---|\n")
	for _, m := range mutants {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", m.name, m.rule, strings.ReplaceAll(killers[m.name], "|", `\|`))
	}
	return b.Bytes()
}
