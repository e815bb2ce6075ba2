package ask

import (
	"strconv"
	"strings"

	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
)

// An amount is cut to what a decimal holds: 19 digits, 19 of them after the point. Sources of the bounds:
// govalues/decimal; money.Parse takes no amount above mostAmount. A ceiling is only ever lowered by a cut, but for
// one below leastAmount, which is raised to it: no price on the market is anywhere near.
const (
	mostAmount  = "1000000000000"
	leastAmount = "0.0000000000000000001"
	mostPoint   = 12 // mostAmount is 10^12
	mostDigits  = 19
)

// amount reads a decimal above zero, in any notation a JSON number or Python's float() has, as plain digits.
// It is false for zero, negatives, NaN, infinities (also what overflows a Python float) and anything else.
func amount(text string) (string, bool) {
	text = strings.TrimSpace(text)
	n := number(strings.ToLower(strings.TrimPrefix(text, "+")))
	mantissa, exponent, scientific := strings.Cut(string(n), "e")
	whole, frac, _ := strings.Cut(mantissa, ".")
	digits := whole + frac
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return "", false
	}
	shift := 0
	if scientific {
		var err error
		// Beyond 9 digits Python's float is zero or infinite; both are refused.
		if shift, err = strconv.Atoi(exponent); err != nil || len(exponent) > 9 {
			return "", false
		}
	}
	if !n.isInt() && !finite(n.float()) {
		return "", false
	}
	// The value is 0.DIGITS × 10^point, DIGITS beginning with another digit than 0.
	significant := strings.TrimRight(strings.TrimLeft(digits, "0"), "0")
	if significant == "" {
		return "", false
	}
	point := len(whole) + shift - (len(digits) - len(strings.TrimLeft(digits, "0")))
	switch {
	case point > mostPoint:
		return mostAmount, true
	case point <= -mostDigits:
		return leastAmount, true
	case point <= 0:
		places := strings.Repeat("0", -point) + significant
		return trimmed("0", places[:min(len(places), mostDigits)]), true
	case point >= len(significant):
		return significant + strings.Repeat("0", point-len(significant)), true
	}
	return trimmed(significant[:point], significant[point:min(len(significant), mostDigits)]), true
}

// finite says that a float is neither NaN nor infinite nor zero.
func finite(f float64) bool { return f-f == 0 && f != 0 }

// trimmed joins the digits before and after the point.
func trimmed(whole, places string) string {
	return strings.TrimSuffix(whole+"."+strings.TrimRight(places, "0"), ".")
}

// hourly is the price a bare number means: USD per hour for the whole server.
func hourly(amount string) *orderv1.Price {
	return &orderv1.Price{Amount: amount, Currency: "USD", Per: "hour", Scope: "server"}
}

// seedPrice reads what the seed's senders write: a number or a numeric string, and how it is echoed.
func seedPrice(v any) (price *orderv1.Price, echo string, ok bool) {
	switch v := v.(type) {
	case number:
		a, ok := amount(string(v))
		return hourly(a), v.str(), ok
	case string:
		a, ok := amount(v)
		return hourly(a), v, ok
	}
	return nil, "", false
}
