package engine

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/pkg/fault"
	"github.com/renthook/renthook/pkg/journal"
	controlv1 "github.com/renthook/renthook/proto/gen/renthook/control/v1"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/ask"
	"github.com/renthook/renthook/services/internal/gpu"
	"github.com/renthook/renthook/services/internal/money"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/order/internal/rental"
	"github.com/renthook/renthook/services/order/internal/world"
)

// OrderID is "ord_" and 128 bits of a hash over who asked, by which key, and where the command stands.
func OrderID(client, key string, seq uint64) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "order\x00%s\x00%s\x00", client, key)
	_ = binary.Write(sum, binary.BigEndian, seq)
	return "ord_" + hex.EncodeToString(sum.Sum(nil)[:16])
}

// command gives one command its first record. After it returns nil the command may be acknowledged. An error means that
// the journal could not be written.
func (h *Holder) command(ctx context.Context, c Command) (err error) {
	if h.deps.World.Handled(c.Seq) {
		return nil
	}
	name, err := topology.ParseCommand(c.Subject)
	if err != nil {
		// Not a subject anybody was told to use; the record keeps the sweep from looking at it again.
		h.deps.Log.WarnContext(ctx, "a command on a subject of no command", "error", err.Error())
		return h.append(ctx, fact{client: "-", id: "-", event: "noop", internal: world.Internal{Commands: []uint64{c.Seq}}, public: commandEvent("-", c.Seq, "no command")})
	}
	defer func() {
		// A command that breaks the handler must not take the account down with it: it is answered and left behind.
		if p := recover(); p != nil {
			h.deps.Log.ErrorContext(ctx, "a command broke its handler", "subject", c.Subject, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = h.refuse(ctx, c, name, fault.New(fault.Internal, "INTERNAL", "the command could not be handled; nothing was rented"))
		}
	}()
	msg, err := ask.Decode(name.Noun, name.Verb, c.ContentType, c.Body)
	if err != nil {
		return h.refuse(ctx, c, name, err)
	}
	switch m := msg.(type) {
	case *orderv1.CreateOrder:
		err = h.create(ctx, c, name, m)
	case *orderv1.CancelOrder:
		err = h.cancel(ctx, c, name, m)
	case *orderv1.ExtendOrder:
		err = h.extend(ctx, c, name, m)
	case *orderv1.ReportOrders:
		err = h.report(ctx, c, name, m)
	case *controlv1.Halt:
		err = h.halt(ctx, c, name, m)
	case *controlv1.Resume:
		err = h.resume(ctx, c, name, m)
	case *controlv1.Disown:
		err = h.disown(ctx, c, name, m)
	default:
		err = fault.New(fault.Invalid, "UNSUPPORTED", "%s.%s is not supported by this version", name.Noun, name.Verb)
	}
	if f, ok := fault.From(err); ok {
		return h.refuse(ctx, c, name, f)
	}
	if errors.Is(err, journal.ErrTooLarge) {
		return h.refuse(ctx, c, name, fault.New(fault.Invalid, "INVALID_ARGUMENT", "the command is too large to be recorded; nothing was rented"))
	}
	return err
}

// refuse records a command that cannot be carried out at all, so that its operation has an answer.
func (h *Holder) refuse(ctx context.Context, c Command, name topology.Command, why error) error {
	f := &rental.Failure{Code: "INVALID_ARGUMENT", Message: "The command could not be read."}
	if e, ok := fault.From(why); ok {
		f.Code, f.Message = e.Reason, e.Message
	}
	f.Seed = f.Message
	op := rental.Operation{ID: name.Operation(), Command: name.Noun + "." + name.Verb, Seq: c.Seq}
	return h.settleAlone(ctx, "rejected", name.Client, rental.Settlement{Operation: op, Failure: f}, nil, c.Trace, world.Internal{Commands: []uint64{c.Seq}})
}

func operation(name topology.Command, seq uint64, url string, o *orderv1.Origin) rental.Operation {
	op := rental.Operation{ID: name.Operation(), Command: name.Noun + "." + name.Verb, Seq: seq}
	if url != "" {
		op.Callback = &rental.Callback{URL: url, Seed: o.GetSeedCallback(), OrderAsSent: o.GetOrderAsSent()}
	}
	return op
}

func (h *Holder) create(ctx context.Context, c Command, name topology.Command, m *orderv1.CreateOrder) error {
	now := time.Now()
	if m.GetSpec().GetSealed() == "" && (len(m.GetSpec().GetEnv()) > 0 || m.GetSpec().GetCommand() != "") {
		// It came by a door that does not seal: at least the journal must not hold it in clear.
		if err := ask.Seal(h.deps.Box, m.GetSpec()); err != nil {
			return err
		}
	}
	o := rental.Order{
		ID: OrderID(name.Client, name.Key, c.Seq), Client: name.Client, Account: h.config.Account, Created: now, Updated: now,
		CommandSeq: c.Seq, Create: operation(name, c.Seq, m.GetSpec().GetCallbackUrl(), m.GetOrigin()), Policy: h.config.policy(), Trace: c.Trace,
	}
	turned := &rental.Failure{}
	asked := rental.Asked{Rejected: true}
	var err error
	if o.Ask, err = h.ask(name.Client, m); err != nil {
		turned.Code, turned.Message = "INVALID_ARGUMENT", "The order makes no sense."
		if e, ok := fault.From(err); ok {
			turned.Code, turned.Message = e.Reason, e.Message
		}
	} else {
		turned = h.turnedAway(name.Client, &o.Ask, m, c.Time, now)
	}
	o.PlaceBy = c.Time.Add(h.config.PlaceDeadline)
	if until := o.Ask.WaitUntil; until.After(c.Time) {
		o.PlaceBy = until.Add(h.config.PlaceDeadline)
	}
	if o.Ask.Duration > 0 {
		o.EndsAt = now.Add(o.Ask.Duration)
	}
	switch {
	case turned != nil:
		turned.Seed = turned.Message
		asked.Turned = turned
	case h.deps.World.Forestalled(name.Client, o.Create.ID):
		asked.Forestalled = true
	}
	h.evaluated = map[string]evaluation{}
	return h.decide(ctx, &o, asked, world.Internal{Commands: []uint64{c.Seq}})
}

// ask fills in the defaults of what was asked.
func (h *Holder) ask(client string, m *orderv1.CreateOrder) (rental.Ask, error) {
	s, c := m.GetSpec(), h.config
	most := c.Ceiling
	if own := c.Clients[client].Ceiling; own.IsPos() {
		most = most.Min(own)
	}
	if err := ask.Check(s); err != nil {
		return rental.Ask{}, err
	}
	r := s.GetRequirements()
	a := rental.Ask{
		GPU: gpu.Slug(s.GetGpu()), Count: int(s.GetCount()), MarketType: s.GetMarketType(), Currency: s.GetCurrency(), Image: s.GetImage(),
		Ports: map[int]string{}, Sealed: s.GetSealed(), SSHKey: s.GetSshKey(), Ceiling: most, Duration: c.MaxDuration, Labels: s.GetLabels(), Paper: m.GetPaper(),
		GPUAsSent: m.GetOrigin().GetGpuAsSent(), PriceAsSent: m.GetOrigin().GetPriceAsSent(),
		Requirements: rental.Requirements{
			MinVRAMGB: r.GetMinVramGb(), MinReliability: r.GetMinReliability(), Countries: r.GetCountries(), MinCUDA: r.GetMinCuda(),
			MinDownMbps: r.GetMinDownMbps(), MinUpMbps: r.GetMinUpMbps(), MinRAMGB: r.GetMinRamGb(), MinDiskGB: r.GetMinDiskGb(),
		},
	}
	if a.GPUAsSent == "" {
		a.GPUAsSent = s.GetGpu()
	}
	if a.MarketType == "" {
		a.MarketType = "any"
	}
	if a.Currency == "" {
		a.Currency = c.Currency
	}
	if a.Image == "" {
		a.Image = c.Image
	}
	if a.SSHKey == "" {
		a.SSHKey = c.SSHKey
	}
	for port, kind := range s.GetPorts() {
		n, err := strconv.Atoi(port)
		if err != nil || n < 1 || n > 65535 || (kind != "tcp" && kind != "http") {
			return a, fault.New(fault.Invalid, "INVALID_ARGUMENT", "ports: %q: %q is no container port (1 to 65535) with \"tcp\" or \"http\"", port, kind)
		}
		a.Ports[n] = kind
	}
	if len(a.Ports) == 0 {
		for port, kind := range c.Ports {
			a.Ports[port] = kind
		}
	}
	if s.GetWaitUntil() != nil {
		a.WaitUntil = s.GetWaitUntil().AsTime()
	}
	if d := s.GetMaxDuration(); d != "" {
		length, never, err := ask.ParseDuration(d)
		if err != nil {
			return a, fault.New(fault.Invalid, "INVALID_ARGUMENT", "max_duration: %v", err)
		}
		if never && !c.Limits.BurnPerHour.IsPos() {
			return a, fault.New(fault.Invalid, "INVALID_ARGUMENT", "max_duration \"never\" is allowed only with a burn limit set; give a duration such as \"24h\"")
		}
		a.Duration = length
	}
	return a, ceiling(&a, s.GetMaxPrice(), most)
}

// ceiling turns the asked price into USD per hour and whole server, capped by limits.price_per_hour.
func ceiling(a *rental.Ask, p *orderv1.Price, most decimal.Decimal) error {
	if p == nil {
		return nil
	}
	invalid := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "INVALID_ARGUMENT", "max_price: "+format, args...)
	}
	d, err := money.Positive(p.GetAmount())
	if err != nil {
		return invalid("%q is not an amount above zero", p.GetAmount())
	}
	if p.GetCurrency() != "USD" {
		return invalid("give it in USD; %q is not supported", p.GetCurrency())
	}
	if p.GetScope() == "gpu" {
		if a.Count == 0 {
			return invalid("a price per GPU needs count, the number of GPUs")
		}
		n, _ := decimal.New(int64(a.Count), 0)
		if d, err = money.Times(d, n); err != nil {
			return invalid("out of range")
		}
	}
	if p.GetPer() == "day" {
		if d, err = d.Quo(money.HoursPerDay); err != nil {
			return invalid("out of range")
		}
	}
	a.CeilingGiven, a.CeilingAsked = true, d
	a.Ceiling = d.Min(most)
	return nil
}

