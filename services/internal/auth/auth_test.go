package auth_test

import (
	"testing"

	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/services/internal/auth"
	"github.com/renthook/renthook/services/internal/settings"
)

func client(name string, tokens ...string) settings.Client {
	c := settings.Client{Name: name, Scopes: []string{"read"}}
	for _, t := range tokens {
		c.Tokens = append(c.Tokens, secret.New(t))
	}
	return c
}

func TestByToken(t *testing.T) {
	t.Parallel()
	clients, err := auth.New([]settings.Client{client("one", "rht_1", "rht_1b"), client("none"), client("two", "rht_2")})
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]string{"rht_1": "one", "rht_1b": "one", "rht_2": "two", "": "", "rht_": "", "RHT_1": "", "rht_1 ": ""} {
		got, ok := clients.ByToken(token)
		if got.Name != want || ok != (want != "") || ok && !got.May("read") {
			t.Errorf("%q is %q, %t", token, got.Name, ok)
		}
		name, err := clients.Authenticate(t.Context(), token)
		if name != want || (err == nil) != ok {
			t.Errorf("%q authenticates as %q, %v", token, name, err)
		}
	}
	if c, ok := clients.ByName("none"); !ok || c.Name != "none" {
		t.Error("a client without tokens is not found by name")
	}
	if _, ok := clients.ByName("nobody"); ok {
		t.Error("a client out of nothing")
	}
}

func TestRefusesTokensThatTellNobodyApart(t *testing.T) {
	t.Parallel()
	for name, clients := range map[string][]settings.Client{
		"shared":       {client("one", "rht_1"), client("two", "rht_1")},
		"twice of one": {client("one", "rht_1", "rht_1")},
		"empty":        {client("one", "")},
	} {
		if _, err := auth.New(clients); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestClientFrom(t *testing.T) {
	t.Parallel()
	if got := auth.ClientFrom(t.Context()); got != "" {
		t.Errorf("nobody is %q", got)
	}
	if got := auth.ClientFrom(auth.WithClient(t.Context(), "one")); got != "one" {
		t.Errorf("one is %q", got)
	}
}
