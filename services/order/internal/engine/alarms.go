package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/renthook/renthook/pkg/journal"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/money"
	"github.com/renthook/renthook/services/order/internal/ledger"
	"github.com/renthook/renthook/services/order/internal/rental"
	"github.com/renthook/renthook/services/order/internal/world"
)

// budgetsEvery is how often what is spent is compared with the limits.
const budgetsEvery = time.Minute

// waitsAfter is how long creates may wait without a word: a poll of the market may come late now and then.
const waitsAfter = 20 * time.Second

// warnPart is how much of a spending limit may be committed before it is told, percent.
const warnPart = 80

// alarm records and logs once that something needs a person; calm says that it is over, so that it is told anew when it
// comes back.
func (h *Holder) alarm(ctx context.Context, name, text string) error {
	if h.alarms[name] {
		return nil
	}
	h.deps.Log.ErrorContext(ctx, "alarm", "alarm", name, "reason", text)
	err := h.append(ctx, fact{
		client: "-", id: "-", event: "alarm", public: &orderv1.OrderEvent{Cause: &orderv1.Cause{Kind: "writer", By: name, Reason: text}},
	})
	if err != nil && !errors.Is(err, journal.ErrFull) { // the log has it, and what follows must not wait for room
		return err
	}
	h.alarms[name] = true
	return nil
}

func (h *Holder) calm(name string) { delete(h.alarms, name) }

// tellFrozen says when creates begin to wait, why, and when they go on.
func (h *Holder) tellFrozen(ctx context.Context, now time.Time) error {
	why := h.frozen(now)
	if why != h.waits {
		if h.waitsTold && why == "" {
			h.deps.Log.InfoContext(ctx, "creates go on")
		}
		h.waits, h.waitsFrom, h.waitsTold = why, now, false
		h.deps.Waits(why)
	}
	if why != "" && !h.waitsTold && now.Sub(h.waitsFrom) >= waitsAfter {
		h.deps.Log.WarnContext(ctx, "creates wait", "reason", why)
		h.waitsTold = true
	}
	for name, text := range map[string]string{"suspects": whySuspects, "unaccounted": whyUnaccounted, "journal_room": whyRoom, "key_refused": whyKey} {
		if why != text {
			h.calm(name)
		} else if err := h.alarm(ctx, name, text); err != nil {
			return err
		}
	}
	return nil
}

// budgets warns of spending limits that are nearly used up, and ends everything once one is, where the settings say so.
func (h *Holder) budgets(ctx context.Context, now time.Time) error {
	if h.config.Limits.None() || now.Before(h.budgetsAt) {
		return nil
	}
	h.budgetsAt = now.Add(budgetsEvery)
	at := now.In(h.config.Zone)
	uses, err := h.config.Limits.Uses(h.deps.World.Since(ledger.Month(at).From), h.config.Fees, at)
	if err != nil {
		return h.alarm(ctx, "spend_unknown", "what is spent cannot be reckoned: nothing more is rented")
	}
	h.calm("spend_unknown")
	for _, u := range uses {
		if u.Part() < warnPart {
			h.calm(u.Setting)
			continue
		}
		text := fmt.Sprintf("limits.%s: %s of %s USD are committed, %s spent", u.Setting, money.Cents(u.Committed), money.Cents(u.Limit), money.Cents(u.Spent))
		if err := h.alarm(ctx, u.Setting, text); err != nil {
			return err
		}
		if !h.config.CloseAtLimit || u.Spent.Cmp(u.Limit) < 0 {
			continue
		}
		for _, o := range h.deps.World.Live() {
			if err := h.decide(ctx, o, rental.EndAsked{By: "limits", Reason: "limits." + u.Setting + " is used up"}, world.Internal{}); err != nil {
				return err
			}
		}
	}
	return nil
}
