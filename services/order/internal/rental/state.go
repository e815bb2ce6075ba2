package rental

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/govalues/decimal"
)

// State of an order.
type State uint8

// The states; the words are public.
const (
	New State = iota
	Pending
	AwaitingApproval
	Waiting
	Placing
	Unconfirmed
	Provisioning
	Running
	Cancelling
	Cancelled
	Ended
	Interrupted
	Failed
	Rejected
)

var stateNames = []string{
	"NEW", "PENDING", "AWAITING_APPROVAL", "WAITING", "PLACING", "UNCONFIRMED", "PROVISIONING", "RUNNING",
	"CANCELLING", "CANCELLED", "ENDED", "INTERRUPTED", "FAILED", "REJECTED",
}

// States lists every state.
func States() []State {
	all := make([]State, len(stateNames))
	for i := range all {
		all[i] = State(i)
	}
	return all
}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("STATE_%d", uint8(s))
}

// MarshalText writes the public word.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the public word and refuses any other: a journal of a later version must not be half understood.
func (s *State) UnmarshalText(b []byte) error {
	i := slices.Index(stateNames, string(b))
	if i < 0 {
		return fmt.Errorf("unknown state %q: written by a later version?", b)
	}
	*s = State(i)
	return nil
}

// Terminal says that nothing further happens to the order by itself.
func (s State) Terminal() bool { return s >= Cancelled }

// Held says that a rental of ours exists, as far as is known.
func (s State) Held() bool { return s == Provisioning || s == Running || s == Cancelling }

// Outcome of an intent.
type Outcome string

// Outcomes. Open and Placed may bill; the others do not.
const (
	// Open: asked for or about to be, not proved either way.
	Open Outcome = "open"
	// Refused: proved never applied.
	Refused Outcome = "refused"
	// NotThere: looked for over a whole window and not there.
	NotThere Outcome = "absent"
	// Placed: the rental exists.
	Placed Outcome = "placed"
	// Over: the rental existed and is proved ended.
	Over Outcome = "ended"
)

// UnmarshalText refuses an outcome of a later version: it might bill, and would be taken for one that does not.
func (o *Outcome) UnmarshalText(b []byte) error {
	switch word := Outcome(b); word {
	case Open, Refused, NotThere, Placed, Over:
		*o = word
		return nil
	}
	return fmt.Errorf("unknown outcome %q of an intent: written by a later version?", b)
}

// Live says that the intent may bill.
func (o Outcome) Live() bool { return o == Open || o == Placed }

// Requirements a server must meet; zero means not asked.
type Requirements struct {
	MinVRAMGB      float64  `json:"min_vram_gb,omitempty"`
	MinReliability float64  `json:"min_reliability,omitempty"`
	Countries      []string `json:"countries,omitempty"`
	MinCUDA        string   `json:"min_cuda,omitempty"`
	MinDownMbps    float64  `json:"min_down_mbps,omitempty"`
	MinUpMbps      float64  `json:"min_up_mbps,omitempty"`
	MinRAMGB       float64  `json:"min_ram_gb,omitempty"`
	MinDiskGB      float64  `json:"min_disk_gb,omitempty"`
}

// Ask is what a client wants, with every default filled in.
type Ask struct {
	// GPU is a slug; Count the GPUs wanted, zero for any.
	GPU          string       `json:"gpu"`
	Count        int          `json:"count,omitempty"`
	Requirements Requirements `json:"requirements,omitzero"`
	// Ceiling is USD per HOUR, whole server, before fees; never above limits.price_per_hour. CeilingGiven says that
	// the client named one (as asked, before the cap: CeilingAsked).
	Ceiling      decimal.Decimal `json:"ceiling"`
	CeilingGiven bool            `json:"ceiling_given,omitempty"`
	CeilingAsked decimal.Decimal `json:"ceiling_asked,omitzero"`
	// MarketType is "spot", "on-demand" or "any".
	MarketType string `json:"market_type"`
	// Currency is a coin, or "auto".
	Currency string         `json:"currency"`
	Image    string         `json:"image"`
	Ports    map[int]string `json:"ports,omitempty"`
	// Sealed holds env and command.
	Sealed string `json:"sealed,omitempty"`
	SSHKey string `json:"ssh_key,omitempty"`
	// Duration is zero for "never".
	Duration  time.Duration     `json:"duration,omitempty"`
	WaitUntil time.Time         `json:"wait_until,omitzero"`
	Labels    map[string]string `json:"labels,omitempty"`
	// Paper decides everything and rents nothing.
	Paper bool `json:"paper,omitempty"`
	// GPUAsSent and PriceAsSent are echoed in the seed's texts.
	GPUAsSent   string `json:"gpu_as_sent,omitempty"`
	PriceAsSent string `json:"price_as_sent,omitempty"`
}

// WantsSSH says that port 22 was asked for.
func (a Ask) WantsSSH() bool { return a.Ports[22] == "tcp" }

// Callback is where the outcome of an operation is told.
type Callback struct {
	URL         string `json:"url"`
	Seed        bool   `json:"seed,omitempty"`
	OrderAsSent string `json:"order_as_sent,omitempty"`
}

