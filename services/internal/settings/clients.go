package settings

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/pkg/webhook"
	"github.com/renthook/renthook/services/internal/topology"
)

// secretBytes is the least length of a webhook secret or a token: 192 bits when it is random.
const secretBytes = 24

// wellKnown are secrets that tutorials and examples print.
var wellKnown = []string{
	"your-secret-key", "your-webhook-secret", "your_webhook_secret", "your-webhook-secret-here", "your_webhook_secret_here",
	"change-me", "changeme", "whsec-demo-secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}

func (c *checker) clients() {
	names := map[string]bool{}
	held := map[string]string{}
	for i, client := range c.s.Clients {
		at := fmt.Sprintf("clients[%d]", i)
		c.must(topology.ValidToken(client.Name) && client.Name != "-", at+".name", "%q: want letters, digits, underscores and hyphens", client.Name)
		c.must(!names[client.Name], at+".name", "%q is used twice", client.Name)
		names[client.Name] = true
		c.must(client.Account == c.s.Account.Name, at+".account", "%q is not account.name, %q: this version works for one account", client.Account, c.s.Account.Name)
		c.must(len(client.Secrets)+len(client.Tokens) > 0, at, "%s has neither secrets nor tokens: nobody could speak for it", client.Name)
		c.must(!client.SeedDoor || len(client.Secrets) > 0, at+".seed_door", "%s has no secrets to verify with", client.Name)
		c.must(len(client.Scopes) > 0, at+".scopes", "empty: %s could do nothing; some of %s", client.Name, strings.Join(Scopes, " "))
		c.clientLimits(at+".limits.", client.Limits)
		for _, s := range client.Scopes {
			c.must(slices.Contains(Scopes, s), at+".scopes", "%q is no scope: one of %s", s, strings.Join(Scopes, " "))
		}
		for n, s := range client.Secrets {
			c.webhookSecret(fmt.Sprintf("%s.secrets[%d]", at, n), s)
			c.single(held, fmt.Sprintf("%s.secrets[%d]", at, n), s)
		}
		for n, s := range client.Tokens {
			c.must(len(s.Reveal()) >= secretBytes, fmt.Sprintf("%s.tokens[%d]", at, n), "shorter than %d bytes", secretBytes)
			c.single(held, fmt.Sprintf("%s.tokens[%d]", at, n), s)
		}
	}
}

func (c *checker) clientLimits(at string, l ClientLimits) {
	c.must(l.OrdersPerHour >= 0, at+"orders_per_hour", "%d is negative; 0 is none", l.OrdersPerHour)
	c.must(l.LiveRentals >= 0, at+"live_rentals", "%d is negative; 0 is none", l.LiveRentals)
	c.must(!l.PricePerHour.IsNeg(), at+"price_per_hour", "%s is negative; 0 is none", l.PricePerHour)
	c.must(!l.BurnPerHour.IsNeg(), at+"burn_per_hour", "%s is negative; 0 is none", l.BurnPerHour)
	c.must(!l.SpendPerDay.IsNeg(), at+"spend_per_day", "%s is negative; 0 is none", l.SpendPerDay)
	c.must(!l.SpendPerMonth.IsNeg(), at+"spend_per_month", "%s is negative; 0 is none", l.SpendPerMonth)
}

// single refuses credentials that are stated twice: they would not say who speaks.
func (c *checker) single(held map[string]string, at string, s secret.String) {
	if was, dup := held[s.Reveal()]; dup {
		c.refuse(at, "the same as %s", was)
	}
	held[s.Reveal()] = at
}

func (c *checker) webhookSecret(at string, s secret.String) {
	if s.Equal(c.s.Ingress.WebhookSecret.Reveal()) {
		at = "WEBHOOK_SECRET (ingress.webhook_secret)"
	}
	why := ""
	switch text, prefixed := strings.CutPrefix(s.Reveal(), webhook.SecretPrefix); {
	case s.Empty():
		c.refuse(at, "empty")
		return
	case slices.Contains(wellKnown, s.Reveal()):
		why = "it is the secret of a tutorial, known to everybody"
	case len(s.Reveal()) < secretBytes:
		why = fmt.Sprintf("it has %d bytes, fewer than %d", len(s.Reveal()), secretBytes)
	case prefixed:
		key, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			c.notice(at, "starts with %s and goes on in no base64: Standard Webhooks libraries will not take it", webhook.SecretPrefix)
		} else if len(key) < secretBytes {
			why = fmt.Sprintf("its key has %d bytes, fewer than %d", len(key), secretBytes)
		}
	}
	switch {
	case why == "":
	case c.s.Ingress.AllowWeakLegacySecret:
		c.notice(at, "%s; accepted because ingress.allow_weak_legacy_secret is set", why)
	default:
		c.refuse(at, "%s. Make one with `renthook hook secret` (or `openssl rand -hex 32`) and give it to your senders too; "+
			"to go on with this one meanwhile, set ingress.allow_weak_legacy_secret", why)
	}
}
