// Package callback sends the outcome of a command to the URL its sender gave. It guarantees Standard Webhooks
// headers, for seed-style callbacks the legacy header over the same bytes, and that every try of a delivery
// carries the same id and body under a new timestamp. The password of a rental is put in here, at the last step,
// and exists nowhere before. It refuses to send anything unsigned, and calls no address but through the egress
// guard.
package callback

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/pkg/webhook"
	deliveryv1 "github.com/renthook/renthook/proto/gen/renthook/delivery/v1"
	"github.com/renthook/renthook/services/notifier/internal/channel"
)

// Passwords derives what is stored nowhere; pkg/seal does.
type Passwords interface {
	Password(purpose string, parts ...string) string
}

// Config of every callback.
type Config struct {
	// Secrets by client: what its callbacks are signed with.
	Secrets map[string]secret.String
	// Version of renthook, for the User-Agent.
	Version string
}

// Sender posts callbacks.
type Sender struct {
	cfg       Config
	post      channel.Poster
	passwords Passwords
}

// New makes a sender that posts through p.
func New(cfg Config, p channel.Poster, passwords Passwords) *Sender {
	return &Sender{cfg: cfg, post: p, passwords: passwords}
}

// Send signs and posts a callback once.
func (s *Sender) Send(ctx context.Context, d *deliveryv1.Delivery, at time.Time) channel.Result {
	key := s.cfg.Secrets[d.GetClient()].Reveal()
	if key == "" {
		return channel.Result{Verdict: channel.Refused, Reason: "client " + d.GetClient() + " has no webhook secret to sign with"}
	}
	body, err := s.body(d)
	if err != nil {
		return channel.Result{Verdict: channel.Failed, Reason: "the body cannot be completed"}
	}
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", "renthook/"+s.cfg.Version)
	h.Set(webhook.HeaderID, d.GetId())
	h.Set(webhook.HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
	h.Set(webhook.HeaderSignature, webhook.SignStandard(key, d.GetId(), at, body))
	if d.GetSeed() {
		h.Set(webhook.HeaderLegacy, webhook.SignLegacy(key, body))
	}
	if d.GetTraceparent() != "" {
		h.Set("traceparent", d.GetTraceparent())
	}
	resp, err := s.post.Post(ctx, d.GetUrl(), h, body)
	return channel.Judge(resp, err, at)
}

// body is the delivery's own, with data.ssh.password where it is asked for. The password is derived from the
// installation's key, the order and the attempt, so every try puts in the same.
func (s *Sender) body(d *deliveryv1.Delivery) ([]byte, error) {
	if d.GetRevealSshAttempt() == 0 {
		return d.GetBody(), nil
	}
	password, err := json.Marshal(s.passwords.Password("ssh", d.GetOrderId(), strconv.Itoa(int(d.GetRevealSshAttempt()))))
	if err != nil {
		return nil, fmt.Errorf("encode password of %s: %w", d.GetId(), err)
	}
	return set(d.GetBody(), password, "data", "ssh", "password")
}

// set puts a value at a path of objects, which must all be there but the last.
func set(body, value json.RawMessage, path ...string) (json.RawMessage, error) {
	if len(path) == 0 {
		return value, nil
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(body, &object); err != nil || object == nil {
		return nil, fmt.Errorf("no object that could hold %q", path[0])
	}
	inner, err := set(object[path[0]], value, path[1:]...)
	if err != nil {
		return nil, err
	}
	object[path[0]] = inner
	// Members come out sorted, so the same bytes on every try.
	return json.Marshal(object)
}
