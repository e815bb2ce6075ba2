// Package order is the service that rents: it holds an account of the market, gives every command its record, asks for
// servers, watches rentals until the market says they are gone, and answers OrderService.
//
// It guarantees that any number of processes may run for one account, that one of them writes, and that the others
// serve reads and take over. It refuses to start on a market it may only observe with anything that writes.
package order

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/journal"
	"github.com/renthook/renthook/pkg/lease"
	"github.com/renthook/renthook/pkg/seal"
	controlv1 "github.com/renthook/renthook/proto/gen/renthook/control/v1"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/admit"
	"github.com/renthook/renthook/services/internal/auth"
	"github.com/renthook/renthook/services/internal/ends"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/settings"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/order/internal/engine"
	"github.com/renthook/renthook/services/order/internal/ledger"
	"github.com/renthook/renthook/services/order/internal/rpc"
	"github.com/renthook/renthook/services/order/internal/world"
)

// Config is what the operator says.
type Config struct{ Settings settings.Settings }

// Books is the market as the poller publishes it.
type Books interface {
	Book(gpu string) []market.Offer
	Snapshot() (poll uint64, began time.Time, interval time.Duration)
	Fresh(now time.Time) bool
	Changed() <-chan struct{}
}

// Deps are the live things the service works with.
type Deps struct {
	Log  *slog.Logger
	Bus  *bus.Conn
	Box  *seal.Box
	Auth auth.Authenticate
	// Market is the account on the market.
	Market market.Account
	Books  Books
	// Judge refuses callback addresses that could not be called.
	Judge func(ctx context.Context, url string) error
	// Meter counts; nil counts nothing.
	Meter metric.Meter
	// Dial reaches ssh ports of rentals; nil means the network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Service is one order process.
type Service struct {
	config  Config
	deps    Deps
	log     *slog.Logger
	engine  engine.Config
	world   *world.World
	journal *journal.Journal
	ends    *exporter

	listener net.Listener
	server   *grpc.Server
	health   *health.Server

	stop context.CancelFunc
	work sync.WaitGroup

	// tight says that the journal is nearly full.
	tight atomic.Bool

	mu      sync.Mutex
	failure error
	// waits is why this process sends no create, empty when it may or does not hold the account.
	waits string
}

var errUnread = errors.New("the journal has not been read yet")

// New wires the service and binds its listener.
func New(c Config, d Deps) (*Service, error) {
	if d.Log == nil {
		d.Log = slog.Default()
	}
	if d.Dial == nil {
		d.Dial = (&net.Dialer{}).DialContext
	}
	s := &Service{config: c, deps: d, log: d.Log, failure: errUnread}
	var err error
	if s.engine, err = engineConfig(c, d.Box); err != nil {
		return nil, err
	}
	s.world = world.New(s.engine.Account)
	s.ends = &exporter{
		path: c.Settings.Order.EndsFile, box: d.Box, log: d.Log, world: s.world, pending: map[string]pendingEnd{},
		list: ends.List{Account: s.engine.Account, Key: c.Settings.KeyFingerprint(), By: s.engine.Holder},
	}
	if err := s.observe(d.Meter); err != nil {
		return nil, err
	}
	s.journal = journal.Open(d.Bus.JetStream(), topology.Orders(s.engine.Account))
	if s.listener, err = net.Listen("tcp", c.Settings.Order.GRPCAddress); err != nil {
		return nil, fmt.Errorf("listen for gRPC on order.grpc_address: %w", err)
	}
	s.server = grpc.NewServer(
		grpc.ChainUnaryInterceptor(auth.Unary(d.Auth)), grpc.ChainStreamInterceptor(auth.Stream(d.Auth)),
		grpc.MaxRecvMsgSize(1<<20),
	)
	s.health = health.NewServer()
	s.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(s.server, s.health)
	served := rpc.Deps{
		Log: s.log, Account: s.engine.Account, World: s.world, Journal: s.journal, Admit: admit.New(d.Bus), Box: d.Box, Fees: s.engine.Fees, Judge: d.Judge,
		Limits: s.engine.Limits, Zone: s.engine.Zone, Control: func(client string) bool { return s.engine.Clients[client].Control },
	}
	orderv1.RegisterOrderServiceServer(s.server, rpc.New(served))
	controlv1.RegisterControlServiceServer(s.server, rpc.NewControl(served))
	reflection.Register(s.server)
	return s, nil
}

// engineConfig turns settings into what a holder needs.
func engineConfig(c Config, box *seal.Box) (engine.Config, error) {
	st := c.Settings
	e := engine.Config{
		Account: st.Account.Name, Holder: holderName(), Clients: map[string]engine.Client{},
		Image: st.Order.Image, Ports: map[int]string{}, SSHKey: st.Order.SSHKey, Currency: st.Order.Currency, MaxDuration: st.Order.MaxDuration,
		Ceiling: st.Limits.PricePerHour, OrdersPerHour: st.Limits.OrdersPerHour, CreatesPerHour: st.Limits.CreatesPerHour, LiveRentals: st.Limits.LiveRentals,
		MaxCandidates: st.Order.MaxCandidates, SpotHeadroom: st.Order.SpotHeadroom, FailedBootUSD: st.Order.BootBudget,
		Fees:          ledger.Fees{OnDemand: st.Fees.OnDemand, Spot: st.Fees.Spot, Creation: st.Fees.Creation},
		RequiredPrice: st.Order.RequiredPrice, Markers: st.Order.MarkerPorts, ProbeSSH: st.Order.SSHProbe,
		CallTimeout: st.Order.CallTimeout, BootDeadline: st.Order.BootDeadline, PlaceDeadline: st.Order.PlaceDeadline, SweepInterval: st.Order.SweepInterval,
		LeaseTTL: st.Order.LeaseTTL, ReleaseURL: st.Ingress.PublicURL,
	}
	e.Pace.CallGap, e.Pace.CreateGap = st.Market.CallGap, st.Market.CreateGap
	e.Prove.Window, e.Prove.WindowBlind = st.Order.ConfirmWindow, st.Order.ConfirmWindowBlind
	if e.Markers > 0 {
		e.Prove.InstallationPort = installationPort(box)
	}
	e.Limits = ledger.Limits{BurnPerHour: st.Limits.BurnPerHour, SpendPerDay: st.Limits.SpendPerDay, SpendPerMonth: st.Limits.SpendPerMonth}
	e.CloseAtLimit = st.Limits.AtSpendLimit == "close"
	var err error
	if e.Zone, err = time.LoadLocation(st.Limits.Timezone); err != nil {
		return e, fmt.Errorf("limits.timezone: %w", err)
	}
	e.MinReliability, _ = st.Order.MinReliability.Float64()
	for port, kind := range st.Order.Ports {
		n, err := strconv.Atoi(port)
		if err != nil {
			return e, fmt.Errorf("order.ports: %q is no port", port)
		}
		e.Ports[n] = kind
	}
	for _, cl := range st.Clients {
		if cl.Account != "" && cl.Account != e.Account {
			continue
		}
		e.Clients[cl.Name] = engine.Client{
			CancelAny: cl.May("rentals:cancel_any"), Create: cl.May("orders:create"), Cancel: cl.May("orders:cancel"), Control: cl.May("control"),
			Limits:        ledger.Limits{BurnPerHour: cl.Limits.BurnPerHour, SpendPerDay: cl.Limits.SpendPerDay, SpendPerMonth: cl.Limits.SpendPerMonth},
			OrdersPerHour: cl.Limits.OrdersPerHour, LiveRentals: cl.Limits.LiveRentals, Ceiling: cl.Limits.PricePerHour,
		}
	}
	if e.LeaseTTL < lease.MinTTL || e.LeaseTTL*2/3 <= e.CallTimeout+2*time.Second {
		return e, fmt.Errorf("order.lease_ttl: %s is too short for order.call_timeout of %s: no create could go out", e.LeaseTTL, e.CallTimeout)
	}
	return e, nil
}

// installationPort is the first marker port: the same for every process with the installation's key.
func installationPort(box *seal.Box) int {
	h := fnv.New64a()
	_, _ = h.Write([]byte(box.Password("installation-port")))
	return engine.InstallationPort(h.Sum64())
}

func random() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}

