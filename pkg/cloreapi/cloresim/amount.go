package cloresim

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/govalues/decimal"
)

// most bounds every amount read, so that products of two amounts and a rate fit a Decimal.
var most = decimal.MustNew(1_000_000_000, 0)

var (
	secondsPerDay = decimal.MustNew(86_400, 0)
	hoursPerDay   = decimal.MustNew(24, 0)
)

// readAmount reads a JSON value as an amount: a number, zero or more, of a size that makes sense. Anything else is
// what a broken row holds.
func readAmount(raw json.RawMessage) (decimal.Decimal, bool) {
	s := strings.TrimSpace(string(raw))
	if s == "" || s[0] == '"' {
		return decimal.Zero, false
	}
	d, err := decimal.Parse(s)
	if err != nil || d.IsNeg() || d.Cmp(most) > 0 {
		return decimal.Zero, false
	}
	return d, true
}

// times multiplies. Both sides are bounded where they are read, so it cannot overflow for the sizes in use; should
// it, the result is the bound, which is never a bargain.
func times(a, b decimal.Decimal) decimal.Decimal {
	p, err := a.Mul(b)
	if err != nil {
		return most
	}
	return p
}

// over divides, and gives the bound where it cannot.
func over(a, b decimal.Decimal) decimal.Decimal {
	q, err := a.Quo(b)
	if err != nil {
		return most
	}
	return q
}

func plus(a, b decimal.Decimal) decimal.Decimal {
	s, err := a.Add(b)
	if err != nil {
		return most
	}
	return s
}

func minus(a, b decimal.Decimal) decimal.Decimal {
	s, err := a.Sub(b)
	if err != nil {
		return decimal.Zero
	}
	return s
}

// number prints an amount as the market does: no trailing zeros, so that the same member is 2 in one answer and
// 2.5 in the next.
func number(d decimal.Decimal) json.Number { return json.Number(d.Trim(0).String()) }

// digits is how many decimals the market shows of a price in a coin.
func digits(coin string) int {
	switch coin {
	case "bitcoin":
		return 8
	case "USD-Blockchain":
		return 4
	default:
		return 2
	}
}

// spendOf is what the market charges for held time: whole seconds of the price per day.
func spendOf(perDay decimal.Decimal, held time.Duration) decimal.Decimal {
	seconds := decimal.MustNew(int64(held/time.Second), 0)
	return over(times(perDay, seconds), secondsPerDay).Round(18)
}
