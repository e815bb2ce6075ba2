package webhook_test

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"pgregory.net/rapid"

	"github.com/renthook/renthook/pkg/webhook"
)

const (
	demoSecret = "whsec-demo-secret"
	specSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	demoBody   = `{"gpu_type":"RTX 4090","max_price":0.50}`
)

func TestLegacyVectors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ secret, want string }{
		{demoSecret, "cf501a5e5f6653e7354286dd694d37c9f2260a841b4e8d891e980521c7345eb7"},
		{specSecret, "d32c95767eb2fed1dc871b72e7a932c601fe7a6e761726b95a5d4e3606b7cfe3"},
	} {
		if got := webhook.SignLegacy(c.secret, []byte(demoBody)); got != c.want {
			t.Errorf("%s signs %s, want %s", c.secret, got, c.want)
		}
	}
}

func TestStandardVectors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		id   string
		at   int64
		body string
		want string
	}{
		{"msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, `{"test": 2432232314}`, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
		{"msg_01K0DEMO", 1764000000, demoBody, "v1,mazfUbuMD6PcCUDhKgGPAVSUrQNYZn939oLTNIPXMco="},
	} {
		if got := webhook.SignStandard(specSecret, c.id, time.Unix(c.at, 0), []byte(c.body)); got != c.want {
			t.Errorf("%s: %s, want %s", c.id, got, c.want)
		}
	}
}

func legacy(values ...string) http.Header {
	h := http.Header{}
	for _, v := range values {
		h.Add(webhook.HeaderLegacy, v)
	}
	return h
}

func TestVerifyLegacy(t *testing.T) {
	t.Parallel()
	good := webhook.SignLegacy(demoSecret, []byte(demoBody))
	for name, c := range map[string]struct {
		h       http.Header
		body    string
		secrets []string
		index   int
		err     error
	}{
		"good":                     {legacy(good), demoBody, []string{demoSecret}, 0, nil},
		"second secret":            {legacy(good), demoBody, []string{"other-secret", demoSecret}, 1, nil},
		"same secret twice":        {legacy(good), demoBody, []string{demoSecret, demoSecret}, 0, nil},
		"upper case":               {legacy(strings.ToUpper(good)), demoBody, []string{demoSecret}, 0, nil},
		"prefix":                   {legacy("sha256=" + good), demoBody, []string{demoSecret}, 0, nil},
		"empty body":               {legacy(webhook.SignLegacy(demoSecret, nil)), "", []string{demoSecret}, 0, nil},
		"no header":                {http.Header{}, demoBody, []string{demoSecret}, -1, webhook.ErrMissing},
		"empty header":             {legacy(""), demoBody, []string{demoSecret}, -1, webhook.ErrMissing},
		"two headers":              {legacy(good, good), demoBody, []string{demoSecret}, -1, webhook.ErrInvalid},
		"two, one of them empty":   {legacy("", good), demoBody, []string{demoSecret}, -1, webhook.ErrInvalid},
		"joined headers":           {legacy(good + ", " + good), demoBody, []string{demoSecret}, -1, webhook.ErrInvalid},
		"a wrong secret":           {legacy(good), demoBody, []string{"other-secret"}, -1, webhook.ErrInvalid},
		"no secret":                {legacy(good), demoBody, nil, -1, webhook.ErrInvalid},
		"an empty secret":          {legacy(webhook.SignLegacy("", []byte(demoBody))), demoBody, []string{""}, -1, webhook.ErrInvalid},
		"another body":             {legacy(good), demoBody + "\n", []string{demoSecret}, -1, webhook.ErrInvalid},
		"another scheme":           {legacy("sha1=" + good), demoBody, []string{demoSecret}, -1, webhook.ErrInvalid},
		"prefix twice":             {legacy("sha256=sha256=" + good), demoBody, []string{demoSecret}, -1, webhook.ErrInvalid},
		"a digit short":            {legacy(good[:63]), demoBody, []string{demoSecret}, -1, webhook.ErrInvalid},
		"a byte short":             {legacy(good[:62]), demoBody, []string{demoSecret}, -1, webhook.ErrInvalid},
		"a byte long":              {legacy(good + "00"), demoBody, []string{demoSecret}, -1, webhook.ErrInvalid},
		"prefix alone":             {legacy("sha256="), demoBody, []string{demoSecret}, -1, webhook.ErrInvalid},
		"no hexadecimal":           {legacy(strings.Repeat("g", 64)), demoBody, []string{demoSecret}, -1, webhook.ErrInvalid},
		"text of the seed's crash": {legacy(strings.Repeat("é", 32)), demoBody, []string{demoSecret}, -1, webhook.ErrInvalid},
	} {
		index, err := webhook.VerifyLegacy(c.h, []byte(c.body), c.secrets)
		if index != c.index || !errors.Is(err, c.err) {
			t.Errorf("%s: %d, %v; want %d, %v", name, index, err, c.index, c.err)
		}
	}
}

