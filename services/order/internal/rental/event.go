package rental

import (
	"time"

	"github.com/govalues/decimal"
)

// Event is something that happened to an order. The set is closed.
type Event interface{ event() }

// Asked makes the order; only from New.
//   - → PENDING
//   - → REJECTED or FAILED with Turned, CANCELLED with Forestalled
type Asked struct {
	// Turned is why it is not even tried; Rejected says that it is a matter of a limit or halt.
	Turned   *Failure
	Rejected bool
	// Forestalled: its cancel came before it.
	Forestalled bool
}

// Planned is a chosen server, its intent about to be recorded. It is illegal above the ceiling, after the place deadline,
// beyond the last candidate, while an intent may bill and once an end is wanted.
//   - PENDING, WAITING, PLACING (no open intent) → PLACING, and the call
type Planned struct {
	Intent Intent
	// Why counts what else was listed and why it was not taken, a sentence.
	Why string
}

// NoOffer says that no server of the newest book may be taken.
//   - PENDING, WAITING, PLACING → WAITING while wait_until allows, else FAILED
type NoOffer struct {
	// Reason counts what was there and why it was not taken, a sentence.
	Reason string
}

// Barred says that a limit forbids the server that fits.
//   - PENDING, PLACING, WAITING → WAITING while wait_until allows, else REJECTED, or FAILED once a server was asked for
type Barred struct{ Failure Failure }

// Called is the answer to the call of an intent.
//   - PLACING → PLACING (refused: the next server) or FAILED (refused: none left), UNCONFIRMED (everything else)
//   - PLACING with an end wanted, refused → CANCELLED, FAILED or ENDED
type Called struct {
	Number int
	// Refused is proved never applied. Otherwise the outcome is unknown, whatever was answered.
	Refused bool
	// NotSent: refused because no byte left this process, which says nothing of the server.
	NotSent bool
	// Look: one good read decides.
	Look   bool
	Reason string
}

// Recovered says that a writer found the order in its journal.
//   - PLACING with an open intent → UNCONFIRMED: it is never asked for again
type Recovered struct{}

// Sighting is a rental of ours as one list shows it.
type Sighting struct {
	RentalID int64
	Currency string
	// PerDay is what the market bills: per DAY, whole server, in Currency.
	PerDay  decimal.Decimal
	Started time.Time
	Up      bool
	Access  Access
	GPUs    []string
	// Spend is in Currency, without fees.
	Spend decimal.Decimal
}

// Seen is the rental of intent Number in a readable list.
//   - UNCONFIRMED, PLACING → PROVISIONING, or CANCELLING when an end is wanted or the price is not what was agreed
//   - PROVISIONING → RUNNING when usable without a probe
//   - PROVISIONING, RUNNING → CANCELLING when the price is no longer what was agreed
//   - RUNNING → CANCELLING when a spot rental lost its server and its bid is still listed
type Seen struct {
	Number int
	Sighting
}

// Probed is the answer of the rental's ssh port.
//   - PROVISIONING → RUNNING
type Probed struct {
	Number int
	OK     bool
}

// Absent is the proof that the call of an open intent was never applied; with Look, one good read.
//   - UNCONFIRMED → PLACING, or the wanted end
type Absent struct {
	Number int
	Reason string
}

// Gone is the proof that a rental ended. For an open intent it is the finished row of a rental never seen alive.
//   - PLACING, UNCONFIRMED → PLACING (the next server), FAILED (none left), or the wanted end
//   - PROVISIONING → PLACING or FAILED, INTERRUPTED (spot)
//   - RUNNING → ENDED, INTERRUPTED
//   - CANCELLING → CANCELLED, ENDED, FAILED, PLACING, INTERRUPTED (outbid)
type Gone struct {
	Number int
	// RentalID is set when the end was the first sight of it.
	RentalID int64
	Spend    decimal.Decimal
	EndedAt  time.Time
	// Proof is a sentence.
	Proof string
}

// EndAsked is a command to end the order.
//   - PENDING, WAITING, AWAITING_APPROVAL, PLACING without an open intent → CANCELLED
//   - PLACING, UNCONFIRMED → the end is recorded; cancelled at first sight
//   - PROVISIONING, RUNNING → CANCELLING
//   - CANCELLING → one more waits for the end
//   - terminal → settled as done
type EndAsked struct {
	// Operation is settled when the end is proved; without an id nobody waits for it here.
	Operation Operation
	By        string
	Reason    string
}

// ExtendAsked is a command to move the planned end.
//   - not ended, no end wanted → the same state, later
//   - else → nothing moves, and the command is told why
type ExtendAsked struct {
	Operation Operation
	By        time.Duration
	// Refused is why it is not moved: a limit.
	Refused *Failure
	// Reserved is what the newest intent then reserves, USD.
	Reserved decimal.Decimal
}

// Tick is the time: deadlines are compared with it.
//   - PENDING, AWAITING_APPROVAL, WAITING, PLACING → FAILED (place deadline)
//   - UNCONFIRMED → the end is recorded (place deadline)
//   - PROVISIONING → CANCELLING (boot deadline, place deadline, planned end), RUNNING unprobed
//   - RUNNING → CANCELLING (planned end), RUNNING (it is near)
//   - CANCELLING: the cancel is asked for again
type Tick struct {
	// ProbeProven says that a probe has succeeded from this installation before, so that silence means something.
	ProbeProven bool
	// Waits is why no create may go out now, whoever's; empty when one may.
	Waits string
}

func (Asked) event()       {}
func (Planned) event()     {}
func (NoOffer) event()     {}
func (Barred) event()      {}
func (Called) event()      {}
func (Recovered) event()   {}
func (Seen) event()        {}
func (Probed) event()      {}
func (Absent) event()      {}
func (Gone) event()        {}
func (EndAsked) event()    {}
func (ExtendAsked) event() {}
func (Tick) event()        {}

// Effect is something to be done after the record of a decision is in the journal, in order. The set is closed.
type Effect interface{ effect() }

// Record is to be appended before anything else is done.
type Record struct {
	// Event is the public name: "placing", "running".
	Event  string
	Reason string
	// Cause is "command", "market", "clock" or "writer".
	Cause   string
	By      string
	Settled []Settlement
}

// Settlement ends one operation.
type Settlement struct {
	Operation Operation
	// Failure is nil when it did what was asked.
	Failure *Failure
}

// Create asks the market for the intent, once.
type Create struct{ Number int }

// Cancel asks the market to end a rental; repeated until the end is proved.
type Cancel struct {
	RentalID int64
	Issue    string
}

// Probe asks the rental's ssh port for its banner.
type Probe struct {
	Number int
	Host   string
	Port   int
}

func (Record) effect() {}
func (Create) effect() {}
func (Cancel) effect() {}
func (Probe) effect()  {}
