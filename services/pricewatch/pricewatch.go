// Package pricewatch reads the market for everybody: one poller, however many watch. It publishes the offers of each
// GPU model that changed, best prices, price history and a snapshot per poll, and answers MarketService.
//
// Several replicas may run. One, the holder of a lease, polls; all follow the stream and answer. It guarantees one
// call per interval over all of them, and that readers see the books of a poll together. It needs no key of the
// market, spends nothing, and holds no state that the stream does not.
package pricewatch

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/fault"
	"github.com/renthook/renthook/pkg/lease"
	"github.com/renthook/renthook/pkg/throttle"
	marketv1 "github.com/renthook/renthook/proto/gen/renthook/market/v1"
	"github.com/renthook/renthook/services/internal/auth"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/marketview"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/pricewatch/internal/poll"
	"github.com/renthook/renthook/services/pricewatch/internal/rpc"
)

const (
	defaultInterval = 120 * time.Second
	defaultSlotWait = 500 * time.Millisecond
	leaseKey        = "pricewatch"
	callKey         = "pricewatch/marketplace"
	maxRequest      = 64 << 10
)

// Config is the data of a Service. Its zero value is usable.
type Config struct {
	// GRPCAddress is where MarketService listens; "127.0.0.1:0" when empty.
	GRPCAddress string
	// Interval between two calls to the market; 120 s when zero, what the real market's documentation asks of
	// whoever only looks on.
	Interval time.Duration
	// SlotWait is how long the account's holder may take to say whether the market can be called now; 500 ms when
	// zero. Without an answer nothing competes for the account and the market is called.
	SlotWait time.Duration
	// LeaseTTL is how long a poller that vanished bars the others, in whole seconds; 10 s when zero.
	LeaseTTL time.Duration
	// Holder names this process in the lease; host and process number when empty.
	Holder string
	// Sizes of the streams; topology.DefaultSizes when zero.
	Sizes topology.Sizes
}

// Deps are what a Service works with.
type Deps struct {
	// Conn to the broker.
	Conn *bus.Conn
	// Offers lists the market.
	Offers market.Offers
	// Authenticate names the client of a bearer token.
	Authenticate auth.Authenticate
	// Logger; slog.Default when nil.
	Logger *slog.Logger
}

// Service is one replica.
type Service struct {
	cfg      Config
	deps     Deps
	listener net.Listener
	server   *grpc.Server
	health   *health.Server
	lease    *lease.Lease
	calls    *throttle.Throttle
	poller   *poll.Poller

	// Set by Start; Ready may be asked meanwhile.
	view  atomic.Pointer[marketview.View]
	stop  context.CancelFunc
	works sync.WaitGroup
}

// New wires a service and binds its address.
func New(cfg Config, deps Deps) (*Service, error) {
	if deps.Conn == nil || deps.Offers == nil || deps.Authenticate == nil {
		return nil, errors.New("pricewatch: a connection, a market and an authenticator are needed")
	}
	if deps.Logger == nil {
		deps.Logger = slog.Default()
	}
	cfg.fill()
	s := &Service{cfg: cfg, deps: deps}
	js := deps.Conn.JetStream()
	s.poller = poll.New(poll.Config{Interval: cfg.Interval}, poll.Deps{
		Offers: deps.Offers, Slot: s.slot, Take: s.take, Publish: deps.Conn.Publish, Logger: deps.Logger,
		Load: func(ctx context.Context) (marketview.Stored, error) { return marketview.Load(ctx, js) },
	})
	s.calls = throttle.New(throttle.Config{JS: js, Bucket: topology.LimitsBucket(cfg.Sizes.Replicas)})
	var err error
	s.lease, err = lease.New(lease.Config{
		JS: js, Bucket: topology.LeasesBucket(cfg.Sizes.Replicas), Key: leaseKey, Holder: cfg.Holder, TTL: cfg.LeaseTTL,
		Logger: deps.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("pricewatch: %w", err)
	}
	if s.listener, err = net.Listen("tcp", cfg.GRPCAddress); err != nil {
		return nil, fmt.Errorf("pricewatch: %w", err)
	}
	return s, nil
}

func (c *Config) fill() {
	if c.GRPCAddress == "" {
		c.GRPCAddress = "127.0.0.1:0"
	}
	if c.Interval <= 0 {
		c.Interval = defaultInterval
	}
	if c.SlotWait <= 0 {
		c.SlotWait = defaultSlotWait
	}
	if c.LeaseTTL <= 0 {
		c.LeaseTTL = lease.MinTTL
	}
	if c.Holder == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		c.Holder = fmt.Sprintf("pricewatch-%s-%d-%s", host, os.Getpid(), rand.Text()[:6])
	}
	if c.Sizes == (topology.Sizes{}) {
		c.Sizes = topology.DefaultSizes()
	}
}

