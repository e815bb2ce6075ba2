// Package world is what the journal of an account says, folded: orders, operations, errands and which commands have a
// record. It guarantees that folding the same records gives the same world, and that a record of a later version it
// cannot understand stops the fold instead of being half understood. It writes nothing and calls nobody.
//
// One World serves a process: the writer puts into it what it has appended, a follower what it reads; everybody reads.
package world

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/renthook/renthook/pkg/journal"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/order/internal/rental"
)

// Errand is a command that is about the account and not about one of our orders.
type Errand struct {
	// Operation is what waits to be settled.
	Operation rental.Operation `json:"operation"`
	Client    string           `json:"client"`
	// Kind is "report", "cancel" of a rental that is no order of ours, or "close" of everything that is.
	Kind string `json:"kind"`
	// Whose orders a close ends; empty for all.
	Whose string `json:"whose,omitempty"`
	// RentalID of a cancel.
	RentalID int64     `json:"rental_id,omitempty"`
	Accepted time.Time `json:"accepted"`
	Settled  bool      `json:"settled,omitempty"`
	// Called: a cancel was sent, so the rental was seen.
	Called bool `json:"called,omitempty"`
}

// Halt stops new rentals: those of one client, or with no client the whole account's.
type Halt struct {
	Client string    `json:"client,omitempty"`
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
	// Close: what was rented was ended too.
	Close bool `json:"close,omitempty"`
	// Seq in COMMANDS of the command that asked.
	Seq uint64 `json:"seq,omitempty"`
}

// Resume lifts the halt of a client, or of the account.
type Resume struct {
	Client string `json:"client,omitempty"`
}

// Internal is the writer's own part of a record.
type Internal struct {
	Order  *rental.Order `json:"order,omitempty"`
	Errand *Errand       `json:"errand,omitempty"`
	// Halt and Resume change what may be rented.
	Halt   *Halt   `json:"halt,omitempty"`
	Resume *Resume `json:"resume,omitempty"`
	// Disown is a rental of the market of which a person says that it is not ours.
	Disown int64 `json:"disown,omitempty"`
	// Forestall names an operation whose cancel came first.
	Forestall string `json:"forestall,omitempty"`
	// Commands have their first record in this one.
	Commands []uint64 `json:"commands,omitempty"`
	// Holder and Released mark the writer's first and last record.
	Holder   string `json:"holder,omitempty"`
	Released bool   `json:"released,omitempty"`
}

// settled is the part of a record's public settlement that the fold needs.
type settled struct {
	OperationID string `json:"operationId"`
	Succeeded   bool   `json:"succeeded"`
	Failure     *struct {
		Code      string `json:"code"`
		Message   string `json:"message"`
		Retryable bool   `json:"retryable"`
	} `json:"failure"`
}

// body is the part of a record that the fold reads.
type body struct {
	Time     time.Time `json:"time"`
	Settled  []settled `json:"settled"`
	Internal *Internal `json:"internal"`
}

// Operation is the answerable side of one command, as the journal knows it.
type Operation struct {
	ID       string
	Client   string
	Seq      uint64
	OrderID  string
	Accepted time.Time
	Done     bool
	Settled  time.Time
	Failure  *rental.Failure
}

// ending says when an order became terminal.
type ending struct {
	order string
	at    time.Time
}

// forget is how long a settled operation, a forestalled one and an ended errand are remembered.
const forget = topology.CommandRetention

// World is safe for many readers and one writer.
type World struct {
	account string

	mu          sync.RWMutex
	orders      map[string]*rental.Order
	list        []*rental.Order // by creation, oldest first
	place       map[string]int  // where in list
	oldest      int             // everything before it in list is terminal
	ended       []ending        // by when they ended, oldest first
	byRental    map[int64]string
	operations  map[string]*Operation // by client and id
	errands     map[string]*Errand    // open ones, by client and operation id
	forestalled map[string]time.Time  // by client and operation id
	handled     map[uint64]struct{}   // sequences in COMMANDS
	halts       map[string]Halt       // by client, the account's under ""
	disowned    map[int64]bool        // by the market's number
	probed      bool
	holder      string
	released    bool
	last        uint64
	changed     chan struct{}
}

// New is the world before the first record.
func New(account string) *World {
	return &World{
		account: account, orders: map[string]*rental.Order{}, place: map[string]int{}, byRental: map[int64]string{}, operations: map[string]*Operation{},
		errands: map[string]*Errand{}, forestalled: map[string]time.Time{}, handled: map[uint64]struct{}{}, halts: map[string]Halt{}, disowned: map[int64]bool{}, released: true,
		changed: make(chan struct{}),
	}
}

