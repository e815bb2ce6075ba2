package settings

import (
	"fmt"
	"slices"
	"strings"

	"github.com/renthook/renthook/pkg/secret"
)

// LocalClient is the client that is made when existing senders' secret has no other to belong to.
const LocalClient = "local"

// Local gives the client "local", and makes it when it is not there: all scopes, on the installation's account,
// and on the door of existing senders unless another client is. The pointer is good until Clients changes.
func (s *Settings) Local() *Client {
	for i := range s.Clients {
		if s.Clients[i].Name == LocalClient {
			return &s.Clients[i]
		}
	}
	s.Clients = append(s.Clients, Client{
		Name: LocalClient, Account: s.Account.Name, Scopes: []string{"*"}, SeedDoor: s.seedDoor() == nil,
	})
	return &s.Clients[len(s.Clients)-1]
}

// seedDoor is the first client on the door of existing senders, or nil.
func (s *Settings) seedDoor() *Client {
	for i := range s.Clients {
		if s.Clients[i].SeedDoor {
			return &s.Clients[i]
		}
	}
	return nil
}

// NeedSecret refuses settings by which nobody could sign for the door of existing senders.
func (s *Settings) NeedSecret() error {
	for _, c := range s.Clients {
		if c.SeedDoor && len(c.Secrets) > 0 {
			return nil
		}
	}
	return fmt.Errorf("no client with seed_door has a webhook secret: make one with `renthook hook secret` and set WEBHOOK_SECRET or WEBHOOK_SECRET_FILE")
}

// adopt gives what was stated under existing names its place among ours.
func (s *Settings) adopt(env []string) (problems []error) {
	for i := range s.Clients {
		if s.Clients[i].Account == "" {
			s.Clients[i].Account = s.Account.Name
		}
	}
	if given := s.Ingress.WebhookSecret; !given.Empty() {
		c := s.seedDoor()
		if c == nil {
			c = s.Local()
			c.SeedDoor = true
		}
		if !slices.ContainsFunc(c.Secrets, func(have secret.String) bool { return have.Equal(given.Reveal()) }) {
			// First: callbacks are signed with the first one, and existing receivers verify with this one.
			c.Secrets = slices.Insert(c.Secrets, 0, given)
		}
	}
	for _, channel := range []string{"slack", "discord"} {
		name := strings.ToUpper(channel) + "_WEBHOOK_URL"
		url, err := secret.Load(lookup(env, name), lookup(env, name+"_FILE"))
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
		case url.Empty():
		case slices.ContainsFunc(s.Notify.Endpoints, func(e Endpoint) bool { return e.Name == channel }):
			problems = append(problems, fmt.Errorf("%s is set and notify.endpoints has an endpoint %s: give one", name, channel))
		default:
			s.Notify.Endpoints = append(s.Notify.Endpoints, Endpoint{
				Name: channel, Channel: channel, URL: url, Events: slices.Clone(chatEvents),
			})
		}
	}
	return problems
}

func lookup(env []string, name string) string {
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}