// Addr is where MarketService listens.
func (s *Service) Addr() string { return s.listener.Addr().String() }

// Start makes the streams that are missing and begins to poll, follow and answer. ctx bounds the start only.
func (s *Service) Start(ctx context.Context) error {
	for _, stream := range []func(topology.Sizes) jetstream.StreamConfig{topology.MarketStream, topology.TicksStream} {
		if err := s.deps.Conn.EnsureStream(ctx, stream(s.cfg.Sizes)); err != nil {
			return fmt.Errorf("pricewatch: %w", err)
		}
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	view := marketview.Open(run, s.deps.Conn.JetStream(), s.deps.Logger)
	s.view.Store(view)
	s.works.Go(func() {
		for run.Err() == nil {
			// What ends the work is logged by the poller; then the lease is contended for anew.
			_ = s.lease.Run(run, func(held context.Context, _ *lease.Held) error { return s.poller.Run(held) })
		}
	})

	s.server = grpc.NewServer(
		grpc.StatsHandler(otelgrpc.NewServerHandler()), grpc.MaxRecvMsgSize(maxRequest),
		grpc.ChainUnaryInterceptor(recovery.UnaryServerInterceptor(s.recovered()), auth.Unary(s.deps.Authenticate)),
		grpc.ChainStreamInterceptor(recovery.StreamServerInterceptor(s.recovered()), auth.Stream(s.deps.Authenticate)),
	)
	s.health = health.NewServer()
	s.health.SetServingStatus(marketv1.MarketService_ServiceDesc.ServiceName, healthv1.HealthCheckResponse_SERVING)
	marketv1.RegisterMarketServiceServer(s.server, rpc.New(view))
	healthv1.RegisterHealthServer(s.server, s.health)
	reflection.Register(s.server)
	s.works.Go(func() {
		if err := s.server.Serve(s.listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			s.deps.Logger.Error("the gRPC server ended", "address", s.Addr(), "error", err)
		}
	})
	return nil
}

// recovered turns a panic into an answer that shows nothing of it.
func (s *Service) recovered() recovery.Option {
	return recovery.WithRecoveryHandlerContext(func(ctx context.Context, p any) error {
		s.deps.Logger.ErrorContext(ctx, "a call panicked", "panic", p, "stack", string(debug.Stack()))
		return fault.Public(fmt.Errorf("panic: %v", p))
	})
}

// Stop undoes Start: it answers what was asked until ctx ends, gives the lease back, and returns when nothing of the
// service runs any more.
func (s *Service) Stop(ctx context.Context) error {
	if s.server == nil {
		return s.listener.Close()
	}
	s.health.Shutdown()
	drained := make(chan struct{})
	go func() {
		s.server.GracefulStop()
		close(drained)
	}()
	select {
	case <-drained:
	case <-ctx.Done():
		s.server.Stop()
		<-drained
	}
	s.stop()
	s.works.Wait()
	s.view.Load().Close()
	return nil
}

// Run starts, works until ctx ends, and stops within 10 seconds.
func (s *Service) Run(ctx context.Context) error {
	if err := s.Start(ctx); err != nil {
		return errors.Join(err, s.Stop(ctx))
	}
	<-ctx.Done()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return s.Stop(stop)
}

// Ready is nil while what is shown is no older than three polls; otherwise it says why not.
func (s *Service) Ready() error {
	view := s.view.Load()
	if view == nil {
		return errors.New("not started")
	}
	if view.Fresh(time.Now()) {
		return nil
	}
	if failure := s.poller.Failure(); failure != nil {
		return failure
	}
	n, began, _ := view.Snapshot()
	if n == 0 {
		return errors.New("the market was not read yet")
	}
	return fmt.Errorf("the market was read last at %s", began.UTC().Format(time.RFC3339))
}

// take asks for the one call that all replicas have per interval.
func (s *Service) take(ctx context.Context, interval time.Duration) (granted bool, after time.Duration, err error) {
	d, err := s.calls.Take(ctx, callKey, throttle.Limit{N: 1, Per: interval})
	if err != nil {
		return false, 0, fmt.Errorf("ask for the call of this interval: %w", err)
	}
	return d.Allowed, d.RetryAfter, nil
}

// slot asks the account's holder for leave to call the market.
func (s *Service) slot(ctx context.Context) (granted bool, after time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SlotWait)
	defer cancel()
	reply, err := s.deps.Conn.NATS().RequestWithContext(ctx, topology.Slot, []byte(`{"endpoint":"marketplace"}`))
	if err != nil {
		return true, 0
	}
	var answer struct {
		Granted      bool  `json:"granted"`
		RetryAfterMS int64 `json:"retry_after_ms"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return true, 0
	}
	return answer.Granted, time.Duration(min(max(answer.RetryAfterMS, 0), int64(time.Minute/time.Millisecond))) * time.Millisecond
}
