package rental

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/services/internal/money"
)

// ErrIllegal is wrapped when an event makes no sense in a state: a defect of the caller, never of the market.
var ErrIllegal = errors.New("illegal event")

// tolerance is how far the billed price may lie above the price sent: 2 % (coins are rounded, rates move).
var tolerance = decimal.MustNew(102, 2)

// Decide returns the order after the event, and what is to be done. Without a Record among the effects nothing durable
// changed. An event that is late or comes twice gives the order back unchanged and no effect.
func Decide(o Order, ev Event, at time.Time) (Order, []Effect, error) {
	d := decision{o: o.clone(), at: at}
	var err error
	switch ev := ev.(type) {
	case Asked:
		err = d.asked(ev)
	case Planned:
		err = d.planned(ev)
	case NoOffer:
		d.noOffer(ev)
	case Barred:
		d.barred(ev)
	case Called:
		d.called(ev)
	case Recovered:
		d.recovered()
	case Seen:
		d.seen(ev)
	case Probed:
		d.probed(ev)
	case Absent:
		d.absent(ev)
	case Gone:
		d.gone(ev)
	case EndAsked:
		err = d.endAsked(ev)
	case ExtendAsked:
		err = d.extendAsked(ev)
	case Tick:
		d.tick(ev)
	default:
		err = fmt.Errorf("%w: %T", ErrIllegal, ev)
	}
	if err != nil {
		return o, nil, err
	}
	return d.o, d.effects, nil
}

type decision struct {
	o       Order
	at      time.Time
	effects []Effect
}

// record notes a durable change. It may be called once a decision.
func (d *decision) record(event, cause, by, reason string, settled ...Settlement) {
	d.o.Revision++
	d.o.Updated = d.at
	d.effects = append(d.effects, Record{Event: event, Cause: cause, By: by, Reason: reason, Settled: settled})
}

func (d *decision) act(e Effect) { d.effects = append(d.effects, e) }

// settleCreate ends the create operation unless it was ended before.
func (d *decision) settleCreate(f *Failure) []Settlement {
	if d.o.CreateSettled {
		return nil
	}
	d.o.CreateSettled, d.o.CreateFailure = true, f
	return []Settlement{{Operation: d.o.Create, Failure: f}}
}

// finish makes the order terminal, settles its create with f, and every waiting cancel as done.
func (d *decision) finish(s State, event, cause, by, reason string, f *Failure) {
	d.o.State, d.o.Ending = s, ""
	if f != nil {
		d.o.Failure = f
	}
	settled := d.settleCreate(f)
	for _, c := range d.o.Cancels {
		settled = append(settled, Settlement{Operation: c})
		d.o.Told = append(d.o.Told, c.ID)
	}
	d.o.Cancels = nil
	d.record(event, cause, by, reason, settled...)
}

func cancelledFailure(reason string) *Failure {
	return &Failure{Code: "CANCELLED", Message: "The order was cancelled before it was running: " + orElse(reason, "as asked") + ".", Seed: "Order cancelled"}
}

func timedOut(why string) *Failure {
	return &Failure{Code: "PLACE_DEADLINE", Message: "No server became usable in time: " + why + ". Ask again, with a higher price or more patience.", Retryable: true, Seed: "Order creation timed out"}
}

