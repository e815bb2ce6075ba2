// Package clore sees Clore.ai through the market port.
//
// It guarantees that prices are per day and whole server in the coin, with USD per hour beside them only where a rate
// is known; that a row that makes no sense is dropped and counted; that an answer of unknown shape is an error and
// never an empty list; and that a call that spends is Refused only for answers that prove that nothing was rented.
// It refuses to guess: whatever it does not know of an answer to create is Unknown.
//
// Sources: the market's documentation and recordings of it, see the package cloreapi.
package clore

import (
	"errors"
	"net/http"

	"github.com/renthook/renthook/pkg/cloreapi"
	"github.com/renthook/renthook/services/internal/market"
)

// readError gives the errors of reads the types that callers branch on.
func readError(endpoint string, err error) error {
	var refusal *cloreapi.Refusal
	if errors.As(err, &refusal) {
		switch refusal.Code {
		case cloreapi.CodeTooManyRequests:
			return &market.ThrottledError{Endpoint: endpoint}
		case cloreapi.CodeInvalidToken:
			return &market.KeyError{Endpoint: endpoint}
		}
	}
	var call *cloreapi.CallError
	if errors.As(err, &call) && call.Status == http.StatusTooManyRequests {
		return &market.ThrottledError{Endpoint: endpoint}
	}
	return err
}
