package caller

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/pkg/webhook"
	"github.com/renthook/renthook/services/internal/settings"
)

func TestKey(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		header    []string
		id, body  string
		want, bad string
	}{
		"none":              {nil, "", "", "", ""},
		"header":            {[]string{"k"}, "", "", "k", ""},
		"quoted":            {[]string{` "k" `}, "", "", "k", ""},
		"escaped":           {[]string{`"a\"b\\c"`}, "", "", `a"b\c`, ""},
		"a quote alone":     {[]string{`"`}, "", "", `"`, ""},
		"empty":             {[]string{""}, "", "b", "b", ""},
		"empty, quoted":     {[]string{`""`}, "", "b", "b", ""},
		"id":                {nil, "i", "", "i", ""},
		"body":              {nil, "", "b", "b", ""},
		"all equal":         {[]string{`"k"`}, "k", "k", "k", ""},
		"header and id":     {[]string{"k"}, "i", "", "", "differ"},
		"header and body":   {[]string{"k"}, "", "b", "", "differ"},
		"id and body":       {nil, "i", "b", "", "differ"},
		"twice":             {[]string{"k", "k"}, "", "", "", "twice"},
		"too long":          {[]string{strings.Repeat("k", 257)}, "", "", "", "256"},
		"as long as it may": {[]string{strings.Repeat("k", 256)}, "", "", strings.Repeat("k", 256), ""},
	} {
		got, err := Key(http.Header{HeaderKey: c.header}, Caller{Key: c.id}, c.body)
		if got != c.want || (err == nil) != (c.bad == "") || err != nil && !strings.Contains(err.Error(), c.bad) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// FuzzSeed holds that no headers and no body are taken for a client's unless its secret signed exactly that body.
func FuzzSeed(f *testing.F) {
	const key = "a secret of twenty-four bytes"
	book, err := NewBook([]settings.Client{{Name: "local", SeedDoor: true, Secrets: []secret.String{secret.New(key)}}})
	if err != nil {
		f.Fatal(err)
	}
	now := time.Unix(1_764_000_000, 0)
	stamp := strconv.FormatInt(now.Unix(), 10)
	body := []byte(`{"gpu_type":"x"}`)
	f.Add(body, webhook.SignLegacy(key, body), "", "", "")
	f.Add(body, "sha256="+webhook.SignLegacy(key, body), "msg", stamp, webhook.SignStandard(key, "msg", now, body))
	f.Add([]byte{}, "00", "m.s", "+1", "v1, v1,=")
	f.Fuzz(func(t *testing.T, body []byte, legacy, id, stamp, signature string) {
		h := http.Header{}
		for name, v := range map[string]string{webhook.HeaderLegacy: legacy, webhook.HeaderID: id, webhook.HeaderTimestamp: stamp, webhook.HeaderSignature: signature} {
			if v != "" {
				h.Set(name, v)
			}
		}
		c, err := book.Seed(h, body, now)
		if err != nil {
			if c.Client != "" {
				t.Fatalf("%s with %v", c.Client, err)
			}
			return
		}
		byLegacy := strings.EqualFold(strings.TrimPrefix(legacy, "sha256="), webhook.SignLegacy(key, body))
		at, _ := strconv.ParseInt(stamp, 10, 64)
		byStandard := strings.Contains(signature, webhook.SignStandard(key, id, time.Unix(at, 0), body))
		if signature != "" && !byStandard || signature == "" && !byLegacy {
			t.Fatalf("taken for %s", c.Client)
		}
	})
}
