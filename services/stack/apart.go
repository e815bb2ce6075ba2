package stack

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"github.com/renthook/renthook/pkg/bus/embed"
	"github.com/renthook/renthook/pkg/file"
	"github.com/renthook/renthook/services/internal/ends"
	"github.com/renthook/renthook/services/internal/settings"
	"github.com/renthook/renthook/services/stack/wire"
)

// ApartConfig says where the services of one installation are, each a process of its own. Addresses are host:port.
type ApartConfig struct {
	// Data is where secrets, settings and environments are written.
	Data string
	// BrokerData is where the broker's configuration and streams are; "nats" under Data when empty.
	BrokerData string
	// HTTP is where ingress serves; GRPC and Pricewatch are where order and pricewatch serve gRPC and are found.
	HTTP, GRPC, Pricewatch string
	// Admin is where ingress serves metrics and health; order, pricewatch and notifier take the three ports after it.
	Admin string
	// NATS is where the broker is found, NATSListen where it listens; the same when empty.
	NATS, NATSListen string
	// MarketURL is a simulator that runs elsewhere.
	MarketURL string
}

// SettingsFile is what the services of an installation share, under its data directory.
const SettingsFile = "renthook.yaml"

// plainPath is what shells, container engines and service managers all read alike in a file of variables.
var plainPath = regexp.MustCompile(`^[A-Za-z0-9_./+@,:=-]+$`)

// Apart writes what the services need as processes of their own over a broker of their own: the installation's secrets,
// each in a file; renthook.yaml, which they share; an environment for each, which names files and holds no secret; and a
// nats.conf. It returns the paths it made. What is there already is kept as it is.
func Apart(c ApartConfig) (made []string, err error) {
	data, err := filepath.Abs(c.Data)
	if err != nil {
		return nil, err
	}
	if c.BrokerData, err = filepath.Abs(cmp.Or(c.BrokerData, filepath.Join(data, "nats"))); err != nil {
		return nil, err
	}
	for _, dir := range []string{data, c.BrokerData} {
		if !plainPath.MatchString(dir) {
			return nil, fmt.Errorf("%s: not every reader of environment files takes such a path; name one of letters, digits and ._/+@,:=-", dir)
		}
	}
	i, err := openInstallation(data)
	if err != nil {
		return nil, err
	}
	defer i.close()
	if err := i.credentials(&settings.Settings{}); err != nil {
		return nil, err
	}
	keep := func(path string, text []byte) error {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		made = append(made, path)
		return file.Replace(path, text)
	}

	shared := i.path(SettingsFile)
	if err := keep(shared, i.shared(c)); err != nil {
		return made, err
	}
	if _, err := settings.LoadAll(settings.Sources{File: shared}); err != nil {
		if len(made) > 0 {
			err = errors.Join(err, os.Remove(shared))
		}
		return nil, err
	}
	for n, service := range []string{wire.Ingress, wire.Order, wire.Pricewatch, wire.Notifier} {
		text, err := i.environment(c, service, n)
		if err != nil {
			return made, err
		}
		if err := keep(i.path(service+".env"), text); err != nil {
			return made, err
		}
	}
	users, _, err := i.users()
	if err != nil {
		return made, err
	}
	if err := os.MkdirAll(c.BrokerData, 0o700); err != nil {
		return made, fmt.Errorf("make the broker's directory: %w", err)
	}
	text, err := brokerConfig(c, users)
	if err != nil {
		return made, err
	}
	return made, keep(filepath.Join(c.BrokerData, "nats.conf"), text)
}

// shared is renthook.yaml.
func (i *installation) shared(c ApartConfig) []byte {
	secret := func(name string) string { return strconv.Quote(i.path("secrets", name)) }
	return fmt.Appendf(nil, `# What the services of this installation share. It was written once: change it here, then start them again.
installation:
  key_file: %s
nats:
  url: %s
market:
  url: %s
ingress:
  address: %s
order:
  grpc_address: %s
  ends_file: %s
pricewatch:
  grpc_address: %s
clients:
  - name: %s
    scopes: ["*"]
    seed_door: true
    secrets_file: %s
    tokens_file: %s
`, secret(keyFile), strconv.Quote("nats://"+c.NATS), strconv.Quote(c.MarketURL), strconv.Quote(c.HTTP), strconv.Quote(c.GRPC), strconv.Quote(i.path(ends.File)), strconv.Quote(c.Pricewatch),
		localClient, secret(webhookFile), secret(tokenFile))
}

// environment is what one service has of its own; nth moves its admin port away from the others'.
func (i *installation) environment(c ApartConfig, service string, nth int) ([]byte, error) {
	host, text, err := net.SplitHostPort(c.Admin)
	if err != nil {
		return nil, fmt.Errorf("address of metrics and health: %w", err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("address of metrics and health: %w", err)
	}
	return fmt.Appendf(nil, `# The environment of renthook's service %[1]s. It was written once and holds no secret.
RENTHOOK_CONFIG=%[2]s
RENTHOOK_NATS_USER=%[1]s
RENTHOOK_NATS_PASSWORD_FILE=%[3]s
RENTHOOK_TELEMETRY_ADDRESS=%[4]s
`, service, i.path(SettingsFile), i.path("secrets", passwordFile(service)), net.JoinHostPort(host, strconv.FormatUint(port+uint64(nth), 10))), nil
}

// brokerConfig is a nats-server's configuration: what the embedded broker is told, in words.
func brokerConfig(c ApartConfig, users []embed.User) ([]byte, error) {
	var lines strings.Builder
	for _, u := range users {
		// The passwords are long and random: a costly hash would guard them no better, and delay every connection.
		hash, err := bcrypt.GenerateFromPassword([]byte(u.Password.Reveal()), bcrypt.MinCost)
		if err != nil {
			return nil, fmt.Errorf("hash the password of the broker's user %s: %w", u.Name, err)
		}
		fmt.Fprintf(&lines, "    { user: %s, password: %s", strconv.Quote(u.Name), strconv.Quote(string(hash)))
		if u.Publish != nil || u.Subscribe != nil {
			fmt.Fprintf(&lines, ", permissions: { publish: { allow: %s }, subscribe: { allow: %s } }", list(u.Publish), list(u.Subscribe))
		}
		lines.WriteString(" }\n")
	}
	return fmt.Appendf(nil, `# renthook's broker, for nats-server -c. It holds hashes of passwords, no passwords.
server_name: renthook
listen: %s
jetstream {
  store_dir: %s
  # Every message is on disk before it is acknowledged: an ask that was answered 200 outlasts a power cut.
  sync_interval: always
  # The streams have bounds of their own; the server counts those against this one, and would refuse them on a small
  # disk long before it is full.
  max_file_store: 16TB
  max_memory_store: 1GB
}
authorization {
  users: [
%s  ]
}
`, strconv.Quote(cmp.Or(c.NATSListen, c.NATS)), strconv.Quote(c.BrokerData), lines.String()), nil
}

func list(subjects []string) string {
	out := make([]string, len(subjects))
	for i, s := range subjects {
		out[i] = strconv.Quote(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}
