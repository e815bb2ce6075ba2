package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/renthook/renthook/pkg/secret"
)

var (
	secretType   = reflect.TypeFor[secret.String]()
	secretsType  = reflect.TypeFor[[]secret.String]()
	durationType = reflect.TypeFor[time.Duration]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func isSecret(t reflect.Type) bool { return t == secretType || t == secretsType }

func isText(t reflect.Type) bool { return reflect.PointerTo(t).Implements(textType) }

// assign states one setting by its path.
func (d *decoder) assign(a Assignment) {
	v := d.root
	rest := strings.Split(a.Path, ".")
	for len(rest) > 0 && v.Kind() == reflect.Struct && !isText(v.Type()) {
		name := rest[0]
		if f, ok := field(v, name); ok {
			v, rest = f, rest[1:]
			continue
		}
		if f, ok := fileField(v, name); ok && len(rest) == 1 {
			d.secretFile(f, a.Value, strings.TrimSuffix(a.Path, "_file"), a.Origin)
			return
		}
		break
	}
	switch {
	case len(rest) == 0 && !(v.Kind() == reflect.Struct && !isText(v.Type())):
		d.text(v, a.Value, a.Path, a.Origin)
	case len(rest) == 0:
		d.problem("%s is a group of settings: name one of them (from %s)", a.Path, a.Origin)
	case v.Kind() == reflect.Map:
		d.entry(v, strings.Join(rest, "."), a)
	default:
		d.problem("unknown setting %s%s", a.Path, suggest(a.Path, d.names.all()))
	}
}

// entry adds one entry to a copy of a map: the defaults may be shared.
func (d *decoder) entry(m reflect.Value, key string, a Assignment) {
	value := reflect.New(m.Type().Elem()).Elem()
	if !d.text(value, a.Value, a.Path, a.Origin) {
		return
	}
	fresh := reflect.MakeMap(m.Type())
	for _, k := range m.MapKeys() {
		fresh.SetMapIndex(k, m.MapIndex(k))
	}
	fresh.SetMapIndex(reflect.ValueOf(key), value)
	m.Set(fresh)
}

// secretFile reads a secret, or a list of them one a line, from a file.
func (d *decoder) secretFile(v reflect.Value, file, path, origin string) {
	s, err := secret.Load("", file)
	if err != nil {
		d.problem("%s: %w (from %s)", path, err, origin)
		return
	}
	if v.Type() == secretType {
		v.Set(reflect.ValueOf(s))
	} else {
		var list []secret.String
		for line := range strings.Lines(s.Reveal()) {
			if line = strings.TrimRight(line, "\r\n"); line != "" {
				list = append(list, secret.New(line))
			}
		}
		v.Set(reflect.ValueOf(list))
	}
	d.origins[path] = origin + " (" + file + ")"
}

// text reads a value as a variable states it.
func (d *decoder) text(v reflect.Value, text, path, origin string) bool {
	if composite(v.Type()) && (strings.HasPrefix(text, "[") || strings.HasPrefix(text, "{")) {
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(text), &doc); err != nil || len(doc.Content) == 0 {
			d.problem("%s: not YAML (from %s)", path, origin)
			return false
		}
		return d.node(v, doc.Content[0], path, origin)
	}
	switch {
	case v.Kind() == reflect.Slice && !composite(v.Type().Elem()):
		return d.list(v, text, path, origin)
	case v.Kind() == reflect.Map:
		return d.pairs(v, text, path, origin)
	case composite(v.Type()):
		d.problem("%s: want YAML in brackets (from %s)", path, origin)
		return false
	}
	if err := scalar(v, text); err != nil {
		d.problem("%s: %w (from %s)", path, err, origin)
		return false
	}
	d.origins[path] = origin
	return true
}

// composite says whether a type is made of several values.
func composite(t reflect.Type) bool {
	if isText(t) {
		return false
	}
	return t.Kind() == reflect.Slice || t.Kind() == reflect.Map || t.Kind() == reflect.Struct
}

func (d *decoder) list(v reflect.Value, text, path, origin string) bool {
	list := reflect.MakeSlice(v.Type(), 0, 0)
	items := strings.Split(text, ",")
	if v.Type() == secretsType {
		items = []string{text} // a secret may hold a comma
	}
	ok := true
	for _, item := range items {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		e := reflect.New(v.Type().Elem()).Elem()
		if err := scalar(e, item); err != nil {
			d.problem("%s: %w (from %s)", path, err, origin)
			ok = false
		}
		list = reflect.Append(list, e)
	}
	v.Set(list)
	d.origins[path] = origin
	return ok
}

