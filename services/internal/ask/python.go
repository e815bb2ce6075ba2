package ask

import (
	"math"
	"strconv"
	"strings"
)

// The seed was written in Python, and what its texts echo is what str() printed. Binary floats are made in this file
// only: they decide how a number is printed and whether Python could hold it, never what it is worth.

// isInt says whether Python reads the number as an int.
func (n number) isInt() bool { return !strings.ContainsAny(string(n), ".eENI") }

// float is the number as Python's float; beyond its range it is infinite, as there.
func (n number) float() float64 {
	f, _ := strconv.ParseFloat(string(n), 64) // the only error left is the range, and then f is right
	return f
}

// str prints the number as Python's str does: integers in full, floats by repr.
func (n number) str() string {
	if n.isInt() {
		if n == "-0" {
			return "0"
		}
		return string(n)
	}
	f := n.float()
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	scientific := strconv.FormatFloat(f, 'e', -1, 64)
	_, exponent, _ := strings.Cut(scientific, "e")
	if e, err := strconv.Atoi(exponent); err == nil && (e < -4 || e >= 16) {
		return scientific
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// truthy is Python's bool(v).
func truthy(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case number:
		if v.isInt() {
			return strings.Trim(string(v), "-0") != ""
		}
		return v.float() != 0
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case *object:
		return len(v.members) > 0
	}
	return true
}
