package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/renthook/renthook/services/internal/ask"
	"github.com/renthook/renthook/services/internal/auth"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/order/internal/choose"
	"github.com/renthook/renthook/services/order/internal/ledger"
	"github.com/renthook/renthook/services/order/internal/prove"
	"github.com/renthook/renthook/services/order/internal/rental"
	"github.com/renthook/renthook/services/order/internal/world"
)

// hostMemory is how long a server whose rental never became usable is left alone.
const hostMemory = 24 * time.Hour

// markerMemory is how long a marker port is not used again.
const markerMemory = 24 * time.Hour

// InstallationPort derives the first marker port of every intent from 64 bits of the installation's key.
func InstallationPort(random uint64) int { return markerPort(random) }

func markerPort(random uint64) int {
	return prove.MarkerLow + int(random%(prove.MarkerHigh-prove.MarkerLow+1))
}

// Reasons that need a person.
const (
	whyKey         = "the market does not accept the API key: check it and restart"
	whyRoom        = "the journal is nearly full: make room or raise the stream's limit"
	whySuspects    = "a rental may be ours and no intent accounts for it"
	whyUnaccounted = "a rental that should be listed is not, and its end is not proved"
)

// frozen says why no create may go out at all; empty when it may.
func (h *Holder) frozen(now time.Time) string {
	switch {
	case now.Before(h.fullUntil):
		return WhyFull
	case !h.deps.Room():
		return whyRoom
	case now.Before(h.createsFrom):
		return "the last holder of the account did not let go: its last call must be over first"
	case h.list.suspects > 0:
		return whySuspects
	case h.list.unaccounted > 0:
		return whyUnaccounted
	case h.keyRefused:
		return whyKey
	case h.walletsWanted:
		return "the market refused for want of money: the wallet is to be read first"
	case h.createsUsedUp(now):
		return "limits.creates_per_hour is used up"
	case !h.deps.Books.Fresh(now):
		return "the market has not been read lately"
	}
	return ""
}

func (h *Holder) createsUsedUp(now time.Time) bool {
	n := 0
	for _, o := range h.deps.World.Since(now.Add(-time.Hour)) {
		for _, i := range o.Intents {
			if now.Sub(i.At) < time.Hour && !i.NotSent {
				n++
			}
		}
	}
	return n >= h.config.CreatesPerHour
}

// next is the order whose turn it is to be given a server, the one that has waited longest; nil when there is none or
// nothing may be created.
func (h *Holder) next(now time.Time) *rental.Order {
	var first *rental.Order
	for _, o := range h.deps.World.Live() {
		if o.WantsServer() && h.evaluated[o.ID].some && h.deps.World.Halted(o.Client) == nil {
			first = o
			break
		}
	}
	if first == nil || h.frozen(now) != "" {
		return nil
	}
	return first
}

// evaluate looks, once a poll, whether orders that want a server could have one; those that could not are told.
func (h *Holder) evaluate(ctx context.Context, now time.Time) error {
	poll := h.deps.Books.Poll()
	if poll == 0 || !h.deps.Books.Fresh(now) {
		return nil
	}
	for _, o := range h.deps.World.Live() {
		if !o.WantsServer() || h.evaluated[o.ID].poll == poll {
			continue
		}
		choice, why := choose.Choose(o.Ask, h.deps.Books.Book(o.Ask.GPU), h.terms(o, now))
		h.evaluated[o.ID] = evaluation{poll: poll, some: choice != nil}
		if choice != nil {
			continue
		}
		if err := h.decide(ctx, o, rental.NoOffer{Reason: why}, world.Internal{}); err != nil {
			return err
		}
	}
	return nil
}

// terms are what the settings and our other orders add to an ask.
func (h *Holder) terms(o *rental.Order, now time.Time) choose.Terms {
	// fact:bids-can-double
	c := h.config
	t := choose.Terms{
		MinReliability: c.MinReliability, SpotHeadroom: c.SpotHeadroom, Fees: c.Fees,
		Balances: h.balances, Leave: map[int64]string{},
	}
	for _, other := range h.deps.World.Since(now.Add(-hostMemory)) {
		for n := range other.Intents {
			i := &other.Intents[n]
			switch {
			case i.Outcome.Live():
				t.Leave[i.Server.ID] = "held by another order"
			case other.ID == o.ID && !i.NotSent:
				t.Leave[i.Server.ID] = "tried before"
			case i.FailedBoot && now.Sub(i.EndedAt) < hostMemory:
				t.Leave[i.Server.ID] = "never became usable lately"
			}
		}
	}
	for _, r := range h.list.rentals.Rentals {
		if !r.Expired {
			t.Leave[r.ServerID] = "rented by this account"
		}
	}
	return t
}

