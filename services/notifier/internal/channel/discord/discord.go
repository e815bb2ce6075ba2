// Package discord sends notices to a Discord channel webhook as plain text. It guarantees that a notice mentions
// nobody and forges no link, and that the webhook's URL, which is its only credential, is never printed. It refuses what Discord
// would reject: a text above its limit is cut here.
package discord

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

// contentLimit is the most characters of a message. Source: https://discord.com/developers/docs/resources/webhook#execute-webhook
const contentLimit = 2000

// suppressEmbeds keeps addresses in a notice from growing previews. Source: message flags, same place.
const suppressEmbeds = 1 << 2

// Config of one endpoint.
type Config struct {
	// URL of the channel webhook; whoever has it may post.
	URL secret.String
	// Notice says what a message may show.
	Notice channel.NoticeOptions
}

// Endpoint posts to one channel webhook.
type Endpoint struct {
	cfg  Config
	post channel.Poster
}

// New makes an endpoint that posts through p.
func New(cfg Config, p channel.Poster) *Endpoint { return &Endpoint{cfg: cfg, post: p} }

type message struct {
	Content         string          `json:"content"`
	Flags           int             `json:"flags"`
	AllowedMentions allowedMentions `json:"allowed_mentions"`
}

// allowedMentions with an empty list: "@everyone" in somebody's words stays text.
type allowedMentions struct {
	Parse []string `json:"parse"`
}

// escape keeps Discord's Markdown from making links, quotes or headings of somebody's words.
var escape = strings.NewReplacer(`\`, `\\`, "*", `\*`, "_", `\_`, "~", `\~`, "`", "\\`", "|", `\|`, "<", `\<`, ">", `\>`, "[", `\[`, "]", `\]`, "#", `\#`)

// Render makes the message of an event.
func (e *Endpoint) Render(ev *orderv1.OrderEvent) ([]byte, error) {
	text := channel.Truncate(escape.Replace(strings.Join(channel.Notice(ev, e.cfg.Notice), "\n")), contentLimit)
	b, err := json.Marshal(message{Content: text, Flags: suppressEmbeds, AllowedMentions: allowedMentions{Parse: []string{}}})
	if err != nil {
		return nil, fmt.Errorf("render discord message of %s: %w", ev.GetType(), err)
	}
	return b, nil
}

// Send posts the message once.
func (e *Endpoint) Send(ctx context.Context, d *deliveryv1.Delivery, at time.Time) channel.Result {
	h := http.Header{"Content-Type": {"application/json"}}
	resp, err := e.post.Post(ctx, e.cfg.URL.Reveal(), h, d.GetBody())
	r := channel.Judge(resp, err, at)
	switch r.Status {
	case http.StatusUnauthorized, http.StatusNotFound:
		// The webhook was removed. Going on would count towards the ban for invalid requests (10,000 in 10 minutes).
		r.Verdict = channel.Gone
	case http.StatusBadRequest, http.StatusForbidden:
		// The same bytes would get the same answer.
		r.Verdict = channel.Failed
	case http.StatusTooManyRequests:
		r.RetryAfter = max(r.RetryAfter, retryAfter(resp.Body))
	}
	return r
}

// retryAfter reads the body of a 429, which is finer than the header: seconds with a fraction.
// Source: https://discord.com/developers/docs/topics/rate-limits#exceeding-a-rate-limit
func retryAfter(body []byte) time.Duration {
	var limited struct {
		RetryAfter float64 `json:"retry_after"`
	}
	if json.Unmarshal(body, &limited) != nil {
		return 0 // a proxy's page; the header stands
	}
	return channel.Seconds(limited.RetryAfter)
}
