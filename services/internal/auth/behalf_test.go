package auth

import (
	"context"
	"testing"

	"google.golang.org/grpc/metadata"

	"github.com/renthook/renthook/pkg/seal"
	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/services/internal/settings"
)

func TestOnBehalf(t *testing.T) {
	t.Parallel()
	box, err := seal.New(secret.New("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	internal := InternalToken(box)
	if again := InternalToken(box); again.Reveal() != internal.Reveal() {
		t.Fatal("the internal token changes from call to call")
	}
	clients, err := New([]settings.Client{{Name: "local", Tokens: []secret.String{secret.New("rht_local")}}, {Name: "other"}})
	if err != nil {
		t.Fatal(err)
	}
	authenticate := clients.OrOnBehalf(internal)
	sent, _ := metadata.FromOutgoingContext(OnBehalf(t.Context(), internal, "other"))
	if got := sent.Get("authorization"); len(got) != 1 || got[0] != "Bearer "+internal.Reveal() {
		t.Fatalf("authorization %q", got)
	}
	incoming := metadata.NewIncomingContext(t.Context(), sent)
	two := metadata.NewIncomingContext(t.Context(), metadata.Pairs(ClientHeader, "local", ClientHeader, "other"))
	for name, c := range map[string]struct {
		ctx         context.Context
		token, want string
	}{
		"for another":                 {incoming, internal.Reveal(), "other"},
		"by its own token":            {t.Context(), "rht_local", "local"},
		"its own token, another said": {incoming, "rht_local", "local"},
		"for nobody":                  {t.Context(), internal.Reveal(), ""},
		"for two":                     {two, internal.Reveal(), ""},
		"for a stranger":              {metadata.NewIncomingContext(t.Context(), metadata.Pairs(ClientHeader, "x")), internal.Reveal(), ""},
		"a wrong token":               {incoming, "rhi_wrong", ""},
		"no token":                    {incoming, "", ""},
	} {
		got, err := authenticate(c.ctx, c.token)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
}
