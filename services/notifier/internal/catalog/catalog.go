// Package catalog is the only list of channels that endpoints can be configured with. It guarantees that an
// unknown name is refused at start, with the known ones named. Adding a channel is its package and a line here.
package catalog

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/services/notifier/internal/channel"
	"github.com/renthook/renthook/services/notifier/internal/channel/discord"
	"github.com/renthook/renthook/services/notifier/internal/channel/slack"
)

// Config is what every channel of the list is made from.
type Config struct {
	URL    secret.String
	Notice channel.NoticeOptions
}

var channels = map[string]func(Config, channel.Poster) channel.Endpoint{
	"slack":   func(c Config, p channel.Poster) channel.Endpoint { return slack.New(slack.Config(c), p) },
	"discord": func(c Config, p channel.Poster) channel.Endpoint { return discord.New(discord.Config(c), p) },
}

// New makes an endpoint of the named channel.
func New(name string, c Config, p channel.Poster) (channel.Endpoint, error) {
	build, ok := channels[name]
	if !ok {
		return nil, fmt.Errorf("unknown channel %q: known are %s", name, strings.Join(Names(), ", "))
	}
	return build(c, p), nil
}

// Names lists the channels, sorted.
func Names() []string { return slices.Sorted(maps.Keys(channels)) }
