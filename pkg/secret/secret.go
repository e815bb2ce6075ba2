// Package secret holds values that must not be printed.
//
// It guarantees that a String shows as "<secret>" in every fmt verb, in JSON, YAML, text and slog, also as an
// unexported field of a struct that is printed whole, and that only Reveal gives the value. It refuses to load
// a value that is both given and in a file, an empty file, and its own mask, which is what a redacted
// configuration pasted back would carry. It does not keep the value out of memory or core dumps.
package secret

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
)

// Mask is what a secret shows instead of its value.
const Mask = "<secret>"

// mostBytes bounds a secret's file: keys and tokens are far below it.
const mostBytes = 64 << 10

// String is a secret. Its zero value is empty and shows as nothing, so that a printed configuration tells
// which secrets are missing.
type String struct {
	// A pointer, because fmt cannot call methods on unexported fields and would print a string verbatim;
	// of a nested pointer it prints the address.
	value *string
}

// New holds value.
func New(value string) String {
	if value == "" {
		return String{}
	}
	return String{value: &value}
}

// Reveal gives the value itself.
func (s String) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// Empty says whether there is no value.
func (s String) Empty() bool { return s.value == nil }

// Equal compares with a candidate in constant time. An empty secret equals nothing.
func (s String) Equal(candidate string) bool {
	return !s.Empty() && subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(candidate)) == 1
}

// Fingerprint is 12 hexadecimal digits of a hash, enough to tell two secrets apart in a log; empty for none.
func (s String) Fingerprint() string {
	if s.Empty() {
		return ""
	}
	sum := sha256.Sum256([]byte("fingerprint\x00" + s.Reveal()))
	return hex.EncodeToString(sum[:6])
}

// String is the mask, or nothing for an empty secret.
func (s String) String() string {
	if s.Empty() {
		return ""
	}
	return Mask
}

// GoString is the mask.
func (s String) GoString() string { return s.String() }

// Format writes the mask whatever the verb.
func (s String) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue is the mask.
func (s String) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is the mask; JSON and YAML use it too.
func (s String) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes the value, and refuses the mask.
func (s *String) UnmarshalText(text []byte) error {
	if string(text) == Mask {
		return errors.New("the value is the mask " + Mask + " of a printed configuration, not a secret")
	}
	*s = New(string(text))
	return nil
}

// Load gives the secret that is stated in value or kept in a file, whose trailing line break is cut.
// Neither gives an empty one. Errors name the file, never its content.
func Load(value, file string) (String, error) {
	if file == "" {
		return New(value), nil
	}
	if value != "" {
		return String{}, fmt.Errorf("the value and the file %s are both given", file)
	}
	f, err := os.Open(file)
	if err != nil {
		return String{}, fmt.Errorf("open secret: %w", err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, mostBytes+1))
	if err != nil {
		return String{}, fmt.Errorf("read secret %s: %w", file, err)
	}
	if len(b) > mostBytes {
		return String{}, fmt.Errorf("read secret %s: longer than %d bytes", file, mostBytes)
	}
	b = bytes.TrimRight(b, "\r\n")
	if len(b) == 0 {
		return String{}, fmt.Errorf("read secret %s: the file is empty", file)
	}
	return New(string(b)), nil
}

// Generate makes a secret of 32 random bytes. With the prefix "whsec_" they are in the standard base64 that
// Standard Webhooks libraries decode; with any other in the URL-safe one, without padding.
func Generate(prefix string) String {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	if prefix == "whsec_" {
		return New(prefix + base64.StdEncoding.EncodeToString(b))
	}
	return New(prefix + base64.RawURLEncoding.EncodeToString(b))
}
