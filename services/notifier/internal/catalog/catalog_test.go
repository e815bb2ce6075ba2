package catalog

import (
	"strings"
	"testing"

	"github.com/renthook/renthook/services/notifier/internal/channel/channeltest"
)

func TestNew(t *testing.T) {
	t.Parallel()
	for _, name := range Names() {
		ch, err := New(name, Config{}, &channeltest.Poster{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if body, err := ch.Render(channeltest.Event()); err != nil || len(body) == 0 {
			t.Errorf("%s renders %q, %v", name, body, err)
		}
	}
	if _, err := New("pager", Config{}, nil); err == nil || !strings.Contains(err.Error(), "discord, slack") {
		t.Errorf("unknown channel: %v; want the known ones named", err)
	}
}
