// Package stack starts all of renthook's services in one process, with a broker and the simulator inside. It guarantees
// that what was generated at the first start is kept, and that stopping undoes in reverse what starting did. It refuses
// a data directory that belongs to another market, and one in use. It stands above the services and below the commands,
// and decides nothing.
package stack

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/renthook/renthook/pkg/bus/embed"
	"github.com/renthook/renthook/pkg/cloreapi/cloresim"
	"github.com/renthook/renthook/pkg/run"
	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/pkg/telemetry"
	"github.com/renthook/renthook/services/internal/ends"
	"github.com/renthook/renthook/services/internal/settings"
	"github.com/renthook/renthook/services/stack/wire"
)

// UpConfig is everything in one process.
type UpConfig struct {
	Settings settings.Settings
	// Data is where all state is.
	Data string
	// Inventory is a recorded marketplace that the simulator lists; empty means a generated one.
	Inventory string
	// Version of this build.
	Version string
	// Logs is where log lines go; os.Stderr when nil.
	Logs io.Writer
}

// Addresses is what run.json holds: how to reach a running renthook, so that scripts need no fixed ports.
type Addresses struct {
	HTTP             string `json:"http"`
	GRPC             string `json:"grpc"`
	NATS             string `json:"nats"`
	Admin            string `json:"admin"`
	Market           string `json:"market"`
	Pricewatch       string `json:"pricewatch"`
	SecretFile       string `json:"secret_file"`
	TokenFile        string `json:"token_file"`
	NATSUser         string `json:"nats_user"`
	NATSPasswordFile string `json:"nats_password_file"`
	PID              int    `json:"pid"`
}

const (
	// readyTimeout bounds the start.
	readyTimeout = 60 * time.Second
	// marketTimeout is how long the start waits for a first read of the market: asks are taken without it.
	marketTimeout = 5 * time.Second
)

// Stack is everything, running.
type Stack struct {
	// Addresses of what was started.
	Addresses Addresses
	// Notices are what the operator should be told.
	Notices []string

	installation *installation
	telemetry    *telemetry.Telemetry
	log          *slog.Logger
	closers      run.Stack
}

// Up starts everything and returns when it is ready: asks are taken, and the market has been read unless it is away.
func Up(ctx context.Context, c UpConfig) (*Stack, error) {
	s := &Stack{}
	if err := s.up(ctx, c); err != nil {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), wire.StopTimeout)
		defer cancel()
		return nil, errors.Join(err, s.Stop(end))
	}
	return s, nil
}

// Stop undoes Up in reverse order.
func (s *Stack) Stop(ctx context.Context) error { return s.closers.Stop(ctx) }

// up is one straight line: nearly every step needs what the ones before made.
func (s *Stack) up(ctx context.Context, c UpConfig) (err error) {
	st := c.Settings
	data, err := filepath.Abs(c.Data)
	if err != nil {
		return err
	}
	if s.installation, err = openInstallation(data); err != nil {
		return err
	}
	s.closers.Push("data directory", func(context.Context) error { s.installation.close(); return nil })
	if c.Logs == nil {
		c.Logs = os.Stderr
	}
	s.telemetry, err = telemetry.New(ctx, telemetry.Config{Service: "renthook", Version: c.Version, Output: c.Logs, Level: st.Telemetry.LogLevel, Format: st.Telemetry.LogFormat})
	if err != nil {
		return err
	}
	s.closers.Push("telemetry", s.telemetry.Shutdown)
	s.log = s.telemetry.Logger()

	if err := s.market(&st, c.Inventory); err != nil {
		return err
	}
	if err := s.installation.credentials(&st); err != nil {
		return err
	}
	st.Order.EndsFile = cmp.Or(st.Order.EndsFile, s.installation.path(ends.File))
	s.Addresses.SecretFile, s.Addresses.TokenFile = s.installation.path("secrets", webhookFile), s.installation.path("secrets", tokenFile)
	passwords, err := s.broker(&st)
	if err != nil {
		return err
	}
	admin, err := wire.ServeAdmin(st.Telemetry.Address, s.telemetry.Handler())
	if err != nil {
		return err
	}
	s.closers.Push("admin", func(context.Context) error { admin.Close(); return nil })
	s.Addresses.Admin = admin.Addr()

	started := map[string]wire.Service{}
	for _, name := range services {
		service, err := s.start(ctx, name, st, c.Version, passwords[name])
		if err != nil {
			return fmt.Errorf("start %s: %w", name, err)
		}
		started[name] = service
		switch name {
		case wire.Order:
			s.Addresses.GRPC, st.Order.GRPCAddress = service.Addr(), service.Addr()
		case wire.Pricewatch:
			s.Addresses.Pricewatch = service.Addr()
		case wire.Ingress:
			s.Addresses.HTTP = service.Addr()
		}
	}
	for _, name := range services {
		timeout := readyTimeout
		if name == wire.Pricewatch {
			timeout = marketTimeout
		}
		err := untilReady(ctx, started[name], timeout)
		switch {
		case err == nil:
		case ctx.Err() != nil, name != wire.Pricewatch:
			return err
		default:
			s.log.WarnContext(ctx, "the market cannot be read: asks are taken, and wait until it can", "error", err.Error())
		}
	}
	return s.describe()
}

