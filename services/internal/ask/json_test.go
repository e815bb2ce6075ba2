package ask

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func nest(n int) string { return strings.Repeat(`[`, n) + strings.Repeat(`]`, n) }

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, want string }{
		"nothing":               {"", "empty"},
		"white space":           {" \n\t\r ", "empty"},
		"a mark of order alone": {"\xef\xbb\xbf", "empty"},
		"invalid UTF-8":         {"{\"a\":\"\xff\"}", "UTF-8"},
		"twice":                 {`{"gpu_type":"a","gpu_type":"b"}`, `"gpu_type" stands twice`},
		"twice by escape":       {`{"a":1,"\u0061":2}`, `"a" stands twice`},
		"twice, deeper":         {`{"env":{"A":"1","A":"2"}}`, `"A" stands twice`},
		"case":                  {`{"max_price":1,"Max_Price":2}`, "differ in case only"},
		"case beyond ASCII":     {"{\"k\":1,\"\u212a\":2}", "differ in case only"},
		"too deep":              {nest(maxDepth + 1), "deeper than 16"},
		"after the value":       {`{} {}`, "after the value"},
		"a comma too many":      {`{"a":1,}`, "broken"},
		"a comma in a list":     {`[1,]`, "broken"},
		"single quotes":         {`{'a':1}`, "broken"},
		"leading zero":          {`{"a":01}`, "broken"},
		"plus":                  {`+1`, "broken"},
		"bare point":            {`.5`, "broken"},
		"no digits after":       {`1.`, "ends too early"},
		"no exponent":           {`1e`, "ends too early"},
		"half an object":        {`{"a":`, "ends too early"},
		"half a string":         {`{"a":"b`, "ends too early"},
		"control character":     {"\"a\nb\"", "broken string"},
		"bad escape":            {`"\x41"`, "broken string"},
		"NaN":                   {`NaN`, "broken"},
		"a word":                {`nul`, "broken"},
	} {
		if _, err := parse([]byte(c.body), false); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q gave %v, want an error with %q", name, c.body, err, c.want)
		}
	}
}

func TestParseTakes(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]any{
		"\xef\xbb\xbf{}":             map[string]any{},
		` [ 1.50 , "a\"b\u00e9" ] `:  []any{json.Number("1.50"), `a"bé`},
		`{"a":{"b":[null,true]}}`:    map[string]any{"a": map[string]any{"b": []any{nil, true}}},
		`-0`:                         json.Number("-0"),
		`100000000000000000000000.0`: json.Number("100000000000000000000000.0"),
		`"\ud83d\ude80"`:             "🚀",
	} {
		got, err := parse([]byte(body), false)
		if err != nil || !reflect.DeepEqual(plain(got), want) {
			t.Errorf("%s gave %v, %v; want %v", body, plain(got), err, want)
		}
	}
	if _, err := parse([]byte(nest(maxDepth)), false); err != nil {
		t.Errorf("%d levels: %v", maxDepth, err)
	}
	for _, word := range []string{"NaN", "Infinity", "-Infinity"} {
		if v, err := parse([]byte(word), true); err != nil || v != number(word) {
			t.Errorf("%s gave %v, %v", word, v, err)
		}
	}
}

// FuzzParse compares with encoding/json: whatever is taken here it takes too, with the same meaning; whatever it
// takes and is refused here is one of the four things that are refused on purpose.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"gpu_type":"RTX 4090","max_price":0.50}`, `{"a":{"A":1,"a":2}}`, nest(17), "\xef\xbb\xbf[]", `"\ud800"`, `{"a":1,"a":2}`, `-0.0e-1`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := parse(body, false)
		rest := bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
		d := json.NewDecoder(bytes.NewReader(rest))
		d.UseNumber()
		var want any
		valid := json.Valid(rest)
		if err == nil {
			if derr := d.Decode(&want); derr != nil || !valid || !reflect.DeepEqual(plain(got), want) {
				t.Fatalf("%q: ours %v, encoding/json %v (%v)", body, plain(got), want, derr)
			}
			return
		}
		if !valid || !utf8.Valid(rest) {
			return
		}
		for _, reason := range []string{"stands twice", "differ in case only", "nests deeper"} {
			if strings.Contains(err.Error(), reason) {
				return
			}
		}
		t.Fatalf("%q is valid, and refused: %v", body, err)
	})
}
