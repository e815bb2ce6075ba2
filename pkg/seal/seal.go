// Package seal encrypts values that must not be read where they travel or rest, and derives passwords that are
// stored nowhere.
//
// It guarantees that a sealed value can be neither read nor altered without the key, nor opened under another
// context than it was sealed under, and that the same key always derives the same passwords. It refuses short
// keys. It does not hide the length of a value, nor notice one that was replaced by an older one of its context.
// All uses of a key are separated by HKDF, so no password says anything about a sealed value.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/renthook/renthook/pkg/secret"
)

// KeyBytes is the least length of a key.
const KeyBytes = 32

// prefix tells the first text form: AES-256-GCM with a random nonce in front, in base64url without padding.
const prefix = "s1."

// ErrOpen says that a value was not sealed by this key under this context, or was altered since.
var ErrOpen = errors.New("value cannot be opened: wrong key, wrong context or altered")

// Box seals and opens under one key. It is safe for concurrent use. One key may seal some billion values.
type Box struct {
	aead cipher.AEAD
	key  []byte
}

// New makes a box from a key of at least KeyBytes bytes of text, as secret.Generate makes them.
func New(key secret.String) (*Box, error) {
	material := []byte(key.Reveal())
	if len(material) < KeyBytes {
		return nil, fmt.Errorf("make a box: the key has %d bytes, want at least %d", len(material), KeyBytes)
	}
	master, err := hkdf.Extract(sha256.New, material, []byte("seal"))
	if err != nil {
		return nil, fmt.Errorf("make a box: %w", err)
	}
	sealing, err := hkdf.Expand(sha256.New, master, "aes-256-gcm", 32)
	if err != nil {
		return nil, fmt.Errorf("make a box: %w", err)
	}
	block, err := aes.NewCipher(sealing)
	if err != nil {
		return nil, fmt.Errorf("make a box: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("make a box: %w", err)
	}
	return &Box{aead: aead, key: master}, nil
}

// Seal encrypts plain for one context, such as "order-env"; the text form is safe in JSON, headers and URLs.
func (b *Box) Seal(plain []byte, context string) (string, error) {
	if len(plain) > 1<<20 {
		return "", fmt.Errorf("seal for %s: %d bytes is more than 1 MiB", context, len(plain))
	}
	sealed := b.aead.Seal(nil, nil, plain, []byte(prefix+context)) //nolint:gosec // this kind of AEAD takes no nonce: it makes a random one itself
	return prefix + base64.RawURLEncoding.EncodeToString(sealed), nil
}

// Open gives back what Seal was given under the same context, or ErrOpen.
func (b *Box) Open(sealed, context string) ([]byte, error) {
	text, ok := strings.CutPrefix(sealed, prefix)
	if !ok {
		return nil, fmt.Errorf("open %s: %w (it does not start with %q)", context, ErrOpen, prefix)
	}
	// Strict, so that one value has one text form.
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w (not base64url)", context, ErrOpen)
	}
	plain, err := b.aead.Open(nil, nil, raw, []byte(prefix+context))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", context, ErrOpen)
	}
	return plain, nil
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// Password derives 24 letters and digits (142 bits) for a purpose and its parts, the same ones every time.
// Parts are kept apart: ("ab", "c") and ("a", "bc") give different passwords.
func (b *Box) Password(purpose string, parts ...string) string {
	info := []byte("password")
	for _, p := range append([]string{purpose}, parts...) {
		info = binary.BigEndian.AppendUint64(info, uint64(len(p)))
		info = append(info, p...)
	}
	// 24 of 255 random bytes at 248 in 256 are always found in practice; the loop makes it always.
	out := make([]byte, 0, 24)
	for block := 0; len(out) < cap(out); block++ {
		stream, err := hkdf.Expand(sha256.New, b.key, string(binary.BigEndian.AppendUint64(info, uint64(block))), 64)
		if err != nil {
			panic("seal: " + err.Error()) // only for a length no hash can give
		}
		for _, c := range stream {
			// 248 is the last multiple of 62: no letter is likelier than another.
			if c < 248 && len(out) < cap(out) {
				out = append(out, alphabet[c%62])
			}
		}
	}
	return string(out)
}
