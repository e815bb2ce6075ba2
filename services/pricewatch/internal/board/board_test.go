package board_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/govalues/decimal"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	marketv1 "github.com/renthook/renthook/proto/gen/renthook/market/v1"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/pricewatch/internal/board"
)

func amount(s string) decimal.Decimal { return decimal.MustParse(s) }

// offer costs so many USD per hour on demand and on spot; "" is not priced.
func offer(id int64, gpu, onDemand, spot string) market.Offer {
	quote := func(usd string) []market.Quote {
		if usd == "" {
			return []market.Quote{{Currency: "penny", PerDay: amount("1"), Allowed: true}}
		}
		return []market.Quote{{Currency: "USD-Blockchain", PerDay: amount("1"), USDPerHour: amount(usd), Priced: true, Allowed: true}}
	}
	return market.Offer{ServerID: id, GPU: gpu, Name: gpu, FullName: gpu, GPUCount: 1, OnDemand: quote(onDemand), Spot: quote(spot)}
}

func TestBooksAreSortedByWhatCanBePaid(t *testing.T) {
	t.Parallel()
	unallowed := offer(5, "a", "0.01", "0.01")
	unallowed.OnDemand[0].Allowed, unallowed.Spot[0].Allowed = false, false
	books := board.Books([]market.Offer{
		offer(4, "a", "", ""), offer(2, "a", "0.5", ""), unallowed, offer(3, "a", "", "0.3"), offer(1, "a", "0.3", "0.9"), offer(9, "b", "1", "1"),
	})
	var ids []int64
	for _, o := range books["a"] {
		ids = append(ids, o.ServerID)
	}
	if !reflect.DeepEqual(ids, []int64{1, 3, 2, 4, 5}) || len(books) != 2 || len(books["b"]) != 1 {
		t.Errorf("%v, %d books", ids, len(books))
	}
}

// Each member that is published changes the digest; a rate, which is not, does not.
func TestDigestSeesEveryMember(t *testing.T) {
	t.Parallel()
	base := func() []market.Offer {
		o := offer(1, "a", "0.5", "0.3")
		return []market.Offer{o, offer(2, "a", "0.5", "0.3")}
	}
	want := board.Digest(base())
	if got := board.Digest(base()); got != want {
		t.Fatal("equal books, different digests")
	}
	changed := 0
	for i := range reflect.TypeFor[market.Offer]().NumField() {
		book := base()
		change(reflect.ValueOf(&book[0]).Elem().Field(i))
		if board.Digest(book) == want {
			t.Errorf("a change of %s is not seen", reflect.TypeFor[market.Offer]().Field(i).Name)
		}
		changed++
	}
	for i := range reflect.TypeFor[market.Quote]().NumField() {
		name := reflect.TypeFor[market.Quote]().Field(i).Name
		book := base()
		change(reflect.ValueOf(&book[0].Spot[0]).Elem().Field(i))
		if seen := board.Digest(book) != want; seen != (name != "USDRate") {
			t.Errorf("a change of the quote's %s: seen %t", name, seen)
		}
		changed++
	}
	if swapped := base(); board.Digest([]market.Offer{swapped[1], swapped[0]}) == want {
		t.Error("the order is not seen")
	}
	if changed < 25 {
		t.Errorf("only %d members", changed)
	}
}

func change(v reflect.Value) {
	switch v.Interface().(type) {
	case decimal.Decimal:
		v.Set(reflect.ValueOf(amount("0.77")))
		return
	case []market.Quote:
		v.Set(reflect.ValueOf([]market.Quote{}))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("other")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Float64:
		v.SetFloat(v.Float() + 0.25)
	default:
		v.SetInt(v.Int() + 1)
	}
}