func holderName() string { return fmt.Sprintf("order-%016x", random()) }

// Start makes what is missing on the bus and begins to follow and to contend for the account.
func (s *Service) Start(ctx context.Context) error {
	sizes := topology.DefaultSizes()
	sizes.Replicas = max(s.config.Settings.NATS.Replicas, 1)
	if err := s.deps.Bus.EnsureStream(ctx, topology.CommandsStream(sizes)); err != nil {
		return err
	}
	if err := s.deps.Bus.EnsureStream(ctx, topology.OrdersStream(s.engine.Account, sizes)); err != nil {
		return err
	}
	if err := s.deps.Bus.EnsureStream(ctx, topology.DeadLettersStream(sizes)); err != nil {
		return err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.work.Go(func() { s.follow(run) })
	s.work.Go(func() { s.contend(run) })
	if !s.ends.off() {
		s.work.Go(func() { s.ends.run(run, s.Ready) })
	}
	s.work.Go(func() {
		if err := s.server.Serve(s.listener); err != nil {
			s.log.Error("the gRPC server ended", "error", err.Error())
		}
	})
	return nil
}

// Addr is where gRPC listens.
func (s *Service) Addr() string { return s.listener.Addr().String() }

// Ready says why orders cannot be read or taken; nil when they can.
func (s *Service) Ready() error {
	if err := s.deps.Bus.Ready(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

func (s *Service) setWaits(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits = reason
}

func (s *Service) setFailure(err error) {
	s.mu.Lock()
	changed := (err == nil) != (s.failure == nil)
	s.failure = err
	s.mu.Unlock()
	if changed {
		status := healthpb.HealthCheckResponse_SERVING
		if err != nil {
			status = healthpb.HealthCheckResponse_NOT_SERVING
		}
		s.health.SetServingStatus("", status)
		s.health.SetServingStatus(orderv1.OrderService_ServiceDesc.ServiceName, status)
	}
}

// Stop lets go of the account, waits for the call that is out, and closes what was opened.
func (s *Service) Stop(ctx context.Context) error {
	s.health.Shutdown()
	if s.stop == nil {
		return s.listener.Close()
	}
	s.stop()
	graceful := make(chan struct{})
	go func() { s.server.GracefulStop(); close(graceful) }()
	select {
	case <-graceful:
	case <-time.After(time.Second):
		s.server.Stop()
	}
	done := make(chan struct{})
	go func() { s.work.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop order: %w", ctx.Err())
	}
}

// Run is Start, wait, Stop.
func (s *Service) Run(ctx context.Context) error {
	if err := s.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.engine.CallTimeout+5*time.Second)
	defer cancel()
	return s.Stop(end)
}