func opKey(client, id string) string { return client + " " + id }

// Apply folds one record.
func (w *World) Apply(r journal.Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Seq <= w.last {
		return nil
	}
	parts, err := topology.ParseOrderEvent(r.Subject)
	if err != nil {
		return fmt.Errorf("journal record %d: %w", r.Seq, err)
	}
	var b body
	if err := json.Unmarshal(r.Data, &b); err != nil {
		return fmt.Errorf("journal record %d (%s): %w", r.Seq, r.Subject, err)
	}
	if b.Internal == nil {
		return fmt.Errorf("journal record %d (%s) has no internal part: not written by renthook, or by a later version", r.Seq, r.Subject)
	}
	w.fold(parts.Client, b)
	w.last = r.Seq
	close(w.changed)
	w.changed = make(chan struct{})
	return nil
}

func (w *World) fold(client string, b body) {
	in := b.Internal
	if in.Holder != "" {
		w.holder, w.released = in.Holder, false
	}
	if in.Released {
		w.released = true
	}
	for _, seq := range in.Commands {
		w.handled[seq] = struct{}{}
	}
	if o := in.Order; o != nil {
		w.put(o)
	}
	if in.Halt != nil {
		w.halts[in.Halt.Client] = *in.Halt
	}
	if in.Disown != 0 {
		w.disowned[in.Disown] = true
	}
	if in.Resume != nil {
		delete(w.halts, in.Resume.Client)
	}
	if in.Forestall != "" {
		w.forestalled[opKey(client, in.Forestall)] = b.Time
	}
	if e := in.Errand; e != nil {
		w.operation(e.Client, e.Operation, "", e.Accepted)
		if e.Settled {
			delete(w.errands, opKey(e.Client, e.Operation.ID))
		} else {
			w.errands[opKey(e.Client, e.Operation.ID)] = e
		}
	}
	for _, s := range b.Settled {
		op := w.operations[opKey(client, s.OperationID)]
		if op == nil {
			op = &Operation{ID: s.OperationID, Client: client, Accepted: b.Time}
			if in.Order != nil {
				op.OrderID = in.Order.ID
			}
			w.operations[opKey(client, s.OperationID)] = op
		}
		op.Done, op.Settled = true, b.Time
		if !s.Succeeded {
			op.Failure = &rental.Failure{Code: "FAILED", Message: "It failed."}
			if f := s.Failure; f != nil {
				op.Failure = &rental.Failure{Code: f.Code, Message: f.Message, Retryable: f.Retryable}
			}
		}
	}
}

func (w *World) operation(client string, op rental.Operation, orderID string, accepted time.Time) {
	k := opKey(client, op.ID)
	if w.operations[k] == nil {
		w.operations[k] = &Operation{ID: op.ID, Client: client, Seq: op.Seq, OrderID: orderID, Accepted: accepted}
	}
}

func (w *World) put(o *rental.Order) {
	before := w.orders[o.ID]
	if o.State.Terminal() && (before == nil || !before.State.Terminal()) {
		w.ended = append(w.ended, ending{o.ID, o.Updated})
	}
	if n, ok := w.place[o.ID]; ok {
		w.list[n] = o
	} else {
		w.place[o.ID] = len(w.list)
		w.list = append(w.list, o)
	}
	w.orders[o.ID] = o
	for w.oldest < len(w.list) && w.list[w.oldest].State.Terminal() {
		w.oldest++
	}
	w.operation(o.Client, o.Create, o.ID, o.Created)
	for _, c := range o.Cancels {
		w.operation(o.Client, c, o.ID, o.Updated)
	}
	for n := range o.Intents {
		if id := o.Intents[n].RentalID; id != 0 {
			w.byRental[id] = o.ID
		}
	}
	if o.Probed {
		w.probed = true
	}
}

// Keep replaces an order by one that differs only in what is not recorded (what the market shows of it).
func (w *World) Keep(o *rental.Order) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.put(o)
}

// Brake makes a halt stand before its record does: what can only stop spending need not wait for the journal. It returns
// the one that stood in its place.
func (w *World) Brake(h Halt) (before *Halt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b, ok := w.halts[h.Client]; ok {
		before = &b
	}
	w.halts[h.Client] = h
	return before
}

// Halted is the halt under which a client's orders stand: the account's, else its own; nil when there is none.
func (w *World) Halted(client string) *Halt {
	w.mu.RLock()
	defer w.mu.RUnlock()
	for _, whose := range []string{"", client} {
		if h, ok := w.halts[whose]; ok {
			return &h
		}
	}
	return nil
}

