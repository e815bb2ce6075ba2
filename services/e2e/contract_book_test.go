package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// block is one fenced example: what stands after the backquotes, its text, and where it begins.
type block struct {
	info, text string
	line       int
}

// blocks takes the fenced blocks out of a page.
func blocks(t *testing.T, page string) (all []block) {
	t.Helper()
	var open *block
	n := 0
	for line := range strings.Lines(page) {
		n++
		info, fence := strings.CutPrefix(strings.TrimRight(line, "\n"), "```")
		switch {
		case fence && open == nil:
			open = &block{info: info, line: n}
		case fence && info == "":
			all = append(all, *open)
			open = nil
		case fence:
			t.Fatalf("line %d: a block opens in another", n)
		case open != nil:
			open.text += line
		}
	}
	if open != nil {
		t.Fatalf("line %d: this block does not end", open.line)
	}
	return all
}

// book remembers what the stand-ins of a page stand for.
type book struct{ means map[string]string }

func newBook() *book { return &book{means: map[string]string{}} }

var (
	// ids are bound to the real one when first seen, and the same ever after.
	ids = regexp.MustCompile(`op_[a-z]+-[a-z]+_[0-9a-f]{32}|ord_[0-9a-f]{32}`)
	// times are any.
	times = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	// nothing is an id that nothing has.
	nothing = "ord_" + strings.Repeat("0", 32)
)

// bound members hold numbers of the market, written as numbers or as texts: bound like ids.
var bound = []string{"order_id", "market_order_id", "server_id", "server.id"}

// measured members hold what is another each time; their kind is held.
var measured = []string{
	"price_usd", "usd_per_hour", "native_per_day", "usd_rate", "currency", "fees_usd_per_hour", "spend", "worst_case_usd",
	"available", "total", "min_price", "total_servers", "total_available", "country", "reliability", "host", "port", "ssh_port", "http_url",
	"ssh_connection", "password", "command", "trace_id", "tcp_ports.22", "seq", "commandSeq",
}

