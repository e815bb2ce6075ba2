// Package settings is renthook's configuration by name: every setting with its unit, its default and its rules,
// and the names that existing senders already have in their environment.
//
// It guarantees that what Load returns without an error has passed every rule here, that every problem is
// reported at once, and that a key of the market alone never leaves the simulator. It refuses mode live, weak
// secrets, listeners for gRPC beyond this machine without credentials, the real market's address in mode sim,
// and limits this version does not hold. It opens no connection and starts nothing.
package settings

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/pkg/secret"
)

// Modes.
const (
	// Sim is the simulator; nothing outside is called for a market.
	Sim = "sim"
	// Observe is the real market, reads only.
	Observe = "observe"
	// Live is the real market. This version refuses it.
	Live = "live"
)

// Settings are all of them. The yaml tags, joined by full stops, are the names.
type Settings struct {
	// Mode is Sim or Observe.
	Mode         string       `yaml:"mode"`
	Installation Installation `yaml:"installation"`
	Market       Market       `yaml:"market"`
	Account      Account      `yaml:"account"`
	NATS         NATS         `yaml:"nats"`
	Ingress      Ingress      `yaml:"ingress"`
	Order        Order        `yaml:"order"`
	Pricewatch   Service      `yaml:"pricewatch"`
	Notifier     Service      `yaml:"notifier"`
	Limits       Limits       `yaml:"limits"`
	Fees         Fees         `yaml:"fees"`
	Watch        Watch        `yaml:"watch"`
	Watchdog     Watchdog     `yaml:"watchdog"`
	Egress       Egress       `yaml:"egress"`
	Notify       Notify       `yaml:"notify"`
	Telemetry    Telemetry    `yaml:"telemetry"`
	// Clients are who may ask, in the order they were stated.
	Clients []Client `yaml:"clients"`
}

// Installation is what makes this installation differ from another.
type Installation struct {
	// Key seals what must not be read on the bus, and derives passwords and marker ports: at least 32 bytes.
	Key secret.String `yaml:"key"`
}

// Market says how the market is reached.
type Market struct {
	// URL is the API's base. Empty in mode sim means the simulator that is started with everything else.
	URL string `yaml:"url"`
	// Address is where that simulator listens.
	Address string `yaml:"address"`
	// Key is the account's key on the market.
	Key secret.String `yaml:"key"`
	// PollInterval is the time between two reads of the offers. 0 means 15 s while somebody waits for an
	// offer, else 120 s.
	PollInterval time.Duration `yaml:"poll_interval"`
	// CallGap is the least time from the end of one call of the account to the start of the next.
	CallGap time.Duration `yaml:"call_gap"`
	// CreateGap is the least silence before a create.
	CreateGap time.Duration `yaml:"create_gap"`
	// Rates are USD for one coin, by the market's name of the coin, for coins whose rate the market does not
	// state. The simulator's defaults are arbitrary.
	Rates map[string]string `yaml:"rates"`
}

// SimulatedKey is the simulator's own account, the one that its control calls mean when they name none.
const SimulatedKey = "sim-main"

// CallKey is what the market is called with. In mode sim a key from outside is never sent anywhere.
func (s Settings) CallKey() secret.String {
	if s.Mode == Sim {
		return secret.New(SimulatedKey)
	}
	return s.Market.Key
}

// KeyFingerprint tells one account of the market from another without its key.
func (s Settings) KeyFingerprint() string {
	sum := sha256.Sum256([]byte("renthook market key\x00" + s.CallKey().Reveal()))
	return hex.EncodeToString(sum[:8])
}

// Account is the account on the market.
type Account struct {
	// Name is ours for it: lower-case letters, digits and hyphens.
	Name string `yaml:"name"`
}

// NATS is the bus.
type NATS struct {
	// URL is the server that services connect to.
	URL string `yaml:"url"`
	// Address is where the embedded server listens.
	Address string `yaml:"address"`
	// User and Password are this service's.
	User     string        `yaml:"user"`
	Password secret.String `yaml:"password"`
	// Replicas of every stream: 1 or 3.
	Replicas int `yaml:"replicas"`
}

// Service is a service that is reached over gRPC.
type Service struct {
	// GRPCAddress is where it listens, and where the others find it.
	GRPCAddress string `yaml:"grpc_address"`
}

