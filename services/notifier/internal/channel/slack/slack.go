// Package slack sends notices to a Slack incoming webhook as plain text. It guarantees that a notice cannot
// mention anybody or forge a link, and that the webhook's URL, which is its only credential, is never printed.
// It refuses what Slack would reject: a text above its limit is cut here.
package slack

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/renthook/renthook/pkg/secret"
	deliveryv1 "github.com/renthook/renthook/proto/gen/renthook/delivery/v1"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/notifier/internal/channel"
)

// textLimit is the number of characters Slack shows of a message's text before it cuts or rejects it.
// Source: https://docs.slack.dev/reference/methods/chat.postMessage ("limit the text field to 4,000 characters").
const textLimit = 4000

// Config of one endpoint.
type Config struct {
	// URL of the incoming webhook; whoever has it may post.
	URL secret.String
	// Notice says what a message may show.
	Notice channel.NoticeOptions
}

// Endpoint posts to one incoming webhook.
type Endpoint struct {
	cfg  Config
	post channel.Poster
}

// New makes an endpoint that posts through p.
func New(cfg Config, p channel.Poster) *Endpoint { return &Endpoint{cfg: cfg, post: p} }

// message is the payload of an incoming webhook. Source: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
type message struct {
	Text        string `json:"text"`
	UnfurlLinks bool   `json:"unfurl_links"`
}

// escape is all that Slack asks for: with these three characters gone, no mention and no link can be written.
// Source: https://docs.slack.dev/messaging/formatting-message-text#escaping
var escape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// Render makes the message of an event.
func (e *Endpoint) Render(ev *orderv1.OrderEvent) ([]byte, error) {
	// Escaped before it is cut: a cut inside "&amp;" is ugly, one that lets the text grow again is refused.
	text := channel.Truncate(escape.Replace(strings.Join(channel.Notice(ev, e.cfg.Notice), "\n")), textLimit)
	b, err := json.Marshal(message{Text: text})
	if err != nil {
		return nil, fmt.Errorf("render slack message of %s: %w", ev.GetType(), err)
	}
	return b, nil
}

// Send posts the message once.
func (e *Endpoint) Send(ctx context.Context, d *deliveryv1.Delivery, at time.Time) channel.Result {
	h := http.Header{"Content-Type": {"application/json"}}
	resp, err := e.post.Post(ctx, e.cfg.URL.Reveal(), h, d.GetBody())
	r := channel.Judge(resp, err, at)
	switch r.Status {
	case http.StatusNotFound:
		// no_service, no_team, channel_not_found: the webhook was removed.
		r.Verdict = channel.Gone
	case http.StatusBadRequest, http.StatusForbidden:
		// invalid_payload, action_prohibited: the same bytes would get the same answer.
		r.Verdict = channel.Failed
	}
	return r
}