func (d *decoder) pairs(v reflect.Value, text, path, origin string) bool {
	m := reflect.MakeMap(v.Type())
	ok := true
	for pair := range strings.SplitSeq(text, ",") {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		key, value, found := strings.Cut(pair, "=")
		if !found {
			d.problem("%s: want key=value,key=value (from %s)", path, origin)
			return false
		}
		e := reflect.New(v.Type().Elem()).Elem()
		if err := scalar(e, strings.TrimSpace(value)); err != nil {
			d.problem("%s.%s: %w (from %s)", path, key, err, origin)
			ok = false
		}
		m.SetMapIndex(reflect.ValueOf(strings.TrimSpace(key)), e)
	}
	v.Set(m)
	d.origins[path] = origin
	return ok
}

// node reads a value as YAML states it. A null leaves the default.
func (d *decoder) node(v reflect.Value, n *yaml.Node, path, origin string) bool {
	where := fmt.Sprintf("%s:%d", origin, n.Line)
	if n.Kind == yaml.AliasNode {
		d.problem("%s: anchors are not supported (%s)", orRoot(path), where)
		return false
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return true
	}
	switch {
	case !composite(v.Type()):
		if n.Kind != yaml.ScalarNode {
			d.problem("%s: want one value (%s)", orRoot(path), where)
			return false
		}
		return d.text(v, n.Value, path, where)
	case v.Kind() == reflect.Slice:
		if n.Kind == yaml.ScalarNode && !composite(v.Type().Elem()) {
			return d.list(v, n.Value, path, where)
		}
		return d.sequence(v, n, path, origin)
	case n.Kind != yaml.MappingNode:
		d.problem("%s: want names with values (%s)", orRoot(path), where)
		return false
	case v.Kind() == reflect.Map:
		return d.mapping(v, n, path, origin)
	default:
		return d.group(v, n, path, origin)
	}
}

func orRoot(path string) string {
	if path == "" {
		return "the configuration"
	}
	return path
}

func (d *decoder) sequence(v reflect.Value, n *yaml.Node, path, origin string) bool {
	if n.Kind != yaml.SequenceNode {
		d.problem("%s: want a list (%s:%d)", path, origin, n.Line)
		return false
	}
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	ok := true
	for i, c := range n.Content {
		ok = d.node(list.Index(i), c, fmt.Sprintf("%s[%d]", path, i), origin) && ok
	}
	v.Set(list)
	d.origins[path] = fmt.Sprintf("%s:%d", origin, n.Line)
	return ok
}

func (d *decoder) mapping(v reflect.Value, n *yaml.Node, path, origin string) bool {
	m := reflect.MakeMap(v.Type())
	ok := true
	d.eachKey(n, path, origin, func(key, value *yaml.Node) {
		e := reflect.New(v.Type().Elem()).Elem()
		ok = d.node(e, value, path+"."+key.Value, origin) && ok
		m.SetMapIndex(reflect.ValueOf(key.Value), e)
	})
	v.Set(m)
	d.origins[path] = fmt.Sprintf("%s:%d", origin, n.Line)
	return ok
}

func (d *decoder) group(v reflect.Value, n *yaml.Node, path, origin string) bool {
	ok := true
	stated := map[string]bool{}
	d.eachKey(n, path, origin, func(key, value *yaml.Node) {
		full := strings.TrimPrefix(path+"."+key.Value, ".")
		where := fmt.Sprintf("%s:%d", origin, key.Line)
		if f, found := field(v, key.Value); found {
			stated[key.Value] = true
			ok = d.node(f, value, full, origin) && ok
			return
		}
		f, found := fileField(v, key.Value)
		if !found {
			d.problem("unknown setting %s (%s)%s", full, where, suggest(key.Value, namesOf(v.Type()).groupKeys()))
			ok = false
			return
		}
		base := strings.TrimSuffix(key.Value, "_file")
		if has(n, base) {
			d.problem("%s and %s are both stated; give one (%s)", strings.TrimSuffix(full, "_file"), full, where)
			ok = false
			return
		}
		d.secretFile(f, value.Value, strings.TrimSuffix(full, "_file"), where)
	})
	return ok
}

// eachKey visits a mapping's entries and refuses a repeated one.
func (d *decoder) eachKey(n *yaml.Node, path, origin string, visit func(key, value *yaml.Node)) {
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if seen[key.Value] {
			d.problem("%s is stated twice (%s:%d)", strings.TrimPrefix(path+"."+key.Value, "."), origin, key.Line)
			continue
		}
		seen[key.Value] = true
		visit(key, n.Content[i+1])
	}
}

func has(n *yaml.Node, name string) bool {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return true
		}
	}
	return false
}

// scalar reads one value. Its errors show the text unless it is a secret.
func scalar(v reflect.Value, text string) error {
	if v.Type() == durationType {
		dur, err := ParseDuration(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(dur))
		return nil
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		err := u.UnmarshalText([]byte(text))
		if err != nil && isSecret(v.Type()) {
			return err
		}
		if err != nil {
			return fmt.Errorf("%q: %w", text, err)
		}
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(strings.ToLower(text))
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		v.SetBool(b)
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		v.SetInt(int64(n))
	default:
		panic("config: no reader for " + v.Type().String())
	}
	return nil
}
