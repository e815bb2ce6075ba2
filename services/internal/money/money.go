// Package money converts between what people say (USD per hour, whole server) and what the market keeps
// (a coin per DAY, whole server). It guarantees decimals throughout and roundings that never favour spending;
// it refuses NaN, infinities, negatives and absurd sizes where an amount is read. It never uses binary floats.
package money

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/govalues/decimal"
)

// HoursPerDay turns the market's daily prices into hourly ones.
var HoursPerDay = decimal.MustNew(24, 0)

// ErrAmount is wrapped by every refusal of an amount.
var ErrAmount = errors.New("not an amount")

// most is above any price, balance or rate that makes sense, in any coin.
var most = decimal.MustNew(1_000_000_000_000, 0)

// Parse reads a decimal amount that is zero or more. Source of the bound: no price on the market comes near it.
func Parse(s string) (decimal.Decimal, error) {
	s = strings.TrimSpace(s)
	d, err := decimal.Parse(s)
	if err != nil {
		// Prices with many digits or exponents are legal JSON: fall back to the exact digits, cut.
		d, err = parseLong(s)
	}
	if err != nil {
		return decimal.Zero, fmt.Errorf("%w: %q", ErrAmount, s)
	}
	if d.IsNeg() {
		return decimal.Zero, fmt.Errorf("%w: %q is negative", ErrAmount, s)
	}
	if d.Cmp(most) > 0 {
		return decimal.Zero, fmt.Errorf("%w: %q is absurdly large", ErrAmount, s)
	}
	return d, nil
}

// Positive reads a decimal amount above zero.
func Positive(s string) (decimal.Decimal, error) {
	d, err := Parse(s)
	if err != nil {
		return d, err
	}
	if !d.IsPos() {
		return d, fmt.Errorf("%w: %q is not above zero", ErrAmount, s)
	}
	return d, nil
}

// parseLong reads digits beyond what a Decimal holds (19), and exponents, cutting the tail.
func parseLong(s string) (decimal.Decimal, error) {
	mantissa, exponent, hasExp := strings.Cut(strings.ToLower(s), "e")
	shift := 0
	if hasExp {
		var err error
		if shift, err = strconv.Atoi(exponent); err != nil || shift > 15 || shift < -40 {
			return decimal.Zero, ErrAmount
		}
	}
	negative := strings.HasPrefix(mantissa, "-")
	mantissa = strings.TrimPrefix(strings.TrimPrefix(mantissa, "-"), "+")
	whole, frac, _ := strings.Cut(mantissa, ".")
	digits := whole + frac
	if digits == "" || len(digits) > 400 || strings.Trim(digits, "0123456789") != "" {
		return decimal.Zero, ErrAmount
	}
	point := len(whole) + shift
	for point < 0 {
		digits, point = "0"+digits, point+1
	}
	for point > len(digits) {
		digits += "0"
	}
	w := strings.TrimLeft(digits[:point], "0")
	f := digits[point:]
	if len(w) > 18 {
		return decimal.Zero, ErrAmount
	}
	if keep := 19 - max(len(w), 1); len(f) > keep {
		f = f[:keep]
	}
	if w == "" {
		w = "0"
	}
	if f != "" {
		w += "." + f
	}
	if negative {
		w = "-" + w
	}
	return decimal.Parse(w)
}

// USDPerHour is perDay (whole server, in a coin) × rate (USD for one coin) ÷ 24.
func USDPerHour(perDay, rate decimal.Decimal) (decimal.Decimal, error) {
	usd, err := perDay.Mul(rate)
	if err != nil {
		return decimal.Zero, fmt.Errorf("price per day %s × rate %s: %w", perDay, rate, err)
	}
	h, err := usd.Quo(HoursPerDay)
	if err != nil {
		return decimal.Zero, fmt.Errorf("USD per day %s ÷ 24: %w", usd, err)
	}
	return h, nil
}

// smallest is how many of a coin's smallest units make one: all coins have 8 decimals.
var smallest = decimal.MustNew(100_000_000, 0)

// PerDay is usdPerHour × 24 ÷ rate, cut (never rounded up) to the smallest unit of the coins.
func PerDay(usdPerHour, rate decimal.Decimal) (decimal.Decimal, error) {
	if !rate.IsPos() {
		return decimal.Zero, fmt.Errorf("%w: rate %s", ErrAmount, rate)
	}
	day, err := usdPerHour.Mul(HoursPerDay)
	if err != nil {
		return decimal.Zero, fmt.Errorf("USD per hour %s × 24: %w", usdPerHour, err)
	}
	// Whole units, by a division that cuts: one that rounds to 19 digits can end above a ceiling.
	units, err := day.Mul(smallest)
	if err == nil {
		units, _, err = units.QuoRem(rate)
	}
	if err == nil {
		units, err = units.Quo(smallest)
	}
	if err != nil {
		return decimal.Zero, fmt.Errorf("USD per day %s ÷ rate %s: %w", day, rate, err)
	}
	return units.Trim(0), nil
}

// Add sums amounts.
func Add(a decimal.Decimal, rest ...decimal.Decimal) (decimal.Decimal, error) {
	for _, b := range rest {
		s, err := a.Add(b)
		if err != nil {
			return decimal.Zero, fmt.Errorf("%s + %s: %w", a, b, err)
		}
		a = s
	}
	return a, nil
}

// Times multiplies.
func Times(a, b decimal.Decimal) (decimal.Decimal, error) {
	p, err := a.Mul(b)
	if err != nil {
		return decimal.Zero, fmt.Errorf("%s × %s: %w", a, b, err)
	}
	return p, nil
}

// Text prints an amount without trailing zeros: "0.5".
func Text(d decimal.Decimal) string { return d.Trim(0).String() }

// Cents prints USD for people, at least two decimals and at most four: "0.50", "0.0312".
func Cents(d decimal.Decimal) string { return d.Round(4).Trim(2).Pad(2).String() }
