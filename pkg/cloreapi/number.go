package cloreapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/govalues/decimal"
)

// Number is a number as the market printed it, digit by digit. The market prints one field as an integer in one
// row and as a float in the next, and leaves fields out or null: an absent or null number is the empty Number. A
// string is taken too, so that one bad value ("NaN") costs its field and not the whole answer; whether the text is
// a number is said by [Number.Decimal].
type Number string

// UnmarshalJSON keeps the digits.
func (n *Number) UnmarshalJSON(b []byte) error {
	switch {
	case bytes.Equal(b, []byte("null")):
		*n = ""
	case len(b) > 0 && b[0] == '"':
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return &kindError{string(b)}
		}
		*n = Number(s)
	case len(b) > 0 && (b[0] == '-' || b[0] >= '0' && b[0] <= '9'):
		*n = Number(b)
	default:
		return &kindError{string(b)}
	}
	return nil
}

// Decimal reads the number. It errs on an empty Number, on NaN and infinities, and on more than 19 digits before
// the point; digits beyond what a Decimal holds are rounded away.
func (n Number) Decimal() (decimal.Decimal, error) {
	d, err := decimal.Parse(string(n))
	if err != nil {
		return decimal.Zero, fmt.Errorf("read %.40q as a number: %w", string(n), err)
	}
	return d, nil
}

// Float reads the number for what is not money: memory, reliability, bandwidth. It is zero when there is none.
func (n Number) Float() float64 {
	f, err := strconv.ParseFloat(string(n), 64)
	if err != nil || f != f || f > 1e15 || f < -1e15 {
		return 0
	}
	return f
}

// Int is a whole number that the market may print as 2, 2.0 or "2". Absent and null are zero.
type Int int64

// UnmarshalJSON reads 2, 2.0, "2" and null; a fraction or a size beyond int64 is an error.
func (i *Int) UnmarshalJSON(b []byte) error {
	s := strings.Trim(string(b), `"`)
	if s == "null" || s == "" {
		*i = 0
		return nil
	}
	if v, err := strconv.ParseInt(s, 10, 64); err == nil {
		*i = Int(v)
		return nil
	}
	d, err := decimal.Parse(s)
	if err != nil {
		return &kindError{s}
	}
	whole, _, ok := d.Int64(0)
	if !ok || !d.IsInt() {
		return &kindError{s}
	}
	*i = Int(whole)
	return nil
}

// kindError says that a value is of another kind than its member; the JSON around it is sound.
type kindError struct{ value string }

func (e *kindError) Error() string {
	return fmt.Sprintf("%.40s is not a number of the expected kind", e.value)
}
