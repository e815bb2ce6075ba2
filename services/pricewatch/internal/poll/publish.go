package poll

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/marketview"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/pricewatch/internal/board"
)

// publishTimeout bounds one message.
const publishTimeout = 5 * time.Second

// publisher writes the market's streams: only what differs from what they hold.
type publisher struct {
	load    func(context.Context) (marketview.Stored, error)
	publish func(context.Context, *nats.Msg) (bus.Ack, error)

	// partBytes bounds a part of a book.
	partBytes int

	// known says that the rest is what the stream holds; whatever went wrong makes it false, and the stream is read.
	known  bool
	poll   marketview.Poll
	digest string
	models map[string]model
	shrink board.Shrink
	// last is the sequence of our last message in the market's stream, zero when there is none yet. Nobody else
	// writes there while we hold the lease.
	last uint64
}

// model is what the stream holds of one model.
type model struct {
	digest uint64
	// sure is false where the stream's parts do not make one book.
	sure  bool
	parts int
	row   board.Row
}

// prepare reads what the stream holds, unless that is known.
func (p *publisher) prepare(ctx context.Context) error {
	if p.known {
		return nil
	}
	stored, err := p.load(ctx)
	if err != nil {
		return fmt.Errorf("read what was published last: %w", err)
	}
	p.poll, p.digest, p.last = stored.Poll, "", 0
	p.models = make(map[string]model, len(stored.Books))
	for gpu, b := range stored.Books {
		if b.Whole && len(b.Offers) == 0 && b.Parts == 0 {
			continue
		}
		m := model{sure: b.Whole, parts: b.Parts}
		if b.Whole {
			m.digest, m.row = board.Digest(b.Offers), board.Summarize(b.Offers)
		}
		p.models[gpu] = m
	}
	p.known = true
	return nil
}

// listing publishes what changed and the snapshot last, and says whether the listing was believed. After an error
// the stream is read before the next one.
func (p *publisher) listing(ctx context.Context, l market.Listing, interval time.Duration) (believed bool, err error) {
	if !p.shrink.Believe(len(l.Offers), p.poll.Servers) {
		return false, nil
	}
	defer func() { p.known = p.known && err == nil }()
	next := marketview.Poll{
		Number: p.poll.Number + 1, Began: l.Began, Interval: interval, Servers: len(l.Offers), Dropped: l.Dropped, Rates: l.Rates,
	}
	if l.Digest == "" || l.Digest != p.digest || !sameRates(l.Rates, p.poll.Rates) {
		if err := p.books(ctx, board.Books(l.Offers), next); err != nil {
			return false, err
		}
	}
	for _, m := range p.models {
		next.Available += m.row.Available
	}
	next.Models = len(p.models)
	if err := p.send(ctx, topology.MarketSnapshot, marketview.EncodeSnapshot(next), true); err != nil {
		return false, err
	}
	p.poll, p.digest = next, l.Digest
	return true, nil
}

func sameRates(a, b map[string]market.Rate) bool {
	return maps.EqualFunc(a, b, func(x, y market.Rate) bool { return x.USD.Cmp(y.USD) == 0 && x.Source == y.Source })
}

// books publishes every model that differs from what the stream holds, vanished ones included.
func (p *publisher) books(ctx context.Context, books map[string][]market.Offer, next marketview.Poll) error {
	names := make(map[string]bool, len(books)+len(p.models))
	for gpu := range books {
		names[gpu] = true
	}
	for gpu := range p.models {
		names[gpu] = true
	}
	for _, gpu := range slices.Sorted(maps.Keys(names)) {
		if err := p.model(ctx, gpu, books[gpu], next); err != nil {
			return err
		}
	}
	return nil
}

// model publishes the history and the best prices before the book: a crash between them repeats a point and loses
// none, since the book is what the next holder compares with.
func (p *publisher) model(ctx context.Context, gpu string, book []market.Offer, next marketview.Poll) error {
	before, listed := p.models[gpu]
	digest := board.Digest(book)
	if listed && before.sure && before.digest == digest && len(book) > 0 {
		return nil
	}
	row := board.Summarize(book)
	if !listed || !before.sure || !row.SamePoint(before.row) {
		tick := row.Tick(gpu, next.Number, timestamppb.New(next.Began))
		if err := p.send(ctx, topology.MarketTick(gpu), tick, false); err != nil {
			return err
		}
	}
	spot, onDemand := row.Best(gpu, next.Number)
	sameSpot, sameOnDemand := row.SameBest(before.row)
	if !listed || !before.sure || !sameSpot {
		if err := p.send(ctx, topology.MarketBest(gpu, spot.GetMarketType()), spot, true); err != nil {
			return err
		}
	}
	if !listed || !before.sure || !sameOnDemand {
		if err := p.send(ctx, topology.MarketBest(gpu, onDemand.GetMarketType()), onDemand, true); err != nil {
			return err
		}
	}
	parts, err := board.Parts(gpu, next.Number, book, p.partBytes)
	if err != nil {
		return err
	}
	for i, data := range parts {
		if err := p.store(ctx, topology.MarketBook(gpu, i), "application/protobuf", data, true); err != nil {
			return err
		}
	}
	// What a larger book left behind is blanked, so that the stream holds each server once.
	for i := len(parts); i < before.parts; i++ {
		blank, err := board.Blank(gpu, next.Number, i, len(parts))
		if err != nil {
			return err
		}
		if err := p.store(ctx, topology.MarketBook(gpu, i), "application/protobuf", blank, true); err != nil {
			return err
		}
	}
	if len(book) == 0 {
		delete(p.models, gpu)
	} else {
		p.models[gpu] = model{digest: digest, sure: true, parts: len(parts), row: row}
	}
	return nil
}

func (p *publisher) send(ctx context.Context, subject string, m proto.Message, ours bool) error {
	data, err := protojson.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s: %w", subject, err)
	}
	return p.store(ctx, subject, "application/json", data, ours)
}

// ErrForeign says that another process writes the market's stream, or that the stream was made anew.
var ErrForeign = errors.New("another process writes the market")

// store publishes one message. ours says that it goes to the stream that only the holder writes: a sequence that is
// not the next one means that somebody else wrote there, and that what is known of the stream is not true any more.
func (p *publisher) store(ctx context.Context, subject, contentType string, data []byte, ours bool) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	ack, err := p.publish(ctx, &nats.Msg{Subject: subject, Data: data, Header: nats.Header{"Content-Type": {contentType}}})
	if err != nil || !ours {
		return err
	}
	if p.last != 0 && ack.Seq != p.last+1 {
		return fmt.Errorf("publish %s: stored as message %d after %d: %w", subject, ack.Seq, p.last, ErrForeign)
	}
	p.last = ack.Seq
	return nil
}
