package services_test

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// fact is one thing believed of the market, as docs/contract/market-facts.yaml has it.
type fact struct {
	ID      string   `yaml:"id"`
	Fact    string   `yaml:"fact"`
	Sure    string   `yaml:"sure"`
	Code    []string `yaml:"code"`
	Check   string   `yaml:"check"`
	IfFalse string   `yaml:"if_false"`
}

var sureness = []string{"documented", "claimed", "typed", "inferred", "unknown"}

// mention is a comment that says which fact a declaration leans on; place is "file declaration".
type mention struct{ id, place string }

var factComment = regexp.MustCompile(`fact:([A-Za-z0-9_-]+)`)

// mentions lists the fact comments of a file, and every declaration in it.
func mentions(name string, src []byte) (found []mention, places []string, err error) {
	f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments)
	if err != nil {
		return nil, nil, err
	}
	type span struct {
		place    string
		from, to token.Pos
	}
	var spans []span
	add := func(decl string, from, to ast.Node, docs ...*ast.CommentGroup) {
		s := span{name + " " + decl, from.Pos(), to.End()}
		for _, d := range docs {
			if d != nil {
				s.from, s.to = min(s.from, d.Pos()), max(s.to, d.End())
			}
		}
		spans = append(spans, s)
		places = append(places, s.place)
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			add(receiver(d)+d.Name.Name, d, d, d.Doc)
		case *ast.GenDecl:
			for _, s := range d.Specs {
				var doc *ast.CommentGroup
				if !d.Lparen.IsValid() {
					doc = d.Doc
				}
				switch s := s.(type) {
				case *ast.TypeSpec:
					add(s.Name.Name, s, s, doc, s.Doc, s.Comment)
				case *ast.ValueSpec:
					add(s.Names[0].Name, s, s, doc, s.Doc, s.Comment)
				}
			}
		}
	}
	for _, group := range f.Comments {
		for _, c := range group.List {
			for _, m := range factComment.FindAllStringSubmatch(c.Text, -1) {
				place := name
				for _, s := range spans {
					if s.from <= c.Pos() && c.Pos() < s.to {
						place = s.place
					}
				}
				found = append(found, mention{m[1], place})
			}
		}
	}
	return found, places, nil
}

// receiver is "Type." for a method.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	t := d.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if name, ok := t.(*ast.Ident); ok {
		return name.Name + "."
	}
	return ""
}

// disagreements says where the register and the code do not say the same.
func disagreements(register []fact, found []mention, places []string) (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	leans := map[mention]bool{}
	known := map[string]bool{}
	for n, f := range register {
		switch {
		case f.ID == "" || f.Fact == "" || f.Check == "" || f.IfFalse == "" || len(f.Code) == 0:
			say("entry %d (%q): a member is empty", n+1, f.ID)
		case known[f.ID]:
			say("%s: it is there twice", f.ID)
		case !slices.Contains(sureness, f.Sure):
			say("%s: sure is %q, not one of %q", f.ID, f.Sure, sureness)
		}
		known[f.ID] = true
		for _, place := range f.Code {
			leans[mention{f.ID, place}] = true
			switch {
			case !slices.Contains(places, place):
				say("%s: there is no %q", f.ID, place)
			case !slices.Contains(found, mention{f.ID, place}):
				say("%s: %s has no comment fact:%s", f.ID, place, f.ID)
			}
		}
	}
	for _, m := range found {
		switch {
		case !known[m.id]:
			say("%s leans on the fact %s, which is not registered", m.place, m.id)
		case !leans[m]:
			say("%s leans on the fact %s, whose entry does not name it", m.place, m.id)
		}
	}
	return wrong
}