// Ingress are the HTTP doors.
type Ingress struct {
	// Address is where HTTP is served.
	Address string `yaml:"address"`
	// PublicURL is where the internet reaches ingress: rentals are told by RENTHOOK_RELEASE_URL how to end themselves.
	// Empty tells them nothing.
	PublicURL string `yaml:"public_url"`
	// WebhookSecret is the one shared secret of existing senders. Load gives it to a client as well (see Local);
	// whoever verifies looks at the clients.
	WebhookSecret secret.String `yaml:"webhook_secret"`
	// LegacyDedupeWindow is how long the same keyless ask counts as one. 0 turns that off.
	LegacyDedupeWindow time.Duration `yaml:"legacy_dedupe_window"`
	// LegacySignature is allow, warn or deny.
	LegacySignature string `yaml:"legacy_signature"`
	// AllowWeakLegacySecret lets a short or well-known secret pass.
	AllowWeakLegacySecret bool `yaml:"allow_weak_legacy_secret"`
	// TrustedProxies are believed about whom they forward for.
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"`
}

// Order is the order service.
type Order struct {
	// GRPCAddress is where it listens, and where the others find it.
	GRPCAddress string `yaml:"grpc_address"`
	// ConfirmWindow is how long an unanswered create may still show up, counted from its deadline.
	ConfirmWindow time.Duration `yaml:"confirm_window"`
	// ConfirmWindowBlind is the same when nothing else of ours shows that the market's list is fresh.
	ConfirmWindowBlind time.Duration `yaml:"confirm_window_blind"`
	// CallTimeout bounds one call of the market.
	CallTimeout time.Duration `yaml:"call_timeout"`
	// LeaseTTL is how long a holder of the account that vanished bars its successor: whole seconds, at least 10, and
	// two thirds of it above the call time-out and 2 s, or no create could go out.
	LeaseTTL time.Duration `yaml:"lease_ttl"`
	// BootDeadline is how long a rental may take to become usable.
	BootDeadline time.Duration `yaml:"boot_deadline"`
	// PlaceDeadline is how long an order may take to have a usable rental.
	PlaceDeadline time.Duration `yaml:"place_deadline"`
	// BootBudget is what failed boots of one order may cost together, USD.
	BootBudget decimal.Decimal `yaml:"boot_budget"`
	// MaxCandidates is how many servers one order tries.
	MaxCandidates int `yaml:"max_candidates"`
	// SweepInterval is the time between two sweeps.
	SweepInterval time.Duration `yaml:"sweep_interval"`
	// MaxDuration ends an order that states no end.
	MaxDuration time.Duration `yaml:"max_duration"`
	// MinReliability is the least reliability of a server, 0 to 1, unless the ask says otherwise.
	MinReliability decimal.Decimal `yaml:"min_reliability"`
	// SpotHeadroom is what a spot bid may be above the floor, as a factor.
	SpotHeadroom decimal.Decimal `yaml:"spot_headroom"`
	// MarkerPorts is how many container ports mark a rental as ours: 2, 1 or 0.
	MarkerPorts int `yaml:"marker_ports"`
	// RequiredPrice sends the price we saw with a create, so that a dearer one is refused by the market.
	RequiredPrice bool `yaml:"required_price"`
	// SSHProbe asks the SSH port for an answer before a rental counts as running.
	SSHProbe bool `yaml:"ssh_probe"`
	// SSHKey is the public key put on every rental whose ask brings none.
	SSHKey string `yaml:"ssh_key"`
	// Image is the image of an ask that names none.
	Image string `yaml:"image"`
	// Ports are the container ports of an ask that names none, with their kind: tcp or http.
	Ports map[string]string `yaml:"ports"`
	// Currency is the coin to pay with; auto takes the cheapest allowed one with enough balance.
	Currency string `yaml:"currency"`
	// EndsFile is where order keeps the sealed list of what may bill and until when, and where the watchdog reads it;
	// empty for none. `renthook up` keeps one in its data directory.
	EndsFile string `yaml:"ends_file"`
}

// Watchdog ends what is ours and overdue when everything else is down.
type Watchdog struct {
	// Margin is how long after its end a rental must still be there to be ended by the watchdog.
	Margin time.Duration `yaml:"margin"`
	// Interval is the time between two reads of the market while nothing is overdue.
	Interval time.Duration `yaml:"interval"`
}

// Limits hold for the account.
type Limits struct {
	// OrdersPerHour is how many orders are taken in an hour.
	OrdersPerHour int `yaml:"orders_per_hour"`
	// CreatesPerHour is how many creates are sent in an hour.
	CreatesPerHour int `yaml:"creates_per_hour"`
	// LiveRentals is how many rentals may live at once.
	LiveRentals int `yaml:"live_rentals"`
	// PricePerHour is USD per hour for a whole server: the ceiling when an ask gives none, and the cap on any.
	PricePerHour decimal.Decimal `yaml:"price_per_hour"`
	// BurnPerHour is USD per hour that everything that may bill may cost together, fees included; 0 is none.
	BurnPerHour decimal.Decimal `yaml:"burn_per_hour"`
	// SpendPerDay and SpendPerMonth are USD, fees included, for what has been spent and what rentals reserve until their
	// end or the day's or month's; 0 is none.
	SpendPerDay   decimal.Decimal `yaml:"spend_per_day"`
	SpendPerMonth decimal.Decimal `yaml:"spend_per_month"`
	// AtSpendLimit is stop (nothing new is rented) or close (what has been spent reached the limit: every order is ended).
	AtSpendLimit string `yaml:"at_spend_limit"`
	// Timezone is where days and months begin, by its name in the tz database.
	Timezone string `yaml:"timezone"`
	// RequestsPerMinute is how many HTTP requests a client, or an address that is none, may send.
	RequestsPerMinute int `yaml:"requests_per_minute"`
}

