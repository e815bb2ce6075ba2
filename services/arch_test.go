// Package services_test holds the law of the house: who may import whom, what is pure, what a program links. Each rule
// carries its why, so that whoever breaks one knows what would be lost.
package services_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const root = "github.com/renthook/renthook/"

// listed is a package as the go command sees it.
type listed struct {
	ImportPath, Name, Doc, Dir string
	GoFiles, Imports, Deps     []string
	TestImports, XTestImports  []string
}

// house lists every package of the three modules, once.
var house = sync.OnceValues(func() ([]listed, error) {
	list := exec.Command("go", "list", "-json=ImportPath,Name,Doc,Dir,GoFiles,Imports,Deps,TestImports,XTestImports",
		root+"pkg/...", root+"proto/...", root+"services/...")
	var stderr bytes.Buffer
	list.Stderr = &stderr
	out, err := list.Output()
	if err != nil {
		return nil, errors.New("go list: " + err.Error() + "\n" + stderr.String())
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
})

func packages(t *testing.T) []listed {
	t.Helper()
	all, err := house()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 40 {
		t.Fatalf("only %d packages are listed: the law would hold for want of a country", len(all))
	}
	return all
}

// layers of the house, from the ground up, with what each may import of ours, and why not more.
var layers = map[string]struct {
	may []string
	why string
}{
	"pkg":     {[]string{"pkg"}, "pkg could be a repository of its own: it knows no message and no service of ours"},
	"proto":   {[]string{"proto"}, "others generate from proto: it stands on nothing of ours"},
	"shared":  {[]string{"shared", "pkg", "proto"}, "what services share knows none of them"},
	"inside":  {[]string{"inside", "shared", "pkg", "proto"}, "the inside of a service does not know its shell, nor another service: they meet on the bus and by gRPC"},
	"service": {[]string{"inside", "shared", "pkg", "proto"}, "services meet on the bus and by gRPC, so that each can be deployed, restarted and replaced alone"},
	"stack":   {[]string{"stack", "service", "shared", "pkg", "proto"}, "stack puts services together and is below the commands"},
	"cmd":     {[]string{"cmd", "stack", "shared", "pkg", "proto"}, "a main starts services through stack, so that every way to run them is one code"},
	"e2e":     {[]string{"stack", "shared", "pkg", "proto"}, "e2e tests renthook from outside"},
}

var inside = regexp.MustCompile(`^services/[a-z]+/internal/`)

// layer says where a package of ours stands, and which service it belongs to.
func layer(importPath string) (name, service string) {
	p := strings.TrimPrefix(importPath, root)
	parts := strings.Split(p, "/")
	switch {
	case parts[0] != "services":
		return parts[0], ""
	case len(parts) == 1:
		return "e2e", ""
	case parts[1] == "internal":
		return "shared", ""
	case slices.Contains([]string{"cmd", "stack", "e2e"}, parts[1]):
		return parts[1], ""
	case len(parts) == 2:
		return "service", parts[1]
	case inside.MatchString(p):
		return "inside", parts[1]
	default:
		return "", parts[1] // a service exports one package; the rest is internal
	}
}

func mayImport(from, to string) bool {
	if from == to { // a test in a package of its own
		return true
	}
	fromLayer, fromService := layer(from)
	toLayer, toService := layer(to)
	return slices.Contains(layers[fromLayer].may, toLayer) && (toLayer != "inside" || fromService == toService)
}

func TestLaw_Imports(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		name, service := layer(p.ImportPath)
		if name == "" {
			t.Errorf("%s: service %s exports one package; everything else of it is internal, so that its inside can change", p.ImportPath, service)
		}
		for _, to := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if strings.HasPrefix(to, root) && !mayImport(p.ImportPath, to) {
				t.Errorf("%s imports %s: %s", p.ImportPath, to, layers[name].why)
			}
		}
		for _, to := range p.Imports {
			if forTests(to) && !forTests(p.ImportPath) {
				t.Errorf("%s imports %s outside its tests: what is for tests must not run", p.ImportPath, to)
			}
		}
	}
}

