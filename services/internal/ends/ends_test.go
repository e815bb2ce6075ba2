package ends_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/renthook/renthook/pkg/seal"
	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/services/internal/ends"
)

func box(t *testing.T, key string) *seal.Box {
	t.Helper()
	b, err := seal.New(secret.New(strings.Repeat(key, seal.KeyBytes)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func list() ends.List {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return ends.List{
		Version: ends.Version, Account: "main", Key: "0123456789abcdef", By: "order-1", Exported: at.Add(time.Minute),
		Ends: []ends.End{
			{Order: "ord_1", Attempt: 1, RentalID: 1980014, ServerID: 31037, Image: "cuda", Markers: []int{20001, 30002}, Asked: at, End: at.Add(time.Hour)},
			{Order: "ord_2", Attempt: 3, ServerID: 31038, Image: "cuda", Asked: at},
		},
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ends.sealed")
	for _, want := range []ends.List{list(), {Version: ends.Version, Account: "main", Key: "k", Exported: list().Exported}} {
		if err := ends.Write(path, box(t, "a"), want); err != nil {
			t.Fatal(err)
		}
		if got, err := ends.Read(path, box(t, "a")); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v\ngot  %+v\nwant %+v", err, got, want)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(b), "main") {
		t.Errorf("%v; it can be read without the key: %s", err, b)
	}
}

// Whatever is not exactly what this installation wrote is no list at all.
func TestRefused(t *testing.T) {
	t.Parallel()
	whole := filepath.Join(t.TempDir(), "whole")
	if err := ends.Write(whole, box(t, "a"), list()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	// sealed makes a file of this installation that holds something else.
	sealed := func(change func(l *ends.List), context string) string {
		l := list()
		change(&l)
		plain, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		s, err := box(t, "a").Seal(plain, context)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	same := func(*ends.List) {}
	for name, content := range map[string]string{
		"empty":              "",
		"cut":                string(text[:len(text)/2]),
		"altered":            string(text[:20]) + "x" + string(text[21:]),
		"more behind it":     string(text) + "x",
		"in clear":           `{"version":1}`,
		"sealed for another": sealed(same, "order-env"),
		"a later version":    sealed(func(l *ends.List) { l.Version++ }, "ends"),
		"no account":         sealed(func(l *ends.List) { l.Account = "" }, "ends"),
		"no key":             sealed(func(l *ends.List) { l.Key = "" }, "ends"),
		"no time":            sealed(func(l *ends.List) { l.Exported = time.Time{} }, "ends"),
		"no server":          sealed(func(l *ends.List) { l.Ends[1].ServerID = 0 }, "ends"),
		"no image":           sealed(func(l *ends.List) { l.Ends[0].Image = "" }, "ends"),
		"no time of asking":  sealed(func(l *ends.List) { l.Ends[0].Asked = time.Time{} }, "ends"),
		"a rental below one": sealed(func(l *ends.List) { l.Ends[0].RentalID = -1 }, "ends"),
	} {
		path := filepath.Join(t.TempDir(), "ends.sealed")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if l, err := ends.Read(path, box(t, "a")); err == nil || len(l.Ends) != 0 {
			t.Errorf("%s: read %+v", name, l)
		}
	}
	if l, err := ends.Read(whole, box(t, "b")); err == nil || len(l.Ends) != 0 {
		t.Errorf("with another key: read %+v", l)
	}
	if _, err := ends.Read(filepath.Join(t.TempDir(), "none"), box(t, "a")); err == nil {
		t.Error("a file that is not there was read")
	}
	if _, err := ends.Read(whole, box(t, "a")); err != nil {
		t.Errorf("the whole one: %v", err)
	}
}

// A list that cannot be sealed leaves the old one as it was.
func TestTooMany(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ends.sealed")
	if err := ends.Write(path, box(t, "a"), list()); err != nil {
		t.Fatal(err)
	}
	many := list()
	for range 20_000 {
		many.Ends = append(many.Ends, many.Ends[0])
	}
	if err := ends.Write(path, box(t, "a"), many); err == nil {
		t.Fatal("written")
	}
	if l, err := ends.Read(path, box(t, "a")); err != nil || len(l.Ends) != 2 {
		t.Errorf("%v %+v", err, l)
	}
}
