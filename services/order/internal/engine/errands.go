package engine

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/ask"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/order/internal/prove"
	"github.com/renthook/renthook/services/order/internal/rental"
	"github.com/renthook/renthook/services/order/internal/view"
	"github.com/renthook/renthook/services/order/internal/world"
)

// reportPatience is how long a report waits for a good read before it tells the last known list, marked stale.
const reportPatience = 60 * time.Second

func commandEvent(client string, seq uint64, reason string) *orderv1.OrderEvent {
	return &orderv1.OrderEvent{Cause: &orderv1.Cause{Kind: "command", By: client, CommandSeq: seq, Reason: reason}}
}

// settleAlone records the end of an operation that is about no order of ours.
func (h *Holder) settleAlone(ctx context.Context, event, client string, s rental.Settlement, report *orderv1.Report, trace string, extra world.Internal) error {
	ev := commandEvent(client, s.Operation.Seq, "")
	if s.Failure != nil {
		ev.Cause.Reason = s.Failure.Message
	}
	ev.Report = report
	ev.Settled = []*orderv1.Settlement{view.Settlement(s)}
	return h.append(ctx, fact{client: client, id: "-", event: event, internal: extra, trace: trace, public: ev})
}

// errands goes on with what is about the account: after a read, and when patience ends.
func (h *Holder) errands(ctx context.Context, now time.Time, read bool) error {
	for _, e := range h.deps.World.Errands() {
		var err error
		switch {
		case e.Kind == "report":
			err = h.settleReport(ctx, e, now)
		case e.Kind == "close":
			if read && h.awaited(e) {
				err = h.settleClose(ctx, e)
			}
		case read && h.awaited(e):
			err = h.settleForeign(ctx, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// awaited says that the newest list was begun after an errand was accepted and can be believed.
func (h *Holder) awaited(e world.Errand) bool {
	return h.list.good && h.list.rentals.Began.After(e.Accepted)
}

func (h *Holder) settleReport(ctx context.Context, e world.Errand, now time.Time) error {
	fresh := h.awaited(e)
	if !fresh && now.Sub(e.Accepted) < reportPatience {
		return nil
	}
	r := &orderv1.Report{Stale: !fresh}
	if !h.list.rentals.Began.IsZero() {
		r.ReadTime = timestamppb.New(h.list.rentals.Began)
	}
	for _, row := range h.list.rentals.Rentals {
		if row.Expired {
			continue
		}
		out := &orderv1.Report_Rental{MarketOrderId: row.ID, ServerId: row.ServerID, Status: "creating_order", Ssh: sshLine(row)}
		if row.Up {
			out.Status = "running"
		}
		if o := h.deps.World.OwnerOf(row.ID); o != nil {
			out.Managed = true
			switch {
			case o.State == rental.Cancelling:
				out.Status = "cancelling"
			case o.State == rental.Running:
				out.Status = "running"
			case o.State == rental.Provisioning:
				out.Status = "creating_order"
			}
			if o.Client == e.Client {
				out.OrderId = o.ID
			}
		}
		r.Rentals = append(r.Rentals, out)
	}
	for _, o := range h.deps.World.Orders() {
		if o.Client == e.Client && !o.State.Terminal() && !o.State.Held() {
			r.Waiting = append(r.Waiting, view.Order(o, h.config.Fees))
		}
	}
	e.Settled = true
	return h.settleAlone(ctx, "reported", e.Client, rental.Settlement{Operation: e.Operation}, r, "", world.Internal{Errand: &e})
}

func sshLine(row market.Rental) string {
	if port := row.TCPPorts[22]; port != 0 && row.Host != "" {
		return fmt.Sprintf("ssh root@%s -p %d", row.Host, port)
	}
	return ""
}

// settleForeign ends the cancel of a rental that is no order of the client's: unknown to the market or not allowed; or,
// once a cancel was sent, proved gone.
func (h *Holder) settleForeign(ctx context.Context, e world.Errand) error {
	var row *market.Rental
	for n := range h.list.rentals.Rentals {
		if r := &h.list.rentals.Rentals[n]; r.ID == e.RentalID {
			row = r
		}
	}
	s := rental.Settlement{Operation: e.Operation}
	event := "cancelled"
	switch {
	case !h.config.Clients[e.Client].CancelAny, row == nil && !e.Called:
		event, s.Failure = "cancel_failed", notFound(numberAsSent(e))
	case row != nil && !row.Expired:
		return h.endForeign(ctx, e)
	case row == nil && !h.foreignGone(e.RentalID):
		return nil
	}
	delete(h.foreign, e.RentalID)
	delete(h.lacking, e.RentalID)
	e.Settled = true
	return h.settleAlone(ctx, event, e.Client, s, nil, "", world.Internal{Errand: &e})
}

// absence counts good reads in a row that lacked a rental which is no order's.
type absence struct {
	// vouched are those that showed a live rental of ours.
	vouched, n int
	first      time.Time
}

// foreignGone counts the newest list, which lacks a rental that was told to end, and says whether that is proof by now:
// by the rules for our own rentals.
func (h *Holder) foreignGone(id int64) bool {
	a := h.lacking[id]
	if a == nil {
		a = &absence{first: h.list.rentals.Began}
		h.lacking[id] = a
	}
	a.n++
	if h.list.vouched {
		a.vouched++
	}
	return a.vouched >= prove.GoodReads || a.n >= prove.GoodReads && h.list.rentals.Began.Sub(a.first) >= h.config.Prove.WindowBlind
}

// numberAsSent is how the sender of a cancel wrote the rental's number, for texts.
func numberAsSent(e world.Errand) string {
	if c := e.Operation.Callback; c != nil && c.OrderAsSent != "" {
		return ask.Echo(c.OrderAsSent)
	}
	return fmt.Sprint(e.RentalID)
}

// endForeign has a rental that is no order of the client's ended: by its own order where it has one, else by cancels
// that are repeated until the list proves its end.
func (h *Holder) endForeign(ctx context.Context, e world.Errand) error {
	delete(h.lacking, e.RentalID)
	if !e.Called {
		e.Called = true
		ev := commandEvent(e.Client, e.Operation.Seq, fmt.Sprintf("ending rental %d", e.RentalID))
		if err := h.append(ctx, fact{client: e.Client, id: "-", event: "cancelling", internal: world.Internal{Errand: &e}, public: ev}); err != nil {
			return err
		}
	}
	if o := h.deps.World.OwnerOf(e.RentalID); o != nil && !o.State.Terminal() {
		if o.Wanted != nil {
			return nil
		}
		return h.decide(ctx, o, rental.EndAsked{By: e.Client, Reason: "asked by " + e.Client}, world.Internal{})
	}
	h.foreign[e.RentalID] = true
	return nil
}