// Operation is one command that waits to be settled.
type Operation struct {
	ID string `json:"id"`
	// Command is "order.create" or "order.cancel".
	Command  string    `json:"command"`
	Seq      uint64    `json:"seq"`
	Callback *Callback `json:"callback,omitempty"`
}

// Failure says why something ended otherwise than asked.
type Failure struct {
	// Code is UPPER_SNAKE, the same word at every door.
	Code      string `json:"code"`
	Message   string `json:"message"`
	Retryable bool   `json:"retryable,omitempty"`
	// Seed is the text the seed's callback carries.
	Seed string `json:"seed,omitempty"`
}

// Server is the machine of an intent.
type Server struct {
	ID          int64   `json:"id"`
	GPU         string  `json:"gpu"`
	FullName    string  `json:"full_name"`
	GPUCount    int     `json:"gpu_count"`
	VRAMGB      float64 `json:"vram_gb,omitempty"`
	Country     string  `json:"country,omitempty"`
	Reliability float64 `json:"reliability,omitempty"`
}

// Access is how a rental is reached.
type Access struct {
	Host     string      `json:"host,omitempty"`
	TCPPorts map[int]int `json:"tcp_ports,omitempty"`
	HTTPHost string      `json:"http_host,omitempty"`
}

// Intent is the durable record that server S is about to be asked for with markers M. It is never asked for twice.
type Intent struct {
	Number int    `json:"number"`
	Server Server `json:"server"`
	// Type is "spot" or "on-demand".
	Type     string `json:"type"`
	Currency string `json:"currency"`
	// PerDay is what is sent: the required price or the bid, per DAY, whole server, in Currency.
	PerDay decimal.Decimal `json:"per_day"`
	// USDRate is USD for one Currency at the time of the intent; USDPerHour is PerDay in USD per hour.
	USDRate    decimal.Decimal `json:"usd_rate"`
	USDPerHour decimal.Decimal `json:"usd_per_hour"`
	// Markers are container ports: the installation's, then this intent's.
	Markers []int  `json:"markers,omitempty"`
	Image   string `json:"image"`
	// Baseline is the highest rental id known before the call.
	Baseline int64 `json:"baseline"`
	// Reserved is USD: price × time to the end plus fees.
	Reserved decimal.Decimal `json:"reserved"`
	// At is when it was recorded; CallBy when the call is given up, or was answered.
	At     time.Time `json:"at"`
	CallBy time.Time `json:"call_by"`
	// Epoch of the writer that recorded it.
	Epoch   uint64  `json:"epoch"`
	Outcome Outcome `json:"outcome"`
	Reason  string  `json:"reason,omitempty"`
	// Called says that the call's answer was recorded; without it the intent was found after a restart.
	Called bool `json:"called,omitempty"`
	// NotSent says that the call never left this process: the server may be asked for again, by a new intent.
	NotSent bool `json:"not_sent,omitempty"`
	// MaxLength is the longest rental the host allows; zero when it states none.
	MaxLength time.Duration `json:"max_length,omitempty"`
	// Shortened is the rental length the host allows when it is below what was asked; zero otherwise.
	Shortened time.Duration `json:"shortened,omitempty"`
	// Look says that the market named the server taken, perhaps by us: one good read decides.
	Look bool `json:"look,omitempty"`
	// What the market shows of it.
	RentalID   int64           `json:"rental_id,omitempty"`
	RealPerDay decimal.Decimal `json:"real_per_day,omitzero"`
	Started    time.Time       `json:"started,omitzero"`
	BootBy     time.Time       `json:"boot_by,omitzero"`
	Up         bool            `json:"up,omitempty"`
	Access     Access          `json:"access,omitzero"`
	GPUs       []string        `json:"gpus,omitempty"`
	// Spend is in Currency, without fees, as the market states it.
	Spend decimal.Decimal `json:"spend,omitzero"`
	// FrozenSince is when a spot rental that ran was first listed as not running and not billed any more.
	FrozenSince time.Time `json:"frozen_since,omitzero"`
	// FailedBoot says that it never became usable.
	FailedBoot bool      `json:"failed_boot,omitempty"`
	EndedAt    time.Time `json:"ended_at,omitzero"`
}

// reachable says that the market has named the address of the rental's ssh port.
func (i *Intent) reachable() bool { return i.Access.TCPPorts[22] != 0 && i.Access.Host != "" }

// Policy is the settings an order lives by, fixed when it is accepted so that a replay decides the same.
type Policy struct {
	// MaxCandidates is how many servers are tried.
	MaxCandidates int `json:"max_candidates"`
	// BootDeadline is how long a rental may take to become usable.
	BootDeadline time.Duration `json:"boot_deadline"`
	// OutbidAfter is how long a spot rental must be listed as neither running nor billed to be taken as outbid.
	OutbidAfter time.Duration `json:"outbid_after,omitempty"`
	// FailedBootUSD is what failed boots may cost together.
	FailedBootUSD decimal.Decimal `json:"failed_boot_usd"`
	// ProbeSSH asks the ssh port for its banner before the order is called RUNNING.
	ProbeSSH bool `json:"probe_ssh,omitempty"`
}

