package marketview

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/renthook/renthook/services/internal/market"
)

// Stored is what the stream holds, visible yet or not. Whoever publishes goes on from it.
type Stored struct {
	// Poll is the last snapshot; its Number is zero when there is none.
	Poll  Poll
	Books map[string]StoredBook
}

// StoredBook is the book of one model as it stands in the stream.
type StoredBook struct {
	// Offers, without rates in their quotes; nil when the parts do not make one book.
	Offers []market.Offer
	// Whole says that the parts make one book.
	Whole bool
	// Parts counts the subjects up to the last one that holds offers.
	Parts int
}

// Load reads what the stream holds now.
func Load(ctx context.Context, js jetstream.JetStream) (Stored, error) {
	var s Stored
	var staged parts
	err := tail(ctx, js, true, func(m jetstream.Msg) error {
		switch kindOf(m.Subject()) {
		case isBook:
			return staged.add(m.Subject(), m.Data())
		case isSnapshot:
			p, err := readSnapshot(m.Data())
			s.Poll = p
			return err
		}
		return nil
	})
	if err != nil {
		return Stored{}, err
	}
	s.Books = make(map[string]StoredBook, len(staged.books))
	for gpu, filled := range staged.filled {
		s.Books[gpu] = StoredBook{Parts: filled}
	}
	for gpu, b := range staged.books {
		offers, whole := b.whole()
		s.Books[gpu] = StoredBook{Offers: offers, Whole: whole, Parts: staged.filled[gpu]}
	}
	return s, nil
}