func outbidFailure() *Failure {
	return &Failure{Code: "INTERRUPTED", Message: "The spot rental was outbid or ended by the market before it was usable.", Retryable: true, Seed: "Outbid before it was ready"}
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// NoMatch is the failure of an order that no offer fits, in the seed's words and in ours.
func (o *Order) NoMatch(reason string) *Failure {
	gpu := orElse(o.Ask.GPUAsSent, o.Ask.GPU)
	seed := "No " + gpu + " available"
	if o.Ask.CeilingGiven {
		seed += " under $" + orElse(o.Ask.PriceAsSent, money.Text(o.Ask.CeilingAsked)) + "/hr"
	}
	return &Failure{Code: "NO_MATCHING_SERVER", Message: seed + ": " + orElse(reason, "nothing like it is listed") + ".", Retryable: true, Seed: seed}
}

func (d *decision) asked(ev Asked) error {
	if d.o.State != New {
		return nil // the same command again
	}
	if d.o.ID == "" || d.o.Create.ID == "" || d.o.CommandSeq == 0 {
		return fmt.Errorf("%w: an order without id, operation or command", ErrIllegal)
	}
	switch {
	case ev.Forestalled:
		d.finish(Cancelled, "cancelled", "command", d.o.Client, "its cancel came first", cancelledFailure("its cancel came first"))
	case ev.Turned != nil && ev.Rejected:
		d.o.Turned = true
		d.finish(Rejected, "rejected", "command", d.o.Client, ev.Turned.Message, ev.Turned)
	case ev.Turned != nil:
		d.o.Turned = true
		d.finish(Failed, "failed", "command", d.o.Client, ev.Turned.Message, ev.Turned)
	default:
		d.o.State = Pending
		d.record("accepted", "command", d.o.Client, "")
	}
	return nil
}

func (d *decision) planned(ev Planned) error {
	if !d.o.WantsServer() {
		return fmt.Errorf("%w: a plan in %s", ErrIllegal, d.o.State)
	}
	i := ev.Intent
	over, err := above(i.PerDay, i.USDRate, d.o.Ask.Ceiling)
	if err != nil {
		return err
	}
	switch {
	case over:
		return fmt.Errorf("%w: intent for server %d at %s USD per hour, ceiling %s", ErrIllegal, i.Server.ID, i.USDPerHour, d.o.Ask.Ceiling)
	case d.o.tried() >= d.o.Policy.MaxCandidates:
		return fmt.Errorf("%w: candidate %d of %d", ErrIllegal, d.o.tried()+1, d.o.Policy.MaxCandidates)
	case i.Server.ID == 0 || i.CallBy.IsZero() || !i.PerDay.IsPos() || !i.USDRate.IsPos():
		return fmt.Errorf("%w: an intent without server, deadline, price or rate", ErrIllegal)
	case !d.at.Before(d.o.PlaceBy):
		return fmt.Errorf("%w: a plan after the place deadline", ErrIllegal)
	}
	i.Number, i.Outcome, i.At = len(d.o.Intents)+1, Open, d.at
	d.o.Intents = append(d.o.Intents, i)
	d.o.State, d.o.Unprobed = Placing, false
	length, said := d.o.Ask.Duration, ""
	if i.Shortened > 0 && i.Shortened < length {
		length, said = i.Shortened, fmt.Sprintf("; no host that fits allows more than %s", i.Shortened)
	}
	if length > 0 {
		d.o.EndsAt = d.at.Add(length)
	}
	d.record("placing", "writer", "", fmt.Sprintf("server %d, %s, %s USD per hour%s", i.Server.ID, i.Type, money.Cents(i.USDPerHour), said+among(ev.Why)))
	d.act(Create{Number: i.Number})
	return nil
}

// among puts what else was there behind a reason.
func among(why string) string {
	if why == "" {
		return ""
	}
	return "; of " + why
}

func (d *decision) noOffer(ev NoOffer) {
	if !d.o.WantsServer() {
		return
	}
	if d.waits("market", ev.Reason) {
		return
	}
	f := d.nothingLeft(ev.Reason)
	if !d.at.Before(d.o.PlaceBy) {
		f = timedOut("the place deadline passed")
	}
	d.finish(Failed, "failed", "market", "", ev.Reason, f)
}

// waits keeps the order waiting while wait_until allows it.
func (d *decision) waits(cause, reason string) bool {
	if !d.at.Before(d.o.Ask.WaitUntil) || !d.at.Before(d.o.PlaceBy) {
		return false
	}
	if d.o.State != Waiting {
		d.o.State = Waiting
		d.record("waiting", cause, "", reason)
	}
	return true
}

func (d *decision) barred(ev Barred) {
	if !d.o.WantsServer() || d.waits("writer", ev.Failure.Message) {
		return
	}
	f := ev.Failure
	if len(d.o.Intents) == 0 {
		d.finish(Rejected, "rejected", "writer", "", f.Message, &f)
		return
	}
	d.finish(Failed, "failed", "writer", "", f.Message, &f)
}

// nothingLeft says why an order that has no further candidate failed: none fitted, all refused, or none booted.
func (d *decision) nothingLeft(reason string) *Failure {
	if len(d.o.Intents) == 0 {
		return d.o.NoMatch(reason)
	}
	var refused []string
	for _, i := range d.o.Intents {
		if i.Outcome != Refused {
			return timedOut(fmt.Sprintf("%d of %d servers tried did not become usable", len(d.o.Intents), d.o.Policy.MaxCandidates))
		}
		refused = append(refused, fmt.Sprintf("server %d: %s", i.Server.ID, i.Reason))
	}
	text := "Every server that fitted was refused by the market (" + strings.Join(refused, "; ") + "). Ask again."
	return &Failure{Code: "SERVERS_REFUSED", Message: text, Retryable: true, Seed: text}
}

func (d *decision) called(ev Called) {
	i := d.o.OpenIntent()
	if i == nil || i.Number != ev.Number || d.o.State != Placing {
		return
	}
	// Later than planned when the process was frozen in the call: what proves absence counts from here all the same.
	i.Called, i.Reason, i.CallBy = true, ev.Reason, d.at
	if ev.Refused {
		i.NotSent = ev.NotSent
		d.close(i, Refused, ev.Reason)
		return
	}
	i.Look = ev.Look
	d.o.State = Unconfirmed
	d.record("unconfirmed", "market", "", ev.Reason)
}

// close ends an intent that holds nothing, and goes on: to the wanted end, to the next server, or to failure.
func (d *decision) close(i *Intent, out Outcome, reason string) {
	const cause = "market"
	i.Outcome, i.Reason = out, orElse(reason, i.Reason)
	what := fmt.Sprintf("server %d: %s", i.Server.ID, i.Reason)
	switch {
	case d.o.Wanted != nil:
		d.endReached(cause, what)
	case out == Refused && strings.Contains(i.Reason, "not_enough_balance"):
		text := "The market account has not enough " + i.Currency + ". Top it up, or allow another currency."
		d.finish(Failed, "failed", cause, "", what, &Failure{Code: "WALLET_EMPTY", Message: text, Seed: text})
	case out == Refused && strings.Contains(i.Reason, "code-3"):
		text := "The market does not accept the API key. Check it and restart."
		d.finish(Failed, "failed", cause, "", what, &Failure{Code: "UPSTREAM_AUTH", Message: text, Seed: text})
	case d.o.tried() >= d.o.Policy.MaxCandidates:
		d.finish(Failed, "failed", cause, "", what, d.unlessPrice(d.nothingLeft(what)))
	case d.failedBootsCost().Cmp(d.o.Policy.FailedBootUSD) >= 0 && i.FailedBoot:
		d.finish(Failed, "failed", cause, "", what, d.unlessPrice(timedOut("rentals that never became usable have used up their budget")))
	case !d.at.Before(d.o.PlaceBy):
		d.finish(Failed, "failed", cause, "", what, d.unlessPrice(timedOut("the place deadline passed")))
	default:
		d.o.State, d.o.Ending = Placing, ""
		d.record("placing", cause, "", what)
	}
}

// unlessPrice is f, unless the last rental was ended for its price: then that is what the order failed by.
func (d *decision) unlessPrice(f *Failure) *Failure {
	if d.o.Ending != "price" {
		return f
	}
	return &Failure{Code: "PRICE_MISMATCH", Message: "The market billed another price than was agreed: the rental was ended, and nothing else was left to try. Ask again.", Retryable: true, Seed: f.Seed}
}

// failedBootsCost is what rentals that never became usable have cost: USD, without fees.
func (d *decision) failedBootsCost() decimal.Decimal {
	sum := decimal.Zero
	for _, i := range d.o.Intents {
		if !i.FailedBoot {
			continue
		}
		usd, err := money.Times(i.Spend, i.USDRate)
		if err != nil {
			return d.o.Policy.FailedBootUSD // what cannot be counted is taken as used up
		}
		if sum, err = money.Add(sum, usd); err != nil {
			return d.o.Policy.FailedBootUSD
		}
	}
	return sum
}

// endReached ends the order as it was wanted, once nothing of it bills.
func (d *decision) endReached(cause, what string) {
	w := d.o.Wanted
	switch w.Kind {
	case ByPlaceDeadline:
		d.finish(Failed, "failed", cause, "", what, timedOut("the place deadline passed"))
	case ByPlan:
		var f *Failure
		if !d.o.CreateSettled {
			f = timedOut("its planned end came first")
		}
		d.finish(Ended, "ended", cause, "", what, f)
	default:
		var f *Failure
		if !d.o.CreateSettled {
			f = cancelledFailure(w.Reason)
		}
		d.finish(Cancelled, "cancelled", cause, w.By, what, f)
	}
}

func (d *decision) recovered() {
	if i := d.o.OpenIntent(); i != nil && d.o.State == Placing {
		i.Reason = "the writer that asked is gone; the answer is unknown"
		i.Called = true
		d.o.State = Unconfirmed
		d.record("unconfirmed", "writer", "", i.Reason)
	}
}

// above says whether perDay × rate ÷ 24 is above ceiling (USD per hour).
func above(perDay, rate, ceiling decimal.Decimal) (bool, error) {
	usd, err := money.USDPerHour(perDay, rate)
	if err != nil {
		return true, err
	}
	return usd.Cmp(ceiling) > 0, nil
}

// mismatch says why the billed price is not what was agreed, empty when it is. A price that cannot be reckoned with is
// not what was agreed: the rental must not go on unseen.
func (d *decision) mismatch(i *Intent, s Sighting) string {
	// fact:spot-pays-its-bid
	if s.Currency != i.Currency {
		return fmt.Sprintf("billed in %s, agreed in %s", s.Currency, i.Currency)
	}
	if most, err := money.Times(i.PerDay, tolerance); err != nil || s.PerDay.Cmp(most) > 0 {
		return fmt.Sprintf("billed %s %s per day, agreed %s", s.PerDay, s.Currency, i.PerDay)
	}
	if over, err := above(s.PerDay, i.USDRate, d.o.Ask.Ceiling); err != nil || over {
		return fmt.Sprintf("billed %s %s per day, above the ceiling of %s USD per hour", s.PerDay, s.Currency, d.o.Ask.Ceiling)
	}
	return ""
}

func (d *decision) seen(ev Seen) {
	i := d.o.Current()
	if i == nil || i.Number != ev.Number || !i.Outcome.Live() {
		return
	}
	if i.Outcome == Open {
		d.adopt(i, ev.Sighting)
		return
	}
	if ev.RentalID != i.RentalID {
		return
	}
	frozen := d.frozen(i, ev.Sighting)
	i.Spend = ev.Spend
	if len(ev.Access.TCPPorts) > 0 || ev.Access.Host != "" {
		i.Access = ev.Access
	}
	i.Up = ev.Up
	if d.o.State == Cancelling {
		return
	}
	if why := d.mismatch(i, ev.Sighting); why != "" {
		i.RealPerDay = ev.PerDay
		d.endForPrice(i, why)
		return
	}
	switch {
	case d.o.State == Provisioning && ev.Up:
		d.usable(i)
	case frozen:
		d.o.State, d.o.Ending = Cancelling, "outbid"
		d.record("cancelling", "market", "", fmt.Sprintf("rental %d neither runs nor is billed and its bid is still listed: it was outbid, and the bid is withdrawn", i.RentalID))
		d.act(Cancel{RentalID: i.RentalID})
	}
}

// frozen says that a spot rental lost its server and that its bid waits to win it back: a container that merely
// restarts is billed meanwhile.
func (d *decision) frozen(i *Intent, s Sighting) bool {
	// fact:outbid-is-gone
	if d.o.State != Running || i.Type != "spot" || s.Up || s.Spend.Cmp(i.Spend) != 0 {
		i.FrozenSince = time.Time{}
		return false
	}
	if i.FrozenSince.IsZero() {
		i.FrozenSince = d.at
	}
	return d.at.Sub(i.FrozenSince) >= d.o.Policy.OutbidAfter
}

// endForPrice ends a rental that is not billed as agreed.
func (d *decision) endForPrice(i *Intent, why string) {
	i.FailedBoot = d.o.State != Running
	d.o.State, d.o.Ending = Cancelling, "price"
	d.record("price_mismatch", "market", "", why)
	d.act(Cancel{RentalID: i.RentalID, Issue: ""})
}

// adopt takes the rental as the order's own: the call was applied, whatever was answered.
func (d *decision) adopt(i *Intent, s Sighting) {
	why := d.mismatch(i, s)
	i.Outcome, i.RentalID, i.RealPerDay, i.Started = Placed, s.RentalID, s.PerDay, s.Started
	i.Access, i.Up, i.GPUs, i.Spend = s.Access, s.Up, s.GPUs, s.Spend
	i.BootBy = d.at.Add(d.o.Policy.BootDeadline)
	switch {
	case d.o.Wanted != nil:
		d.o.State = Cancelling
		d.record("cancelling", "market", d.o.Wanted.By, fmt.Sprintf("rental %d was found; its end was already wanted", s.RentalID))
		d.act(Cancel{RentalID: s.RentalID, Issue: ""})
	case why != "":
		d.endForPrice(i, why)
	default:
		d.o.State = Provisioning
		d.record("placed", "market", "", fmt.Sprintf("rental %d on server %d", s.RentalID, i.Server.ID))
	}
}

// usable makes the order RUNNING, or has its ssh port asked first.
func (d *decision) usable(i *Intent) {
	if d.o.Ask.WantsSSH() && d.o.Policy.ProbeSSH {
		if i.reachable() {
			d.act(Probe{Number: i.Number, Host: i.Access.Host, Port: i.Access.TCPPorts[22]})
		}
		return
	}
	d.run(i, "the container runs")
}

func (d *decision) run(i *Intent, why string) {
	d.o.State = Running
	d.record("running", "market", "", fmt.Sprintf("rental %d: %s", i.RentalID, why), d.settleCreate(nil)...)
}

func (d *decision) probed(ev Probed) {
	i := d.o.HeldIntent()
	if i == nil || i.Number != ev.Number || !ev.OK || !i.Up || d.o.State != Provisioning {
		return
	}
	d.o.Probed = true
	d.run(i, "ssh answers")
}

func (d *decision) absent(ev Absent) {
	i := d.o.OpenIntent()
	if i == nil || i.Number != ev.Number || d.o.State != Unconfirmed {
		return
	}
	out := NotThere
	if i.Look {
		out = Refused
	}
	d.close(i, out, ev.Reason)
}

func (d *decision) gone(ev Gone) {
	// fact:outbid-is-gone
	i := d.o.Current()
	if i == nil || i.Number != ev.Number || !i.Outcome.Live() {
		return
	}
	if ev.RentalID != 0 {
		i.RentalID = ev.RentalID
	}
	if ev.Spend.Cmp(i.Spend) > 0 {
		i.Spend = ev.Spend
	}
	i.EndedAt = ev.EndedAt
	if i.EndedAt.IsZero() {
		i.EndedAt = d.at
	}
	spot := i.Type == "spot"
	was := d.o.State
	switch {
	case was == Cancelling && d.o.Ending == "outbid" && d.o.Wanted == nil:
		i.Outcome = Over
		d.finish(Interrupted, "interrupted", "market", "", ev.Proof, nil)
	case was == Cancelling || d.o.Wanted != nil:
		d.close(i, Over, ev.Proof)
	case was == Running:
		i.Outcome = Over
		state, event := Interrupted, "interrupted"
		if !d.o.EndsAt.IsZero() && !d.at.Before(d.o.EndsAt) {
			state, event = Ended, "ended"
		}
		d.finish(state, event, "market", "", ev.Proof, nil)
	case was == Provisioning && spot:
		i.Outcome = Over
		d.finish(Interrupted, "interrupted", "market", "", ev.Proof, outbidFailure())
	default: // never usable: the next server
		i.FailedBoot = true
		d.close(i, Over, ev.Proof)
	}
}

func (d *decision) endAsked(ev EndAsked) error {
	op := ev.Operation
	same := func(c Operation) bool { return c.ID == op.ID }
	switch {
	case d.o.State == New:
		return fmt.Errorf("%w: an end in %s", ErrIllegal, d.o.State)
	case slices.ContainsFunc(d.o.Cancels, same) || slices.Contains(d.o.Told, op.ID):
		return nil // the same command again
	case op.ID == "" && (d.o.Wanted != nil || d.o.State.Terminal()):
		return nil // wanted or over already, and nobody waits
	case d.o.State.Terminal():
		d.o.Told = append(d.o.Told, op.ID)
		d.record("cancelled", "command", ev.By, "it had ended", Settlement{Operation: op})
		return nil
	}
	if op.ID != "" {
		d.o.Cancels = append(d.o.Cancels, op)
	}
	if d.o.Wanted == nil {
		d.o.Wanted = &End{Kind: ByCommand, At: d.at, By: ev.By, Reason: ev.Reason}
	}
	d.endWanted("command", ev.By, orElse(ev.Reason, "as asked"))
	return nil
}

// endWanted acts on a wanted end that was just recorded in the order.
func (d *decision) endWanted(cause, by, reason string) {
	if d.o.idle() {
		d.endReached(cause, reason)
		return
	}
	if i := d.o.HeldIntent(); i != nil {
		d.o.State = Cancelling
		d.record("cancelling", cause, by, reason)
		d.act(Cancel{RentalID: i.RentalID, Issue: ""})
		return
	}
	// The call is out: first sight of a rental will end it, proof of absence too.
	d.record("cancelling", cause, by, reason+"; waiting to learn whether a rental exists")
}

// notExtended is why an end cannot be moved.
func (d *decision) notExtended(by time.Duration) *Failure {
	invalid := func(text string) *Failure { return &Failure{Code: "FAILED_PRECONDITION", Message: text, Seed: text} }
	switch i := d.o.Current(); {
	case d.o.State.Terminal():
		return invalid("The order has ended.")
	case d.o.Wanted != nil:
		return invalid("The order is being ended.")
	case by <= 0:
		return invalid("The end can only be moved further away; cancel the order to end it sooner.")
	case d.o.Ask.Duration == 0:
		return invalid("The order has no planned end.")
	case i != nil && i.Outcome.Live() && i.MaxLength > 0 && d.o.EndsAt.Add(by).After(i.At.Add(i.MaxLength)):
		return invalid(fmt.Sprintf("The host lends the server for %s at most.", i.MaxLength))
	}
	return nil
}

func (d *decision) extendAsked(ev ExtendAsked) error {
	if d.o.State == New {
		return fmt.Errorf("%w: a later end in %s", ErrIllegal, d.o.State)
	}
	if slices.Contains(d.o.Told, ev.Operation.ID) {
		return nil // the same command again
	}
	d.o.Told = append(d.o.Told, ev.Operation.ID)
	f := d.notExtended(ev.By)
	if f == nil {
		f = ev.Refused
	}
	s := Settlement{Operation: ev.Operation, Failure: f}
	if f != nil {
		d.record("extend_failed", "command", d.o.Client, f.Message, s)
		return nil
	}
	d.o.Ask.Duration += ev.By
	d.o.EndsAt = d.o.EndsAt.Add(ev.By)
	d.o.Warned = 0
	if i := d.o.Current(); i != nil && i.Outcome.Live() {
		i.Reserved = ev.Reserved
	}
	d.record("extended", "command", d.o.Client, "by "+ev.By.String(), s)
	return nil
}

// warnings are the times before the planned end at which it is told.
var warnings = []time.Duration{10 * time.Minute, time.Hour, 5 * time.Hour}

// warn tells that the end is near, once per time; not at times that the rental never was further away from.
func (d *decision) warn(i *Intent) {
	left := d.o.EndsAt.Sub(d.at)
	for _, w := range warnings {
		if left > w || !d.o.EndsAt.Add(-w).After(i.At) {
			continue
		}
		if d.o.Warned == 0 || d.o.Warned > w {
			d.o.Warned = w
			d.record("expiring", "clock", "", fmt.Sprintf("it ends at %s", d.o.EndsAt.UTC().Format(time.RFC3339)))
		}
		return
	}
}

func (d *decision) tick(ev Tick) {
	if d.o.State.Terminal() || d.o.State == New {
		return
	}
	late := !d.at.Before(d.o.PlaceBy)
	switch d.o.State {
	case Pending, Waiting, AwaitingApproval:
		waited := !d.o.Ask.WaitUntil.IsZero() && !d.at.Before(d.o.Ask.WaitUntil)
		switch {
		case d.o.State == Waiting && (waited || late):
			d.finish(Failed, "failed", "clock", "", "waited as long as asked", d.nothingLeft("nothing that fits appeared in time"))
		case late:
			why := "the place deadline passed"
			if ev.Waits != "" {
				why += " while nothing could be rented: " + ev.Waits
			}
			d.finish(Failed, "failed", "clock", "", why, timedOut(why))
		}
	case Placing, Unconfirmed:
		if late && d.o.Wanted == nil {
			d.o.Wanted = &End{Kind: ByPlaceDeadline, At: d.at, Reason: "the place deadline passed"}
			d.endWanted("clock", "", "the place deadline passed")
		}
	case Provisioning, Running:
		d.tickHeld(ev, late)
	case Cancelling:
		if i := d.o.HeldIntent(); i != nil {
			d.act(Cancel{RentalID: i.RentalID, Issue: ""})
		}
	}
}

func (d *decision) tickHeld(ev Tick, late bool) {
	// fact:waiting-bids-are-free
	i := d.o.HeldIntent()
	if i == nil {
		return
	}
	planned := !d.o.EndsAt.IsZero() && !d.at.Before(d.o.EndsAt)
	switch {
	case planned:
		d.o.Wanted = &End{Kind: ByPlan, At: d.at, Reason: "its planned end"}
		d.endWanted("clock", "", "its planned end")
	case d.o.State == Running:
		if !d.o.EndsAt.IsZero() {
			d.warn(i)
		}
	case (late || !d.at.Before(i.BootBy)) && i.Up && i.reachable() && d.o.Ask.WantsSSH() && !ev.ProbeProven:
		// No probe has ever succeeded from here: silence may be our own network's.
		d.o.Unprobed = true
		d.run(i, "the container runs; ssh was never reached from here, so it is not known to answer")
	case late:
		d.o.Wanted = &End{Kind: ByPlaceDeadline, At: d.at, Reason: "the place deadline passed"}
		d.endWanted("clock", "", "the place deadline passed")
	case !d.at.Before(i.BootBy):
		d.o.State, d.o.Ending = Cancelling, "boot"
		i.FailedBoot = true
		d.record("cancelling", "clock", "", fmt.Sprintf("rental %d was not usable within %s", i.RentalID, d.o.Policy.BootDeadline))
		d.act(Cancel{RentalID: i.RentalID, Issue: "The container did not become usable."})
	case i.Up:
		d.usable(i)
	}
}