// EndKind says why an end is wanted. An end once wanted bars every further candidate.
type EndKind string

// Kinds of wanted ends.
const (
	ByCommand       EndKind = "asked"
	ByPlaceDeadline EndKind = "place_deadline"
	ByPlan          EndKind = "ends_at"
)

// UnmarshalText refuses a kind of a later version.
func (k *EndKind) UnmarshalText(b []byte) error {
	switch word := EndKind(b); word {
	case ByCommand, ByPlaceDeadline, ByPlan:
		*k = word
		return nil
	}
	return fmt.Errorf("unknown kind of end %q: written by a later version?", b)
}

// End is a wanted end.
type End struct {
	Kind   EndKind   `json:"kind"`
	At     time.Time `json:"at"`
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
}

// Order is the whole state of one order; its JSON is what the journal keeps.
type Order struct {
	ID         string    `json:"id"`
	Client     string    `json:"client"`
	Account    string    `json:"account"`
	State      State     `json:"state"`
	Revision   uint64    `json:"revision"`
	Ask        Ask       `json:"ask"`
	Created    time.Time `json:"created"`
	Updated    time.Time `json:"updated"`
	CommandSeq uint64    `json:"command_seq"`
	// Create is the operation that made it; CreateSettled that its outcome was told.
	Create        Operation `json:"create"`
	CreateSettled bool      `json:"create_settled,omitempty"`
	// Turned: it was not even accepted, so no limit counts it.
	Turned bool `json:"turned,omitempty"`
	// CreateFailure is how the create operation was settled when it failed.
	CreateFailure *Failure `json:"create_failure,omitempty"`
	// Cancels wait for the end to be proved.
	Cancels []Operation `json:"cancels,omitempty"`
	// Told are the ids of cancels and extensions that were settled: none is settled twice.
	Told []string `json:"told,omitempty"`
	// Policy is what the settings said when the order was accepted.
	Policy Policy `json:"policy"`
	// PlaceBy is the place deadline, EndsAt the planned end (zero for "never").
	PlaceBy time.Time `json:"place_by"`
	EndsAt  time.Time `json:"ends_at,omitzero"`
	Intents []Intent  `json:"intents,omitempty"`
	Wanted  *End      `json:"wanted,omitempty"`
	// Ending is why the held rental is being ended while the order itself may live on: "boot", "price" or
	// "outbid"; else empty.
	Ending  string   `json:"ending,omitempty"`
	Failure *Failure `json:"failure,omitempty"`
	// Unprobed: usable as far as the market says, ssh never answered and no probe ever succeeded here.
	Unprobed bool `json:"unprobed,omitempty"`
	// Probed: ssh answered.
	Probed bool `json:"probed,omitempty"`
	// Warned is the nearest of the times before the end that was told.
	Warned time.Duration `json:"warned,omitempty"`
	// Trace is the W3C trace context of the command that made it.
	Trace string `json:"trace,omitempty"`
}

// Current is the newest intent, nil before the first.
func (o *Order) Current() *Intent {
	if len(o.Intents) == 0 {
		return nil
	}
	return &o.Intents[len(o.Intents)-1]
}

// OpenIntent is the intent that is not proved either way, nil when there is none.
func (o *Order) OpenIntent() *Intent {
	if i := o.Current(); i != nil && i.Outcome == Open {
		return i
	}
	return nil
}

// HeldIntent is the intent whose rental exists, nil when there is none.
func (o *Order) HeldIntent() *Intent {
	if i := o.Current(); i != nil && i.Outcome == Placed {
		return i
	}
	return nil
}

// mostNotSent bounds how many calls that never left this process are forgiven.
const mostNotSent = 20

// tried counts the candidates used up: servers that were asked for.
func (o *Order) tried() int {
	notSent := 0
	for n := range o.Intents {
		if o.Intents[n].NotSent {
			notSent++
		}
	}
	return len(o.Intents) - min(notSent, mostNotSent)
}

// WantsServer says that the order is looking for a server now.
func (o *Order) WantsServer() bool {
	return o.Wanted == nil && o.State != AwaitingApproval && o.idle()
}

// idle says that nothing of the order bills or may bill.
func (o *Order) idle() bool {
	switch o.State {
	case Pending, AwaitingApproval, Waiting:
		return true
	case Placing:
		return o.OpenIntent() == nil
	default:
		return false
	}
}

// clone copies what Decide changes, so that a refused decision leaves the caller's order as it was.
func (o Order) clone() Order {
	o.Intents = slices.Clone(o.Intents)
	o.Cancels = slices.Clone(o.Cancels)
	o.Told = slices.Clone(o.Told)
	return o
}

// Marshal is the journal's form.
func (o *Order) Marshal() (json.RawMessage, error) {
	b, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encode order %s: %w", o.ID, err)
	}
	return b, nil
}

// Unmarshal reads the journal's form.
func Unmarshal(b []byte) (*Order, error) {
	var o Order
	if err := json.Unmarshal(b, &o); err != nil {
		return nil, fmt.Errorf("decode order: %w", err)
	}
	return &o, nil
}
