// Package engine is the shell around the pure machine: it holds the account. One goroutine owns all decisions; every
// decision is in the journal before anything is done about it; calls to the market go out one at a time, paced.
//
// It guarantees that a create is sent at most once per recorded intent, and only while the writer is alive, the lease
// outlasts the call, the deadline of the intent allows the whole time-out and no end is wanted; that a crash anywhere
// is healed by replaying the journal and reading the market; and that a command is acknowledged only after its record
// is in the journal. It refuses to spend whenever it cannot tell: a stale market, rentals that should be listed and are
// not, rentals that may be ours and are not accounted for.
package engine

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/pkg/journal"
	"github.com/renthook/renthook/pkg/seal"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/order/internal/ledger"
	"github.com/renthook/renthook/services/order/internal/pace"
	"github.com/renthook/renthook/services/order/internal/prove"
	"github.com/renthook/renthook/services/order/internal/rental"
	"github.com/renthook/renthook/services/order/internal/world"
)

// Config is what the settings say about an account.
type Config struct {
	// Account is its name; Holder names this process in the journal.
	Account, Holder string
	// Clients whose commands this account takes, and what each may do.
	Clients map[string]Client
	// Defaults of an ask.
	Image    string
	Ports    map[int]string
	SSHKey   string
	Currency string
	// MaxDuration of an order that asks for none.
	MaxDuration time.Duration
	// Ceiling is limits.price_per_hour: USD per HOUR, whole server, before fees.
	Ceiling decimal.Decimal
	// OrdersPerHour and CreatesPerHour count a sliding hour; LiveRentals what may bill at once.
	OrdersPerHour, CreatesPerHour, LiveRentals int
	// Limits are the account's, in USD; days and months begin in Zone. CloseAtLimit ends everything once a spending limit
	// is used up by what has been spent.
	Limits       ledger.Limits
	Zone         *time.Location
	CloseAtLimit bool
	// Order policy.
	MaxCandidates  int
	MinReliability float64
	SpotHeadroom   decimal.Decimal
	FailedBootUSD  decimal.Decimal
	Fees           ledger.Fees
	RequiredPrice  bool
	// Markers is how many marker ports a create carries: 2, 1 or 0.
	Markers  int
	ProbeSSH bool
	// ReleaseURL is where rentals reach ingress to end themselves; empty when they cannot.
	ReleaseURL string
	// Times.
	CallTimeout, BootDeadline, PlaceDeadline, SweepInterval time.Duration
	// Prove holds the windows; its InstallationPort is set from the key.
	Prove prove.Config
	Pace  pace.Config
	// LeaseTTL bounds how long a dead holder blocks its successor.
	LeaseTTL time.Duration
}

// Client is what a client may do on this account.
type Client struct {
	// CancelAny allows to end rentals that are not ours.
	CancelAny bool
	// Create, Cancel and Control are scopes.
	Create, Cancel, Control bool
	// Limits within the account's; zero is none. Ceiling is USD per HOUR, whole server, before fees.
	Limits                     ledger.Limits
	OrdersPerHour, LiveRentals int
	Ceiling                    decimal.Decimal
}

// Books is the market as the poller publishes it.
type Books interface {
	// Book lists the offers of a model.
	Book(gpu string) []market.Offer
	// Poll counts the snapshots seen, zero before the first.
	Poll() uint64
	// Fresh says that the newest snapshot is no older than three polls.
	Fresh(now time.Time) bool
	// Changed is closed at the next snapshot.
	Changed() <-chan struct{}
}

// Appender is the fenced end of the journal.
type Appender interface {
	Append(ctx context.Context, entries ...journal.Entry) (first, last uint64, err error)
	Last() uint64
	Epoch() uint64
}

// Deps are the live things a holder works with.
type Deps struct {
	Log     *slog.Logger
	World   *world.World
	Books   Books
	Account market.Account
	Box     *seal.Box
	// Remaining is how long the lease surely lasts.
	Remaining func() time.Duration
	// Room says that the journal is not nearly full: what lives must have room to end. Nil is always.
	Room func() bool
	// Waits is told why no create may go out, empty when one may, whenever that changes; nil tells nobody.
	Waits func(reason string)
	// Dial reaches the ssh ports of rentals.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Ports gives random numbers for marker ports.
	Random func() uint64
}

// Command is one command as the bus delivers it.
type Command struct {
	Subject     string
	ContentType string
	Body        []byte
	Seq         uint64
	Time        time.Time
	Trace       string
}

// slack is how much later than now + time-out an intent's call may end: the append and the guard lie between.
const slack = 2 * time.Second

// leaseMargin is what the lease must outlast a call's time-out by.
const leaseMargin = 2 * time.Second

// Quiesce is how long a holder waits with its first create after one that did not let go: its lease, its last call, and
// the market's silence before a create.
func (c Config) Quiesce() time.Duration { return c.LeaseTTL + c.CallTimeout + c.Pace.CreateGap }

// outbidSweeps is for how many sweeps a spot rental must be listed as neither running nor billed to be taken as outbid.
const outbidSweeps = 3

// policy is what an order accepted now lives by.
func (c Config) policy() rental.Policy {
	return rental.Policy{MaxCandidates: c.MaxCandidates, BootDeadline: c.BootDeadline, FailedBootUSD: c.FailedBootUSD, ProbeSSH: c.ProbeSSH, OutbidAfter: outbidSweeps * c.SweepInterval}
}
