package poll

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/govalues/decimal"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/cloreapi"
	"github.com/renthook/renthook/pkg/cloreapi/cloresim"
	marketv1 "github.com/renthook/renthook/proto/gen/renthook/market/v1"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/market/clore"
	"github.com/renthook/renthook/services/internal/marketview"
	"github.com/renthook/renthook/services/internal/topology"
)

func amount(s string) decimal.Decimal { return decimal.MustParse(s) }

var rates = map[string]market.Rate{"USD-Blockchain": {USD: amount("1"), Source: "setting"}}

// offer of a model at so many USD per hour.
func offer(id int64, gpu, usdPerHour string) market.Offer {
	perDay, err := amount(usdPerHour).Mul(amount("24"))
	if err != nil {
		panic(err)
	}
	quotes := func() []market.Quote {
		return []market.Quote{{
			Currency: "USD-Blockchain", PerDay: perDay, USDPerHour: amount(usdPerHour), USDRate: amount("1"), Priced: true, Allowed: true,
		}}
	}
	return market.Offer{ServerID: id, GPU: gpu, Name: strings.ToUpper(gpu), FullName: gpu, GPUCount: 1, OnDemand: quotes(), Spot: quotes()}
}

// listing of offers; its digest tells equal ones.
func listing(offers ...market.Offer) market.Listing {
	return market.Listing{Began: time.Now(), Offers: offers, Rates: rates, Dropped: 3, Digest: fmt.Sprintf("%+v", offers)}
}

// many offers of a model, big enough for several parts.
func many(gpu string, from, n int, usd string) []market.Offer {
	out := make([]market.Offer, n)
	for i := range out {
		out[i] = offer(int64(from+i), gpu, usd)
		out[i].FullName = strings.Repeat("x", 200)
	}
	return out
}

// stream is a broker with the market's streams.
type stream struct {
	t    *testing.T
	conn *bus.Conn
	view *marketview.View
	// sent lists the subjects published since the last call of subjects.
	sent []string
	// fail decides over the next publishes.
	fail func(subject string) (stored bool, err error)
}

