package cloresim

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/govalues/decimal"
)

// DefaultKey is the account that control calls mean when they name none.
const DefaultKey = "sim-main"

// Config shapes a simulator. Over a directory that holds a world already, the terms of that world go on (Seed,
// Servers, Boot, Visible, Ports, NoRateLimit, AddressLimit, BalanceUSD, Drift, OrderLimit, Switches): a reset
// changes them.
type Config struct {
	// Dir keeps the state; it is made when missing. Empty: nothing is kept, for tests.
	Dir string
	// Seed and Servers generate the inventory; 1 and 3,500 when zero.
	Seed    int64
	Servers int
	// Inventory is a file with a recorded answer of /v1/marketplace, listed instead of a generated inventory.
	Inventory string
	// Rates are USD for one unit of a coin. Those not named are bitcoin=70000, CLORE-Blockchain=0.12 and
	// USD-Blockchain=1: arbitrary, since recordings state none.
	Rates map[string]string
	// Host is where rentals' ports are reached; 127.0.0.1 when empty. A name, or an address that is not loopback,
	// makes the ssh servers listen on all interfaces.
	Host string
	// Boot is how long a container takes to start, 2 s when zero; Visible how long a change takes to show, 1.5 s
	// when zero; Ports how long tcp_ports stays empty. Negative is none.
	Boot, Visible, Ports time.Duration
	// NoRateLimit lets calls come as they like. AddressLimit limits calls without a key to one a second and address.
	NoRateLimit, AddressLimit bool
	// BalanceUSD is what each wallet holds of each coin, in USD; 1000 when empty.
	BalanceUSD string
	// Drift lets listed prices move; those of an Inventory stand as recorded until a reset says otherwise.
	Drift bool
	// OrderLimit is how many live orders an account may have; 100 when zero.
	OrderLimit int
	Switches   Switches
	// Logger gets a line as each call comes in, takes effect and is answered; reads at debug level. Nil: none.
	Logger *slog.Logger
}

func (c Config) settings() (settings, error) {
	orElse := func(d, fallback time.Duration) int64 {
		switch {
		case d < 0:
			return 0
		case d == 0:
			return fallback.Milliseconds()
		default:
			return d.Milliseconds()
		}
	}
	if c.BalanceUSD == "" {
		c.BalanceUSD = "1000"
	}
	balance, err := decimal.Parse(c.BalanceUSD)
	if err != nil {
		return settings{}, fmt.Errorf("balance of the wallets: %w", err)
	}
	set := settings{
		Seed: c.Seed, Servers: c.Servers, BootMS: orElse(c.Boot, 2*time.Second), VisibleMS: orElse(c.Visible, 1500*time.Millisecond),
		PortsMS: orElse(c.Ports, 0), RateLimit: !c.NoRateLimit, AddressLimit: c.AddressLimit, BalanceUSD: balance,
		Drift: c.Drift, OrderLimit: c.OrderLimit, Switches: c.Switches,
	}
	if set.Seed == 0 {
		set.Seed = 1
	}
	if set.Servers == 0 {
		set.Servers = 3500
	}
	if set.OrderLimit == 0 {
		set.OrderLimit = 100
	}
	return set, set.check()
}

// Sim is a simulated market. Make it with New.
type Sim struct {
	logger    *slog.Logger
	inventory *inventory
	handler   http.Handler

	mu        sync.Mutex
	world     *world
	store     *store
	addresses map[string]time.Time
	// broken is set when the state could not be written: from then on nothing is answered.
	broken error

	ssh      *sshServers
	server   *http.Server
	listener net.Listener
	done     chan struct{}
	running  sync.WaitGroup
	stop     sync.Once
}

// New opens the world of c.Dir, or makes one. Stop must be called.
func New(c Config) (*Sim, error) {
	set, err := c.settings()
	if err != nil {
		return nil, fmt.Errorf("make a market: %w", err)
	}
	s := &Sim{
		logger: c.Logger, world: newWorld(), addresses: map[string]time.Time{}, done: make(chan struct{}),
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if s.world.rates, err = readRates(c.Rates); err != nil {
		return nil, fmt.Errorf("make a market: %w", err)
	}
	if c.Inventory != "" {
		if s.inventory, err = readInventory(c.Inventory); err != nil {
			return nil, err
		}
		set.Inventory, set.Drift = s.inventory.digest, false
	}
	s.world.host = c.Host
	if c.Host == "" {
		s.world.host = "127.0.0.1"
	}
	if err := s.open(c.Dir, &set); err != nil {
		return nil, err
	}
	s.ssh, err = newSSHServers(s.world.host, s.world.hostKey, s.guest, s.logger)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the ssh servers: %w", err), s.closeStore())
	}
	s.world.reserve = s.ssh.reserve
	s.ssh.sync(s.world.sshPorts())
	s.handler = s.routes()
	s.running.Go(s.tick)
	return s, nil
}

