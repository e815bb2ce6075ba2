package discord

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/renthook/renthook/pkg/secret"
	deliveryv1 "github.com/renthook/renthook/proto/gen/renthook/delivery/v1"
	"github.com/renthook/renthook/services/notifier/internal/channel"
	"github.com/renthook/renthook/services/notifier/internal/channel/channeltest"
)

func text(body []byte) (string, error) {
	var m struct {
		Content string `json:"content"`
	}
	err := json.Unmarshal(body, &m)
	return m.Content, err
}

func TestDiscord(t *testing.T) {
	t.Parallel()
	channeltest.Run(t, channeltest.Suite{
		New: func(url secret.String, notice channel.NoticeOptions, p channel.Poster) channel.Endpoint {
			return New(Config{URL: url, Notice: notice}, p)
		},
		Text: text, Limit: contentLimit,
		Verdicts: map[int]channel.Verdict{404: channel.Gone, 401: channel.Gone, 400: channel.Failed, 403: channel.Failed},
	})
}

func TestRender_MentionsNobody(t *testing.T) {
	t.Parallel()
	ev := channeltest.Event()
	ev.Order.Server = nil
	ev.Order.Spec.Gpu = "@everyone <@1> [click](https://evil.example)"
	body, err := New(Config{}, &channeltest.Poster{}).Render(ev)
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Content  string `json:"content"`
		Mentions struct {
			Parse []string `json:"parse"`
		} `json:"allowed_mentions"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	// An empty list forbids mentions; a missing one would allow them.
	if m.Mentions.Parse == nil || len(m.Mentions.Parse) != 0 {
		t.Errorf("allowed mentions %v in %s", m.Mentions.Parse, body)
	}
	if want := `\<@1\> \[click\](https://evil.example)`; !strings.Contains(m.Content, want) {
		t.Errorf("%q is not in %q", want, m.Content)
	}
}

func TestSend_RetryAfterOfTheBody(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]time.Duration{
		`{"retry_after":1.337,"global":false}`: 1337 * time.Millisecond,
		`{"retry_after":0.2}`:                  time.Second, // the header says one
		`{"retry_after":-1}`:                   time.Second,
		`{"retry_after":1e300}`:                24 * time.Hour,
		`<html>`:                               time.Second,
	} {
		p := &channeltest.Poster{Status: 429, Header: http.Header{"Retry-After": {"1"}}, Body: body}
		r := New(Config{}, p).Send(context.Background(), &deliveryv1.Delivery{}, time.Now())
		if r.Verdict != channel.Retry || r.RetryAfter != want {
			t.Errorf("%s: %s after %s, want %s", body, r.Verdict, r.RetryAfter, want)
		}
	}
}
