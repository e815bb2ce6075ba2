// Package board turns a listing into what is published of it: books, best prices, price points. It is pure: no
// clock, no connection. It guarantees that equal offers give equal digests and that a part of a book keeps its bound.
package board

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math"
	"slices"

	"github.com/govalues/decimal"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	marketv1 "github.com/renthook/renthook/proto/gen/renthook/market/v1"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/marketview"
)

// MostPartBytes bounds one part of a book as it stands on the bus.
const MostPartBytes = 512 << 10

// Books sorts offers by model, and each book by the least price that can be paid, whatever the market; what has none
// stands last.
func Books(offers []market.Offer) map[string][]market.Offer {
	// Offers are large: their places are sorted, then each is copied once.
	places := map[string][]place{}
	for i := range offers {
		o := &offers[i]
		usd, priced := least(o)
		places[o.GPU] = append(places[o.GPU], place{index: i, usd: usd, priced: priced, id: o.ServerID})
	}
	books := make(map[string][]market.Offer, len(places))
	for gpu, sorted := range places {
		slices.SortFunc(sorted, place.compare)
		book := make([]market.Offer, len(sorted))
		for i, p := range sorted {
			book[i] = offers[p.index]
		}
		books[gpu] = book
	}
	return books
}

type place struct {
	index  int
	usd    decimal.Decimal
	priced bool
	id     int64
}

func (p place) compare(q place) int {
	if p.priced != q.priced {
		if p.priced {
			return -1
		}
		return 1
	}
	return cmp.Or(p.usd.Cmp(q.usd), cmp.Compare(p.id, q.id))
}

func least(o *market.Offer) (decimal.Decimal, bool) {
	a, okA := marketview.Least(o.OnDemand)
	b, okB := marketview.Least(o.Spot)
	if !okA || okB && b.USDPerHour.Cmp(a.USDPerHour) < 0 {
		return b.USDPerHour, okB
	}
	return a.USDPerHour, true
}

var seed = maphash.MakeSeed()

// Digest of a book, the same within this process for offers that are published as the same bytes. Rates are no part
// of it: they show in the USD prices.
func Digest(book []market.Offer) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	buf := make([]byte, 0, 512)
	for i := range book {
		buf = appendOffer(buf[:0], &book[i])
		// Errors and short writes do not happen here.
		_, _ = h.Write(buf)
	}
	return h.Sum64()
}