// open reads the world of dir, or makes one on the terms of set.
func (s *Sim) open(dir string, set *settings) error {
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the market's directory: %w", err)
		}
		if err := readLog(dir, func(line []byte) error { return s.replay(line, set) }); err != nil {
			return err
		}
	}
	if s.world.settings.Servers == 0 {
		listings, err := s.listings(set)
		if err != nil {
			return err
		}
		s.world.settings = *set
		s.world.stock(listings)
	}
	if s.world.hostKey == nil {
		s.world.hostKey = make([]byte, 32)
		_, _ = rand.Read(s.world.hostKey) // never fails: crypto/rand ends the process instead
	}
	s.world.changed = changes{}
	if dir == "" {
		return nil
	}
	s.store = &store{dir: dir}
	return s.store.begin(s.world.whole())
}

// replay takes over one line of the log.
func (s *Sim) replay(line []byte, asked *settings) error {
	var c change
	if err := json.Unmarshal(line, &c); err != nil {
		return fmt.Errorf("read the market's log: %w", err)
	}
	return s.world.apply(&c, func(kept *settings) ([]*listing, error) {
		if kept.Inventory != asked.Inventory {
			return nil, errors.New("the market's directory belongs to another inventory; name another directory")
		}
		return s.listings(kept)
	})
}

// listings are the servers of some terms.
func (s *Sim) listings(set *settings) ([]*listing, error) {
	if set.Inventory == "" {
		return generate(set.Seed, set.Servers, s.world.rates)
	}
	return s.inventory.listings, nil
}

// tick lets happen what happens without a call: late calls, ends, empty wallets.
func (s *Sim) tick() {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-s.done:
			return
		case now := <-t.C:
			s.mu.Lock()
			s.world.advance(now)
			s.commit()
			s.mu.Unlock()
		}
	}
}

// commit puts what changed on disk. The lock is held.
func (s *Sim) commit() {
	c := s.world.take()
	if c == nil || s.broken != nil {
		return
	}
	if s.store != nil {
		if s.broken = s.store.append(c); s.broken == nil && s.store.full() {
			s.broken = s.store.begin(s.world.whole())
		}
		if s.broken != nil {
			s.logger.Error("the market's state cannot be kept; nothing is answered any more", "error", s.broken)
		}
	}
	if len(c.Rentals) > 0 || c.Settings != nil {
		s.ssh.sync(s.world.sshPorts())
	}
}

// guest finds the rental behind a public ssh port; false while its container does not run.
func (s *Sim) guest(port int) (guest, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, r := range slices.Backward(s.world.rentals) {
		if r.sshPort() != port || !r.Ended.IsZero() {
			continue
		}
		server := s.world.servers[r.Server]
		if ssh := server.at(now).SSH; !r.upAt(now) || ssh != nil && !*ssh {
			return guest{}, false
		}
		return guest{r.ID, r.Server, server.gpu, r.SSHPassword, r.SSHKey, r.Env}, true
	}
	return guest{}, false
}

// Handler serves /v1 and /sim/v1.
func (s *Sim) Handler() http.Handler { return s.handler }

// Start listens on an address, port 0 included, and serves.
func (s *Sim) Start(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("start the market: %w", err)
	}
	s.listener = l
	s.server = &http.Server{Handler: s.handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	s.running.Go(func() {
		if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.logger.Error("serve the market", "error", err)
		}
	})
	return nil
}

// Addr is where it listens, host:port; empty before Start.
func (s *Sim) Addr() string {
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Stop ends everything: calls that wait on purpose are cut short, ssh sessions are closed. It waits for calls in
// work until ctx ends.
func (s *Sim) Stop(ctx context.Context) error {
	var err error
	s.stop.Do(func() {
		close(s.done)
		if s.server != nil {
			if err = s.server.Shutdown(ctx); err != nil {
				err = errors.Join(fmt.Errorf("stop the market: %w", err), s.server.Close())
			}
		}
		s.ssh.close()
		s.running.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		err = errors.Join(err, s.closeStore())
	})
	return err
}

// stopTimeout bounds the end of Run.
const stopTimeout = 5 * time.Second

// Run is Start, until ctx ends, and Stop.
func (s *Sim) Run(ctx context.Context, address string) error {
	err := s.Start(address)
	if err == nil {
		s.logger.Info("the market listens", "address", s.Addr())
		<-ctx.Done()
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return errors.Join(err, s.Stop(stop))
}

// closeStore lets go of the log. Nothing is answered afterwards.
func (s *Sim) closeStore() error {
	s.broken = errors.New("the market is stopped")
	if s.store == nil {
		return nil
	}
	err := s.store.close()
	s.store = nil
	return err
}
