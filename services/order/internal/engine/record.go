package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/renthook/renthook/pkg/journal"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/order/internal/rental"
	"github.com/renthook/renthook/services/order/internal/view"
	"github.com/renthook/renthook/services/order/internal/world"
)

// fact is one record about to be appended.
type fact struct {
	client, id, event string
	public            *orderv1.OrderEvent
	internal          world.Internal
	trace             string
}

// Holding is the first record of a writer.
func Holding(account, holder string, seq uint64, at time.Time) (journal.Entry, error) {
	f := fact{
		client: "-", id: "-", event: "holder", internal: world.Internal{Holder: holder},
		public: &orderv1.OrderEvent{Cause: &orderv1.Cause{Kind: "writer", By: holder}},
	}
	return f.entry(account, seq, at)
}

// entry makes the journal's form: the public event in canonical JSON, with the writer's own part beside it.
func (f fact) entry(account string, seq uint64, at time.Time) (journal.Entry, error) {
	f.public.Type, f.public.Time = "order."+f.event, timestamppb.New(at)
	body, err := protojson.Marshal(f.public)
	if err != nil {
		return journal.Entry{}, fmt.Errorf("encode event %s: %w", f.event, err)
	}
	internal, err := json.Marshal(f.internal)
	if err != nil {
		return journal.Entry{}, fmt.Errorf("encode the writer's part of %s: %w", f.event, err)
	}
	// The public part is an object with members; the writer's part goes in as its last one.
	var b bytes.Buffer
	b.Grow(len(body) + len(internal) + 16)
	b.Write(body[:bytes.LastIndexByte(body, '}')])
	b.WriteString(`,"internal":`)
	b.Write(internal)
	b.WriteByte('}')
	h := nats.Header{}
	h.Set("Content-Type", "application/json")
	h.Set("ce-specversion", "1.0")
	h.Set("ce-id", topology.EventID(topology.Orders(account), seq))
	h.Set("ce-source", "/renthook/order/"+account)
	h.Set("ce-type", "order."+f.event)
	h.Set("ce-subject", f.id)
	h.Set("ce-time", at.UTC().Format(time.RFC3339Nano))
	h.Set("ce-datacontenttype", "application/json")
	if f.trace != "" {
		h.Set("traceparent", f.trace)
	}
	return journal.Entry{Subject: topology.OrderEvent(account, f.client, f.id, f.event), Header: h, Data: b.Bytes()}, nil
}

// append writes the facts as one, folds them into the world, and only then returns.
func (h *Holder) append(ctx context.Context, facts ...fact) error {
	now := time.Now()
	entries := make([]journal.Entry, 0, len(facts))
	for n, f := range facts {
		e, err := f.entry(h.config.Account, h.log.Last()+1+uint64(n), now)
		if err != nil {
			return err
		}
		entries = append(entries, e)
	}
	first, _, err := h.log.Append(ctx, entries...)
	if errors.Is(err, journal.ErrFull) {
		h.foundFull(ctx)
	}
	if err != nil {
		return fmt.Errorf("append to the journal of %s: %w", h.config.Account, err)
	}
	h.fullUntil = time.Time{}
	for n, e := range entries {
		r := journal.Record{Seq: first + uint64(n), Subject: e.Subject, Header: e.Header, Data: e.Data, Time: now}
		if err := h.deps.World.Apply(r); err != nil {
			return fmt.Errorf("fold what was just appended: %w", err)
		}
	}
	return nil
}

// WhyFull is what is told while the journal has no room.
const WhyFull = "the journal is full"

// foundFull bars creates for a while, and says so once.
func (h *Holder) foundFull(ctx context.Context) {
	if h.fullUntil.IsZero() {
		h.deps.Log.ErrorContext(ctx, "alarm", "alarm", "journal_full", "reason", WhyFull+": nothing is rented; what is to end is still ended. Make room or raise the stream's limit")
	}
	h.fullUntil = time.Now().Add(fullAgain)
}

