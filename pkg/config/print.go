package config

import (
	"encoding"
	"fmt"
	"io"
	"reflect"
	"sort"
	"strconv"
	"time"

	"gopkg.in/yaml.v3"
)

// Print writes the settings of the struct v as YAML that Load reads, secrets masked, each stated one with a
// comment that says where it was stated. Secrets that are empty show as "".
func Print(w io.Writer, v any, origins Origins) error {
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(printed(reflect.Indirect(reflect.ValueOf(v)), "", origins)); err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	return enc.Close()
}

func printed(v reflect.Value, path string, origins Origins) *yaml.Node {
	n := &yaml.Node{}
	switch {
	case v.Type() == durationType:
		n.SetString(FormatDuration(time.Duration(v.Int())))
	case isText(v.Type()):
		n.SetString(textOf(v))
	case v.Kind() == reflect.Struct:
		n.Kind = yaml.MappingNode
		for i := range v.NumField() {
			if tag := tagOf(v.Type().Field(i)); tag != "" {
				sub := tag
				if path != "" {
					sub = path + "." + tag
				}
				n.Content = append(n.Content, key(tag), printed(v.Field(i), sub, origins))
			}
		}
		return n
	case v.Kind() == reflect.Map:
		n.Kind, n.Style = yaml.MappingNode, yaml.FlowStyle
		keys := v.MapKeys()
		sort.Slice(keys, func(i, j int) bool { return keys[i].String() < keys[j].String() })
		for _, k := range keys {
			n.Content = append(n.Content, key(k.String()), printed(v.MapIndex(k), "", nil))
		}
	case v.Kind() == reflect.Slice:
		n.Kind = yaml.SequenceNode
		if !composite(v.Type().Elem()) {
			n.Style = yaml.FlowStyle
		}
		for i := range v.Len() {
			n.Content = append(n.Content, printed(v.Index(i), "", nil))
		}
	case v.Kind() == reflect.Bool:
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, "!!bool", strconv.FormatBool(v.Bool())
	case v.Kind() == reflect.Int:
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, "!!int", strconv.FormatInt(v.Int(), 10)
	default:
		n.SetString(v.String())
	}
	n.LineComment = origins[path]
	return n
}

func key(name string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(name)
	return n
}

// textOf is the value's own text: for a secret its mask.
func textOf(v reflect.Value) string {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		if text, err := m.MarshalText(); err == nil {
			return string(text)
		}
	}
	return fmt.Sprint(v.Interface())
}
