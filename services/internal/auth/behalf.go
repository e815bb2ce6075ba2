package auth

import (
	"context"

	"google.golang.org/grpc/metadata"

	"github.com/renthook/renthook/pkg/fault"
	"github.com/renthook/renthook/pkg/secret"
)

// ClientHeader is the metadata by which one of our own services says for which client it asks. It counts only beside
// the installation's own token.
const ClientHeader = "renthook-client"

// Deriver is a *seal.Box.
type Deriver interface {
	Password(purpose string, parts ...string) string
}

// InternalToken is what our own services show each other. It is derived from the installation's key, which they all
// have, and so is in no configuration.
func InternalToken(box Deriver) secret.String {
	return secret.New("rhi_" + box.Password("internal", "grpc"))
}

// OnBehalf gives a context whose gRPC calls are made by one of our own services in the name of a client.
func OnBehalf(ctx context.Context, internal secret.String, client string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+internal.Reveal(), ClientHeader, client)
}

// OrOnBehalf is [Clients.Authenticate] that also lets our own services ask in the name of a client that exists.
func (c *Clients) OrOnBehalf(internal secret.String) Authenticate {
	return func(ctx context.Context, token string) (string, error) {
		if !internal.Equal(token) {
			return c.Authenticate(ctx, token)
		}
		names := metadata.ValueFromIncomingContext(ctx, ClientHeader)
		if len(names) != 1 {
			return "", fault.New(fault.Unauthenticated, "UNAUTHENTICATED", "say for whom: one %s", ClientHeader)
		}
		client, ok := c.ByName(names[0])
		if !ok {
			return "", errNobody
		}
		return client.Name, nil
	}
}
