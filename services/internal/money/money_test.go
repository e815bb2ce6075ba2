package money_test

import (
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/govalues/decimal"
	"pgregory.net/rapid"

	"github.com/renthook/renthook/services/internal/money"
)

func dec(s string) decimal.Decimal { return decimal.MustParse(s) }

func rat(d decimal.Decimal) *big.Rat {
	r, _ := new(big.Rat).SetString(d.String())
	return r
}

func TestParse(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"0": "0", "0.50": "0.5", " 1 ": "1", "1e3": "1000", "1E-7": "0.0000001", "12.5e1": "125", "-0": "0", "+1": "1", "1000000000000": "1000000000000",
		"0.001388888888888889": "0.001388888888888889", "5.004526730470482": "5.004526730470482", "1e-30": "0", "1e12": "1000000000000",
	}
	for text, want := range good {
		if d, err := money.Parse(text); err != nil || !d.Equal(dec(want)) {
			t.Errorf("%q is %s (%v), want %s", text, d, err, want)
		}
	}
	bad := []string{
		"", " ", ".", "-", "e", "1e", "1e5abc", "1e 5", "1e5e3", "e5", "abc", "0x10", "1_000", "1,5", "1.2.3", "--1", "+-1", "NaN", "nan", "Infinity", "-inf",
		"-1", "-0.0000001", "-1e-9", "1000000000001", "1e13", "1e300", "1e99999999999999999999", strings.Repeat("9", 500), "½", "1 2",
	}
	for _, text := range bad {
		if d, err := money.Parse(text); !errors.Is(err, money.ErrAmount) {
			t.Errorf("%q is %s (%v), want ErrAmount", text, d, err)
		}
	}
	for text, ok := range map[string]bool{"0": false, "0.0": false, "-1": false, "x": false, "0.01": true} {
		if _, err := money.Positive(text); (err == nil) != ok || !ok && !errors.Is(err, money.ErrAmount) {
			t.Errorf("positive %q: %v", text, err)
		}
	}
}

// TestParseAnyDigits: however many digits a number has, it is read to the last that a decimal holds.
func TestParseAnyDigits(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`(0|[1-9][0-9]{0,11})(\.[0-9]{1,40})?(e-?[0-9])?`).Draw(t, "number")
		want, ok := new(big.Rat).SetString(text)
		if !ok {
			t.Fatal(text)
		}
		d, err := money.Parse(text)
		if want.Cmp(big.NewRat(1_000_000_000_000, 1)) > 0 {
			if err == nil {
				t.Fatalf("%s is absurd and is read as %s", text, d)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		off := new(big.Rat).Sub(rat(d), want)
		allowed := new(big.Rat).Add(new(big.Rat).Mul(want, big.NewRat(1, 1_000_000_000_000_000_00)), big.NewRat(1, 1_000_000_000_000_000_00))
		if off.Abs(off).Cmp(allowed) > 0 {
			t.Fatalf("%s is read as %s", text, d)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"0.5", "1e-7", "-1", "1e5abc", "99999999999999999999.99999999999999999999", "NaN"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := money.Parse(s)
		if err != nil {
			if !errors.Is(err, money.ErrAmount) {
				t.Errorf("%q: %v is not ErrAmount", s, err)
			}
			return
		}
		if d.IsNeg() || d.Cmp(dec("1000000000000")) > 0 {
			t.Errorf("%q is read as %s", s, d)
		}
	})
}

func TestUnits(t *testing.T) {
	t.Parallel()
	hour, err := money.USDPerHour(dec("4001.04"), dec("0.0025"))
	if err != nil || !hour.Equal(dec("0.416775")) {
		t.Errorf("%s (%v)", hour, err)
	}
	day, err := money.PerDay(dec("0.5"), dec("70000"))
	if err != nil || !day.Equal(dec("0.00017142")) { // 0.000171428571…, cut
		t.Errorf("%s (%v)", day, err)
	}
	for _, rate := range []string{"0", "-1"} {
		if _, err := money.PerDay(dec("0.5"), dec(rate)); !errors.Is(err, money.ErrAmount) {
			t.Errorf("rate %s: %v", rate, err)
		}
	}
	huge := dec("9000000000000000000")
	if _, err := money.USDPerHour(huge, huge); err == nil {
		t.Error("an overflow is no price")
	}
	if _, err := money.PerDay(huge, dec("1")); err == nil {
		t.Error("an overflow is no price")
	}
	if _, err := money.PerDay(dec("1"), dec("0.0000000000000000001")); err == nil {
		t.Error("an overflow is no price")
	}
	if _, err := money.Add(huge, huge); err == nil {
		t.Error("an overflow is no sum")
	}
	if _, err := money.Times(huge, dec("10")); err == nil {
		t.Error("an overflow is no product")
	}
	if sum, err := money.Add(dec("0.1"), dec("0.2"), dec("0.3")); err != nil || !sum.Equal(dec("0.6")) {
		t.Errorf("%s (%v)", sum, err)
	}
}

// TestCeilingIsNeverExceeded: a ceiling turned into a coin and back is not above itself.
func TestCeilingIsNeverExceeded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		ceiling, _ := decimal.New(rapid.Int64Range(1, 10_000_000).Draw(t, "ceiling"), rapid.IntRange(0, 8).Draw(t, "scale"))
		rate, _ := decimal.New(rapid.Int64Range(1, 100_000_000).Draw(t, "rate"), rapid.IntRange(0, 12).Draw(t, "scale"))
		day, err := money.PerDay(ceiling, rate)
		if err != nil {
			return // too large for any coin
		}
		back := new(big.Rat).Quo(new(big.Rat).Mul(rat(day), rat(rate)), big.NewRat(24, 1))
		if back.Cmp(rat(ceiling)) > 0 {
			t.Fatalf("%s USD per hour at rate %s is %s per day, which is %s USD per hour", ceiling, rate, day, back.FloatString(30))
		}
	})
}

func TestTexts(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"0.50": "0.5", "1.0": "1", "100": "100", "0.0000001": "0.0000001", "0": "0"} {
		if got := money.Text(dec(in)); got != want {
			t.Errorf("%s is %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{"0.5": "0.50", "1": "1.00", "0.03125": "0.0312", "0.48025": "0.4802", "0.4803": "0.4803", "12.340": "12.34"} {
		if got := money.Cents(dec(in)); got != want {
			t.Errorf("%s is %q, want %q", in, got, want)
		}
	}
}
