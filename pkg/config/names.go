package config

import (
	"reflect"
	"strings"
)

// names are the settings of a struct type by path, in the order of its fields, with the type of each.
type names struct {
	paths []string
	types map[string]reflect.Type
}

func namesOf(t reflect.Type) names {
	n := names{types: map[string]reflect.Type{}}
	n.walk(t, "")
	return n
}

func (n *names) walk(t reflect.Type, prefix string) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag := tagOf(f)
		if tag == "" {
			continue
		}
		path := prefix + tag
		if f.Type.Kind() == reflect.Struct && !isText(f.Type) {
			n.walk(f.Type, path+".")
			continue
		}
		n.paths = append(n.paths, path)
		n.types[path] = f.Type
	}
}

func tagOf(f reflect.StructField) string {
	tag, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	if tag == "-" || !f.IsExported() {
		return ""
	}
	return tag
}

// all are the paths, those of files included.
func (n names) all() []string {
	out := make([]string, 0, len(n.paths))
	for _, p := range n.paths {
		out = append(out, p)
		if isSecret(n.types[p]) {
			out = append(out, p+"_file")
		}
	}
	return out
}

// variables maps the name of every variable to its path. Two settings with one variable are a mistake in the
// struct, and panic.
func (n names) variables(prefix string) map[string]string {
	out := map[string]string{}
	for _, p := range n.all() {
		name := prefix + "_" + strings.ToUpper(strings.ReplaceAll(p, ".", "_"))
		if was, dup := out[name]; dup {
			panic("config: " + was + " and " + p + " share the variable " + name)
		}
		out[name] = p
	}
	return out
}

// groupKeys are the keys that may stand at the top of the struct's mapping.
func (n names) groupKeys() []string {
	var out []string
	seen := map[string]bool{}
	for _, p := range n.all() {
		key, _, _ := strings.Cut(p, ".")
		if !seen[key] {
			seen[key] = true
			out = append(out, key)
		}
	}
	return out
}

// field finds the field of a struct with a tag.
func field(v reflect.Value, tag string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if t := tagOf(v.Type().Field(i)); t == tag && t != "" {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// fileField finds the secret that "<tag>_file" names a file of.
func fileField(v reflect.Value, tag string) (reflect.Value, bool) {
	base, ok := strings.CutSuffix(tag, "_file")
	if !ok {
		return reflect.Value{}, false
	}
	f, ok := field(v, base)
	if !ok || !isSecret(f.Type()) {
		return reflect.Value{}, false
	}
	return f, true
}

// suggest gives ": did you mean x?" for the nearest of the candidates, or nothing when none is near.
func suggest(name string, candidates []string) string {
	best, at := "", max(2, len(name)/3)+1
	for _, c := range candidates {
		if d := distance(strings.ToLower(name), strings.ToLower(c)); d < at {
			best, at = c, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance counts the insertions, deletions, replacements and swaps of neighbours from a to b.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