// decide runs one event through the machine, records what it decides, and acts. extra goes into the same record.
func (h *Holder) decide(ctx context.Context, o *rental.Order, ev rental.Event, extra world.Internal) error {
	next, effects, err := rental.Decide(*o, ev, time.Now())
	if err != nil {
		// A defect of ours in one order must not stop the others: it is told, and the order stays as it is.
		h.deps.Log.ErrorContext(ctx, "an event was refused", "order_id", o.ID, "state", o.State.String(), "error", err.Error())
		return nil
	}
	if next.Wanted != nil {
		h.abort(o.ID) // before the record: a create that is being prepared must not slip out meanwhile
	}
	recorded := false
	for _, e := range effects {
		r, ok := e.(rental.Record)
		if !ok {
			continue
		}
		recorded = true
		err := h.record(ctx, o, &next, r, extra)
		if errors.Is(err, journal.ErrFull) {
			return h.unrecorded(ctx, &next, effects, extra, err)
		}
		if err != nil {
			return err
		}
		delete(h.ending, o.ID)
	}
	if !recorded {
		if len(extra.Commands) > 0 {
			// Nothing changed, yet the command needs its record.
			return h.noop(ctx, o, extra)
		}
		if o.State != rental.New {
			h.deps.World.Keep(&next)
		}
	}
	return h.act(ctx, &next, effects)
}

// fullAgain is how long a full journal is not tried with a create.
const fullAgain = 30 * time.Second

// seenGone says that the newest list can be believed and shows no such live rental.
func (h *Holder) seenGone(rentalID int64) bool {
	return h.list.good && !slices.ContainsFunc(h.list.rentals.Rentals, func(r market.Rental) bool { return r.ID == rentalID && !r.Expired })
}

// unrecorded goes on with a decision that the journal had no room for: what only stops spending is done all the same,
// and the decision is taken again later. The order stays as it was.
func (h *Holder) unrecorded(ctx context.Context, next *rental.Order, effects []rental.Effect, extra world.Internal, err error) error {
	h.lost = true
	if next.Wanted != nil {
		h.ending[next.ID] = true
	}
	if i := next.HeldIntent(); i != nil && (next.State == rental.Cancelling || h.ending[next.ID]) {
		effects = append(effects, rental.Cancel{RentalID: i.RentalID})
	}
	for _, e := range effects {
		if c, ok := e.(rental.Cancel); ok && !h.seenGone(c.RentalID) {
			h.stopping[c.RentalID] = true
			if err := h.act(ctx, next, []rental.Effect{c}); err != nil {
				return err
			}
		}
	}
	if len(extra.Commands) > 0 {
		return err // the command is not done with
	}
	return nil
}

func (h *Holder) record(ctx context.Context, before, after *rental.Order, r rental.Record, extra world.Internal) error {
	pb := view.Order(after, h.config.Fees)
	ev := &orderv1.OrderEvent{
		Revision: after.Revision, Order: pb, Cause: &orderv1.Cause{Kind: r.Cause, By: r.By, Reason: r.Reason},
	}
	if before.State == rental.New {
		ev.Changed = []string{"state"}
	} else {
		ev.Changed = view.Changed(view.Order(before, h.config.Fees), pb)
	}
	if len(extra.Commands) > 0 {
		ev.Cause.CommandSeq = extra.Commands[0]
	}
	for _, s := range r.Settled {
		ev.Settled = append(ev.Settled, view.Settlement(s))
	}
	extra.Order = after
	err := h.append(ctx, fact{client: after.Client, id: after.ID, event: r.Event, public: ev, internal: extra, trace: after.Trace})
	if err != nil {
		return err
	}
	h.deps.Log.InfoContext(ctx, "order "+r.Event, "order_id", after.ID, "client", after.Client, "state", after.State.String(), "revision", after.Revision, "reason", r.Reason)
	return nil
}

// noop records that a command was looked at and changed nothing.
func (h *Holder) noop(ctx context.Context, o *rental.Order, extra world.Internal) error {
	return h.append(ctx, fact{
		client: o.Client, id: "-", event: "noop", internal: extra,
		public: &orderv1.OrderEvent{Cause: &orderv1.Cause{Kind: "command", By: o.Client, CommandSeq: extra.Commands[0], Reason: "nothing to change"}},
	})
}
