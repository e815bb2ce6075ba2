// Package notifier tells those who asked what became of their orders: it follows every account's journal, turns
// records into deliveries, and makes the deliveries by callback, Slack and Discord until they are through or given up.
//
// It guarantees one callback for every settled operation that names one, and one message to every endpoint whose
// filter an event matches, whatever is restarted in between and however often a record is read: a delivery's
// subject takes one message. Every attempt is on record. It refuses to call a user's URL but through the egress
// guard, to send unsigned callbacks, and to print an endpoint's URL.
//
// A record older than DELIVERIES keeps its messages (7 days) causes nothing: that it was told before could no
// longer be seen, and nobody waits for it.
package notifier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/egress"
	"github.com/renthook/renthook/pkg/seal"
	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/services/internal/settings"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/notifier/internal/catalog"
	"github.com/renthook/renthook/services/notifier/internal/channel"
	"github.com/renthook/renthook/services/notifier/internal/channel/callback"
	"github.com/renthook/renthook/services/notifier/internal/compose"
	"github.com/renthook/renthook/services/notifier/internal/deliver"
)

// Config of the notifier.
type Config struct {
	// Accounts whose journals are followed.
	Accounts []string
	// Secrets by client: what its callbacks are signed with, the first of its webhook secrets.
	Secrets map[string]secret.String
	// Endpoints that hear of events; at most 500. No name begins with "cb-".
	Endpoints []settings.Endpoint
	// SSHInChannel lets messages to endpoints show the line to log in with; never a password.
	SSHInChannel bool
	// Schedule of a delivery: the first try, then the wait after each failure. Empty means ten tries over 76 hours.
	Schedule []time.Duration
	// Sizes of the streams; the zero value means topology.DefaultSizes.
	Sizes topology.Sizes
	// Version of renthook, for the User-Agent of callbacks.
	Version string
}

// FromSettings takes what concerns this service.
func FromSettings(s settings.Settings, version string) Config {
	cfg := Config{
		Accounts: []string{s.Account.Name}, Secrets: map[string]secret.String{}, Endpoints: s.Notify.Endpoints,
		SSHInChannel: s.Notify.SSHInChannel, Sizes: topology.DefaultSizes(), Version: version,
	}
	cfg.Sizes.Replicas = max(s.NATS.Replicas, 1)
	for _, c := range s.Clients {
		if len(c.Secrets) > 0 {
			cfg.Secrets[c.Name] = c.Secrets[0]
		}
	}
	return cfg
}

// Deps are the live things the notifier works with.
type Deps struct {
	Bus    *bus.Conn
	Egress *egress.Client
	Seal   *seal.Box
	// Logger; slog.Default when nil.
	Logger *slog.Logger
	// Meter; none when nil.
	Meter metric.Meter
}

const (
	// mostEndpoints bounds the consumers on DELIVERIES.
	mostEndpoints = 500
	// retryPause is the wait after what must exist on the broker could not be ensured.
	retryPause = time.Second
	// ensureTimeout bounds one round of ensuring.
	ensureTimeout = 30 * time.Second
)

// Service is the notifier.
type Service struct {
	cfg     Config
	bus     *bus.Conn
	log     *slog.Logger
	routes  []route
	deliver *deliver.Deliverer

	cancel context.CancelFunc
	work   sync.WaitGroup
	// state is why the service is not ready; nil inside once it is.
	state atomic.Pointer[error]
}

// route is an endpoint with what renders for it.
type route struct {
	settings.Endpoint
	filter compose.Filter
	render channel.Endpoint
}

// errStarting is the state before the streams and consumers are there.
var errStarting = errors.New("streams and consumers are not ensured yet")