// real puts in what the stand-ins of a text mean.
func (b *book) real(text string) string {
	// Longest first: no stand-in is cut into by another.
	known := slices.SortedFunc(maps.Keys(b.means), func(x, y string) int { return len(y) - len(x) })
	pairs := make([]string, 0, 2*len(known))
	for _, k := range known {
		pairs = append(pairs, k, b.means[k])
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// bind makes doc stand for real, or says that it stands for something else.
func (b *book) bind(doc, real string) bool {
	if doc == nothing {
		return real == nothing
	}
	if known, ok := b.means[doc]; ok {
		return known == real
	}
	b.means[doc] = real
	return true
}

// text says whether got is what doc says, ids and times aside.
func (b *book) text(doc, got string) bool {
	strip := func(s string) string { return times.ReplaceAllString(ids.ReplaceAllString(s, "§"), "¤") }
	docIDs, gotIDs := ids.FindAllString(doc, -1), ids.FindAllString(got, -1)
	if strip(doc) != strip(got) && strip(b.real(doc)) != strip(got) || len(docIDs) != len(gotIDs) {
		return false
	}
	for n := range docIDs {
		if !b.bind(docIDs[n], gotIDs[n]) {
			return false
		}
	}
	return true
}

// decode keeps numbers as they are written.
func decode(text []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return v, d.Decode(&v)
}

// compare lists how got differs from the example. With partial, got may have members that the example has not.
func (b *book) compare(path, name string, doc, got any, partial bool) (differences []string) {
	differ := func(format string, args ...any) []string {
		return append(differences, strings.TrimPrefix(path, ".")+": "+fmt.Sprintf(format, args...))
	}
	if reflect.TypeOf(doc) != reflect.TypeOf(got) {
		return differ("is %v, want %v", got, doc)
	}
	switch doc := doc.(type) {
	case map[string]any:
		got, _ := got.(map[string]any)
		for _, m := range slices.Sorted(maps.Keys(doc)) {
			if v, there := got[m]; there {
				differences = append(differences, b.compare(path+"."+m, m, doc[m], v, partial)...)
			} else {
				differences = differ("has no %q", m)
			}
		}
		for _, m := range slices.Sorted(maps.Keys(got)) {
			if _, told := doc[m]; !told && !partial && name != "internal" {
				differences = differ("has %q, of which the example says nothing", m)
			}
		}
		return differences
	case []any:
		got, _ := got.([]any)
		if len(doc) != len(got) {
			return differ("has %d items, want %d", len(got), len(doc))
		}
		for n := range doc {
			differences = append(differences, b.compare(fmt.Sprintf("%s[%d]", path, n), name, doc[n], got[n], partial)...)
		}
		return differences
	}
	want, have := fmt.Sprint(doc), fmt.Sprint(got)
	if inList(bound, path, name) {
		if !b.bind(want, have) && want != have {
			return differ("is %s, want what %s stood for", have, want)
		}
		return nil
	}
	if inList(measured, path, name) {
		if _, isText := doc.(string); isText && have == "" {
			return differ("is empty")
		}
		// "command" is how to log in, and which command was settled.
		if name != "command" || strings.HasPrefix(want, "ssh ") {
			return nil
		}
	}
	if !b.text(want, have) {
		return differ("is %s, want %s", have, want)
	}
	return nil
}

// inList finds a member by its name, or by the end of its path.
func inList(list []string, path, name string) bool {
	return slices.ContainsFunc(list, func(m string) bool {
		return m == name || strings.Contains(m, ".") && strings.HasSuffix(path, "."+m)
	})
}

// The comparison refuses what it is there to refuse.
func TestContract_ComparisonRefuses(t *testing.T) {
	t.Parallel()
	one, two := "ord_"+strings.Repeat("1", 32), "ord_"+strings.Repeat("2", 32)
	for _, c := range []struct {
		doc, got string
		partial  bool
		differs  bool
	}{
		{doc: `{"a":1}`, got: `{"a":1}`},
		{doc: `{"a":1}`, got: `{"a":2}`, differs: true},
		{doc: `{"a":1}`, got: `{"a":"1"}`, differs: true},
		{doc: `{"a":1}`, got: `{}`, differs: true},
		{doc: `{"a":1}`, got: `{}`, partial: true, differs: true},
		{doc: `{"a":1}`, got: `{"a":1,"b":2}`, differs: true},
		{doc: `{"a":1}`, got: `{"a":1,"b":2}`, partial: true},
		{doc: `[1]`, got: `[1,2]`, partial: true, differs: true},
		{doc: `{"a":null}`, got: `{"a":1}`, differs: true},
		{doc: `{"port":1}`, got: `{"port":2}`},
		{doc: `{"port":1}`, got: `{"port":"2"}`, differs: true},
		{doc: `{"host":"a"}`, got: `{"host":""}`, differs: true},
		{doc: `{"command":"order.create"}`, got: `{"command":"order.cancel"}`, differs: true},
		{doc: `{"at":"2026-11-24T12:00:00Z"}`, got: `{"at":"2027-01-02T03:04:05.678Z"}`},
		{doc: `{"at":"2026-11-24T12:00:00Z"}`, got: `{"at":"later"}`, differs: true},
		{doc: `["` + one + `","` + one + `"]`, got: `["` + two + `","` + two + `"]`},
		{doc: `["` + one + `","` + one + `"]`, got: `["` + two + `","` + one + `"]`, differs: true},
		{doc: `["order ` + one + ` not found"]`, got: `["order ` + two + ` not found"]`},
		{doc: `["order ` + one + ` not found"]`, got: `["order ` + two + ` found"]`, differs: true},
		{doc: `[{"order_id":7},{"order_id":7}]`, got: `[{"order_id":8},{"order_id":8}]`},
		{doc: `[{"order_id":7},{"order_id":7}]`, got: `[{"order_id":8},{"order_id":9}]`, differs: true},
	} {
		doc, err := decode([]byte(c.doc))
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode([]byte(c.got))
		if err != nil {
			t.Fatal(err)
		}
		if d := newBook().compare("", "", doc, got, c.partial); (len(d) > 0) != c.differs {
			t.Errorf("%s and %s (partial %v): %q", c.doc, c.got, c.partial, d)
		}
	}
}
