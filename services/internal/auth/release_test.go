package auth_test

import (
	"strings"
	"testing"

	"github.com/renthook/renthook/pkg/seal"
	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/services/internal/auth"
)

func TestRelease(t *testing.T) {
	t.Parallel()
	box := func(key string) *seal.Box {
		b, err := seal.New(secret.New(strings.Repeat(key, 32)))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ours := box("k")
	token := auth.ReleaseToken(ours, "ci", "ord_1")
	if client, ok := auth.Release(ours, token, "ord_1"); !ok || client != "ci" {
		t.Fatalf("its own token: %q %v", client, ok)
	}
	for name, c := range map[string]struct {
		box          *seal.Box
		token, order string
	}{
		"another order":        {ours, token, "ord_2"},
		"another client":       {ours, strings.Replace(token, "ci", "co", 1), "ord_1"},
		"another installation": {box("x"), token, "ord_1"},
		"cut":                  {ours, token[:len(token)-1], "ord_1"},
		"longer":               {ours, token + "x", "ord_1"},
		"no client":            {ours, "rel_." + token[len("rel_ci."):], "ord_1"},
		"no prefix":            {ours, token[len("rel_"):], "ord_1"},
		"nothing":              {ours, "", "ord_1"},
		"no order":             {ours, auth.ReleaseToken(ours, "ci", ""), ""},
	} {
		if _, ok := auth.Release(c.box, c.token, c.order); ok {
			t.Errorf("%s is taken", name)
		}
	}
}