// The law refuses what it is there to refuse.
func TestLaw_Refuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, to string
		may      bool
	}{
		{"pkg/bus", "proto/gen/renthook/order/v1", false},
		{"pkg/bus", "services/internal/topology", false},
		{"proto/gen/renthook/order/v1", "pkg/bus", false},
		{"services/internal/ask", "services/order", false},
		{"services/ingress", "services/order", false},
		{"services/ingress/internal/seed", "services/ingress", false},
		{"services/ingress/internal/seed", "services/order/internal/rental", false},
		{"services/ingress", "services/stack", false},
		{"services/stack", "services/cmd/internal/cli", false},
		{"services/cmd/order", "services/order", false},
		{"services/e2e", "services/order", false},
		{"services/ingress", "services/ingress/internal/seed", true},
		{"services/ingress/internal/seed", "services/ingress/internal/limit", true},
		{"services/stack/wire", "services/order", true},
		{"services/watchdog", "services/order", false},
		{"services/cmd/order", "services/cmd/internal/alone", true},
		{"services/cmd/internal/alone", "services/stack/wire", true},
	} {
		if may := mayImport(root+c.from, root+c.to); may != c.may {
			t.Errorf("%s may import %s: %v, want %v", c.from, c.to, may, c.may)
		}
	}
}

// forTests tells packages that only tests may use.
func forTests(importPath string) bool {
	return strings.HasPrefix(importPath, root) && strings.HasSuffix(importPath, "test")
}

func TestLaw_WhatProgramsLink(t *testing.T) {
	t.Parallel()
	alone := []string{"ingress", "order", "pricewatch", "notifier", "watchdog"}
	// What the watchdog must do without.
	down := []string{root + "pkg/bus", root + "pkg/journal", root + "services/ingress", root + "services/order", root + "services/pricewatch", root + "services/notifier"}
	programs := 0
	for _, p := range packages(t) {
		name, ok := strings.CutPrefix(p.ImportPath, root+"services/cmd/")
		if !ok || p.Name != "main" {
			continue
		}
		programs++
		for _, dep := range p.Deps {
			switch {
			case dep == "testing" || forTests(dep):
				t.Errorf("%s links %s: what is for tests must not run", name, dep)
			case strings.HasPrefix(dep, "github.com/nats-io/nats-server/") && name != "renthook":
				t.Errorf("%s links %s: only `renthook up` has a broker inside", name, dep)
			case dep == root+"pkg/cloreapi/cloresim" && slices.Contains(alone, name):
				t.Errorf("%s links %s: a service that may face the real market has no simulator inside", name, dep)
			case name == "watchdog" && slices.Contains(down, dep):
				t.Errorf("%s links %s: it works when all of that is down", name, dep)
			}
		}
		lines := 0
		for _, file := range p.GoFiles {
			b, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			lines += bytes.Count(b, []byte("\n"))
		}
		if lines > 60 {
			t.Errorf("%s has %d lines, at most 60: a main is flags, signals and one call; what it decides cannot be tested there", name, lines)
		}
	}
	if programs != len(alone)+2 {
		t.Errorf("%d programs, want the four services, the watchdog, marketsim and renthook", programs)
	}
}

func TestLaw_NamesAndDocs(t *testing.T) {
	t.Parallel()
	meaningless := []string{"util", "utils", "common", "helper", "helpers", "model", "models", "base", "misc", "lib", "types"}
	for _, p := range packages(t) {
		if slices.Contains(meaningless, p.Name) || slices.Contains(meaningless, path.Base(p.ImportPath)) {
			t.Errorf("%s: the name says nothing of what it is, so everything would end up there", p.ImportPath)
		}
		if len(p.GoFiles) == 0 || strings.HasPrefix(p.ImportPath, root+"proto/gen/") {
			continue
		}
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command " + path.Base(p.ImportPath) + " "
		}
		if !strings.HasPrefix(p.Doc, want) {
			t.Errorf("%s: its doc begins with %q, want %q: a package says what it is, what it guarantees and what it refuses", p.ImportPath, p.Doc, want)
		}
	}
}

// pure packages decide. Time, ids and randomness are given to them, so that a test can give any, and a restart the same.
var pure = []string{
	"services/order/internal/rental", "services/order/internal/choose", "services/order/internal/prove", "services/order/internal/pace",
	"services/order/internal/ledger", "services/watchdog/internal/overdue",
}

