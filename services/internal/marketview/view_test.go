package marketview_test

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/govalues/decimal"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
	marketv1 "github.com/renthook/renthook/proto/gen/renthook/market/v1"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/marketview"
	"github.com/renthook/renthook/services/internal/topology"
)

func amount(s string) decimal.Decimal { return decimal.MustParse(s) }

// rates are those of every poll of these tests unless they say otherwise.
var rates = map[string]market.Rate{
	"bitcoin":        {USD: amount("60000"), Source: "answer"},
	"USD-Blockchain": {USD: amount("1"), Source: "setting"},
}

func offer(id int64, gpu, usdPerDay string) market.Offer {
	perHour, err := amount(usdPerDay).Quo(amount("24"))
	if err != nil {
		panic(err)
	}
	quotes := func() []market.Quote {
		return []market.Quote{
			{Currency: "USD-Blockchain", PerDay: amount(usdPerDay), USDPerHour: perHour, USDRate: amount("1"), Priced: true, Allowed: true},
			{Currency: "CLORE-Blockchain", PerDay: amount("0.00000001")},
		}
	}
	return market.Offer{
		ServerID: id, GPU: gpu, Name: "Name of " + gpu, FullName: "Full name of " + gpu, GPUCount: 2, VRAMGB: 11.99,
		MaxRental: 72 * time.Hour, OnDemand: quotes(), Spot: quotes()[:1], Reliability: 0.9969, Rating: 4.64, Ratings: 44,
		Country: "US", CUDA: "13.0", DownMbps: 106.23, UpMbps: 29.35, RAMGB: 128.8107, DiskGB: 102.4688, PCIeGen: 3, PCIeLane: 16,
		Owner: 2288, Bait: id%2 == 0,
	}
}

type world struct {
	t      *testing.T
	server *bustest.Server
	conn   *bus.Conn
}

func newWorld(t *testing.T) *world {
	t.Parallel()
	server := bustest.Start(t)
	w := &world{t: t, server: server, conn: server.Connect(t)}
	w.ensure()
	return w
}

func (w *world) ensure() {
	w.t.Helper()
	if err := w.conn.EnsureStream(w.t.Context(), topology.MarketStream(topology.DefaultSizes())); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) open() *marketview.View {
	v := marketview.Open(w.t.Context(), w.conn.JetStream(), nil)
	w.t.Cleanup(v.Close)
	return v
}

func (w *world) publish(subject string, data []byte) {
	w.t.Helper()
	if _, err := w.conn.Publish(w.t.Context(), &nats.Msg{Subject: subject, Data: data}); err != nil {
		w.t.Fatal(err)
	}
}

// part publishes one part of a book.
func (w *world) part(gpu string, poll uint64, part, parts int, offers ...market.Offer) {
	w.t.Helper()
	b := &marketv1.Book{Gpu: gpu, Poll: poll, Part: int32(part), Parts: int32(parts)}
	for i := range offers {
		b.Offers = append(b.Offers, marketview.EncodeOffer(&offers[i]))
	}
	data, err := proto.Marshal(b)
	if err != nil {
		w.t.Fatal(err)
	}
	w.publish(topology.MarketBook(gpu, part), data)
}

func (w *world) snapshot(p marketview.Poll) {
	w.t.Helper()
	if p.Rates == nil {
		p.Rates = rates
	}
	if p.Interval == 0 {
		p.Interval = time.Hour
	}
	if p.Began.IsZero() {
		p.Began = time.Now()
	}
	data, err := protojson.Marshal(marketview.EncodeSnapshot(p))
	if err != nil {
		w.t.Fatal(err)
	}
	w.publish(topology.MarketSnapshot, data)
}

// delivered waits until every follower was sent everything.
func (w *world) delivered() {
	w.t.Helper()
	stream, err := w.conn.JetStream().Stream(w.t.Context(), topology.Market)
	if err != nil {
		w.t.Fatal(err)
	}
	bustest.Eventually(w.t, "the followers to be sent everything", func() bool {
		sent := 0
		for c := range stream.ListConsumers(w.t.Context()).Info() {
			if c.NumPending == 0 {
				sent++
			}
		}
		return sent > 0
	})
}

// until waits for a poll to be visible.
func until(t *testing.T, v *marketview.View, poll uint64) *marketview.Market {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		changed := v.Changed()
		if m := v.Market(); m != nil && m.Poll.Number >= poll {
			return m
		}
		select {
		case <-changed:
		case <-ctx.Done():
			n, _, _ := v.Snapshot()
			t.Fatalf("poll %d was never visible; %d is", poll, n)
		}
	}
}