// TestFacts: whoever changes code that leans on a belief about the market can find the belief, how sure it is and what it
// would cost; and whoever learns that one is false finds the code.
func TestFacts(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../docs/contract/market-facts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var book struct {
		Facts []fact `yaml:"facts"`
	}
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	if err := d.Decode(&book); err != nil {
		t.Fatal(err)
	}
	var found []mention
	var places []string
	top, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages(t) {
		if strings.HasPrefix(p.ImportPath, root+"proto/") {
			continue
		}
		for _, file := range p.GoFiles {
			path := filepath.Join(p.Dir, file)
			src, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			name, err := filepath.Rel(top, path)
			if err != nil {
				t.Fatal(err)
			}
			m, all, err := mentions(filepath.ToSlash(name), src)
			if err != nil {
				t.Fatal(err)
			}
			found, places = append(found, m...), append(places, all...)
		}
	}
	if len(book.Facts) < 20 || len(places) < 500 {
		t.Fatalf("%d facts, %d declarations: nothing would be held together", len(book.Facts), len(places))
	}
	for _, w := range disagreements(book.Facts, found, places) {
		t.Error(w)
	}
}

// TestFacts_Refuses: the test above is no good if it takes everything.
func TestFacts_Refuses(t *testing.T) {
	t.Parallel()
	const src = `package p

// A is a constant.
// fact:a
const A = 1

const (
	B = 2 // fact:b
	// C is another. fact:c
	C = 3
)

// T has a method.
type T struct{ x int }

func (t *T) M() {
	_ = t.x // fact:a
}

func none() {}
`
	found, places, err := mentions("p.go", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	byPlace := func(a, b mention) int { return cmp.Or(strings.Compare(a.place, b.place), strings.Compare(a.id, b.id)) }
	slices.SortFunc(found, byPlace)
	want := []mention{{"a", "p.go A"}, {"b", "p.go B"}, {"c", "p.go C"}, {"a", "p.go T.M"}}
	if !slices.Equal(found, want) {
		t.Fatalf("found %v, want %v", found, want)
	}
	good := func(id string, code ...string) fact {
		return fact{ID: id, Fact: "f", Sure: "inferred", Code: code, Check: "c", IfFalse: "i"}
	}
	register := map[string]fact{"a": good("a", "p.go A", "p.go T.M"), "b": good("b", "p.go B"), "c": good("c", "p.go C")}
	for name, c := range map[string]struct {
		id     string
		change func(*fact)
		want   string
	}{
		"sound":                      {"a", func(*fact) {}, ""},
		"no such declaration":        {"a", func(f *fact) { f.Code = append(f.Code, "p.go X") }, `a: there is no "p.go X"`},
		"no such file":               {"a", func(f *fact) { f.Code = append(f.Code, "q.go A") }, `a: there is no "q.go A"`},
		"an entry without a comment": {"a", func(f *fact) { f.Code = append(f.Code, "p.go none") }, "a: p.go none has no comment fact:a"},
		"a comment it does not name": {"a", func(f *fact) { f.Code = f.Code[:1] }, "p.go T.M leans on the fact a, whose entry does not name it"},
		"a comment without an entry": {"b", func(f *fact) { f.ID = "z" }, "p.go B leans on the fact b, which is not registered"},
		"not said":                   {"c", func(f *fact) { f.Fact = "" }, `entry 3 ("c"): a member is empty`},
		"not checked":                {"c", func(f *fact) { f.Check = "" }, `entry 3 ("c"): a member is empty`},
		"not bounded":                {"c", func(f *fact) { f.IfFalse = "" }, `entry 3 ("c"): a member is empty`},
		"how sure":                   {"c", func(f *fact) { f.Sure = "very" }, `c: sure is "very"`},
		"twice":                      {"c", func(f *fact) { f.ID = "b" }, "b: it is there twice"},
	} {
		all := maps.Clone(register)
		f := all[c.id]
		f.Code = slices.Clone(f.Code)
		c.change(&f)
		all[c.id] = f
		said := disagreements([]fact{all["a"], all["b"], all["c"]}, found, places)
		if c.want == "" && len(said) > 0 {
			t.Errorf("%s: %q", name, said)
		}
		if !slices.ContainsFunc(append(said, ""), func(s string) bool { return strings.HasPrefix(s, c.want) }) {
			t.Errorf("%s: said %q, not %q", name, said, c.want)
		}
	}
}
