package ask

import "testing"

// The wanted values were printed by Python 3: json.loads, str, bool.
func TestPython(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		json, str string
		truth     bool
	}{
		{"0.50", "0.5", true},
		{"1.0", "1.0", true},
		{"1", "1", true},
		{"1e-7", "1e-07", true},
		{"1e16", "1e+16", true},
		{"1E5", "100000.0", true},
		{"1e15", "1000000000000000.0", true},
		{"123456789012345678901234567890", "123456789012345678901234567890", true},
		{"-0", "0", false},
		{"-0.0", "-0.0", false},
		{"0.0", "0.0", false},
		{"0", "0", false},
		{"100", "100", true},
		{"1e-5", "1e-05", true},
		{"0.0001", "0.0001", true},
		{"1.5e300", "1.5e+300", true},
		{"1e400", "inf", true},
		{"-1e400", "-inf", true},
		{"9007199254740993", "9007199254740993", true},
		{"9007199254740993.0", "9007199254740992.0", true},
		{"0.1e1", "1.0", true},
		{"5e-324", "5e-324", true},
		{"1e-400", "0.0", false},
		{"0e5", "0.0", false},
		{"123456789.123456789", "123456789.12345679", true},
		{"NaN", "nan", true},
		{"Infinity", "inf", true},
		{"-Infinity", "-inf", true},
	} {
		v, err := parse([]byte(c.json), true)
		n, ok := v.(number)
		if err != nil || !ok {
			t.Errorf("%s: %v, %v", c.json, v, err)
			continue
		}
		if n.str() != c.str || truthy(n) != c.truth {
			t.Errorf("%s prints %q and is %v, want %q and %v", c.json, n.str(), truthy(n), c.str, c.truth)
		}
	}
	for body, truth := range map[string]bool{
		`null`: false, `false`: false, `true`: true, `""`: false, `" "`: true, `[]`: false, `[0]`: true, `{}`: false, `{"a":0}`: true,
	} {
		v, err := parse([]byte(body), true)
		if err != nil || truthy(v) != truth {
			t.Errorf("%s: %v, %v", body, truthy(v), err)
		}
	}
}

func TestEcho(t *testing.T) {
	t.Parallel()
	for sent, want := range map[string]string{
		`38176`: "38176", `"38176"`: "38176", `1E5`: "100000.0", `"ord_1"`: "ord_1", `"a\"é"`: `a"é`,
		`340282366920938463463374607431768211456`: "340282366920938463463374607431768211456",
	} {
		if got := Echo(sent); got != want {
			t.Errorf("%s prints %q, want %q", sent, got, want)
		}
	}
}
