// Package market is the port a marketplace is seen through: offers, rentals, and the outcome of a call that
// spends or stops spending. It guarantees one vocabulary of units (money native per DAY and whole server inside,
// USD per hour beside it) and that an answer is Refused only where the market's own semantics prove that nothing
// was rented. Adapters stand in sub-packages; markettest is the suite they must pass.
package market

import (
	"context"
	"time"

	"github.com/govalues/decimal"
)

// Type is how a server is rented.
type Type string

// The two ways to rent.
const (
	OnDemand Type = "on-demand"
	Spot     Type = "spot"
)

// Quote is the price of one server in one coin.
type Quote struct {
	// Currency is the coin as the market names it.
	Currency string
	// PerDay is the whole server, per DAY, in Currency, before fees: the number the market keeps.
	PerDay decimal.Decimal
	// USDPerHour is the whole server, per HOUR, before fees; meaningful only when Priced.
	USDPerHour decimal.Decimal
	// USDRate is USD for one unit of Currency; meaningful only when Priced.
	USDRate decimal.Decimal
	// Priced says that a rate is known. An unpriced coin is never rented in.
	Priced bool
	// Allowed says that the server takes the coin.
	Allowed bool
}

// Offer is one listed server.
type Offer struct {
	ServerID int64
	// GPU is the slug of the model; Name the display name without a count; FullName what the market prints for one GPU.
	GPU, Name, FullName string
	GPUCount            int
	// VRAMGB is memory per GPU.
	VRAMGB float64
	// Rented is true for on-demand rentals; the market does not show spot occupancy.
	Rented bool
	// MaxRental is the longest rental the host allows.
	MaxRental      time.Duration
	OnDemand, Spot []Quote
	// Reliability is 0..1.
	Reliability       float64
	Rating            float64
	Ratings           int
	Country, CUDA     string
	DownMbps, UpMbps  float64
	RAMGB, DiskGB     float64
	PCIeGen, PCIeLane int
	Owner             int64
	// Bait marks coins that disagree in USD by more than 15 %, both stated by the answer itself.
	Bait bool
}

// Rate is USD for one unit of a coin, and where it comes from: "answer", "spot_marketplace" or "setting".
type Rate struct {
	USD    decimal.Decimal
	Source string
}

// Listing is one read of the whole market.
type Listing struct {
	// Began is when the call was begun: what it shows is no older.
	Began  time.Time
	Offers []Offer
	// Dropped counts rows that made no sense.
	Dropped int
	// Rates per coin.
	Rates map[string]Rate
	// Digest of the answer's bytes: equal digests mean an unchanged market.
	Digest string
}

// Rental is what the market holds and bills.
type Rental struct {
	ID, ServerID int64
	Type         Type
	Currency     string
	// PerDay is in Currency, whole server, without fees.
	PerDay decimal.Decimal
	Image  string
	// Created is the market's own time, whole seconds.
	Created time.Time
	// Up says that the container runs (mon_container 2).
	Up bool
	// Expired is true on finished rentals.
	Expired bool
	// Ended is set on finished rentals.
	Ended time.Time
	// Spend so far, in Currency, without fees.
	Spend decimal.Decimal
	// CreationFee, in Currency.
	CreationFee decimal.Decimal
	// TCPPorts maps container to public port; empty until assigned and after the end.
	TCPPorts map[int]int
	// HTTPPort is the container port published as http, zero for none; HTTPHost its public name.
	HTTPPort int
	HTTPHost string
	// Host is where TCPPorts are reached.
	Host string
	// GPUs, one full name each: "NVIDIA GeForce RTX 4090".
	GPUs []string
	// Limit is the market's own maximum for this rental.
	Limit time.Duration
}

// Rentals is one readable answer of the account's list. An unreadable one is an error.
type Rentals struct {
	// Began is when the call was begun.
	Began   time.Time
	Rentals []Rental
	// Limit is how many rentals the account may hold; a list with as many live rows may be cut.
	Limit int
	// WithEnded says that finished rentals were asked for.
	WithEnded bool
}

// CreateRequest asks for one server. One call, never repeated.
type CreateRequest struct {
	ServerID int64
	Type     Type
	Currency string
	Image    string
	// Ports maps container port to "tcp" or "http", marker ports included.
	Ports   map[int]string
	Env     map[string]string
	Command string
	// SSHKey or SSHPassword; at most 3072 and 32 characters.
	SSHKey, SSHPassword string
	// AutoSSH wraps the image with an ssh server.
	AutoSSH bool
	// RequiredPrice is per day in Currency, on demand: start only if the price is still this. Zero: not sent.
	RequiredPrice decimal.Decimal
	// Bid is per day in Currency, spot.
	Bid decimal.Decimal
}

// Verdict is what an answer proves.
type Verdict uint8

const (
	// Unknown proves nothing: the call may have been applied. Also code 0, code 5 and every HTTP 5xx.
	Unknown Verdict = iota
	// Refused proves that nothing was applied.
	Refused
	// Look means that somebody, perhaps we, holds the server: one good read decides.
	Look
	// Done means applied, for calls where that needs no proof (a cancel answered code 0 is still verified by reading).
	Done
)

func (v Verdict) String() string { return [...]string{"unknown", "refused", "look", "done"}[v] }

// Outcome is the answer to a call that changes something.
type Outcome struct {
	Verdict Verdict
	// Reason is the market's own word ("server-already-rented", "code-0", "code-5") or ours ("timeout", "not-sent").
	Reason string
	// Sent says that bytes may have left this process.
	Sent bool
	// MinPrice comes with too_low_price: per day, in the currency asked.
	MinPrice decimal.Decimal
	// Code and Status are the market's; zero when none came.
	Code, Status int
	// Throttled says that the answer was code 5: double the spacing.
	Throttled bool
}

// Wallet is one balance of the account.
type Wallet struct {
	Currency string
	Balance  decimal.Decimal
}

// Offers lists the market. Needs no key.
type Offers interface {
	Offers(ctx context.Context) (Listing, error)
}

// Reader reads the account.
type Reader interface {
	// Rentals lists the account's rentals, finished ones too if withEnded.
	Rentals(ctx context.Context, withEnded bool) (Rentals, error)
	// Wallets lists balances.
	Wallets(ctx context.Context) ([]Wallet, error)
}

// Ender reads the account and ends rentals. It cannot rent.
type Ender interface {
	Reader
	// Cancel asks to end a rental. Only a later read proves that it ended.
	Cancel(ctx context.Context, id int64, issue string) Outcome
}

// Account reads and changes the account.
type Account interface {
	Ender
	// Create sends one request and never a second.
	Create(ctx context.Context, r CreateRequest) Outcome
}

// ThrottledError says that a read was answered code 5; the caller doubles its spacing.
type ThrottledError struct{ Endpoint string }

func (e *ThrottledError) Error() string {
	return e.Endpoint + ": the market says too many requests (code 5)"
}

// KeyError says that the market does not accept the account's key (code 3).
type KeyError struct{ Endpoint string }

func (e *KeyError) Error() string {
	return e.Endpoint + ": the market does not accept the API key (code 3); check it and restart"
}