// turnedAway says why an order is not even tried; nil when it is.
func (h *Holder) turnedAway(client string, a *rental.Ask, m *orderv1.CreateOrder, admitted, now time.Time) *rental.Failure {
	c := h.config
	if until := m.GetNotAfter(); until != nil && now.After(until.AsTime()) {
		return &rental.Failure{Code: "TOO_LATE", Message: "The command was looked at only after its not_after: nothing was rented."}
	}
	if now.Sub(admitted) > c.PlaceDeadline {
		return &rental.Failure{Code: "TOO_LATE", Message: fmt.Sprintf("The command waited longer than the place deadline of %s: nothing was rented. Ask again.", c.PlaceDeadline), Retryable: true}
	}
	if !c.Clients[client].Create {
		return &rental.Failure{Code: "SCOPE_DENIED", Message: "This client may not create orders: give it the scope orders:create."}
	}
	if why := h.halted(client); why != "" {
		return &rental.Failure{Code: "HALTED", Message: "Nothing was rented: " + why + ".", Retryable: true}
	}
	if a.Paper {
		return &rental.Failure{Code: "UNSUPPORTED", Message: "Orders on paper are not supported by this version: nothing was rented."}
	}
	if len(a.Ports) == 0 {
		return &rental.Failure{Code: "INVALID_ARGUMENT", Message: "The order asks for no port: nobody could reach the rental. Ask for port 22 or another."}
	}
	orders := h.deps.World.Since(now.Add(-time.Hour))
	if f := tooMany("limits.", orders, c.OrdersPerHour, c.LiveRentals, now); f != nil {
		return f
	}
	cl := c.Clients[client]
	if cl.OrdersPerHour == 0 && cl.LiveRentals == 0 {
		return nil
	}
	return tooMany(limitsOf(client), only(orders, client), orMost(cl.OrdersPerHour), orMost(cl.LiveRentals), now)
}

