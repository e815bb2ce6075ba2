package marketview

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	marketv1 "github.com/renthook/renthook/proto/gen/renthook/market/v1"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/topology"
)

// Bounds on what a stream may make this process hold; the market lists some thousand servers of some hundred models.
const (
	mostModels = 10_000
	mostParts  = 1_000
	mostOffers = 500_000
)

// parts gathers the parts of books until they are whole.
type parts struct {
	text  interner
	books map[string]*parted
	// filled counts, per model, the parts up to the last one that holds offers, surplus ones too.
	filled map[string]int
	// offers counts what is gathered.
	offers int
}

// parted is one book, perhaps not all of it.
type parted struct {
	poll   uint64
	parts  [][]market.Offer
	have   []bool
	offers int
}

// add takes one part as it stands in the stream under its subject. The newest poll of a model wins; surplus parts, blanked when a book
// shrank, are ignored.
func (p *parts) add(subject string, data []byte) error {
	var b marketv1.Book
	if err := proto.Unmarshal(data, &b); err != nil {
		return fmt.Errorf("read a part of a book: %w", err)
	}
	n, part := int(b.GetParts()), int(b.GetPart())
	if subject != topology.MarketBook(b.GetGpu(), part) {
		return fmt.Errorf("read %s: it holds part %d of the book %q", subject, part, b.GetGpu())
	}
	if b.GetGpu() == "" || n < 1 || n > mostParts || part < 0 {
		return fmt.Errorf("read a part of the book %q: part %d of %d makes no sense", b.GetGpu(), part, n)
	}
	if p.books == nil {
		p.books, p.filled = map[string]*parted{}, map[string]int{}
	}
	if len(b.GetOffers()) > 0 {
		p.filled[b.GetGpu()] = max(p.filled[b.GetGpu()], part+1)
	}
	if part >= n {
		return nil
	}
	offers, err := decodeOffers(b.GetOffers(), &p.text)
	if err != nil {
		return fmt.Errorf("read part %d of the book %q: %w", part, b.GetGpu(), err)
	}
	book := p.books[b.GetGpu()]
	if book == nil || book.poll != b.GetPoll() || len(book.parts) != n {
		if book != nil {
			p.offers -= book.offers
		}
		book = &parted{poll: b.GetPoll(), parts: make([][]market.Offer, n), have: make([]bool, n)}
		p.books[b.GetGpu()] = book
	}
	grown := len(offers) - len(book.parts[part])
	book.parts[part], book.have[part] = offers, true
	book.offers += grown
	p.offers += grown
	if len(p.books) > mostModels || p.offers > mostOffers {
		*p = parts{}
		return fmt.Errorf("the books hold more than %d models or %d offers", mostModels, mostOffers)
	}
	return nil
}

// take gives the whole books gathered and forgets everything; torn says that one was not whole.
func (p *parts) take() (books map[string][]market.Offer, torn bool) {
	books = make(map[string][]market.Offer, len(p.books))
	for gpu, b := range p.books {
		if offers, ok := b.whole(); ok {
			books[gpu] = offers
		} else {
			torn = true
		}
	}
	p.books, p.filled, p.offers = nil, nil, 0
	return books, torn
}

func (b *parted) whole() ([]market.Offer, bool) {
	for _, have := range b.have {
		if !have {
			return nil, false
		}
	}
	if len(b.parts) == 1 {
		return b.parts[0], true
	}
	out := make([]market.Offer, 0, b.offers)
	for _, p := range b.parts {
		out = append(out, p...)
	}
	return out, true
}