func TestOffersComeBackAsTheyWere(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	want := []market.Offer{offer(1, "rtx-4090", "12"), offer(2, "rtx-4090", "13.25")}
	w.part("rtx-4090", 1, 0, 1, want...)
	began := time.Date(2026, 11, 24, 10, 0, 0, 123456789, time.UTC)
	w.snapshot(marketview.Poll{Number: 1, Servers: 2, Available: 2, Dropped: 7, Models: 1, Began: began, Interval: 3 * time.Second})
	m := until(t, v, 1)
	if got := m.Book("rtx-4090"); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if n, b, i := v.Snapshot(); n != 1 || !b.Equal(began) || i != 3*time.Second {
		t.Errorf("snapshot %d %s %s", n, b, i)
	}
	if m.Poll.Dropped != 7 || m.Poll.Available != 2 || !reflect.DeepEqual(m.Poll.Rates, rates) {
		t.Errorf("poll %+v", m.Poll)
	}
	if v.Book("rtx-4090-laptop") != nil {
		t.Error("a book for a model that is not listed")
	}
}

func TestBooksAppearTogetherWithTheirSnapshot(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	w.part("a", 1, 0, 1, offer(1, "a", "1"))
	w.part("b", 1, 0, 1, offer(2, "b", "2"))
	w.snapshot(marketview.Poll{Number: 1, Servers: 2, Models: 2})
	until(t, v, 1)

	w.part("a", 2, 0, 1, offer(1, "a", "5"))
	w.part("c", 2, 0, 1, offer(3, "c", "3"))
	w.part("b", 2, 0, 1) // vanished
	w.delivered()
	if got := v.Market(); got.Poll.Number != 1 || len(got.Models()) != 2 || got.Book("c") != nil {
		t.Errorf("parts of poll 2 show before its snapshot: %+v", got.Models())
	}
	before := v.Market()
	w.snapshot(marketview.Poll{Number: 2, Servers: 2, Models: 2})
	after := until(t, v, 2)
	names := func(m *marketview.Market) (s string) {
		for _, row := range m.Models() {
			s += fmt.Sprintf("%s=%s ", row.GPU, row.OnDemand.USDPerHour.Round(4).Pad(4))
		}
		return s
	}
	if got := names(after); got != "a=0.2083 c=0.1250 " {
		t.Errorf("after poll 2: %s", got)
	}
	if got := names(before); got != "a=0.0417 b=0.0833 " {
		t.Errorf("what was seen before changed under its reader: %s", got)
	}
}

func TestPartsOfABook(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	w.part("a", 1, 0, 2, offer(1, "a", "1"))
	w.part("a", 1, 1, 2, offer(2, "a", "2"))
	w.snapshot(marketview.Poll{Number: 1, Servers: 2, Models: 1})
	if m := until(t, v, 1); len(m.Book("a")) != 2 || m.Book("a")[1].ServerID != 2 {
		t.Fatalf("book of two parts: %+v", m.Book("a"))
	}
	// It shrinks to one part; the surplus part is blanked.
	w.part("a", 2, 0, 1, offer(3, "a", "1"))
	w.part("a", 2, 1, 1)
	w.snapshot(marketview.Poll{Number: 2, Servers: 1, Models: 1})
	if m := until(t, v, 2); len(m.Book("a")) != 1 || m.Book("a")[0].ServerID != 3 {
		t.Fatalf("book of one part: %+v", m.Book("a"))
	}
	// A reader that comes later sees the same.
	if m := until(t, w.open(), 2); len(m.Book("a")) != 1 {
		t.Fatalf("read later: %+v", m.Book("a"))
	}
	stored, err := marketview.Load(t.Context(), w.conn.JetStream())
	if err != nil {
		t.Fatal(err)
	}
	if b := stored.Books["a"]; stored.Poll.Number != 2 || !b.Whole || b.Parts != 1 || len(b.Offers) != 1 {
		t.Errorf("stored %+v", stored)
	}
}

