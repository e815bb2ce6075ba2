package config

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// ReadEnvFile gives the assignments of a .env file as "NAME=value": one a line, "export " before a name allowed,
// # comments, values bare, in single quotes (verbatim) or in double quotes (\n, \" and \\ known). Variables
// inside values are not expanded. A file that does not exist gives none.
func ReadEnvFile(path string) ([]string, error) {
	text, err := readBounded(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	var out []string
	n := 0
	for line := range strings.Lines(strings.TrimPrefix(string(text), "\uFEFF")) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		name = strings.TrimSpace(name)
		if !ok || name == "" || strings.ContainsAny(name, " \t\"'") {
			// The line is not shown: it may hold a secret.
			return nil, fmt.Errorf("read %s: line %d is not NAME=value", path, n)
		}
		value, ok = envValue(strings.TrimSpace(value))
		if !ok {
			return nil, fmt.Errorf("read %s: line %d: the quotes of %s do not close", path, n, name)
		}
		out = append(out, name+"="+value)
	}
	return out, nil
}

func envValue(v string) (string, bool) {
	switch {
	case strings.HasPrefix(v, "'"):
		in, after, ok := strings.Cut(v[1:], "'")
		return in, ok && onlyComment(after)
	case strings.HasPrefix(v, `"`):
		var b strings.Builder
		for i := 1; i < len(v); i++ {
			switch {
			case v[i] == '"':
				return b.String(), onlyComment(v[i+1:])
			case v[i] == '\\' && i+1 < len(v) && strings.IndexByte(`n"\`, v[i+1]) >= 0:
				i++
				if v[i] == 'n' {
					b.WriteByte('\n')
				} else {
					b.WriteByte(v[i])
				}
			default:
				b.WriteByte(v[i])
			}
		}
		return "", false
	}
	if strings.HasPrefix(v, "#") {
		return "", true
	}
	for _, mark := range []string{" #", "\t#"} {
		v, _, _ = strings.Cut(v, mark)
	}
	return strings.TrimSpace(v), true
}

func onlyComment(s string) bool {
	s = strings.TrimSpace(s)
	return s == "" || strings.HasPrefix(s, "#")
}