func appendOffer(b []byte, o *market.Offer) []byte {
	for _, n := range [...]int64{
		o.ServerID, int64(o.GPUCount), int64(o.MaxRental), int64(o.Ratings), int64(o.PCIeGen), int64(o.PCIeLane), o.Owner,
	} {
		b = binary.AppendVarint(b, n)
	}
	for _, f := range [...]float64{o.VRAMGB, o.Reliability, o.Rating, o.DownMbps, o.UpMbps, o.RAMGB, o.DiskGB} {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(f))
	}
	for _, s := range [...]string{o.GPU, o.Name, o.FullName, o.Country, o.CUDA} {
		b = appendText(b, s)
	}
	b = append(b, flag(o.Rented), flag(o.Bait))
	for _, quotes := range [...][]market.Quote{o.OnDemand, o.Spot} {
		b = binary.AppendUvarint(b, uint64(len(quotes)))
		for i := range quotes {
			q := &quotes[i]
			b = append(appendText(b, q.Currency), flag(q.Priced), flag(q.Allowed))
			b = appendAmount(appendAmount(b, q.PerDay), q.USDPerHour)
		}
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendAmount(b []byte, d decimal.Decimal) []byte {
	b = append(b, byte(d.Scale()), flag(d.IsNeg()))
	return binary.AppendUvarint(b, d.Coef())
}

func flag(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// Parts encodes a book in parts of at most limit bytes each, at least one; of a vanished model an empty one.
func Parts(gpu string, poll uint64, book []market.Offer, limit int) ([][]byte, error) {
	// What the members other than offers take, generously.
	room := limit - len(gpu) - 64
	var parts []*marketv1.Book
	part, used := &marketv1.Book{}, 0
	for i := range book {
		o := marketview.EncodeOffer(&book[i])
		size := proto.Size(o) + 8
		if size > room {
			return nil, fmt.Errorf("server %d of the book %s takes %d bytes, more than a part of %d", o.GetServerId(), gpu, size, limit)
		}
		if used+size > room {
			parts = append(parts, part)
			part, used = &marketv1.Book{}, 0
		}
		part.Offers = append(part.Offers, o)
		used += size
	}
	parts = append(parts, part)
	out := make([][]byte, len(parts))
	for i, p := range parts {
		p.Gpu, p.Poll, p.Part, p.Parts = gpu, poll, int32(i), int32(len(parts))
		data, err := proto.Marshal(p)
		if err != nil {
			return nil, fmt.Errorf("encode part %d of the book %s: %w", i, gpu, err)
		}
		out[i] = data
	}
	return out, nil
}

// Blank encodes a part that a book does not have any more.
func Blank(gpu string, poll uint64, part, parts int) ([]byte, error) {
	data, err := proto.Marshal(&marketv1.Book{Gpu: gpu, Poll: poll, Part: int32(part), Parts: int32(parts)})
	if err != nil {
		return nil, fmt.Errorf("encode part %d of the book %s: %w", part, gpu, err)
	}
	return data, nil
}

// Range describes prices: USD per hour, whole server, as decimals; empty without any. Percentiles are by nearest rank.
type Range struct{ Min, P10, Median string }

// Row is what the board and the history say of one model. Rows can be compared.
type Row struct {
	Available, Total       int
	Spot, OnDemand         Range
	SpotServer, DemandFrom int64
}

// Summarize makes the row of a model; of no offers the zero row.
func Summarize(book []market.Offer) Row {
	var r Row
	var spot, onDemand []price
	for i := range book {
		o := &book[i]
		r.Total++
		if o.Rented {
			continue
		}
		r.Available++
		if q, ok := marketview.Least(o.Spot); ok {
			spot = append(spot, price{q.USDPerHour, o.ServerID})
		}
		if q, ok := marketview.Least(o.OnDemand); ok {
			onDemand = append(onDemand, price{q.USDPerHour, o.ServerID})
		}
	}
	r.Spot, r.SpotServer = describe(spot)
	r.OnDemand, r.DemandFrom = describe(onDemand)
	return r
}

type price struct {
	usd    decimal.Decimal
	server int64
}

func describe(prices []price) (Range, int64) {
	if len(prices) == 0 {
		return Range{}, 0
	}
	slices.SortFunc(prices, func(a, b price) int { return cmp.Or(a.usd.Cmp(b.usd), cmp.Compare(a.server, b.server)) })
	rank := func(percent int) string { return prices[(percent*len(prices)+99)/100-1].usd.String() }
	return Range{Min: prices[0].usd.String(), P10: rank(10), Median: rank(50)}, prices[0].server
}

// Best are the best prices of a row; without a price and server when there is none.
func (r Row) Best(gpu string, poll uint64) (spot, onDemand *marketv1.Best) {
	return &marketv1.Best{
			Gpu: gpu, MarketType: string(market.Spot), UsdPerHour: r.Spot.Min, ServerId: r.SpotServer, Poll: poll,
			Available: int32(r.Available),
		}, &marketv1.Best{
			Gpu: gpu, MarketType: string(market.OnDemand), UsdPerHour: r.OnDemand.Min, ServerId: r.DemandFrom, Poll: poll,
			Available: int32(r.Available),
		}
}

// SameBest says whether two rows have the same best price on the spot market, and on demand.
func (r Row) SameBest(o Row) (spot, onDemand bool) {
	return r.Available == o.Available && r.Spot.Min == o.Spot.Min && r.SpotServer == o.SpotServer,
		r.Available == o.Available && r.OnDemand.Min == o.OnDemand.Min && r.DemandFrom == o.DemandFrom
}

// SamePoint says whether two rows are the same point of the price history.
func (r Row) SamePoint(o Row) bool {
	return r.Available == o.Available && r.Total == o.Total && r.Spot == o.Spot && r.OnDemand == o.OnDemand
}

// Tick is the row as a point of the price history.
func (r Row) Tick(gpu string, poll uint64, began *timestamppb.Timestamp) *marketv1.Tick {
	wire := func(x Range) *marketv1.Range { return &marketv1.Range{Min: x.Min, P10: x.P10, Median: x.Median} }
	return &marketv1.Tick{
		Gpu: gpu, Poll: poll, Time: began, Available: int32(r.Available), Total: int32(r.Total),
		Spot: wire(r.Spot), OnDemand: wire(r.OnDemand),
	}
}
