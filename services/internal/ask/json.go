package ask

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// maxDepth is how deep values may nest; the outermost object is the first level.
const maxDepth = 16

// object is a JSON object whose members are all different.
type object struct {
	names   []string
	members map[string]any
}

// get gives a member; null and absent are both nil.
func (o *object) get(name string) any { return o.members[name] }

// has says whether the member was written at all, null included.
func (o *object) has(name string) bool { _, ok := o.members[name]; return ok }

// number is a JSON number as it was written.
type number string

// errEmpty says that there is no value at all, only white space.
var errEmpty = errors.New("the body is empty")

// parser reads one JSON value. encoding/json alone does not do: it keeps the last of two equal members and takes
// names that differ in case for the same one.
type parser struct {
	b   []byte
	pos int
	// python also takes NaN, Infinity and -Infinity, as the seed's parser did.
	python bool
}

// parse reads a whole body: nil, bool, number, string, []any or *object.
func parse(body []byte, python bool) (any, error) {
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(body) {
		return nil, errors.New("the body is not valid UTF-8")
	}
	p := &parser{b: body, python: python}
	p.space()
	if p.pos == len(p.b) {
		return nil, errEmpty
	}
	v, err := p.value(1)
	if err != nil {
		return nil, err
	}
	p.space()
	if p.pos != len(p.b) {
		return nil, fmt.Errorf("something stands after the value, at byte %d", p.pos)
	}
	return v, nil
}

func (p *parser) space() {
	for p.pos < len(p.b) {
		switch p.b[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

func (p *parser) peek() byte {
	if p.pos < len(p.b) {
		return p.b[p.pos]
	}
	return 0
}

func (p *parser) fail() error {
	if p.pos >= len(p.b) {
		return errors.New("the JSON ends too early")
	}
	return fmt.Errorf("the JSON is broken at byte %d", p.pos)
}

func (p *parser) word(w string) bool {
	if !bytes.HasPrefix(p.b[p.pos:], []byte(w)) {
		return false
	}
	p.pos += len(w)
	return true
}

func (p *parser) value(depth int) (any, error) {
	switch c := p.peek(); {
	case c == '{' || c == '[':
		if depth > maxDepth {
			return nil, fmt.Errorf("the JSON nests deeper than %d levels", maxDepth)
		}
		if c == '{' {
			return p.object(depth)
		}
		return p.array(depth)
	case c == '"':
		return p.text()
	case p.word("null"):
		return nil, nil
	case p.word("true"):
		return true, nil
	case p.word("false"):
		return false, nil
	case p.python && p.word("NaN"):
		return number("NaN"), nil
	case p.python && p.word("Infinity"):
		return number("Infinity"), nil
	case p.python && p.word("-Infinity"):
		return number("-Infinity"), nil
	}
	return p.number()
}

func (p *parser) object(depth int) (any, error) {
	o := &object{members: map[string]any{}}
	folded := map[string]string{}
	p.pos++
	p.space()
	if p.peek() == '}' {
		p.pos++
		return o, nil
	}
	for {
		if p.peek() != '"' {
			return nil, p.fail()
		}
		name, err := p.text()
		if err != nil {
			return nil, err
		}
		if other, twice := folded[fold(name)]; twice {
			if other == name {
				return nil, fmt.Errorf("the member %q stands twice", name)
			}
			return nil, fmt.Errorf("the members %q and %q differ in case only", other, name)
		}
		folded[fold(name)] = name
		p.space()
		if p.peek() != ':' {
			return nil, p.fail()
		}
		p.pos++
		p.space()
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		o.names, o.members[name] = append(o.names, name), v
		p.space()
		switch p.peek() {
		case ',':
			p.pos++
			p.space()
		case '}':
			p.pos++
			return o, nil
		default:
			return nil, p.fail()
		}
	}
}

func (p *parser) array(depth int) (any, error) {
	list := []any{}
	p.pos++
	p.space()
	if p.peek() == ']' {
		p.pos++
		return list, nil
	}
	for {
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		p.space()
		switch p.peek() {
		case ',':
			p.pos++
			p.space()
		case ']':
			p.pos++
			return list, nil
		default:
			return nil, p.fail()
		}
	}
}

// text finds the end of a string here and leaves its escapes to encoding/json.
func (p *parser) text() (string, error) {
	start := p.pos
	for i := p.pos + 1; i < len(p.b); i++ {
		switch {
		case p.b[i] == '\\':
			i++
		case p.b[i] == '"':
			p.pos = i + 1
			var s string
			if err := json.Unmarshal(p.b[start:p.pos], &s); err != nil {
				return "", fmt.Errorf("the JSON has a broken string at byte %d", start)
			}
			return s, nil
		}
	}
	p.pos = len(p.b)
	return "", p.fail()
}

func (p *parser) digits() bool {
	start := p.pos
	for c := p.peek(); c >= '0' && c <= '9'; c = p.peek() {
		p.pos++
	}
	return p.pos > start
}

func (p *parser) number() (any, error) {
	start := p.pos
	if p.peek() == '-' {
		p.pos++
	}
	switch {
	case p.peek() == '0':
		p.pos++
	case !p.digits():
		return nil, p.fail()
	}
	if p.peek() == '.' {
		p.pos++
		if !p.digits() {
			return nil, p.fail()
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.pos++
		if c := p.peek(); c == '+' || c == '-' {
			p.pos++
		}
		if !p.digits() {
			return nil, p.fail()
		}
	}
	return number(p.b[start:p.pos]), nil
}

// fold gives equal results for names that differ in case only, by Unicode's simple folding.
func fold(name string) string {
	out := []rune(name)
	for i, r := range out {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		out[i] = least
	}
	return string(out)
}

// plain turns a parsed value into what encoding/json prints, numbers digit for digit.
func plain(v any) any {
	switch v := v.(type) {
	case *object:
		m := make(map[string]any, len(v.members))
		for name, member := range v.members {
			m[name] = plain(member)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = plain(v[i])
		}
		return list
	case number:
		return json.Number(v)
	}
	return v
}