var now = time.Unix(1764000000, 0)

func standard(id, stamp, signature string) http.Header {
	h := http.Header{}
	h.Set(webhook.HeaderID, id)
	h.Set(webhook.HeaderTimestamp, stamp)
	h.Set(webhook.HeaderSignature, signature)
	return h
}

func signed(secret, id string, at time.Time) http.Header {
	return standard(id, strconv.FormatInt(at.Unix(), 10), webhook.SignStandard(secret, id, at, []byte(demoBody)))
}

func with(h http.Header, name string, values ...string) http.Header {
	h = h.Clone()
	h.Del(name)
	for _, v := range values {
		h.Add(name, v)
	}
	return h
}

func TestVerifyStandard(t *testing.T) {
	t.Parallel()
	const id = "msg_01K0DEMO"
	good := signed(specSecret, id, now)
	sig := good.Get(webhook.HeaderSignature)
	other := webhook.SignStandard("whsec_b3RoZXItb3RoZXItb3RoZXItb3RoZXI=", id, now, []byte(demoBody))
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(specSecret, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	all := []string{specSecret}
	for name, c := range map[string]struct {
		h       http.Header
		body    string
		secrets []string
		index   int
		err     error
	}{
		"good":                      {good, demoBody, all, 0, nil},
		"second secret":             {good, demoBody, []string{"x", specSecret}, 1, nil},
		"raw bytes of the secret":   {signed(demoSecret, id, now), demoBody, []string{demoSecret}, 0, nil},
		"key given raw":             {good, demoBody, []string{string(key)}, 0, nil},
		"prefix alone is a secret":  {signed("whsec_", id, now), demoBody, []string{"whsec_"}, 0, nil},
		"no base64 after prefix":    {signed("whsec_not base64!", id, now), demoBody, []string{"whsec_not base64!"}, 0, nil},
		"second signature":          {with(good, webhook.HeaderSignature, other+" "+sig), demoBody, all, 0, nil},
		"unknown versions beside":   {with(good, webhook.HeaderSignature, "v1a,AAAA v2 "+sig), demoBody, all, 0, nil},
		"5 minutes old":             {signed(specSecret, id, now.Add(-5*time.Minute)), demoBody, all, 0, nil},
		"5 minutes ahead":           {signed(specSecret, id, now.Add(5*time.Minute)), demoBody, all, 0, nil},
		"too old":                   {signed(specSecret, id, now.Add(-5*time.Minute-time.Second)), demoBody, all, -1, webhook.ErrTimestamp},
		"too far ahead":             {signed(specSecret, id, now.Add(5*time.Minute+time.Second)), demoBody, all, -1, webhook.ErrTimestamp},
		"a year old":                {signed(specSecret, id, now.AddDate(-1, 0, 0)), demoBody, all, -1, webhook.ErrTimestamp},
		"no id":                     {with(good, webhook.HeaderID), demoBody, all, -1, webhook.ErrMissing},
		"empty id":                  {with(good, webhook.HeaderID, ""), demoBody, all, -1, webhook.ErrMissing},
		"no timestamp":              {with(good, webhook.HeaderTimestamp), demoBody, all, -1, webhook.ErrMissing},
		"no signature":              {with(good, webhook.HeaderSignature), demoBody, all, -1, webhook.ErrMissing},
		"empty signature":           {with(good, webhook.HeaderSignature, ""), demoBody, all, -1, webhook.ErrMissing},
		"two ids":                   {with(good, webhook.HeaderID, id, id), demoBody, all, -1, webhook.ErrInvalid},
		"two timestamps":            {with(good, webhook.HeaderTimestamp, "1764000000", "1764000000"), demoBody, all, -1, webhook.ErrInvalid},
		"two signature headers":     {with(good, webhook.HeaderSignature, sig, sig), demoBody, all, -1, webhook.ErrInvalid},
		"another id":                {with(good, webhook.HeaderID, id+"x"), demoBody, all, -1, webhook.ErrInvalid},
		"another timestamp":         {with(good, webhook.HeaderTimestamp, "1764000001"), demoBody, all, -1, webhook.ErrInvalid},
		"another body":              {good, demoBody + " ", all, -1, webhook.ErrInvalid},
		"another secret":            {good, demoBody, []string{demoSecret}, -1, webhook.ErrInvalid},
		"no secret":                 {good, demoBody, nil, -1, webhook.ErrInvalid},
		"an empty secret":           {signed("", id, now), demoBody, []string{""}, -1, webhook.ErrInvalid},
		"version of another kind":   {with(good, webhook.HeaderSignature, "v1a"+sig[2:]), demoBody, all, -1, webhook.ErrInvalid},
		"no version":                {with(good, webhook.HeaderSignature, sig[3:]), demoBody, all, -1, webhook.ErrInvalid},
		"something after it":        {with(good, webhook.HeaderSignature, sig+",x"), demoBody, all, -1, webhook.ErrInvalid},
		"other base64, same bytes":  {with(good, webhook.HeaderSignature, strings.Replace(sig, "Mco=", "Mcp=", 1)), demoBody, all, -1, webhook.ErrInvalid},
		"eight others before it":    {with(good, webhook.HeaderSignature, strings.Repeat(other+" ", 8)+sig), demoBody, all, -1, webhook.ErrInvalid},
		"id with a full stop":       {signed(specSecret, "msg.1", now), demoBody, all, -1, webhook.ErrInvalid},
		"id with a space":           {signed(specSecret, "msg 1", now), demoBody, all, -1, webhook.ErrInvalid},
		"id with a line break":      {signed(specSecret, "msg\n1", now), demoBody, all, -1, webhook.ErrInvalid},
		"id beyond ASCII":           {signed(specSecret, "msgé", now), demoBody, all, -1, webhook.ErrInvalid},
		"a long id":                 {signed(specSecret, strings.Repeat("x", 257), now), demoBody, all, -1, webhook.ErrInvalid},
		"timestamp with a sign":     {with(good, webhook.HeaderTimestamp, "+1764000000"), demoBody, all, -1, webhook.ErrInvalid},
		"timestamp with a zero":     {with(good, webhook.HeaderTimestamp, "01764000000"), demoBody, all, -1, webhook.ErrInvalid},
		"timestamp with a fraction": {with(good, webhook.HeaderTimestamp, "1764000000.0"), demoBody, all, -1, webhook.ErrInvalid},
		"timestamp as a date":       {with(good, webhook.HeaderTimestamp, "2025-11-24T16:00:00Z"), demoBody, all, -1, webhook.ErrInvalid},
		"timestamp in hexadecimal":  {with(good, webhook.HeaderTimestamp, "0x692482c0"), demoBody, all, -1, webhook.ErrInvalid},
		"negative timestamp":        {with(good, webhook.HeaderTimestamp, "-1764000000"), demoBody, all, -1, webhook.ErrInvalid},
		"timestamp beyond int64":    {with(good, webhook.HeaderTimestamp, "99999999999999999999"), demoBody, all, -1, webhook.ErrInvalid},
		"timestamp beyond reason":   {with(good, webhook.HeaderTimestamp, "9223372036854775807"), demoBody, all, -1, webhook.ErrInvalid},
		// The border between id and timestamp cannot be moved: "msg_1" "1764000000" and "msg_1.17" "64000000" sign alike.
		"moved border": {standard("msg_01K0DEMO.17", "64000000", sig), demoBody, all, -1, webhook.ErrInvalid},
	} {
		index, gotID, err := webhook.VerifyStandard(c.h, []byte(c.body), c.secrets, now)
		if index != c.index || !errors.Is(err, c.err) {
			t.Errorf("%s: %d, %v; want %d, %v", name, index, err, c.index, c.err)
		}
		if (err == nil) != (gotID == c.h.Get(webhook.HeaderID) && gotID != "") {
			t.Errorf("%s: id %q with %v", name, gotID, err)
		}
	}
}

func TestHasStandard(t *testing.T) {
	t.Parallel()
	if webhook.HasStandard(legacy("x")) {
		t.Error("a legacy request counts as Standard Webhooks")
	}
	if !webhook.HasStandard(signed(specSecret, "msg_1", now)) || !webhook.HasStandard(with(http.Header{}, webhook.HeaderSignature, "")) {
		t.Error("a request with the header, even an empty one, does not count as Standard Webhooks")
	}
}

// TestTheReferenceLibraryAgrees signs with one and verifies with the other, both ways.
func TestTheReferenceLibraryAgrees(t *testing.T) {
	t.Parallel()
	reference, err := standardwebhooks.NewWebhook(specSecret)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	h := signed(specSecret, "msg_1", at)
	if err := reference.Verify([]byte(demoBody), h); err != nil {
		t.Errorf("the reference refuses ours: %v", err)
	}
	sig, err := reference.Sign("msg_2", at, []byte(demoBody))
	if err != nil {
		t.Fatal(err)
	}
	h = standard("msg_2", strconv.FormatInt(at.Unix(), 10), sig)
	if _, _, err := webhook.VerifyStandard(h, []byte(demoBody), []string{specSecret}, at); err != nil {
		t.Errorf("we refuse the reference's: %v", err)
	}
}

// TestAnyChangedByteIsRefused alters one byte of one part of a signed request.
func TestAnyChangedByteIsRefused(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		parts := []string{"msg_01K0DEMO", "1764000000", "", demoBody, specSecret, ""}
		parts[2] = webhook.SignStandard(parts[4], parts[0], now, []byte(parts[3]))
		parts[5] = webhook.SignLegacy(parts[4], []byte(parts[3]))
		n := rapid.IntRange(0, len(parts)-1).Draw(t, "part")
		i := rapid.IntRange(0, len(parts[n])-1).Draw(t, "byte")
		c := rapid.Byte().Filter(func(c byte) bool { return c != parts[n][i] }).Draw(t, "to")
		if n == 5 && strings.EqualFold(string(c), parts[n][i:i+1]) {
			t.Skip("case does not matter in the older header")
		}
		parts[n] = parts[n][:i] + string([]byte{c}) + parts[n][i+1:]
		if n != 5 {
			if _, _, err := webhook.VerifyStandard(standard(parts[0], parts[1], parts[2]), []byte(parts[3]), []string{parts[4]}, now); err == nil {
				t.Fatalf("accepted with part %d as %q", n, parts[n])
			}
		}
		if n >= 3 {
			if _, err := webhook.VerifyLegacy(legacy(parts[5]), []byte(parts[3]), []string{parts[4]}); err == nil {
				t.Fatalf("accepted (older scheme) with part %d as %q", n, parts[n])
			}
		}
	})
}