func TestLaw_Pure(t *testing.T) {
	t.Parallel()
	// Packages of ours that are plain values, and what the standard library has without a way out of the process.
	ours := []string{
		root + "services/internal/money", root + "services/internal/market", root + "services/internal/ends",
		root + "services/order/internal/rental", root + "services/order/internal/ledger",
	}
	library := []string{"bytes", "cmp", "encoding/json", "errors", "fmt", "github.com/govalues/decimal", "iter", "maps", "math", "regexp", "slices", "sort", "strconv", "strings", "time", "unicode", "unicode/utf8"}
	clocks := []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}
	seen := 0
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, root)
		if !slices.Contains(pure, name) {
			continue
		}
		seen++
		for _, to := range p.Imports {
			if !slices.Contains(ours, to) && !slices.Contains(library, to) {
				t.Errorf("%s imports %s: what decides does no I/O, has no clock, no context, no log and no randomness", name, to)
			}
		}
		inspect(t, p, func(at token.Position, n ast.Node) {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a goroutine in what decides: its order would be anybody's", at)
			case *ast.SelectorExpr:
				if of, ok := n.X.(*ast.Ident); ok && of.Name == "time" && slices.Contains(clocks, n.Sel.Name) {
					t.Errorf("%s: time.%s in what decides: the time is given", at, n.Sel.Name)
				}
			}
		})
	}
	if seen != len(pure) {
		t.Errorf("%d of the pure packages %v are there", seen, pure)
	}
}

func TestLaw_MoneyIsNoFloat(t *testing.T) {
	t.Parallel()
	// Measures, not amounts: nothing is paid by them.
	measures := []string{"MinVRAMGB", "VRAMGB", "MinRAMGB", "MinDiskGB", "MinDownMbps", "MinUpMbps", "MinReliability", "Reliability"}
	seen := 0
	for _, p := range packages(t) {
		if p.ImportPath != root+"services/internal/money" && p.ImportPath != root+"services/order/internal/rental" {
			continue
		}
		seen++
		measured := map[token.Pos]bool{}
		inspect(t, p, func(at token.Position, n ast.Node) {
			switch n := n.(type) {
			case *ast.Field:
				if len(n.Names) == 1 && slices.Contains(measures, n.Names[0].Name) {
					measured[n.Type.Pos()] = true
				}
			case *ast.Ident:
				if (n.Name == "float64" || n.Name == "float32") && !measured[n.Pos()] {
					t.Errorf("%s: %s where amounts are: 0.1 + 0.2 is not 0.3 in it; use decimal", at, n.Name)
				}
			case *ast.SelectorExpr:
				if slices.Contains([]string{"Float64", "ParseFloat", "NewFromFloat64"}, n.Sel.Name) {
					t.Errorf("%s: %s where amounts are: use decimal", at, n.Sel.Name)
				}
			}
		})
	}
	if seen != 2 {
		t.Errorf("%d of money and rental are there", seen)
	}
}

// inspect walks the files of a package that are no tests.
func inspect(t *testing.T, p listed, visit func(at token.Position, n ast.Node)) {
	t.Helper()
	files := token.NewFileSet()
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(files, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			// A renamed or dotted time would hide a clock from the law.
			if to, _ := strconv.Unquote(i.Path.Value); to == "time" && i.Name != nil {
				t.Errorf("%s: imports time under another name", files.Position(i.Pos()))
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if n != nil {
				visit(files.Position(n.Pos()), n)
			}
			return true
		})
	}
}

func TestLaw_Modules(t *testing.T) {
	t.Parallel()
	directive := func(file, name string) (found []string) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
				found = append(found, rest)
			}
		}
		return found
	}
	work := "../go.work"
	for _, module := range []string{"../pkg/go.mod", "../proto/go.mod", "go.mod"} {
		for _, name := range []string{"go", "toolchain"} {
			if have, want := directive(module, name), directive(work, name); !slices.Equal(have, want) || len(want) != 1 {
				t.Errorf("%s: %s %q, in go.work %q: one language and one compiler for all, or a build depends on where it is started", module, name, have, want)
			}
		}
	}
	for module, want := range map[string][]string{
		"../pkg/go.mod": nil, "../proto/go.mod": nil,
		"go.mod": {root + "pkg => ../pkg", root + "proto => ../proto"},
	} {
		if have := directive(module, "replace"); !slices.Equal(have, want) {
			t.Errorf("%s replaces %q, want %q: a replacement holds only where it stands, so whoever imports us would build something else", module, have, want)
		}
	}
}
