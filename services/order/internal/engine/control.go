package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/renthook/renthook/pkg/fault"
	"github.com/renthook/renthook/pkg/journal"
	controlv1 "github.com/renthook/renthook/proto/gen/renthook/control/v1"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/order/internal/rental"
	"github.com/renthook/renthook/services/order/internal/world"
)

var errControl = fault.New(fault.Forbidden, "SCOPE_DENIED", "This client may not halt or resume: give it the scope control.")

// halt stops new rentals at once, and with close ends what is. It stands before its record does, so that it also holds
// while the journal cannot be written; the command is then given its record later.
func (h *Holder) halt(ctx context.Context, c Command, name topology.Command, m *controlv1.Halt) error {
	if !h.config.Clients[name.Client].Control {
		return errControl
	}
	now := time.Now()
	halt := world.Halt{Client: m.GetClient(), By: name.Client, Reason: m.GetReason(), Since: now, Close: m.GetClose()}
	h.deps.World.Brake(halt)
	op := operation(name, c.Seq, "", nil)
	extra := world.Internal{Commands: []uint64{c.Seq}, Halt: &halt}
	var err error
	if halt.Close {
		extra.Errand = &world.Errand{Operation: op, Client: name.Client, Kind: "close", Whose: halt.Client, Accepted: now}
		err = h.append(ctx, fact{client: name.Client, id: "-", event: "halted", internal: extra, trace: c.Trace, public: commandEvent(name.Client, c.Seq, halt.Reason)})
	} else {
		err = h.settleAlone(ctx, "halted", name.Client, rental.Settlement{Operation: op}, nil, c.Trace, extra)
	}
	if err != nil && !errors.Is(err, journal.ErrFull) {
		return err
	}
	if !halt.Close {
		return err
	}
	return errors.Join(err, h.closeAll(ctx, name.Client, halt.Client, halt.Reason, now))
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
	op := operation(name, c.Seq, "", nil)
	return h.settleAlone(ctx, "resumed", name.Client, rental.Settlement{Operation: op}, nil, c.Trace,
		world.Internal{Commands: []uint64{c.Seq}, Resume: &world.Resume{Client: m.GetClient()}})
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