// market starts the simulator, unless one is named or the real market is observed.
func (s *Stack) market(st *settings.Settings, inventory string) error {
	name := st.Market.URL
	if st.Mode == settings.Sim && st.Market.URL == "" {
		name = "the simulator inside"
	}
	if err := s.installation.bind(*st, name); err != nil {
		return err
	}
	if st.Market.URL != "" {
		s.Addresses.Market = st.Market.URL
		return nil
	}
	sim, err := cloresim.New(cloresim.Config{
		Dir: s.installation.path("market"), Inventory: inventory, Rates: st.Market.Rates, Drift: true, Logger: s.log.With("component", "marketsim"),
	})
	if err != nil {
		return fmt.Errorf("start the simulator: %w", err)
	}
	s.closers.Push("simulator", sim.Stop)
	if err := sim.Start(st.Market.Address); err != nil {
		return fmt.Errorf("start the simulator on market.address: %w", err)
	}
	s.Addresses.Market = sim.Addr()
	st.Market.URL = "http://" + sim.Addr()
	return nil
}

// broker starts the embedded server with a user for each service and one for the client local, unless a broker is named.
func (s *Stack) broker(st *settings.Settings) (map[string]secret.String, error) {
	host, portText, err := net.SplitHostPort(st.NATS.Address)
	if err != nil {
		return nil, fmt.Errorf("nats.address: %w", err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, fmt.Errorf("nats.address: %w", err)
	}
	users, passwords, err := s.installation.users()
	if err != nil {
		return nil, err
	}
	server, err := embed.Start(embed.Config{
		Dir: s.installation.path("nats"), Host: host, Port: port, SyncAlways: true, Users: users, Logger: s.log.With("component", "nats"),
	})
	if err != nil {
		return nil, err
	}
	s.closers.Push("broker", func(context.Context) error { server.Shutdown(); return nil })
	st.NATS.URL = server.URL()
	s.Addresses.NATS = server.Addr()
	s.Addresses.NATSUser, s.Addresses.NATSPasswordFile = localClient, s.installation.path("secrets", passwordFile(localClient))
	return passwords, nil
}

// start runs one service with a connection of its own.
func (s *Stack) start(ctx context.Context, name string, st settings.Settings, version string, password secret.String) (wire.Service, error) {
	k, err := wire.Open(ctx, name, st, version, name, password, s.telemetry)
	if err != nil {
		return nil, err
	}
	s.closers.Push(name+"'s connections", k.Close)
	service, err := k.Make(ctx, name)
	if err != nil {
		return nil, err
	}
	s.telemetry.AddCheck(name, service.Ready)
	s.closers.Push(name, service.Stop)
	return service, service.Start(ctx)
}

func untilReady(ctx context.Context, service wire.Service, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for {
		err := service.Ready()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready after %s: %w", timeout, err)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// describe writes run.json.
func (s *Stack) describe() error {
	s.Addresses.PID = os.Getpid()
	b, err := json.MarshalIndent(s.Addresses, "", "  ")
	if err != nil {
		return err
	}
	if err := s.installation.write("run.json", append(b, '\n')); err != nil {
		return err
	}
	s.closers.Push("run.json", func(context.Context) error { return os.Remove(s.installation.path("run.json")) })
	return nil
}