func FuzzVerifyStandard(f *testing.F) {
	good := signed(specSecret, "msg_1", now)
	f.Add("msg_1", "1764000000", good.Get(webhook.HeaderSignature), []byte(demoBody))
	f.Add("msg.1", "+1764000000", "v1,,v1, v1a,x", []byte(""))
	f.Fuzz(func(t *testing.T, id, stamp, signature string, body []byte) {
		_, got, err := webhook.VerifyStandard(standard(id, stamp, signature), body, []string{specSecret}, now)
		if err != nil {
			if !errors.Is(err, webhook.ErrMissing) && !errors.Is(err, webhook.ErrInvalid) && !errors.Is(err, webhook.ErrTimestamp) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		seconds, err := strconv.ParseInt(stamp, 10, 64)
		if err != nil || got != id || !strings.Contains(signature, webhook.SignStandard(specSecret, id, time.Unix(seconds, 0), body)) {
			t.Fatalf("accepted %q %q %q %q", id, stamp, signature, body)
		}
	})
}

func FuzzVerifyLegacy(f *testing.F) {
	f.Add("sha256="+webhook.SignLegacy(demoSecret, []byte(demoBody)), []byte(demoBody))
	f.Add("SHA256=00", []byte(""))
	f.Fuzz(func(t *testing.T, value string, body []byte) {
		_, err := webhook.VerifyLegacy(legacy(value), body, []string{demoSecret})
		switch {
		case err == nil:
			if !strings.HasSuffix(strings.ToLower(value), webhook.SignLegacy(demoSecret, body)) {
				t.Fatalf("accepted %q for %q", value, body)
			}
		case !errors.Is(err, webhook.ErrMissing) && !errors.Is(err, webhook.ErrInvalid):
			t.Fatalf("an error of no kind: %v", err)
		}
	})
}
