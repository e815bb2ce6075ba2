package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/renthook/renthook/pkg/fault"
	"github.com/renthook/renthook/pkg/journal"
	controlv1 "github.com/renthook/renthook/proto/gen/renthook/control/v1"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/order/internal/rental"
	"github.com/renthook/renthook/services/order/internal/view"
	"github.com/renthook/renthook/services/order/internal/world"
)

var errControl = fault.New(fault.Forbidden, "SCOPE_DENIED", "This client may not halt or resume: give it the scope control.")

// halt stops new rentals at once, and with close ends what is. It stands before its record does, so that it also holds
// while the journal cannot be written; the command is then given its record later.
func (h *Holder) halt(ctx context.Context, c Command, name topology.Command, m *controlv1.Halt) error {
	if !h.config.Clients[name.Client].Control {
		return errControl
	}
	if err := h.known(m.GetClient()); err != nil {
		return err
	}
	halt := world.Halt{Client: m.GetClient(), By: name.Client, Reason: m.GetReason(), Since: time.Now(), Close: m.GetClose(), Seq: c.Seq}
	if before := h.deps.World.Brake(halt); before != nil && before.Seq == c.Seq {
		halt.Since = before.Since // the same command again: it could not be recorded
		h.deps.World.Brake(halt)
	}
	op := operation(name, c.Seq, "", nil)
	extra := world.Internal{Commands: []uint64{c.Seq}, Halt: &halt}
	if halt.Close {
		extra.Errand = &world.Errand{Operation: op, Client: name.Client, Kind: "close", Whose: halt.Client, Accepted: halt.Since}
	}
	err := h.controlled(ctx, "halted", c, op, halt.Client, halt.Reason, extra)
	if !halt.Close || err != nil && !errors.Is(err, journal.ErrFull) {
		return err
	}
	return errors.Join(err, h.closeAll(ctx, name.Client, halt.Client, halt.Reason, halt.Since))
}

// known refuses a client that no order of this account can be of.
func (h *Holder) known(client string) error {
	if _, ok := h.config.Clients[client]; client != "" && !ok {
		return fault.New(fault.Invalid, "INVALID_ARGUMENT", "client: no client %q belongs to account %s", client, h.config.Account)
	}
	return nil
}

// controlled records a halt or a resume. A halt that closes is settled later.
func (h *Holder) controlled(ctx context.Context, event string, c Command, op rental.Operation, whose, reason string, extra world.Internal) error {
	name, err := topology.ParseCommand(c.Subject)
	if err != nil {
		return err
	}
	if whose != "" {
		reason = strings.TrimSuffix("the orders of client "+whose+": "+reason, ": ")
	}
	ev := commandEvent(name.Client, c.Seq, reason)
	if extra.Errand == nil {
		ev.Settled = []*orderv1.Settlement{view.Settlement(rental.Settlement{Operation: op})}
	}
	return h.append(ctx, fact{client: name.Client, id: "-", event: event, internal: extra, trace: c.Trace, public: ev})
}

// closeAll wants the end of every order of a client, or of all, that was made before a moment.
func (h *Holder) closeAll(ctx context.Context, by, whose, reason string, before time.Time) error {
	text := "everything was halted"
	if reason != "" {
		text += ": " + reason
	}
	for _, o := range h.deps.World.Live() {
		if whose != "" && o.Client != whose || o.Wanted != nil || o.Created.After(before) {
			continue
		}
		if err := h.decide(ctx, o, rental.EndAsked{By: by, Reason: text}, world.Internal{}); err != nil {
			return err
		}
	}
	return nil
}

// closes goes on with closes that are not proved, recorded or not: an order that could not be ended then is ended now.
func (h *Holder) closes(ctx context.Context) error {
	for _, halt := range h.deps.World.Halts() {
		if !halt.Close {
			continue
		}
		if err := h.closeAll(ctx, halt.By, halt.Client, halt.Reason, halt.Since); err != nil {
			return err
		}
	}
	for _, e := range h.deps.World.Errands() {
		if e.Kind != "close" {
			continue
		}
		if err := h.closeAll(ctx, e.Client, e.Whose, "", e.Accepted); err != nil {
			return err
		}
	}
	return nil
}

// settleClose ends a close once the market's own list shows that nothing of ours is left.
func (h *Holder) settleClose(ctx context.Context, e world.Errand) error {
	meant := func(o *rental.Order) bool {
		return (e.Whose == "" || e.Whose == o.Client) && !o.Created.After(e.Accepted)
	}
	for _, o := range h.deps.World.Live() {
		if meant(o) && (o.OpenIntent() != nil || o.HeldIntent() != nil) {
			return nil
		}
	}
	for _, row := range h.list.rentals.Rentals {
		if o := h.deps.World.OwnerOf(row.ID); o != nil && meant(o) && !row.Expired {
			return nil
		}
	}
	if h.list.orphans > 0 || h.list.suspects > 0 {
		return nil
	}
	e.Settled = true
	return h.settleAlone(ctx, "closed", e.Client, rental.Settlement{Operation: e.Operation}, nil, "", world.Internal{Errand: &e})
}

func (h *Holder) resume(ctx context.Context, c Command, name topology.Command, m *controlv1.Resume) error {
	if !h.config.Clients[name.Client].Control {
		return errControl
	}
	if err := h.known(m.GetClient()); err != nil {
		return err
	}
	return h.controlled(ctx, "resumed", c, operation(name, c.Seq, "", nil), m.GetClient(), m.GetReason(),
		world.Internal{Commands: []uint64{c.Seq}, Resume: &world.Resume{Client: m.GetClient()}})
}

// disown takes a person's word that a rental is not ours. Of one that the journal holds it is not taken.
func (h *Holder) disown(ctx context.Context, c Command, name topology.Command, m *controlv1.Disown) error {
	if !h.config.Clients[name.Client].Control {
		return errControl
	}
	id := m.GetMarketOrderId()
	if id <= 0 {
		return fault.New(fault.Invalid, "INVALID_ARGUMENT", "market_order_id is required: the market's number of the rental")
	}
	if o := h.deps.World.OwnerOf(id); o != nil {
		return fault.New(fault.Invalid, "FAILED_PRECONDITION", "rental %d is known as order %s: cancel that", id, o.ID)
	}
	err := h.controlled(ctx, "disowned", c, operation(name, c.Seq, "", nil), "", fmt.Sprintf("rental %d: %s", id, m.GetReason()),
		world.Internal{Commands: []uint64{c.Seq}, Disown: id})
	h.ladder.sooner(time.Now()) // the next read counts without it
	return err
}

// halted says why a client's orders are not given a server; empty when they may be.
func (h *Holder) halted(client string) string {
	halt := h.deps.World.Halted(client)
	if halt == nil {
		return ""
	}
	text := fmt.Sprintf("renting was halted by %s at %s", halt.By, halt.Since.UTC().Format(time.RFC3339))
	if halt.Reason != "" {
		text += " (" + halt.Reason + ")"
	}
	return text + "; it goes on after a resume"
}
