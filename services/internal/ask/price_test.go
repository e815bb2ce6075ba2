package ask

import (
	"fmt"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/renthook/renthook/services/internal/money"
)

func TestAmount(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"0.50": "0.5", "0.5": "0.5", ".5": "0.5", "5.": "5", "+0.5": "0.5", " 0.5\n": "0.5", "1": "1", "10.0": "10", "100": "100",
		"5e-1": "0.5", "0.05E+1": "0.5", "1e3": "1000", "00.50": "0.5", "1e-7": "0.0000001", "10.00000000000000000000001": "10",
		"0.1234567890123456789999": "0.1234567890123456789", "12345.678901234567899": "12345.67890123456789",
		"1e16": mostAmount, "1e300": mostAmount, "1000000000000": mostAmount, "999999999999.5": "999999999999.5",
		strings.Repeat("9", 400): mostAmount,
		"1e-30":                  leastAmount, "5e-324": leastAmount, "0.0000000000000000001": leastAmount,
	} {
		if got, ok := amount(text); !ok || got != want {
			t.Errorf("%q is %q, %v; want %q", text, got, ok, want)
		}
	}
	for _, text := range []string{
		"", " ", "0", "-0", "0.0", "-0.0", "0e9", "-1", "-0.5", "nan", "NaN", "inf", "Infinity", "-Infinity", "1e400", "1e-400", "1e99999999999",
		"1e-99999999999", "0x10", "1_000", "1,5", "$0.50", "0.5/h", "1 2", "--1", "+-1", "e5", "1e", "1e5.5", ".", "٣", "1e+", "½", "5e", "0.5e0x1",
	} {
		if got, ok := amount(text); ok {
			t.Errorf("%q is taken as %q", text, got)
		}
	}
}

// An amount is one that money reads, at most what was asked, and off by less than the digits that were cut.
func TestAmountNeverRaises(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := fmt.Sprintf("%s.%s", rapid.StringMatching(`[0-9]{1,12}`).Draw(t, "whole"), rapid.StringMatching(`[0-9]{1,30}`).Draw(t, "places"))
		if shift := rapid.IntRange(-25, 15).Draw(t, "shift"); shift != 0 {
			text += fmt.Sprintf("e%d", shift)
		}
		exact, _ := new(big.Rat).SetString(text)
		got, ok := amount(text)
		if exact.Sign() == 0 {
			if ok {
				t.Fatalf("%s is zero, and taken as %s", text, got)
			}
			return
		}
		d, err := money.Positive(got)
		if !ok || err != nil {
			t.Fatalf("%s became %q, %v: %v", text, got, ok, err)
		}
		have, _ := new(big.Rat).SetString(d.String())
		if got == leastAmount || got == mostAmount {
			return
		}
		lost := new(big.Rat).Sub(exact, have)
		if lost.Sign() < 0 || lost.Cmp(new(big.Rat).Mul(exact, big.NewRat(1, 10))) > 0 && exact.Cmp(big.NewRat(1, 1_000_000_000_000_000_000)) > 0 {
			t.Fatalf("%s became %s", text, got)
		}
		if again, ok := amount(got); !ok || again != got {
			t.Fatalf("%s is not stable: %s", got, again)
		}
	})
}