// ClientLimits hold for one client, within the account's; 0 is none. The units are those of Limits.
type ClientLimits struct {
	OrdersPerHour int             `yaml:"orders_per_hour"`
	LiveRentals   int             `yaml:"live_rentals"`
	PricePerHour  decimal.Decimal `yaml:"price_per_hour"`
	BurnPerHour   decimal.Decimal `yaml:"burn_per_hour"`
	SpendPerDay   decimal.Decimal `yaml:"spend_per_day"`
	SpendPerMonth decimal.Decimal `yaml:"spend_per_month"`
}

// Fees are the market's, shown beside prices and counted against budgets.
type Fees struct {
	// OnDemand and Spot are shares of the price: 0.05 is 5 %.
	OnDemand decimal.Decimal `yaml:"on_demand"`
	Spot     decimal.Decimal `yaml:"spot"`
	// Creation is USD for each create.
	Creation decimal.Decimal `yaml:"creation"`
}

// Watch are the standing rules.
type Watch struct {
	// DefaultExpiry ends a watch that states no end.
	DefaultExpiry time.Duration `yaml:"default_expiry"`
}

// Egress is what may be called on behalf of a client.
type Egress struct {
	// AllowNetworks may be called although they are private, on any port and by http.
	AllowNetworks []netip.Prefix `yaml:"allow_networks"`
}

// Notify is what is told to whom.
type Notify struct {
	// SSHInChannel puts SSH lines into channel messages, where everyone in the channel reads them.
	SSHInChannel bool `yaml:"ssh_in_channel"`
	// Endpoints are where events go besides the callbacks of orders.
	Endpoints []Endpoint `yaml:"endpoints"`
}

// Endpoint is a channel that events are sent to.
type Endpoint struct {
	// Name is a token of subjects: letters, digits, underscores and hyphens.
	Name string `yaml:"name"`
	// Channel is slack or discord.
	Channel string `yaml:"channel"`
	// URL is the channel's webhook; whoever knows it may post.
	URL secret.String `yaml:"url"`
	// Events are the order events sent, without "order."; "*" is all.
	Events []string `yaml:"events"`
	// Labels must all stand on an order for its events to be sent; none means any order.
	Labels map[string]string `yaml:"labels"`
}

// Telemetry is what is told about the process.
type Telemetry struct {
	// Address serves /metrics, /livez and /readyz.
	Address string `yaml:"address"`
	// LogLevel is debug, info, warn or error; LogFormat is json or text.
	LogLevel  string `yaml:"log_level"`
	LogFormat string `yaml:"log_format"`
}

// Client is who holds credentials.
type Client struct {
	// Name is a token of subjects.
	Name string `yaml:"name"`
	// Account is whose money it spends; empty is account.name.
	Account string `yaml:"account"`
	// Secrets sign webhooks, in both schemes. Several may be valid, so that one can be replaced.
	Secrets []secret.String `yaml:"secrets"`
	// Tokens are bearer tokens.
	Tokens []secret.String `yaml:"tokens"`
	// Scopes say what it may do; see Scopes of this package.
	Scopes []string `yaml:"scopes"`
	// SeedDoor says that its secrets verify the routes under /webhook/.
	SeedDoor bool `yaml:"seed_door"`
	// Limits are its own.
	Limits ClientLimits `yaml:"limits"`
}

// May says whether the client holds a scope.
func (c Client) May(scope string) bool {
	for _, s := range c.Scopes {
		if s == scope || s == "*" {
			return true
		}
	}
	return false
}

// Scopes are what a client can be allowed.
var Scopes = []string{"orders:create", "orders:cancel", "rentals:cancel_any", "control", "read", "*"}

// Events are the order events an endpoint can name.
var Events = []string{
	"accepted", "approval_requested", "waiting", "placing", "unconfirmed", "placed", "running", "cancelling", "cancelled",
	"ended", "interrupted", "failed", "rejected", "extended", "extend_failed", "expiring", "price_mismatch", "cancel_failed", "reported", "alarm", "halted", "resumed", "closed", "*",
}

// chatEvents go to the Slack and Discord URLs of existing environments.
var chatEvents = []string{"placed", "running", "failed", "cancelled"}
