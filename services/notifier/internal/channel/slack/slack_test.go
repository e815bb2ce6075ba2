package slack

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/services/notifier/internal/channel"
	"github.com/renthook/renthook/services/notifier/internal/channel/channeltest"
)

func text(body []byte) (string, error) {
	var m struct {
		Text string `json:"text"`
	}
	err := json.Unmarshal(body, &m)
	return m.Text, err
}

func TestSlack(t *testing.T) {
	t.Parallel()
	channeltest.Run(t, channeltest.Suite{
		New: func(url secret.String, notice channel.NoticeOptions, p channel.Poster) channel.Endpoint {
			return New(Config{URL: url, Notice: notice}, p)
		},
		Text: text, Limit: textLimit,
		Verdicts: map[int]channel.Verdict{404: channel.Gone, 400: channel.Failed, 403: channel.Failed},
	})
}

func TestRender_MentionsNobody(t *testing.T) {
	t.Parallel()
	ev := channeltest.Event()
	ev.Order.Server = nil
	ev.Order.Spec.Gpu = "<!channel> <@U1> <https://evil.example|click> & co"
	body, err := New(Config{}, &channeltest.Poster{}).Render(ev)
	if err != nil {
		t.Fatal(err)
	}
	got, err := text(body)
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(got, "<>") {
		t.Errorf("a mention or link can be read in %q", got)
	}
	if want := "&lt;!channel&gt; &lt;@U1&gt; &lt;https://evil.example|click&gt; &amp; co"; !strings.Contains(got, want) {
		t.Errorf("%q is not in %q", want, got)
	}
}