// limitsOf is where a client's own limits stand in the settings.
func limitsOf(client string) string { return "the limits of client " + client + ": " }

// orMost makes a limit that is not set one that never holds.
func orMost(limit int) int {
	if limit == 0 {
		return math.MaxInt
	}
	return limit
}

// only keeps the orders of one client.
func only(orders []*rental.Order, client string) []*rental.Order {
	return slices.DeleteFunc(slices.Clone(orders), func(o *rental.Order) bool { return o.Client != client })
}

// tooMany says which count is used up; whose stands before the names of the limits.
func tooMany(whose string, orders []*rental.Order, perHour, most int, now time.Time) *rental.Failure {
	var recent []time.Time
	live := 0
	for _, o := range orders {
		if !o.Turned && now.Sub(o.Created) < time.Hour {
			recent = append(recent, o.Created)
		}
		if !o.State.Terminal() {
			live++
		}
	}
	if len(recent) >= perHour {
		slices.SortFunc(recent, func(a, b time.Time) int { return a.Compare(b) })
		again := now.Add(time.Hour)
		if perHour > 0 {
			again = recent[len(recent)-perHour].Add(time.Hour)
		}
		return &rental.Failure{Code: "RATE_LIMITED", Retryable: true, Message: fmt.Sprintf(
			"%sorders_per_hour: %d orders were accepted within an hour; try again at %s, or raise the limit", whose, len(recent), again.UTC().Format(time.RFC3339))}
	}
	if live >= most {
		return &rental.Failure{Code: "SPEND_CAP_EXCEEDED", Retryable: true, Message: fmt.Sprintf(
			"%slive_rentals: %d orders are live, the limit is %d; cancel one, wait for one to end, or raise the limit", whose, live, most)}
	}
	return nil
}

