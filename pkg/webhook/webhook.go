// Package webhook signs and verifies HTTP requests over their raw bytes: Standard Webhooks (symmetric, v1) and
// the older scheme of one header with a hexadecimal HMAC-SHA256 of the body.
//
// It guarantees that a body is accepted only when one of the given secrets signed exactly these bytes, that
// comparisons take the same time whatever the candidate, and that a Standard Webhooks request is at most
// Tolerance off. It refuses repeated headers, ids with a full stop (they would move the border between id and
// timestamp), timestamps that are not the shortest decimal, and more than eight signatures. It remembers
// nothing: whoever verifies takes care of repeats, by the id.
package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Header names of both schemes.
const (
	HeaderID        = standardwebhooks.HeaderWebhookID
	HeaderTimestamp = standardwebhooks.HeaderWebhookTimestamp
	HeaderSignature = standardwebhooks.HeaderWebhookSignature
	HeaderLegacy    = "X-Webhook-Signature"
)

// SecretPrefix marks a secret whose rest is the key in base64.
const SecretPrefix = "whsec_"

// Tolerance is how far a timestamp may be from now, either way. Source: the reference libraries.
const Tolerance = 5 * time.Minute

const (
	mostCandidates = 8
	mostIDBytes    = 256
)

var (
	// ErrMissing says that the request is not signed: a header is absent or empty.
	ErrMissing = errors.New("signature missing")
	// ErrInvalid says that the request is signed wrongly.
	ErrInvalid = errors.New("signature invalid")
	// ErrTimestamp says that the timestamp is more than Tolerance off.
	ErrTimestamp = errors.New("timestamp too far from now")
)

// HasStandard says whether the request claims to be signed by Standard Webhooks. One that does must pass
// VerifyStandard; falling back to the older scheme would let a captured signature be used without its timestamp.
func HasStandard(h http.Header) bool { return len(h.Values(HeaderSignature)) > 0 }

// SignStandard gives the value of HeaderSignature: "v1," and the base64 of HMAC-SHA256 over id, Unix seconds and
// body. A secret that is not SecretPrefix and base64 is used as raw bytes, whole.
func SignStandard(secret, id string, at time.Time, body []byte) string {
	// The library refuses no raw key and its Sign no message: there is no error to come.
	w, _ := standardwebhooks.NewWebhookRaw(standardKey(secret))
	signature, _ := w.Sign(id, at, body)
	return signature
}

// VerifyStandard checks the three headers against body and says which of the secrets signed it and the id.
// An empty secret never verifies. The errors are ErrMissing, ErrInvalid and ErrTimestamp.
//
// The reference library makes the expected signature. Its own Verify is not used: it reads only the first of
// repeated headers, takes "+1" and " 1" for timestamps, ignores what follows a second comma and knows no clock
// but the system's.
func VerifyStandard(h http.Header, body []byte, secrets []string, now time.Time) (secretIndex int, id string, err error) {
	id, err = single(h, HeaderID)
	if err != nil {
		return -1, "", err
	}
	stamp, err := single(h, HeaderTimestamp)
	if err != nil {
		return -1, "", err
	}
	list, err := single(h, HeaderSignature)
	if err != nil {
		return -1, "", err
	}
	if err := checkID(id); err != nil {
		return -1, "", err
	}
	at, err := parseTimestamp(stamp)
	if err != nil {
		return -1, "", err
	}
	if off := now.Sub(at).Abs(); off > Tolerance {
		return -1, "", fmt.Errorf("%w: %s off, at most %s is accepted", ErrTimestamp, off.Round(time.Second), Tolerance)
	}
	candidates, err := decodeCandidates(list)
	if err != nil {
		return -1, "", err
	}
	found := -1
	for i, s := range secrets {
		if s == "" {
			continue
		}
		// Decoding what was just encoded cannot fail.
		want, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(SignStandard(s, id, at, body), "v1,"))
		for _, c := range candidates {
			if hmac.Equal(c, want) && found < 0 {
				found = i
			}
		}
	}
	if found < 0 {
		return -1, "", fmt.Errorf("%w: no secret matches", ErrInvalid)
	}
	return found, id, nil
}

// SignLegacy gives the value of HeaderLegacy: lower-case hexadecimal HMAC-SHA256 of body. The key is the secret's
// text as it stands, prefix included.
func SignLegacy(secret string, body []byte) string {
	return hex.EncodeToString(legacyMAC(secret, body))
}

// VerifyLegacy checks HeaderLegacy against body and says which of the secrets signed it. Upper case and the
// prefix "sha256=" are accepted; an empty secret never verifies. The errors are ErrMissing and ErrInvalid.
func VerifyLegacy(h http.Header, body []byte, secrets []string) (index int, err error) {
	value, err := single(h, HeaderLegacy)
	if err != nil {
		return -1, err
	}
	given, err := hex.DecodeString(strings.TrimPrefix(value, "sha256="))
	if err != nil || len(given) != sha256.Size {
		return -1, fmt.Errorf("%w: want 64 hexadecimal digits", ErrInvalid)
	}
	found := -1
	for i, s := range secrets {
		if s != "" && hmac.Equal(given, legacyMAC(s, body)) && found < 0 {
			found = i
		}
	}
	if found < 0 {
		return -1, fmt.Errorf("%w: no secret matches", ErrInvalid)
	}
	return found, nil
}

func legacyMAC(secret string, body []byte) []byte {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write(body)
	return m.Sum(nil)
}

// standardKey never gives an empty key for a secret that has any text: "whsec_" alone stands for itself.
func standardKey(secret string) []byte {
	if text, ok := strings.CutPrefix(secret, SecretPrefix); ok && text != "" {
		if key, err := base64.StdEncoding.Strict().DecodeString(text); err == nil {
			return key
		}
	}
	return []byte(secret)
}

func single(h http.Header, name string) (string, error) {
	switch values := h.Values(name); {
	case len(values) > 1:
		return "", fmt.Errorf("%w: header %s is repeated", ErrInvalid, name)
	case len(values) == 0 || values[0] == "":
		return "", fmt.Errorf("%w: no %s header", ErrMissing, name)
	default:
		return values[0], nil
	}
}

func checkID(id string) error {
	if len(id) > mostIDBytes {
		return fmt.Errorf("%w: %s is longer than %d bytes", ErrInvalid, HeaderID, mostIDBytes)
	}
	for _, c := range []byte(id) {
		if c <= ' ' || c > '~' || c == '.' {
			return fmt.Errorf("%w: %s may hold printable ASCII without a full stop", ErrInvalid, HeaderID)
		}
	}
	return nil
}

// parseTimestamp takes Unix seconds in the one way the signer writes them.
func parseTimestamp(s string) (time.Time, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != s || n < 0 || n > 1<<40 {
		return time.Time{}, fmt.Errorf("%w: %s is not Unix seconds", ErrInvalid, HeaderTimestamp)
	}
	return time.Unix(n, 0), nil
}

// decodeCandidates takes the v1 signatures of a space-separated list; other versions are left alone.
func decodeCandidates(list string) ([][]byte, error) {
	tokens := strings.Fields(list)
	if len(tokens) > mostCandidates {
		return nil, fmt.Errorf("%w: more than %d signatures", ErrInvalid, mostCandidates)
	}
	var out [][]byte
	for _, t := range tokens {
		version, text, ok := strings.Cut(t, ",")
		if !ok || version != "v1" {
			continue
		}
		if sig, err := base64.StdEncoding.Strict().DecodeString(text); err == nil && len(sig) == sha256.Size {
			out = append(out, sig)
		}
	}
	return out, nil
}