func TestWhatDoesNotAddUpIsNotShown(t *testing.T) {
	for name, broken := range map[string]func(*world){
		"a part is missing": func(w *world) {
			w.part("a", 2, 0, 2, offer(1, "a", "1"))
			w.snapshot(marketview.Poll{Number: 2, Servers: 1, Models: 1})
		},
		"a model is missing": func(w *world) {
			w.snapshot(marketview.Poll{Number: 2, Servers: 1, Models: 2})
		},
		"a server is missing": func(w *world) {
			w.snapshot(marketview.Poll{Number: 2, Servers: 2, Models: 1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			v := w.open()
			w.part("a", 1, 0, 1, offer(1, "a", "1"))
			w.snapshot(marketview.Poll{Number: 1, Servers: 1, Models: 1})
			until(t, v, 1)
			broken(w)
			late := w.open()
			// The next poll makes it whole; in between nothing was shown.
			changed, lateChanged := v.Changed(), late.Changed()
			w.part("a", 3, 0, 1, offer(1, "a", "3"))
			w.snapshot(marketview.Poll{Number: 3, Servers: 1, Models: 1})
			<-changed
			<-lateChanged
			for _, v := range []*marketview.View{v, late} {
				if n, _, _ := v.Snapshot(); n != 3 {
					t.Errorf("poll %d was shown", n)
				}
			}
		})
	}
}

func TestRatesOfUnchangedBooksFollowTheSnapshot(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	w.part("a", 1, 0, 1, offer(1, "a", "1"))
	w.snapshot(marketview.Poll{Number: 1, Servers: 1, Models: 1})
	before := until(t, v, 1)
	moved := map[string]market.Rate{"USD-Blockchain": {USD: amount("1.01"), Source: "answer"}}
	w.snapshot(marketview.Poll{Number: 2, Servers: 1, Models: 1, Rates: moved})
	after := until(t, v, 2)
	if got := after.Book("a")[0].OnDemand[0].USDRate; got.Cmp(amount("1.01")) != 0 {
		t.Errorf("rate %s", got)
	}
	if got := before.Book("a")[0].OnDemand[0].USDRate; got.Cmp(amount("1")) != 0 {
		t.Errorf("the rate changed under a reader: %s", got)
	}
}

func TestFresh(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	now := time.Now()
	if v.Fresh(now) {
		t.Error("fresh before the first snapshot")
	}
	w.snapshot(marketview.Poll{Number: 1, Began: now, Interval: 3 * time.Second})
	until(t, v, 1)
	if !v.Fresh(now.Add(9 * time.Second)) {
		t.Error("three polls old is still fresh")
	}
	if v.Fresh(now.Add(9*time.Second + time.Millisecond)) {
		t.Error("older than three polls is not fresh")
	}
}

func TestWait(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := v.Wait(ctx); err == nil {
		t.Error("waited for nothing and got it")
	}
	waited := make(chan error, 1)
	go func() { waited <- v.Wait(t.Context()) }()
	w.snapshot(marketview.Poll{Number: 1})
	if err := <-waited; err != nil {
		t.Error(err)
	}
}

func TestFollowsThroughARestartOfTheBroker(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	w.part("a", 1, 0, 1, offer(1, "a", "1"))
	w.snapshot(marketview.Poll{Number: 1, Servers: 1, Models: 1})
	until(t, v, 1)
	w.server.Restart()
	if err := w.conn.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.part("a", 2, 0, 1, offer(1, "a", "2"), offer(2, "a", "3"))
	w.snapshot(marketview.Poll{Number: 2, Servers: 2, Models: 1})
	if m := until(t, v, 2); len(m.Book("a")) != 2 {
		t.Errorf("book %+v", m.Book("a"))
	}
}

func TestFollowsAStreamThatIsMadeLaterAndMadeAnew(t *testing.T) {
	t.Parallel()
	server := bustest.Start(t)
	w := &world{t: t, server: server, conn: server.Connect(t)}
	v := w.open()
	w.ensure()
	w.part("a", 7, 0, 1, offer(1, "a", "1"))
	w.snapshot(marketview.Poll{Number: 7, Servers: 1, Models: 1})
	until(t, v, 7)
	if err := w.conn.JetStream().DeleteStream(t.Context(), topology.Market); err != nil {
		t.Fatal(err)
	}
	w.ensure()
	w.part("b", 1, 0, 1, offer(2, "b", "1"))
	w.snapshot(marketview.Poll{Number: 1, Servers: 1, Models: 1})
	bustest.Eventually(t, "the new stream to be visible", func() bool {
		n, _, _ := v.Snapshot()
		return n == 1 && len(v.Book("a")) == 0 && len(v.Book("b")) == 1
	})
}

func TestRefusesNonsenseAndGoesOn(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	w.publish(topology.MarketBook("a", 0), []byte("\xff\xff"))
	w.publish(topology.MarketSnapshot, []byte("{"))
	w.part("a", 1, 0, 1, offer(1, "a", "1"))
	w.snapshot(marketview.Poll{Number: 1, Servers: 1, Models: 1})
	until(t, v, 1)
}

func TestLoadOfAnEmptyStream(t *testing.T) {
	w := newWorld(t)
	stored, err := marketview.Load(t.Context(), w.conn.JetStream())
	if err != nil || stored.Poll.Number != 0 || len(stored.Books) != 0 {
		t.Errorf("%+v %v", stored, err)
	}
}

func TestSummarizeCountsOnlyWhatCanBePaid(t *testing.T) {
	t.Parallel()
	dear, rented, unallowed, unpriced := offer(1, "a", "24"), offer(2, "a", "1"), offer(3, "a", "2"), offer(4, "a", "3")
	rented.Rented = true
	for _, quotes := range [][]market.Quote{unallowed.OnDemand, unallowed.Spot} {
		quotes[0].Allowed = false
	}
	for _, quotes := range [][]market.Quote{unpriced.OnDemand, unpriced.Spot} {
		quotes[0].Priced = false
	}
	got := marketview.Summarize("a", []market.Offer{dear, rented, unallowed, unpriced})
	want := marketview.Model{GPU: "a", Name: "Name of a", Available: 3, Total: 4}
	want.Spot = marketview.Price{ServerID: 1, USDPerHour: dear.Spot[0].USDPerHour}
	want.OnDemand = want.Spot
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := marketview.Summarize("a", []market.Offer{unpriced}); got.Spot.ServerID != 0 || got.Available != 1 {
		t.Errorf("a price out of nothing: %+v", got)
	}
}
