package auth

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/renthook/renthook/pkg/fault"
)

// Authenticate names the client a bearer token belongs to. Its errors are shown: a *fault.Error, or anything else
// for "nobody we know".
type Authenticate func(ctx context.Context, token string) (client string, err error)

type clientKey struct{}

// WithClient says in whose name ctx works.
func WithClient(ctx context.Context, client string) context.Context {
	return context.WithValue(ctx, clientKey{}, client)
}

// ClientFrom is the name of the client in whose name ctx works; empty when there is none.
func ClientFrom(ctx context.Context) string {
	client, _ := ctx.Value(clientKey{}).(string)
	return client
}

// Unary lets only clients call, whose name [ClientFrom] then gives. Health and reflection are for everybody.
func Unary(a Authenticate) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		ctx, err := admit(ctx, a, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// Stream is [Unary] for streams.
func Stream(a Authenticate) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, err := admit(ss.Context(), a, info.FullMethod)
		if err != nil {
			return err
		}
		return next(srv, &stream{ss, ctx})
	}
}

type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *stream) Context() context.Context { return s.ctx }

func admit(ctx context.Context, a Authenticate, method string) (context.Context, error) {
	if strings.HasPrefix(method, "/grpc.health.") || strings.HasPrefix(method, "/grpc.reflection.") {
		return ctx, nil
	}
	refused := fault.New(fault.Unauthenticated, "UNAUTHENTICATED", "send a client's token as \"authorization: Bearer <token>\"")
	values := metadata.ValueFromIncomingContext(ctx, "authorization")
	if len(values) != 1 {
		return nil, refused
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "bearer") || token == "" {
		return nil, refused
	}
	client, err := a(ctx, token)
	if f, ok := fault.From(err); ok {
		return nil, f
	}
	if err != nil || client == "" {
		return nil, refused.Wrap(err)
	}
	return WithClient(ctx, client), nil
}
