package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/renthook/renthook/pkg/fault"
)

var table = []struct {
	kind fault.Kind
	http int
	grpc codes.Code
}{
	{fault.Invalid, 422, codes.InvalidArgument},
	{fault.Unauthenticated, 401, codes.Unauthenticated},
	{fault.Forbidden, 403, codes.PermissionDenied},
	{fault.NotFound, 404, codes.NotFound},
	{fault.Mismatch, 422, codes.AlreadyExists},
	{fault.Precondition, 409, codes.FailedPrecondition},
	{fault.Exhausted, 429, codes.ResourceExhausted},
	{fault.Unavailable, 503, codes.Unavailable},
	{fault.TooLarge, 413, codes.OutOfRange},
	{fault.Internal, 500, codes.Internal},
	{fault.Kind(0), 500, codes.Internal},
	{fault.Kind(99), 500, codes.Internal},
}

func TestStatuses(t *testing.T) {
	t.Parallel()
	for _, c := range table {
		e := fault.New(c.kind, "SOME_REASON", "no %s", "way")
		if e.HTTPStatus() != c.http || e.GRPCStatus().Code() != c.grpc {
			t.Errorf("%v: HTTP %d gRPC %v, want %d %v", c.kind, e.HTTPStatus(), e.GRPCStatus().Code(), c.http, c.grpc)
		}
		if e.GRPCStatus().Message() != "no way" {
			t.Errorf("%v: status says %q", c.kind, e.GRPCStatus().Message())
		}
	}
}

// health answers every check with the error it is given, so that a fault really crosses the wire.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	err error
}

func (h *health) Check(context.Context, *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	return nil, h.err
}

func overTheWire(t *testing.T, sent error) error {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	srv := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(srv, &health{err: sent})
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///pipe",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		srv.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err = grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	return err
}

func TestAFaultComesBackOverGRPCAsItLeft(t *testing.T) {
	t.Parallel()
	for _, c := range table[:10] {
		t.Run(c.kind.String(), func(t *testing.T) {
			t.Parallel()
			left := fault.New(c.kind, "A_REASON", "try less").Wrap(errors.New("postgres://user:pw@host")).After(1500 * time.Millisecond)
			err := overTheWire(t, left)
			if strings.Contains(fmt.Sprintf("%+v", err), "postgres") {
				t.Fatalf("the cause crossed the wire: %v", err)
			}
			came, ok := fault.From(fmt.Errorf("asking: %w", err))
			if !ok {
				t.Fatalf("no fault in %v", err)
			}
			if came.Kind != left.Kind || came.Reason != left.Reason || came.Message != left.Message || came.RetryAfter != left.RetryAfter {
				t.Errorf("came back as %+v, left as %+v", came, left)
			}
		})
	}
}

func TestFromRefusesOtherErrors(t *testing.T) {
	t.Parallel()
	foreign, err := status.New(codes.NotFound, "x").WithDetails(&errdetails.ErrorInfo{Reason: "THEIRS", Domain: "elsewhere"})
	if err != nil {
		t.Fatal(err)
	}
	unknownCode, err := status.New(codes.DataLoss, "x").WithDetails(&errdetails.ErrorInfo{Reason: "OURS", Domain: fault.Domain})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{nil, io.EOF, status.Error(codes.NotFound, "plain"), foreign.Err(), unknownCode.Err()} {
		if e, ok := fault.From(err); ok {
			t.Errorf("From(%v) = %v", err, e)
		}
	}
}

func TestWrapAndAfterCopy(t *testing.T) {
	t.Parallel()
	shared := fault.New(fault.Exhausted, "LIMIT", "too many")
	wrapped := shared.Wrap(io.EOF)
	if shared.Err != nil || shared.After(time.Second) == shared || shared.RetryAfter != 0 {
		t.Errorf("the shared fault changed: %+v", shared)
	}
	if !errors.Is(wrapped, io.EOF) || wrapped.Error() != "LIMIT: too many: EOF" {
		t.Errorf("wrapped: %v", wrapped)
	}
}

func TestPublic(t *testing.T) {
	t.Parallel()
	own := fault.New(fault.NotFound, "NO_ORDER", "no such order")
	for name, c := range map[string]struct {
		err    error
		kind   fault.Kind
		reason string
	}{
		"a wrapped fault":     {fmt.Errorf("reading the secret table: %w", own), fault.NotFound, "NO_ORDER"},
		"a remote fault":      {fmt.Errorf("asking: %w", own.GRPCStatus().Err()), fault.NotFound, "NO_ORDER"},
		"a deadline":          {fmt.Errorf("asking: %w", context.DeadlineExceeded), fault.Unavailable, "TIMEOUT"},
		"a remote deadline":   {status.Error(codes.DeadlineExceeded, "secret"), fault.Unavailable, "TIMEOUT"},
		"a cancelled ask":     {context.Canceled, fault.Unavailable, "UNAVAILABLE"},
		"a service away":      {status.Error(codes.Unavailable, "dial secret"), fault.Unavailable, "UNAVAILABLE"},
		"anything else":       {errors.New("secret"), fault.Internal, "INTERNAL"},
		"a remote surprise":   {status.Error(codes.Unknown, "secret"), fault.Internal, "INTERNAL"},
		"a refusal not of us": {status.Error(codes.PermissionDenied, "secret"), fault.Internal, "INTERNAL"},
	} {
		e := fault.Public(c.err)
		if e.Kind != c.kind || e.Reason != c.reason {
			t.Errorf("%s: %v %s, want %v %s", name, e.Kind, e.Reason, c.kind, c.reason)
		}
		if strings.Contains(e.Message, "secret") || strings.Contains(e.GRPCStatus().String(), "secret") {
			t.Errorf("%s: shows %q", name, e.Message)
		}
		if !errors.Is(e, c.err) {
			t.Errorf("%s: the cause is lost", name)
		}
	}
	if fault.Public(nil) != nil {
		t.Error("Public(nil) is not nil")
	}
}