func TestPartsKeepTheirBound(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 60 {
		var book []market.Offer
		for i := range n {
			o := offer(int64(i+1), "rtx-4090", "0.5", "0.3")
			o.FullName = fmt.Sprintf("%0*d", r.IntN(200), i)
			book = append(book, o)
		}
		const limit = 700
		parts, err := board.Parts("rtx-4090", 7, book, limit)
		if err != nil {
			t.Fatal(err)
		}
		next := int64(1)
		for i, data := range parts {
			var b marketv1.Book
			if err := proto.Unmarshal(data, &b); err != nil {
				t.Fatal(err)
			}
			if len(data) > limit || b.GetGpu() != "rtx-4090" || b.GetPoll() != 7 || int(b.GetPart()) != i || int(b.GetParts()) != len(parts) {
				t.Errorf("part %d of %d: %d bytes, %s %d %d/%d", i, len(parts), len(data), b.GetGpu(), b.GetPoll(), b.GetPart(), b.GetParts())
			}
			if n > 0 && len(b.GetOffers()) == 0 {
				t.Error("an empty part")
			}
			for _, o := range b.GetOffers() {
				if o.GetServerId() != next {
					t.Errorf("server %d where %d was expected", o.GetServerId(), next)
				}
				next++
			}
		}
		if next != int64(n+1) || len(parts) < 1 {
			t.Errorf("%d offers of %d in %d parts", next-1, n, len(parts))
		}
	}
	huge := offer(1, "a", "1", "1")
	huge.FullName = fmt.Sprintf("%01000d", 1)
	if _, err := board.Parts("a", 1, []market.Offer{huge}, 700); err == nil {
		t.Error("an offer above the bound was encoded")
	}
}

func TestRowOfAModel(t *testing.T) {
	t.Parallel()
	var book []market.Offer
	for i := 1; i <= 20; i++ {
		book = append(book, offer(int64(i), "a", fmt.Sprintf("%d", 21-i), ""))
	}
	rented := offer(99, "a", "0.01", "0.01")
	rented.Rented = true
	book = append(book, rented, offer(100, "a", "", "0.25"))
	row := board.Summarize(book)
	want := board.Row{
		Available: 21, Total: 22, OnDemand: board.Range{Min: "1", P10: "2", Median: "10"}, DemandFrom: 20,
		Spot: board.Range{Min: "0.25", P10: "0.25", Median: "0.25"}, SpotServer: 100,
	}
	if row != want {
		t.Errorf("got  %+v\nwant %+v", row, want)
	}
	spot, onDemand := row.Best("a", 3)
	if !proto.Equal(spot, &marketv1.Best{Gpu: "a", MarketType: "spot", UsdPerHour: "0.25", ServerId: 100, Poll: 3, Available: 21}) ||
		!proto.Equal(onDemand, &marketv1.Best{Gpu: "a", MarketType: "on-demand", UsdPerHour: "1", ServerId: 20, Poll: 3, Available: 21}) {
		t.Errorf("best %v, %v", spot, onDemand)
	}
	at := timestamppb.New(time.Unix(5, 0))
	if tick := row.Tick("a", 3, at); !proto.Equal(tick, &marketv1.Tick{
		Gpu: "a", Poll: 3, Time: at, Available: 21, Total: 22, Spot: &marketv1.Range{Min: "0.25", P10: "0.25", Median: "0.25"},
		OnDemand: &marketv1.Range{Min: "1", P10: "2", Median: "10"},
	}) {
		t.Errorf("tick %v", tick)
	}
	if none := board.Summarize(nil); none != (board.Row{}) {
		t.Errorf("of nothing %+v", none)
	}
}

func TestShrink(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before int
		counts []int
		want   []bool
	}{
		"the first":                    {0, []int{0, 5}, []bool{true, true}},
		"exactly half":                 {100, []int{50}, []bool{true}},
		"a glitch":                     {100, []int{49, 100, 49}, []bool{false, true, false}},
		"a smaller market":             {100, []int{40, 41}, []bool{false, true}},
		"gone twice":                   {100, []int{0, 0}, []bool{false, true}},
		"a list that is cut each time": {100, []int{40, 10, 3, 3}, []bool{false, false, false, true}},
	} {
		var s board.Shrink
		before := c.before
		for i, n := range c.counts {
			got := s.Believe(n, before)
			if got != c.want[i] {
				t.Errorf("%s: %d of %d servers: believed %t", name, n, before, got)
			}
			if got {
				before = n
			}
		}
	}
}
