package stack

import (
	"github.com/renthook/renthook/pkg/bus/embed"
	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/services/internal/settings"
	"github.com/renthook/renthook/services/stack/wire"
)

// localClient is the one client an installation has of itself.
const localClient = settings.LocalClient

// Files under secrets/.
const (
	keyFile     = "installation.key"
	webhookFile = "webhook.secret"
	tokenFile   = "token"
)

// SecretFile is where the webhook secret is, under the data directory.
const SecretFile = "secrets/" + webhookFile

// passwordFile is where a broker user's password is.
func passwordFile(user string) string { return "nats-" + user }

// services are the four, in the order they are started: order is first to be stopped last, since a command in hand is
// recorded before it goes.
var services = []string{wire.Order, wire.Pricewatch, wire.Notifier, wire.Ingress}

// credentials makes what is missing: the installation's key, and a secret and a token for the client local.
func (i *installation) credentials(st *settings.Settings) error {
	if st.Installation.Key.Empty() {
		key, err := i.secret(keyFile, "rhk_")
		if err != nil {
			return err
		}
		st.Installation.Key = key
	}
	local := st.Local()
	local.SeedDoor = true
	webhook, err := i.secret(webhookFile, "whsec_")
	if err != nil {
		return err
	}
	token, err := i.secret(tokenFile, "rht_")
	if err != nil {
		return err
	}
	local.Secrets = append(local.Secrets, webhook)
	local.Tokens = append(local.Tokens, token)
	return nil
}

// users are who may connect to the broker: each service, and the client local within its own subjects.
func (i *installation) users() (users []embed.User, passwords map[string]secret.String, err error) {
	passwords = map[string]secret.String{}
	for _, name := range append([]string{localClient}, services...) {
		if passwords[name], err = i.secret(passwordFile(name), "rhn_"); err != nil {
			return nil, nil, err
		}
		u := embed.User{Name: name, Password: passwords[name]}
		if name == localClient {
			u.Publish, u.Subscribe = clientMayPublish(name), clientMaySubscribe(name)
		}
		users = append(users, u)
	}
	return users, passwords, nil
}
