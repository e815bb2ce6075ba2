// Package auth says who calls: it turns a bearer token into a client.
//
// It guarantees that tokens are compared by hash and in constant time, that none is kept or logged in the clear, and
// that health and reflection alone are open to everybody. It refuses empty tokens, tokens two clients share, and a
// call with two authorizations. What a client may do is for the service that it calls.
package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/renthook/renthook/services/internal/settings"
)

// Clients finds clients by their tokens.
type Clients struct {
	tokens  []token
	clients []settings.Client
}

type token struct {
	hash   [sha256.Size]byte
	client int
}

// New takes the clients of the configuration.
func New(clients []settings.Client) (*Clients, error) {
	c := &Clients{clients: clients}
	owners := map[[sha256.Size]byte]string{}
	for i, client := range clients {
		for _, t := range client.Tokens {
			if t.Empty() {
				return nil, fmt.Errorf("client %s has an empty token", client.Name)
			}
			hash := sha256.Sum256([]byte(t.Reveal()))
			if other, taken := owners[hash]; taken {
				return nil, fmt.Errorf("clients %s and %s have the same token", other, client.Name)
			}
			owners[hash] = client.Name
			c.tokens = append(c.tokens, token{hash, i})
		}
	}
	return c, nil
}

// ByToken finds the client a token belongs to. It takes as long for a token that is nobody's.
func (c *Clients) ByToken(text string) (settings.Client, bool) {
	hash := sha256.Sum256([]byte(text))
	found := -1
	for i := range c.tokens {
		if subtle.ConstantTimeCompare(hash[:], c.tokens[i].hash[:]) == 1 {
			found = c.tokens[i].client
		}
	}
	if found < 0 {
		return settings.Client{}, false
	}
	return c.clients[found], true
}

// ByName finds a client.
func (c *Clients) ByName(name string) (settings.Client, bool) {
	for _, client := range c.clients {
		if client.Name == name {
			return client, true
		}
	}
	return settings.Client{}, false
}

// errNobody is for callers we do not know.
var errNobody = errors.New("no client has this token")

// Authenticate is [Clients.ByToken] as an [Authenticate].
func (c *Clients) Authenticate(_ context.Context, text string) (string, error) {
	client, ok := c.ByToken(text)
	if !ok {
		return "", errNobody
	}
	return client.Name, nil
}