func newStream(t *testing.T) *stream {
	t.Parallel()
	s := &stream{t: t, conn: bustest.Start(t).Connect(t)}
	for _, cfg := range []jetstream.StreamConfig{topology.MarketStream(topology.DefaultSizes()), topology.TicksStream(topology.DefaultSizes())} {
		if err := s.conn.EnsureStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	s.view = marketview.Open(t.Context(), s.conn.JetStream(), nil)
	t.Cleanup(s.view.Close)
	return s
}

func (s *stream) publish(ctx context.Context, m *nats.Msg) (bus.Ack, error) {
	if s.fail != nil {
		if stored, err := s.fail(m.Subject); err != nil {
			if stored {
				if _, err := s.conn.Publish(ctx, m); err != nil {
					s.t.Fatal(err)
				}
			}
			return bus.Ack{}, err
		}
	}
	s.sent = append(s.sent, strings.TrimPrefix(m.Subject, "renthook.v1.market."))
	return s.conn.Publish(ctx, m)
}

// holder is a process that took the lease.
func (s *stream) holder() *publisher {
	s.t.Helper()
	p := &publisher{partBytes: 8 << 10, publish: s.publish, load: func(ctx context.Context) (marketview.Stored, error) {
		return marketview.Load(ctx, s.conn.JetStream())
	}}
	if err := p.prepare(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *stream) take(p *publisher, l market.Listing) {
	s.t.Helper()
	believed, err := p.listing(s.t.Context(), l, time.Hour)
	if err != nil || !believed {
		s.t.Fatalf("believed %t, error %v", believed, err)
	}
}

// subjects gives what was published since it was called last, in order.
func (s *stream) subjects() string {
	sent := strings.Join(s.sent, " ")
	s.sent = nil
	return sent
}

// shows fails unless the view shows exactly a listing as of a poll.
func (s *stream) shows(poll uint64, l market.Listing) {
	s.t.Helper()
	var m *marketview.Market
	bustest.Eventually(s.t, fmt.Sprintf("poll %d to be visible", poll), func() bool {
		m = s.view.Market()
		return m != nil && m.Poll.Number == poll
	})
	want := map[int64]string{}
	available := 0
	for _, o := range l.Offers {
		want[o.ServerID] = fmt.Sprintf("%+v", o)
		if !o.Rented {
			available++
		}
	}
	for _, row := range m.Models() {
		for _, o := range m.Book(row.GPU) {
			if got := fmt.Sprintf("%+v", o); got != want[o.ServerID] {
				s.t.Errorf("server %d\n got %s\nwant %s", o.ServerID, got, want[o.ServerID])
			}
			delete(want, o.ServerID)
		}
	}
	if len(want) > 0 || m.Poll.Available != available || m.Poll.Servers != len(l.Offers) || m.Poll.Dropped != l.Dropped {
		s.t.Errorf("%d servers are missing; %+v", len(want), m.Poll)
	}
}

func TestOnlyWhatChangedIsPublished(t *testing.T) {
	s := newStream(t)
	p := s.holder()
	first := listing(offer(1, "a", "0.5"), offer(2, "a", "0.6"), offer(3, "b", "1"))
	s.take(p, first)
	if got := s.subjects(); got != "tick.a best.a.spot best.a.on-demand book.a.0 tick.b best.b.spot best.b.on-demand book.b.0 snapshot" {
		t.Errorf("the first poll: %s", got)
	}
	s.shows(1, first)

	s.take(p, first)
	if got := s.subjects(); got != "snapshot" {
		t.Errorf("nothing changed: %s", got)
	}

	// A detail that no price depends on.
	detail := listing(offer(1, "a", "0.5"), offer(2, "a", "0.6"), offer(3, "b", "1"))
	detail.Offers[2].RAMGB = 64
	detail.Digest = "detail"
	s.take(p, detail)
	if got := s.subjects(); got != "book.b.0 snapshot" {
		t.Errorf("a detail changed: %s", got)
	}
	s.shows(3, detail)

	// The second best of a model: its history and not its best price.
	second := listing(offer(1, "a", "0.5"), offer(2, "a", "0.7"), offer(4, "a", "0.8"), detail.Offers[2])
	second.Offers[2].Rented = true
	s.take(p, second)
	if got := s.subjects(); got != "tick.a book.a.0 snapshot" {
		t.Errorf("the second best changed: %s", got)
	}
	s.shows(4, second)

	// The model vanishes and comes back.
	gone := listing(second.Offers[:3]...)
	s.take(p, gone)
	if got := s.subjects(); got != "tick.b best.b.spot best.b.on-demand book.b.0 snapshot" {
		t.Errorf("a model vanished: %s", got)
	}
	s.shows(5, gone)
	if b := s.best("b", "spot"); b.GetUsdPerHour() != "" || b.GetServerId() != 0 || b.GetAvailable() != 0 {
		t.Errorf("best price of a vanished model: %v", b)
	}
	s.take(p, second)
	s.subjects()
	s.shows(6, second)
	if b := s.best("b", "on-demand"); b.GetUsdPerHour() != "1" || b.GetServerId() != 3 || b.GetPoll() != 6 {
		t.Errorf("best price: %v", b)
	}
}

func (s *stream) best(gpu, kind string) *marketv1.Best {
	s.t.Helper()
	m, err := s.conn.LastBySubject(s.t.Context(), topology.Market, topology.MarketBest(gpu, kind))
	if err != nil {
		s.t.Fatal(err)
	}
	var b marketv1.Best
	if err := protojson.Unmarshal(m.Data, &b); err != nil {
		s.t.Fatal(err)
	}
	return &b
}

func TestRatesThatMoveArePublished(t *testing.T) {
	s := newStream(t)
	p := s.holder()
	l := listing(offer(1, "a", "0.5"))
	s.take(p, l)
	s.subjects()
	moved := listing(offer(1, "a", "0.55"))
	moved.Digest, moved.Rates = l.Digest, map[string]market.Rate{"USD-Blockchain": {USD: amount("1.1"), Source: "setting"}}
	for _, quotes := range [][]market.Quote{moved.Offers[0].OnDemand, moved.Offers[0].Spot} {
		quotes[0].PerDay, quotes[0].USDRate = l.Offers[0].Spot[0].PerDay, amount("1.1")
	}
	s.take(p, moved)
	if got := s.subjects(); got != "tick.a best.a.spot best.a.on-demand book.a.0 snapshot" {
		t.Errorf("the same answer at another rate: %s", got)
	}
	s.shows(2, moved)
}

func TestBooksGrowAndShrinkByParts(t *testing.T) {
	s := newStream(t)
	p := s.holder()
	large := listing(append(many("a", 1, 40, "0.5"), offer(9000, "b", "1"))...)
	s.take(p, large)
	if got := s.subjects(); !strings.Contains(got, "book.a.1") {
		t.Fatalf("one part only: %s", got)
	}
	s.shows(1, large)
	small := listing(append(many("a", 1, 20, "0.5"), offer(9000, "b", "1"))...)
	s.take(p, small)
	s.shows(2, small)
	stored, err := marketview.Load(t.Context(), s.conn.JetStream())
	if err != nil {
		t.Fatal(err)
	}
	if b := stored.Books["a"]; !b.Whole || len(b.Offers) != 20 || b.Parts != 1 {
		t.Errorf("stored %d offers in %d parts, whole %t", len(b.Offers), b.Parts, b.Whole)
	}
	// A later reader, and the next holder, see the small one.
	s.subjects()
	s.take(s.holder(), small)
	if got := s.subjects(); got != "snapshot" {
		t.Errorf("the next holder: %s", got)
	}
}

func TestTheNextHolderGoesOn(t *testing.T) {
	s := newStream(t)
	first := listing(offer(1, "a", "0.5"), offer(2, "b", "1"), offer(3, "c", "2"))
	old := s.holder()
	s.take(old, first)
	s.take(old, first)
	s.subjects()

	second := listing(offer(1, "a", "0.4"), offer(2, "b", "1"))
	next := s.holder()
	s.take(next, second)
	if got := s.subjects(); got != "tick.a best.a.spot best.a.on-demand book.a.0 tick.c best.c.spot best.c.on-demand book.c.0 snapshot" {
		t.Errorf("the next holder: %s", got)
	}
	s.shows(3, second)

	// The old one, frozen until now, writes once more. The new one notices and sets it right.
	if _, err := old.listing(t.Context(), listing(offer(1, "a", "0.9"), offer(2, "b", "1"), offer(3, "c", "2")), time.Hour); err == nil {
		t.Error("the old holder did not notice that another one writes")
	}
	third := listing(offer(1, "a", "0.3"), offer(2, "b", "1"))
	if _, err := next.listing(t.Context(), third, time.Hour); err == nil {
		t.Error("the new holder did not notice that another one wrote")
	}
	if err := next.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.take(next, third)
	s.shows(next.poll.Number, third)
}

// Nothing of a real offer is lost on the bus: the next holder finds every model as it was.
func TestTheNextHolderRepeatsNothing(t *testing.T) {
	s := newStream(t)
	sim, err := cloresim.New(cloresim.Config{Servers: 400, NoRateLimit: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Stop(context.WithoutCancel(t.Context())) })
	if err := sim.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	offers := clore.NewOffers(clore.OffersConfig{}, cloreapi.NewPublic(cloreapi.Config{BaseURL: "http://" + sim.Addr()}), nil)
	l, err := offers.Offers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.take(s.holder(), l)
	s.shows(1, l)
	if got := s.subjects(); strings.Count(got, "book.") < 20 {
		t.Errorf("published %s", got)
	}
	s.take(s.holder(), l)
	if got := s.subjects(); got != "snapshot" {
		t.Errorf("repeated %s", got)
	}
	s.shows(2, l)
}

// Whichever publish fails, stored or not, the next poll sets everything right.
func TestEveryPublishMayFail(t *testing.T) {
	for _, stored := range []bool{false, true} {
		t.Run(fmt.Sprintf("stored=%t", stored), func(t *testing.T) {
			s := newStream(t)
			p := s.holder()
			before := listing(append(many("a", 1, 40, "0.5"), offer(9001, "b", "1"), offer(9002, "c", "1"))...)
			after := listing(append(many("a", 1, 20, "0.4"), offer(9001, "b", "0.9"), offer(9003, "d", "1"))...)
			for n := 0; ; n++ {
				if err := p.prepare(t.Context()); err != nil {
					t.Fatal(err)
				}
				s.take(p, before)
				s.shows(p.poll.Number, before)
				count := 0
				s.fail = func(string) (bool, error) {
					if count++; count == n+1 {
						return stored, bus.ErrUnknown
					}
					return false, nil
				}
				_, err := p.listing(t.Context(), after, time.Hour)
				s.fail = nil
				if err == nil {
					if n < 10 {
						t.Errorf("only %d publishes", n)
					}
					break
				}
				if !errors.Is(err, bus.ErrUnknown) {
					t.Fatal(err)
				}
				// By the same process, or by the next one.
				if n%2 == 1 {
					p = s.holder()
				}
				if err := p.prepare(t.Context()); err != nil {
					t.Fatal(err)
				}
				s.take(p, after)
				s.shows(p.poll.Number, after)
			}
		})
	}
}

func TestAMarketThatShrankIsHeldBack(t *testing.T) {
	s := newStream(t)
	p := s.holder()
	full := listing(many("a", 1, 10, "0.5")...)
	s.take(p, full)
	s.subjects()
	cut := listing(many("a", 1, 4, "0.5")...)
	if believed, err := p.listing(t.Context(), cut, time.Hour); believed || err != nil || s.subjects() != "" {
		t.Errorf("believed %t, error %v", believed, err)
	}
	s.take(p, full)
	if believed, err := p.listing(t.Context(), cut, time.Hour); believed || err != nil {
		t.Errorf("believed %t, error %v", believed, err)
	}
	s.take(p, cut)
	s.shows(3, cut)
	// The next holder doubts too: it knows how many there were.
	if believed, _ := s.holder().listing(t.Context(), listing(many("a", 1, 1, "0.5")...), time.Hour); believed {
		t.Error("a new holder believes a market that shrank")
	}
}
