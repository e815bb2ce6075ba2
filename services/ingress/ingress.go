// Package ingress is the service at the HTTP doors: the seed's (/webhook/…) and the native one (/v1/…).
//
// It guarantees that a request is answered with success only after its command is on disk in JetStream, that equal
// asks are one command however often and wherever they arrive, and that with the broker away the answer is 503 with
// Retry-After. It holds no state: any number of replicas behave as one. It refuses what is unsigned, too large, too
// deep, ambiguous or too fast, and no text of an internal error leaves it. It decides nothing about orders.
package ingress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/net/netutil"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/seal"
	"github.com/renthook/renthook/pkg/throttle"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/ingress/internal/caller"
	"github.com/renthook/renthook/services/ingress/internal/limit"
	"github.com/renthook/renthook/services/ingress/internal/remote"
	"github.com/renthook/renthook/services/ingress/internal/seed"
	v1 "github.com/renthook/renthook/services/ingress/internal/v1"
	"github.com/renthook/renthook/services/ingress/internal/window"
	"github.com/renthook/renthook/services/internal/admit"
	"github.com/renthook/renthook/services/internal/auth"
	"github.com/renthook/renthook/services/internal/marketview"
	"github.com/renthook/renthook/services/internal/settings"
	"github.com/renthook/renthook/services/internal/topology"
)

// Bounds of the HTTP server. A slow sender is cut off long before it can hold many connections.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 15 * time.Second
	idleTimeout       = time.Minute
	mostHeaderBytes   = 16 << 10
	mostConnections   = 16 << 10
)

// Config is how the service behaves.
type Config struct {
	// Address to listen on; port 0 takes any.
	Address string
	// RequestsPerMinute of one address and of one client; 0 is no limit.
	RequestsPerMinute int
	// DedupeWindow is how long equal asks of the seed's door without a key are one; 0 turns that off. At most an hour.
	DedupeWindow time.Duration
	// LegacySignature is "allow" (also ""), "warn" or "deny".
	LegacySignature string
	// TrustedProxies are believed about whom they forward.
	TrustedProxies []netip.Prefix
	// Clients are who may ask.
	Clients []settings.Client
	// KeyedAccess says that an SSH key of the operator's is put on every rental, so that no password is derived.
	KeyedAccess bool
	// Sizes bounds the stream this service makes when it is missing; zero means topology.DefaultSizes.
	Sizes topology.Sizes
}

// FromSettings takes what concerns this service.
func FromSettings(s settings.Settings) Config {
	sizes := topology.DefaultSizes()
	sizes.Replicas = s.NATS.Replicas
	return Config{
		Address: s.Ingress.Address, RequestsPerMinute: s.Limits.RequestsPerMinute, DedupeWindow: s.Ingress.LegacyDedupeWindow,
		LegacySignature: s.Ingress.LegacySignature, TrustedProxies: s.Ingress.TrustedProxies, Clients: s.Clients,
		KeyedAccess: s.Order.SSHKey != "", Sizes: sizes,
	}
}

// Callbacks is an *egress.Client.
type Callbacks interface {
	// Check gives an error, fit to be shown, when a delivery to the address would be refused.
	Check(ctx context.Context, rawURL string) error
}

// Market is a *marketview.View.
type Market interface {
	Models() []marketview.Model
	Snapshot() (poll uint64, began time.Time, interval time.Duration)
}

// Deps are what the service works with. All but the last three are required.
type Deps struct {
	Bus *bus.Conn
	// Seal is the installation's key.
	Seal *seal.Box
	// Orders is asked for what is read, with the installation's internal token; see auth.OnBehalf.
	Orders    orderv1.OrderServiceClient
	Callbacks Callbacks
	Market    Market
	// Logger, Tracer and Meter; nil means slog.Default and no telemetry.
	Logger *slog.Logger
	Tracer trace.Tracer
	Meter  metric.Meter
}

// Service serves the doors.
type Service struct {
	cfg      Config
	deps     Deps
	log      *slog.Logger
	listener net.Listener
	server   *http.Server
	drained  chan struct{}

	windows *window.Windows

	mu sync.Mutex
	// unprepared is why the stream is not known to be as it should; nil once it is.
	unprepared error
	cancel     context.CancelFunc
	running    sync.WaitGroup
}

