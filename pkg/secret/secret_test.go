package secret_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"text/template"

	"gopkg.in/yaml.v3"

	"github.com/renthook/renthook/pkg/secret"
)

const value = "hunter2-hunter2-hunter2"

type exported struct {
	Name string
	Key  secret.String
	Ptr  *secret.String
	List []secret.String
	Map  map[string]secret.String
	Any  any
}

type hidden struct {
	name string
	key  secret.String
	list []secret.String
	sub  struct{ key secret.String }
}

func carriers() map[string]any {
	s := secret.New(value)
	h := hidden{name: "x", key: s, list: []secret.String{s}}
	h.sub.key = s
	return map[string]any{
		"value":    s,
		"pointer":  &s,
		"slice":    []secret.String{s},
		"map":      map[string]secret.String{"k": s},
		"key":      map[secret.String]string{s: "v"},
		"exported": exported{Name: "x", Key: s, Ptr: &s, List: []secret.String{s}, Map: map[string]secret.String{"k": s}, Any: s},
		"hidden":   h,
		"hidden*":  &h,
		"error":    fmt.Errorf("with %v: %w", s, errors.New("x")),
	}
}

// leaks looks for the value in clear, in hexadecimal, in base64 and as numbers.
func leaks(s string) bool {
	return strings.Contains(s, value) || strings.Contains(strings.ToLower(s), fmt.Sprintf("%x", value)) ||
		strings.Contains(s, base64.StdEncoding.EncodeToString([]byte(value))) || strings.Contains(s, strings.Trim(fmt.Sprint([]byte(value)), "[]"))
}

func TestPrintingNeverLeaks(t *testing.T) {
	t.Parallel()
	for name, c := range carriers() {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c", "%U", "%p", "%T", "%e", "%08s", "%-20v", "%!"} {
			if out := fmt.Sprintf(verb, c); leaks(out) {
				t.Errorf("%s with %s: %s", name, verb, out)
			}
		}
		if out := fmt.Sprintln(c); leaks(out) {
			t.Errorf("%s with Sprintln: %s", name, out)
		}
	}
}

func TestMarshallingNeverLeaks(t *testing.T) {
	t.Parallel()
	for name, c := range carriers() {
		j, _ := json.Marshal(c)
		y, _ := yaml.Marshal(c)
		x, _ := xml.Marshal(c)
		var tmpl bytes.Buffer
		if err := template.Must(template.New("").Parse("{{.}} {{printf \"%s\" .}}")).Execute(&tmpl, c); err != nil {
			t.Fatal(err)
		}
		for how, out := range map[string]string{"json": string(j), "yaml": string(y), "xml": string(x), "template": tmpl.String()} {
			if leaks(out) {
				t.Errorf("%s in %s: %s", name, how, out)
			}
		}
	}
	j, err := json.Marshal(exported{Key: secret.New(value)})
	if err != nil || !strings.Contains(strings.ReplaceAll(string(j), `\u003c`, "<"), `"Key":"<secret`) {
		t.Errorf("JSON does not show the mask: %s, %v", j, err)
	}
}

func TestLoggingNeverLeaks(t *testing.T) {
	t.Parallel()
	for name, c := range carriers() {
		var out bytes.Buffer
		for _, h := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
			log := slog.New(h).With("with", c)
			log.Info("said", "key", c, slog.Group("g", "in", c))
		}
		if leaks(out.String()) {
			t.Errorf("%s: %s", name, out.String())
		}
	}
}

func TestTheZeroValueIsEmptyAndShowsNothing(t *testing.T) {
	t.Parallel()
	var s secret.String
	if !s.Empty() || s.Reveal() != "" || fmt.Sprint(s) != "" || s.Fingerprint() != "" || s.Equal("") {
		t.Errorf("zero: %q %q %q", s.Reveal(), fmt.Sprint(s), s.Fingerprint())
	}
	if !reflect.DeepEqual(secret.New(""), s) {
		t.Error("New of nothing is not the zero value")
	}
}

func TestValuesAreKept(t *testing.T) {
	t.Parallel()
	var out struct{ A, B secret.String }
	if err := yaml.Unmarshal([]byte("a: "+value+"\nb: 12345"), &out); err != nil {
		t.Fatal(err)
	}
	if out.A.Reveal() != value || out.B.Reveal() != "12345" {
		t.Errorf("YAML gave %q %q", out.A.Reveal(), out.B.Reveal())
	}
	if err := json.Unmarshal([]byte(`{"a":"`+value+`"}`), &out); err != nil || !out.A.Equal(value) || out.A.Equal(value+"x") {
		t.Errorf("JSON gave %q, %v", out.A.Reveal(), err)
	}
	if err := yaml.Unmarshal([]byte("a: "+secret.Mask), &out); err == nil {
		t.Error("the mask was taken for a secret")
	}
	if !reflect.DeepEqual(secret.New(value), secret.New(value)) || reflect.DeepEqual(secret.New(value), secret.New("other")) {
		t.Error("equal secrets differ, or different ones do not")
	}
	a, b := secret.New(value).Fingerprint(), secret.New(value+"x").Fingerprint()
	if a == b || len(a) != 12 {
		t.Errorf("fingerprints %q %q", a, b)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, c := range map[string]struct {
		value, file, want string
		fails             bool
	}{
		"neither":         {},
		"a value":         {value: value, want: value},
		"a file":          {file: file("a", value), want: value},
		"line break":      {file: file("b", value+"\n"), want: value},
		"Windows break":   {file: file("c", value+"\r\n"), want: value},
		"spaces are kept": {file: file("d", " x "), want: " x "},
		"both":            {value: value, file: file("e", value), fails: true},
		"an empty file":   {file: file("f", "\n"), fails: true},
		"no such file":    {file: filepath.Join(dir, "none"), fails: true},
		"a folder":        {file: dir, fails: true},
		"too long":        {file: file("g", strings.Repeat("x", 64<<10+1)), fails: true},
	} {
		s, err := secret.Load(c.value, c.file)
		if (err != nil) != c.fails || s.Reveal() != c.want {
			t.Errorf("%s: %q, %v", name, s.Reveal(), err)
		}
		if err != nil && leaks(err.Error()) {
			t.Errorf("%s: the error shows it: %v", name, err)
		}
	}
}

func TestGenerate(t *testing.T) {
	t.Parallel()
	hook, token := secret.Generate("whsec_").Reveal(), secret.Generate("rht_").Reveal()
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(hook, "whsec_"))
	if err != nil || len(raw) != 32 {
		t.Errorf("%q: %d bytes, %v", hook, len(raw), err)
	}
	raw, err = base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, "rht_"))
	if err != nil || len(raw) != 32 {
		t.Errorf("%q: %d bytes, %v", token, len(raw), err)
	}
	if secret.Generate("rht_").Equal(token) {
		t.Error("two secrets are equal")
	}
}