// New checks the configuration and wires the service. It starts nothing.
func New(cfg Config, deps Deps) (*Service, error) {
	if deps.Logger == nil {
		deps.Logger = slog.Default()
	}
	if deps.Meter == nil {
		deps.Meter = noop.Meter{}
	}
	if cfg.Sizes == (topology.Sizes{}) {
		cfg.Sizes = topology.DefaultSizes()
	}
	s := &Service{cfg: cfg, bus: deps.Bus, log: deps.Logger}
	s.setState(errStarting)
	var problems []error
	if len(cfg.Endpoints) > mostEndpoints {
		problems = append(problems, fmt.Errorf("%d endpoints: at most %d", len(cfg.Endpoints), mostEndpoints))
	}
	callbacks := callback.New(callback.Config{Secrets: cfg.Secrets, Version: cfg.Version}, deps.Egress, deps.Seal)
	var targets []deliver.Target
	for _, lane := range compose.Lanes() {
		targets = append(targets, deliver.Target{Endpoint: lane, Sender: callbacks, Shared: true})
	}
	for _, e := range cfg.Endpoints {
		if strings.HasPrefix(e.Name, compose.LanePrefix) {
			problems = append(problems, fmt.Errorf("endpoint %q: names that begin with %q are taken", e.Name, compose.LanePrefix))
		}
		ch, err := catalog.New(e.Channel, catalog.Config{
			URL: e.URL, Notice: channel.NoticeOptions{SSHInChannel: cfg.SSHInChannel},
		}, deps.Egress)
		if err != nil {
			problems = append(problems, fmt.Errorf("endpoint %q: %w", e.Name, err))
			continue
		}
		s.routes = append(s.routes, route{Endpoint: e, filter: compose.Filter{Events: e.Events, Labels: e.Labels}, render: ch})
		targets = append(targets, deliver.Target{Endpoint: e.Name, Sender: ch})
	}
	var err error
	if s.deliver, err = deliver.New(deliver.Config{Schedule: cfg.Schedule},
		deliver.Deps{Bus: deps.Bus, Logger: deps.Logger, Meter: deps.Meter}, targets); err != nil {
		problems = append(problems, err)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("configure notifier: %w", err)
	}
	return s, nil
}

// Start begins to work and returns at once: a broker that is away is waited for. Ready says how far it is.
func (s *Service) Start(ctx context.Context) error {
	if s.cancel != nil {
		return errors.New("start notifier: started before")
	}
	ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.work.Go(func() { s.loop(ctx) })
	return nil
}

// Addr is where the service listens: nowhere in this version.
func (s *Service) Addr() string { return "" }

// Ready is nil while the notifier follows and delivers; otherwise it says why it does not.
func (s *Service) Ready() error {
	if err := *s.state.Load(); err != nil {
		return fmt.Errorf("notifier: %w", err)
	}
	if err := s.bus.Ready(); err != nil {
		return fmt.Errorf("notifier: %w", err)
	}
	return nil
}

func (s *Service) setState(err error) { s.state.Store(&err) }

// Stop ends the work: attempts in the air are cut off and not counted, the rest goes back to the broker.
func (s *Service) Stop(ctx context.Context) error {
	if s.cancel == nil {
		return nil
	}
	s.cancel()
	ended := make(chan struct{})
	go func() {
		s.work.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop notifier: %w", ctx.Err())
	}
}

// Run starts, works until ctx ends, and stops.
func (s *Service) Run(ctx context.Context) error {
	if err := s.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return s.Stop(stop)
}

// stopTimeout is above the longest write of an attempt's record.
const stopTimeout = 15 * time.Second

// loop works until ctx ends, starting over when something that must exist is missing.
func (s *Service) loop(ctx context.Context) {
	for {
		err := s.session(ctx)
		if ctx.Err() != nil {
			return
		}
		s.setState(err)
		s.log.ErrorContext(ctx, "the notifier cannot work, trying again", "error", err.Error())
		timer := time.NewTimer(retryPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// session ensures what must exist, then follows and delivers until ctx ends or one of them cannot go on.
func (s *Service) session(ctx context.Context) error {
	if err := s.ensure(ctx); err != nil {
		return err
	}
	s.setState(nil)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var parts sync.WaitGroup
	part := func(work func() error) {
		parts.Go(func() {
			if err := work(); err != nil {
				cancel(err)
			}
		})
	}
	part(func() error { return s.deliver.Run(ctx) })
	for _, account := range s.cfg.Accounts {
		part(func() error { return s.follow(ctx, account) })
	}
	parts.Wait()
	return context.Cause(ctx)
}

func (s *Service) ensure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ensureTimeout)
	defer cancel()
	for _, stream := range append(s.journals(),
		topology.DeliveriesStream(s.cfg.Sizes), topology.AttemptsStream(s.cfg.Sizes), topology.DeadLettersStream(s.cfg.Sizes)) {
		if err := s.bus.EnsureStream(ctx, stream); err != nil {
			return err
		}
	}
	for _, account := range s.cfg.Accounts {
		if _, err := s.bus.EnsureConsumer(ctx, topology.Orders(account), followConfig(account)); err != nil {
			return err
		}
	}
	return s.deliver.Ensure(ctx)
}