// Disowned says that a person said of a rental that it is not ours.
func (w *World) Disowned(rentalID int64) bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.disowned[rentalID]
}

// Halts lists those that stand, oldest first.
func (w *World) Halts() []Halt {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return slices.SortedFunc(maps.Values(w.halts), func(a, b Halt) int { return a.Since.Compare(b.Since) })
}

// Prune forgets what nobody can ask about any more.
func (w *World) Prune(now time.Time, firstCommand uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, op := range w.operations {
		if op.Done && now.Sub(op.Settled) > forget {
			delete(w.operations, k)
		}
	}
	for k, at := range w.forestalled {
		if now.Sub(at) > forget {
			delete(w.forestalled, k)
		}
	}
	for seq := range w.handled {
		if seq < firstCommand {
			delete(w.handled, seq)
		}
	}
}

// Last is the sequence of the newest record folded.
func (w *World) Last() uint64 {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.last
}

// Changed is closed at the next record.
func (w *World) Changed() <-chan struct{} {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.changed
}

// Holder is who wrote last, and whether it let go.
func (w *World) Holder() (holder string, released bool) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.holder, w.released
}

// Probed says that a probe has succeeded from this installation.
func (w *World) Probed() bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.probed
}

// Handled says that a command has its record.
func (w *World) Handled(seq uint64) bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	_, ok := w.handled[seq]
	return ok
}

// Forestalled says that the cancel of an operation came before its create.
func (w *World) Forestalled(client, operation string) bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	_, ok := w.forestalled[opKey(client, operation)]
	return ok
}

// Orders lists every order, oldest first. The orders must not be changed.
func (w *World) Orders() []*rental.Order {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return slices.Clone(w.list)
}

// Live lists the orders that are not terminal, oldest first. The orders must not be changed.
func (w *World) Live() []*rental.Order {
	w.mu.RLock()
	defer w.mu.RUnlock()
	live := make([]*rental.Order, 0, 16)
	for _, o := range w.list[min(w.oldest, len(w.list)):] {
		if !o.State.Terminal() {
			live = append(live, o)
		}
	}
	return live
}

// Since lists the orders that live and those that ended at from or later. The orders must not be changed.
func (w *World) Since(from time.Time) []*rental.Order {
	some := w.Live()
	w.mu.RLock()
	defer w.mu.RUnlock()
	for n := len(w.ended) - 1; n >= 0 && !w.ended[n].at.Before(from); n-- {
		some = append(some, w.orders[w.ended[n].order])
	}
	return some
}

// Order finds an order by its own id.
func (w *World) Order(id string) *rental.Order {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.orders[id]
}

// Find finds an order of a client by "ord_…", "op_…" or the market's number; nil when there is none.
func (w *World) Find(client, ref string) *rental.Order {
	w.mu.RLock()
	defer w.mu.RUnlock()
	id := ref
	if strings.HasPrefix(ref, "op_") {
		op := w.operations[opKey(client, ref)]
		if op == nil {
			return nil
		}
		id = op.OrderID
	} else if n, ok := RentalNumber(ref); ok {
		id = w.byRental[n]
	}
	if o := w.orders[id]; o != nil && o.Client == client {
		return o
	}
	return nil
}

// MaxRental is the highest number of a rental that was ever ours.
func (w *World) MaxRental() int64 {
	w.mu.RLock()
	defer w.mu.RUnlock()
	var most int64
	for id := range w.byRental {
		most = max(most, id)
	}
	return most
}

// OwnerOf is the order that holds or held a rental of the market; nil when it is none of ours.
func (w *World) OwnerOf(rentalID int64) *rental.Order {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.orders[w.byRental[rentalID]]
}

// Operation finds an operation of a client.
func (w *World) Operation(client, id string) (Operation, bool) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if op := w.operations[opKey(client, id)]; op != nil {
		return *op, true
	}
	return Operation{}, false
}

// Errands lists the open ones, oldest first.
func (w *World) Errands() []Errand {
	w.mu.RLock()
	defer w.mu.RUnlock()
	var open []Errand
	for _, e := range w.errands {
		open = append(open, *e)
	}
	slices.SortFunc(open, func(a, b Errand) int { return a.Accepted.Compare(b.Accepted) })
	return open
}

// RentalNumber reads the market's number of a rental, also as "clore:123".
func RentalNumber(ref string) (int64, bool) {
	ref = strings.TrimPrefix(ref, "clore:")
	if ref == "" || len(ref) > 18 || strings.Trim(ref, "0123456789") != "" {
		return 0, false
	}
	var n int64
	for _, c := range ref {
		n = n*10 + int64(c-'0')
	}
	return n, n > 0
}