// New wires the service and binds its address. The broker and the other services may be away.
func New(cfg Config, deps Deps) (*Service, error) {
	if cfg.Sizes == (topology.Sizes{}) {
		cfg.Sizes = topology.DefaultSizes()
	}
	s := &Service{cfg: cfg, deps: deps, log: deps.Logger, drained: make(chan struct{})}
	s.unprepared = errors.New("not started")
	if s.log == nil {
		s.log = slog.Default()
	}
	handler, err := s.handler()
	if err != nil {
		return nil, fmt.Errorf("make the doors: %w", err)
	}
	listener, err := net.Listen("tcp", cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("listen for HTTP: %w", err)
	}
	s.listener = netutil.LimitListener(listener, mostConnections)
	s.server = &http.Server{
		Handler: handler, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: mostHeaderBytes,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.server.RegisterOnShutdown(sync.OnceFunc(func() { close(s.drained) }))
	return s, nil
}

func (s *Service) handler() (http.Handler, error) {
	switch s.cfg.LegacySignature {
	case "", seed.LegacyAllow, seed.LegacyWarn, seed.LegacyDeny:
	default:
		return nil, fmt.Errorf("legacy signature is %q: want allow, warn or deny", s.cfg.LegacySignature)
	}
	book, err := caller.NewBook(s.cfg.Clients)
	if err != nil {
		return nil, err
	}
	counts := throttle.New(throttle.Config{JS: s.deps.Bus.JetStream(), Bucket: topology.LimitsBucket(s.cfg.Sizes.Replicas)})
	limits := limit.New(counts, s.deps.Bus.Ready, s.cfg.RequestsPerMinute, s.log)
	admitter := admit.New(s.deps.Bus)
	if s.windows, err = window.New(window.Config{Length: s.cfg.DedupeWindow, Open: s.openWindows, Commands: admitter}); err != nil {
		return nil, err
	}
	seedDoor := seed.New(
		seed.Config{Legacy: s.cfg.LegacySignature, TrustedProxies: s.cfg.TrustedProxies},
		seed.Deps{
			Callers: book, Limits: limits, Admit: admitter, Windows: s.windows, Seal: s.deps.Seal,
			Callback: s.deps.Callbacks.Check, Market: s.deps.Market, Log: s.log,
		})
	v1Door := v1.New(
		v1.Config{TrustedProxies: s.cfg.TrustedProxies, KeyedAccess: s.cfg.KeyedAccess},
		v1.Deps{
			Callers: book, Limits: limits, Admit: admitter, Seal: s.deps.Seal, Callback: s.deps.Callbacks.Check,
			Orders: remote.Orders{Client: s.deps.Orders, Token: auth.InternalToken(s.deps.Seal)}, Draining: s.drained, Log: s.log,
		})
	return observe(s.deps.Tracer, s.deps.Meter, s.log, func(path string) (http.Handler, string) {
		if path+"/" == v1.Prefix || strings.HasPrefix(path, v1.Prefix) {
			return v1Door, v1Door.Route(path)
		}
		return seedDoor, seedDoor.Route(path)
	})
}

// Start serves, and makes in the background what is missing on the broker. It returns at once.
func (s *Service) Start(ctx context.Context) error {
	// What Start begins ends by Stop, not with the context of its caller.
	ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.running.Go(func() { s.prepare(ctx) })
	s.running.Go(func() {
		if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.log.ErrorContext(ctx, "the HTTP server ended", "error", err.Error())
		}
	})
	s.log.InfoContext(ctx, "serving HTTP", "address", s.Addr())
	return nil
}

// Addr is where the service listens.
func (s *Service) Addr() string { return s.listener.Addr().String() }

// Stop takes no new request, waits for those under way until ctx ends, and releases everything.
func (s *Service) Stop(ctx context.Context) error {
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("finish the requests under way: %w", err), s.server.Close())
	}
	// Without a Start the server does not know the listener; closing it twice does no harm.
	_ = s.listener.Close()
	if s.cancel != nil {
		s.cancel()
	}
	s.running.Wait()
	return err
}

// Run serves until ctx ends, and then stops within its grace.
func (s *Service) Run(ctx context.Context) error {
	if err := s.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	return s.Stop(ctx)
}

const (
	readyTimeout              = 2 * time.Second
	prepareTimeout            = 10 * time.Second
	firstPrepare, lastPrepare = 200 * time.Millisecond, 10 * time.Second
)

// Ready says why asks cannot be taken now; nil when they can.
func (s *Service) Ready() error {
	if err := s.deps.Bus.Ready(); err != nil {
		return err
	}
	s.mu.Lock()
	err := s.unprepared
	s.mu.Unlock()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	if _, err := s.deps.Bus.JetStream().Stream(ctx, topology.Commands); err != nil {
		return fmt.Errorf("look for the stream %s: %w", topology.Commands, err)
	}
	return nil
}

// prepare makes the stream of commands and the windows, as often as it takes.
func (s *Service) prepare(ctx context.Context) {
	for wait := firstPrepare; ; wait = min(2*wait, lastPrepare) {
		err := s.prepareOnce(ctx)
		s.mu.Lock()
		s.unprepared = err
		s.mu.Unlock()
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			s.log.WarnContext(ctx, "what asks need on the broker is not there yet", "error", err.Error())
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

func (s *Service) prepareOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	if err := s.deps.Bus.EnsureStream(ctx, topology.CommandsStream(s.cfg.Sizes)); err != nil {
		return err
	}
	return s.windows.Open(ctx)
}

// openWindows gives the bucket of the seed's windows, made when it is missing.
func (s *Service) openWindows(ctx context.Context) (window.Bucket, error) {
	if err := s.deps.Bus.Ready(); err != nil {
		return nil, err
	}
	kv, err := s.deps.Bus.EnsureBucket(ctx, topology.WindowsBucket(s.cfg.Sizes.Replicas))
	if err != nil {
		return nil, fmt.Errorf("open the windows: %w", err)
	}
	return kv, nil
}