// plan chooses, records the intent, and makes its one call. The pacer has granted the slot.
func (h *Holder) plan(ctx context.Context, now time.Time) (time.Time, error) {
	o := h.next(now)
	if o == nil || !h.listSuffices(now) {
		return now, nil
	}
	choice, why := choose.Choose(o.Ask, h.deps.Books.Book(o.Ask.GPU), h.terms(o, now))
	if choice == nil {
		h.evaluated[o.ID] = evaluation{poll: h.deps.Books.Poll()}
		return now, h.decide(ctx, o, rental.NoOffer{Reason: why}, world.Internal{})
	}
	intent := rental.Intent{
		Server: rental.Server{
			ID: choice.Offer.ServerID, GPU: choice.Offer.GPU, FullName: choice.Offer.FullName, GPUCount: choice.Offer.GPUCount,
			VRAMGB: choice.Offer.VRAMGB, Country: choice.Offer.Country, Reliability: choice.Offer.Reliability,
		},
		Type: string(choice.Type), Currency: choice.Quote.Currency, PerDay: choice.PerDay, USDRate: choice.Quote.USDRate,
		USDPerHour: choice.USDPerHour, Markers: h.markers(o, now), Image: o.Ask.Image, Baseline: max(h.list.maxID, h.deps.World.MaxRental()), Shortened: choice.Shortened,
		MaxLength: choice.Offer.MaxRental, Reserved: choice.Reserved, Epoch: h.log.Epoch(),
	}
	ends := time.Time{}
	if length := o.Ask.Duration; length > 0 {
		if choice.Shortened > 0 {
			length = choice.Shortened
		}
		ends = now.Add(length)
	}
	if f := h.overLimit(o, intent, ends, now); f != nil {
		h.evaluated[o.ID] = evaluation{poll: h.deps.Books.Poll()}
		return now, h.decide(ctx, o, rental.Barred{Failure: *f}, world.Internal{})
	}
	// The number is the machine's to give; the request needs it for the password.
	request, err := h.request(o, &intent, len(o.Intents)+1)
	if err != nil {
		return now, err
	}
	intent.CallBy = time.Now().Add(h.config.CallTimeout + slack)
	if err := h.decide(ctx, o, rental.Planned{Intent: intent, Why: choice.Why}, world.Internal{}); err != nil {
		return now, err
	}
	recorded := h.deps.World.Order(o.ID)
	if recorded.OpenIntent() == nil {
		// The machine refused the plan: the rules of choosing and of recording disagree. Nothing is sent.
		return now, h.decide(ctx, recorded, rental.NoOffer{Reason: "the plan was refused"}, world.Internal{})
	}
	h.callCreate(ctx, recorded, recorded.OpenIntent(), request)
	return time.Time{}, nil
}

// overLimit says which spending limit, of the account or of the client, an intent of an order would pass that ends at
// ends; nil when none.
func (h *Holder) overLimit(o *rental.Order, i rental.Intent, ends, now time.Time) *rental.Failure {
	c := h.config
	at := now.In(c.Zone)
	for _, l := range []struct {
		whose  string
		limits ledger.Limits
		client string
	}{{"limits.", c.Limits, ""}, {limitsOf(o.Client), c.Clients[o.Client].Limits, o.Client}} {
		if l.limits.None() {
			continue
		}
		// The intent itself, where it is recorded already, is counted with its new end and not twice.
		orders := slices.DeleteFunc(h.deps.World.Since(ledger.Month(at).From), func(x *rental.Order) bool {
			return l.client != "" && x.Client != l.client
		})
		if over := l.limits.Passes(orders, o, i, ends, c.Fees, at); over != nil {
			text := over.Text(l.whose)
			return &rental.Failure{Code: "SPEND_CAP_EXCEEDED", Message: text, Retryable: true, Seed: text}
		}
	}
	return nil
}

// request is what goes to the market for an intent. Sealed values are opened here, in the last step before the call.
func (h *Holder) request(o *rental.Order, i *rental.Intent, number int) (market.CreateRequest, error) {
	// fact:required-price-holds
	r := market.CreateRequest{
		ServerID: i.Server.ID, Type: market.Type(i.Type), Currency: i.Currency, Image: i.Image, Ports: map[int]string{}, SSHKey: o.Ask.SSHKey, AutoSSH: o.Ask.WantsSSH(),
	}
	for port, kind := range o.Ask.Ports {
		r.Ports[port] = kind
	}
	for _, port := range i.Markers {
		r.Ports[port] = "tcp"
	}
	if o.Ask.WantsSSH() && r.SSHKey == "" {
		r.SSHPassword = h.deps.Box.Password("ssh", o.ID, fmt.Sprint(number))
	}
	switch {
	case r.Type == market.Spot:
		r.Bid = i.PerDay
	case h.config.RequiredPrice:
		r.RequiredPrice = i.PerDay
	}
	if o.Ask.Sealed != "" {
		private, err := ask.Open(h.deps.Box, o.Ask.Sealed)
		if err != nil {
			return r, fmt.Errorf("open what order %s keeps sealed: %w", o.ID, err)
		}
		r.Env, r.Command = private.Env, private.Command
	}
	if h.config.ReleaseURL != "" {
		env := map[string]string{
			"RENTHOOK_ORDER_ID":      o.ID,
			"RENTHOOK_RELEASE_URL":   strings.TrimSuffix(h.config.ReleaseURL, "/") + "/v1/orders/" + o.ID + "/release",
			"RENTHOOK_RELEASE_TOKEN": auth.ReleaseToken(h.deps.Box, o.Client, o.ID),
		}
		maps.Copy(env, r.Env) // what was asked for stands
		r.Env = env
	}
	return r, nil
}

// markers picks the marker ports of an intent: the installation's, and one not used within a day.
func (h *Holder) markers(o *rental.Order, now time.Time) []int {
	// fact:marker-ports-are-taken
	if h.config.Markers == 0 {
		return nil
	}
	used := map[int]bool{h.config.Prove.InstallationPort: true}
	for port := range o.Ask.Ports {
		used[port] = true
	}
	for _, other := range h.deps.World.Since(now.Add(-markerMemory)) {
		for _, i := range other.Intents {
			if i.Outcome.Live() || now.Sub(i.At) < markerMemory {
				for _, m := range i.Markers {
					used[m] = true
				}
			}
		}
	}
	own := markerPort(h.deps.Random())
	for used[own] {
		own = markerPort(h.deps.Random())
	}
	if h.config.Markers == 1 {
		return []int{own}
	}
	return []int{h.config.Prove.InstallationPort, own}
}
