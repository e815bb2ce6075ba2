// Package config fills a struct of settings from a YAML file, the environment and single assignments.
//
// It guarantees that every problem is reported at once, each with the setting and where it was stated; that no
// name is ignored (an unknown one is refused with a suggestion); that a stronger source replaces a weaker one
// setting by setting; and that secrets show in neither errors nor Print. It refuses values of the wrong kind,
// repeated keys, and a secret that is stated both as a value and as a file in one place.
//
// The struct's fields carry yaml tags; their values before Load are the defaults. A setting's path is its tags
// joined by full stops; its variable is the prefix and the path in upper case, with underscores: order.window is
// PREFIX_ORDER_WINDOW. A secret (secret.String, or a list of them, one a line) may also be named by file: the key
// with "_file" after it, the variable with "_FILE". Kinds: string, bool, int, time.Duration (ParseDuration),
// anything with UnmarshalText, and lists, string maps and structs of these. In a variable a list is written with
// commas, a map as k=v,k=v, and either as YAML in brackets or braces.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"sort"
	"strings"

	"gopkg.in/yaml.v3"
)

// mostFileBytes bounds a configuration file.
const mostFileBytes = 1 << 20

// Assignment states one setting from elsewhere, for example from an older name of it.
type Assignment struct {
	// Path is the setting, "a.b".
	Path string
	// Value is its text, as a variable would hold it.
	Value string
	// Origin says where it was stated, for errors and Print.
	Origin string
}

// Sources are where settings come from, weakest first: File, Aliases, Environ, Sets.
type Sources struct {
	// File is a YAML file; empty for none. A file that is named must exist.
	File string
	// Aliases are assignments under other names.
	Aliases []Assignment
	// Environ is the environment, "NAME=value". Only names with Prefix and an underscore are looked at;
	// an empty value counts as absent.
	Environ []string
	// Prefix starts the name of every variable of ours.
	Prefix string
	// OtherNames are variables with Prefix that are no settings, and are left alone.
	OtherNames []string
	// Sets are "path=value".
	Sets []string
}

// Origins says where each stated setting was stated last, by path.
type Origins map[string]string

// Load fills the struct that into points at. The error joins every problem found; into then holds whatever
// could be read and must not be used.
func Load(into any, src Sources) (Origins, error) {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("config: Load wants a pointer to a struct, not %T", into))
	}
	d := &decoder{root: v.Elem(), names: namesOf(v.Elem().Type()), origins: Origins{}}
	d.file(src.File)
	for _, a := range src.Aliases {
		d.assign(a)
	}
	d.environ(src)
	for _, s := range src.Sets {
		path, value, ok := strings.Cut(s, "=")
		if !ok {
			// The text is not shown: it may be a secret without its name.
			d.problem("a setting is written path=value; one of them has no '='")
			continue
		}
		d.assign(Assignment{Path: strings.TrimSpace(path), Value: value, Origin: "--set " + strings.TrimSpace(path)})
	}
	return d.origins, errors.Join(d.problems...)
}

type decoder struct {
	root     reflect.Value
	names    names
	origins  Origins
	problems []error
}

func (d *decoder) problem(format string, args ...any) {
	d.problems = append(d.problems, fmt.Errorf(format, args...))
}

func (d *decoder) file(path string) {
	if path == "" {
		return
	}
	text, err := readBounded(path)
	if err != nil {
		d.problem("read configuration: %w", err)
		return
	}
	var doc, more yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return
	} else if err != nil {
		d.problem("%s: not YAML%s", path, lineOf(err))
		return
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		d.problem("%s: holds more than one document", path)
	}
	d.node(d.root, doc.Content[0], "", path)
}

// lineOf keeps of a YAML error only the line: its text may quote a secret.
func lineOf(err error) string {
	if line := regexp.MustCompile(`line \d+`).FindString(err.Error()); line != "" {
		return ", " + line
	}
	return ""
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, mostFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > mostFileBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, mostFileBytes)
	}
	return text, nil
}

func (d *decoder) environ(src Sources) {
	given := map[string]string{}
	for _, kv := range src.Environ {
		name, value, _ := strings.Cut(kv, "=")
		if value != "" && strings.HasPrefix(name, src.Prefix+"_") {
			given[name] = value
		}
	}
	for _, other := range src.OtherNames {
		delete(given, other)
	}
	paths := d.names.variables(src.Prefix)
	for _, name := range sortedKeys(given) {
		path, known := paths[name]
		if !known {
			d.problem("unknown variable %s%s", name, suggest(name, sortedKeys(paths)))
			continue
		}
		if _, both := given[name+"_FILE"]; both && paths[name+"_FILE"] != "" {
			d.problem("%s and %s_FILE are both set; give one", name, name)
			continue
		}
		d.assign(Assignment{Path: path, Value: given[name], Origin: name})
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
