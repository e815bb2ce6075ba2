// Package caller says who sent a request: by a signature over its raw bytes, or by a bearer token.
//
// It guarantees that a body is looked at as bytes only, that a request which claims Standard Webhooks is judged by
// that alone, and that secrets are compared in constant time. It refuses repeated credentials and repeated keys. It
// does not remember requests: whoever admits takes care of repeats.
package caller

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/renthook/renthook/pkg/fault"
	"github.com/renthook/renthook/pkg/webhook"
	"github.com/renthook/renthook/services/internal/auth"
	"github.com/renthook/renthook/services/internal/settings"
)

// Scopes that /v1 asks for, of settings.Scopes.
const (
	CreateOrders = "orders:create"
	CancelOrders = "orders:cancel"
	Control      = "control"
	Read         = "read"
)

// The faults of a request that nobody signed, or not well.
var (
	ErrMissing = fault.New(fault.Unauthenticated, "SIGNATURE_MISSING", "Missing signature")
	ErrInvalid = fault.New(fault.Unauthenticated, "SIGNATURE_INVALID", "Invalid signature")
	ErrSkew    = fault.New(fault.Unauthenticated, "TIMESTAMP_SKEW", "Invalid signature")
	ErrToken   = fault.New(fault.Unauthenticated, "TOKEN_INVALID", "the bearer token is not one of ours")
	ErrNoToken = fault.New(fault.Unauthenticated, "CREDENTIALS_MISSING", "send \"Authorization: Bearer <token>\", or sign the request by Standard Webhooks")
)

// Caller is who sent a request, proved.
type Caller struct {
	// Client is the client's name.
	Client string
	// Secret is the fingerprint of the secret that signed; empty for a token.
	Secret string
	// Key is the webhook-id of a request signed by Standard Webhooks.
	Key string
	// Legacy says that the seed's own scheme was used, which has no timestamp.
	Legacy bool
	client settings.Client
}

// May says whether the caller has a scope.
func (c Caller) May(scope string) bool { return c.client.May(scope) }

// Book knows the clients. It is safe for concurrent use.
type Book struct {
	seed, all signers
	tokens    *auth.Clients
}

// signers are all secrets that may sign, side by side with whose they are.
type signers struct {
	secrets []string
	callers []Caller
}

func (s *signers) add(c settings.Client) {
	for _, x := range c.Secrets {
		s.secrets = append(s.secrets, x.Reveal())
		s.callers = append(s.callers, Caller{Client: c.Name, Secret: x.Fingerprint(), client: c})
	}
}

// NewBook makes a Book. A secret that two clients share is refused, and so is a token: it would not say who speaks.
func NewBook(clients []settings.Client) (*Book, error) {
	tokens, err := auth.New(clients)
	if err != nil {
		return nil, err
	}
	b := &Book{tokens: tokens}
	owner := map[string]string{}
	for _, c := range clients {
		for _, x := range c.Secrets {
			if x.Empty() {
				return nil, fmt.Errorf("client %s has an empty secret", c.Name)
			}
			if other, taken := owner[x.Reveal()]; taken {
				return nil, fmt.Errorf("clients %s and %s have the same secret", other, c.Name)
			}
			owner[x.Reveal()] = c.Name
		}
		b.all.add(c)
		if c.SeedDoor {
			b.seed.add(c)
		}
	}
	return b, nil
}

// Seed finds who sent a request to the seed's door. The errors are ErrMissing, ErrInvalid and ErrSkew.
func (b *Book) Seed(h http.Header, body []byte, now time.Time) (Caller, error) {
	if webhook.HasStandard(h) {
		return b.seed.standard(h, body, now)
	}
	i, err := webhook.VerifyLegacy(h, body, b.seed.secrets)
	if err != nil {
		return Caller{}, refusal(err)
	}
	c := b.seed.callers[i]
	c.Legacy = true
	return c, nil
}

// V1 finds who sent a request to /v1: by bearer token, or by Standard Webhooks. A request with both must pass both,
// as the same client.
func (b *Book) V1(h http.Header, body []byte, now time.Time) (Caller, error) {
	bearer, hasBearer, err := token(h)
	if err != nil {
		return Caller{}, err
	}
	var byToken Caller
	if hasBearer {
		client, ok := b.tokens.ByToken(bearer)
		if !ok {
			return Caller{}, ErrToken
		}
		byToken = Caller{Client: client.Name, client: client}
		if !webhook.HasStandard(h) {
			return byToken, nil
		}
	}
	if !webhook.HasStandard(h) {
		return Caller{}, ErrNoToken
	}
	c, err := b.all.standard(h, body, now)
	if err == nil && hasBearer && c.Client != byToken.Client {
		return Caller{}, ErrInvalid
	}
	return c, err
}

func (s *signers) standard(h http.Header, body []byte, now time.Time) (Caller, error) {
	i, id, err := webhook.VerifyStandard(h, body, s.secrets, now)
	if err != nil {
		return Caller{}, refusal(err)
	}
	c := s.callers[i]
	c.Key = id
	return c, nil
}

func refusal(err error) error {
	switch {
	case errors.Is(err, webhook.ErrMissing):
		return ErrMissing.Wrap(err)
	case errors.Is(err, webhook.ErrTimestamp):
		return ErrSkew.Wrap(err)
	}
	return ErrInvalid.Wrap(err)
}

func token(h http.Header) (string, bool, error) {
	values := h.Values("Authorization")
	if len(values) == 0 {
		return "", false, nil
	}
	scheme, text, _ := strings.Cut(values[0], " ")
	text = strings.TrimSpace(text)
	if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") || text == "" {
		return "", false, ErrToken
	}
	return text, true, nil
}

// HeaderKey is the header by which a sender names its ask.
const HeaderKey = "Idempotency-Key"

const mostKey = 256

// Key is the one key of a request, empty when there is none: the Idempotency-Key header, quoted or not, the webhook-id
// of the signature, or requestID, a member of the body. Two that differ are refused.
func Key(h http.Header, c Caller, requestID string) (string, error) {
	values := h.Values(HeaderKey)
	if len(values) > 1 {
		return "", fault.New(fault.Invalid, "IDEMPOTENCY_KEY_INVALID", "the header %s stands twice", HeaderKey)
	}
	header := ""
	if len(values) == 1 {
		header = strings.TrimSpace(values[0])
		if n := len(header); n >= 2 && header[0] == '"' && header[n-1] == '"' {
			header = strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(header[1 : n-1])
		}
	}
	key := ""
	for _, k := range []string{header, c.Key, requestID} {
		switch {
		case k == "" || k == key:
		case key != "":
			return "", fault.New(fault.Invalid, "IDEMPOTENCY_KEY_INVALID", "%s, webhook-id and request_id differ: send one key", HeaderKey)
		case len(k) > mostKey:
			return "", fault.New(fault.Invalid, "IDEMPOTENCY_KEY_INVALID", "a key has at most %d bytes", mostKey)
		default:
			key = k
		}
	}
	return key, nil
}
