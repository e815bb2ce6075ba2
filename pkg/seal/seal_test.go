package seal_test

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/renthook/renthook/pkg/seal"
	"github.com/renthook/renthook/pkg/secret"
)

func box(t *testing.T, key string) *seal.Box {
	t.Helper()
	b, err := seal.New(secret.New(key))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var key = strings.Repeat("k", 32)

func TestWhatIsSealedOpensAndNothingElseDoes(t *testing.T) {
	t.Parallel()
	b, other := box(t, key), box(t, key+"x")
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		context := rapid.String().Draw(t, "context")
		sealed, err := b.Seal(plain, context)
		if err != nil {
			t.Fatal(err)
		}
		got, err := b.Open(sealed, context)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("opened %q, %v", got, err)
		}
		if _, err := b.Open(sealed, context+"x"); !errors.Is(err, seal.ErrOpen) {
			t.Fatalf("opened under another context: %v", err)
		}
		if _, err := other.Open(sealed, context); !errors.Is(err, seal.ErrOpen) {
			t.Fatalf("opened with another key: %v", err)
		}
		i := rapid.IntRange(0, len(sealed)-1).Draw(t, "i")
		c := rapid.Byte().Filter(func(c byte) bool { return c != sealed[i] }).Draw(t, "c")
		altered := sealed[:i] + string([]byte{c}) + sealed[i+1:]
		if _, err := b.Open(altered, context); !errors.Is(err, seal.ErrOpen) {
			t.Fatalf("opened %q altered to %q: %v", sealed, altered, err)
		}
	})
}

func TestSealingTwiceDiffers(t *testing.T) {
	t.Parallel()
	b := box(t, key)
	x, err1 := b.Seal([]byte("same"), "c")
	y, err2 := b.Seal([]byte("same"), "c")
	if err1 != nil || err2 != nil || x == y {
		t.Errorf("%q %q %v %v", x, y, err1, err2)
	}
	if !regexp.MustCompile(`^s1\.[A-Za-z0-9_-]+$`).MatchString(x) {
		t.Errorf("text form %q", x)
	}
}

func TestBrokenValuesDoNotOpen(t *testing.T) {
	t.Parallel()
	b := box(t, key)
	for _, s := range []string{"", "s1.", "s1.AAAA", "s2.AAAA", "plain", "s1.????", "S1.AAAA"} {
		if got, err := b.Open(s, "c"); !errors.Is(err, seal.ErrOpen) {
			t.Errorf("Open(%q) = %q, %v", s, got, err)
		}
	}
}

func TestAValueSealedEarlierStillOpens(t *testing.T) {
	t.Parallel()
	// Pins the text form: values rest in streams for longer than a version of this program.
	const sealed = "s1.7Mmg2m30wYaeeLb-QEzp12neBy-ot2eCD9GOMbeOFbo"
	got, err := box(t, key).Open(sealed, "order-env")
	if err != nil || string(got) != "kept" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestShortKeysAndLongValuesAreRefused(t *testing.T) {
	t.Parallel()
	for _, k := range []string{"", "short", strings.Repeat("k", 31)} {
		if _, err := seal.New(secret.New(k)); err == nil {
			t.Errorf("a key of %d bytes was taken", len(k))
		}
	}
	if _, err := box(t, key).Seal(make([]byte, 1<<20+1), "c"); err == nil {
		t.Error("a value above 1 MiB was sealed")
	}
}

func TestPasswords(t *testing.T) {
	t.Parallel()
	b := box(t, key)
	first := b.Password("ssh", "ord_1", "1")
	if first != box(t, key).Password("ssh", "ord_1", "1") {
		t.Error("the same key derived two passwords")
	}
	// Pinned: a running rental's password must outlive an upgrade.
	if first != "la2AlGYSjAHwkEHwRLdNcqAK" {
		t.Errorf("derived %q", first)
	}
	seen := map[string]string{first: "ssh ord_1 1"}
	for name, p := range map[string]string{
		"other purpose": b.Password("x", "ord_1", "1"),
		"other order":   b.Password("ssh", "ord_2", "1"),
		"other attempt": b.Password("ssh", "ord_1", "2"),
		"moved border":  b.Password("ssh", "ord_11", ""),
		"joined":        b.Password("ssh", "ord_1"+"1"),
		"other key":     box(t, key+"x").Password("ssh", "ord_1", "1"),
	} {
		if was, dup := seen[p]; dup {
			t.Errorf("%s derives the password of %s", name, was)
		}
		seen[p] = name
		if !regexp.MustCompile(`^[A-Za-z0-9]{24}$`).MatchString(p) {
			t.Errorf("%s: %q", name, p)
		}
	}
}