func notFound(ref string) *rental.Failure {
	return &rental.Failure{Code: "NOT_FOUND", Message: "order " + ref + " not found", Seed: "order " + ref + " not found"}
}

func (h *Holder) cancel(ctx context.Context, c Command, name topology.Command, m *orderv1.CancelOrder) error {
	w := h.deps.World
	ref := m.GetOrderId()
	op := operation(name, c.Seq, m.GetCallbackUrl(), m.GetOrigin())
	extra := world.Internal{Commands: []uint64{c.Seq}}
	client := h.config.Clients[name.Client]
	if !client.Cancel {
		f := &rental.Failure{Code: "SCOPE_DENIED", Message: "This client may not cancel orders: give it the scope orders:cancel."}
		f.Seed = f.Message
		return h.settleAlone(ctx, "cancel_failed", name.Client, rental.Settlement{Operation: op, Failure: f}, nil, c.Trace, extra)
	}
	if o := w.Find(name.Client, ref); o != nil {
		return h.decide(ctx, o, rental.EndAsked{Operation: op, By: name.Client, Reason: m.GetReason()}, extra)
	}
	if number, ok := world.RentalNumber(ref); ok {
		switch owner := w.OwnerOf(number); {
		case owner == nil, client.CancelAny:
			// Not in the journal, or another client's with leave to end any: the market is looked at before an answer.
			extra.Errand = &world.Errand{Operation: op, Client: name.Client, Kind: "cancel", RentalID: number, Accepted: time.Now()}
			return h.append(ctx, fact{client: name.Client, id: "-", event: "accepted", internal: extra, trace: c.Trace, public: commandEvent(name.Client, c.Seq, "looking rental "+ref+" up in the market")})
		}
	}
	if cmd, err := topology.ParseOperation(name.Client, ref); err == nil && cmd.Noun == "order" && cmd.Verb == "create" {
		if _, known := w.Operation(name.Client, ref); !known {
			extra.Forestall = ref
		}
	}
	return h.settleAlone(ctx, "cancel_failed", name.Client, rental.Settlement{Operation: op, Failure: notFound(refAsSent(m))}, nil, c.Trace, extra)
}

// extend moves the planned end of an order, within the limits.
func (h *Holder) extend(ctx context.Context, c Command, name topology.Command, m *orderv1.ExtendOrder) error {
	op := operation(name, c.Seq, m.GetCallbackUrl(), m.GetOrigin())
	extra := world.Internal{Commands: []uint64{c.Seq}}
	by, never, err := ask.ParseDuration(m.GetBy())
	if err != nil || never {
		return fault.New(fault.Invalid, "INVALID_ARGUMENT", "by must be a duration such as \"2h\", not %q", ask.Echo(m.GetBy()))
	}
	if !h.config.Clients[name.Client].Create {
		return fault.New(fault.Forbidden, "SCOPE_DENIED", "This client may not extend orders: give it the scope orders:create.")
	}
	o := h.deps.World.Find(name.Client, m.GetOrderId())
	if o == nil {
		return h.settleAlone(ctx, "rejected", name.Client, rental.Settlement{Operation: op, Failure: notFound(m.GetOrderId())}, nil, c.Trace, extra)
	}
	ev := rental.ExtendAsked{Operation: op, By: by}
	if i := o.Current(); i != nil && i.Outcome.Live() && by > 0 {
		now := time.Now()
		if ev.Reserved, err = h.config.Fees.Reserve(i, o.EndsAt.Add(by)); err != nil {
			return fault.New(fault.Invalid, "INVALID_ARGUMENT", "by: what it would cost is out of range")
		}
		ev.Refused = h.overLimit(o, *i, o.EndsAt.Add(by), now)
	}
	if why := h.halted(name.Client); why != "" {
		ev.Refused = &rental.Failure{Code: "HALTED", Message: "Nothing was extended: " + why + ".", Retryable: true}
	}
	return h.decide(ctx, o, ev, extra)
}

// refAsSent is how the sender wrote the order, for texts.
func refAsSent(m *orderv1.CancelOrder) string {
	if sent := m.GetOrigin().GetOrderAsSent(); sent != "" {
		return ask.Echo(sent)
	}
	return m.GetOrderId()
}

func (h *Holder) report(ctx context.Context, c Command, name topology.Command, m *orderv1.ReportOrders) error {
	extra := world.Internal{Commands: []uint64{c.Seq}, Errand: &world.Errand{
		Operation: operation(name, c.Seq, m.GetCallbackUrl(), m.GetOrigin()), Client: name.Client, Kind: "report", Accepted: time.Now(),
	}}
	return h.append(ctx, fact{client: name.Client, id: "-", event: "accepted", internal: extra, trace: c.Trace, public: commandEvent(name.Client, c.Seq, "reading the account's rentals")})
}
