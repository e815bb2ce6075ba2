package stack_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/renthook/renthook/services/internal/settings"
	"github.com/renthook/renthook/services/stack"
)

var apart = stack.ApartConfig{
	HTTP: "127.0.0.1:8080", GRPC: "127.0.0.1:9090", Pricewatch: "127.0.0.1:9091", Admin: "127.0.0.1:8081",
	NATS: "127.0.0.1:4222", MarketURL: "http://127.0.0.1:8090",
}

func read(t *testing.T, parts ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestApart_ServicesReadWhatWasWritten(t *testing.T) {
	t.Parallel()
	c := apart
	c.Data = t.TempDir()
	if _, err := stack.Apart(c); err != nil {
		t.Fatal(err)
	}
	admins := map[string]bool{}
	for _, service := range []string{"ingress", "order", "pricewatch", "notifier"} {
		var environ []string
		file := ""
		for line := range strings.Lines(read(t, c.Data, service+".env")) {
			line = strings.TrimSpace(line)
			if path, ok := strings.CutPrefix(line, "RENTHOOK_CONFIG="); ok {
				file = path
			} else if !strings.HasPrefix(line, "#") {
				environ = append(environ, line)
			}
		}
		s, _, err := settings.Load(settings.Sources{File: file, Environ: environ})
		if err != nil {
			t.Fatalf("%s: %v", service, err)
		}
		admins[s.Telemetry.Address] = true
		if s.NATS.User != service || s.NATS.Password.Reveal() != read(t, c.Data, "secrets", "nats-"+service) || s.NATS.URL != "nats://127.0.0.1:4222" {
			t.Errorf("%s connects to %s as %q", service, s.NATS.URL, s.NATS.User)
		}
		if s.Installation.Key.Reveal() != read(t, c.Data, "secrets", "installation.key") || s.Market.URL != c.MarketURL {
			t.Errorf("%s has another key, or the market %s", service, s.Market.URL)
		}
		if len(s.Clients) != 1 || !s.Clients[0].SeedDoor || s.Clients[0].Name != "local" || !s.Clients[0].May("rentals:cancel_any") ||
			!s.Clients[0].Secrets[0].Equal(read(t, c.Data, "secrets", "webhook.secret")) || !s.Clients[0].Tokens[0].Equal(read(t, c.Data, "secrets", "token")) {
			t.Errorf("%s knows the clients %+v", service, s.Clients)
		}
	}
	if len(admins) != 4 {
		t.Errorf("services share addresses: %v", admins)
	}
}

// A secret stands in its own file and nowhere else, and only the owner reads any of them.
func TestApart_SecretsStayInTheirFiles(t *testing.T) {
	t.Parallel()
	c := apart
	c.Data = t.TempDir()
	made, err := stack.Apart(c)
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := filepath.Glob(filepath.Join(c.Data, "secrets", "*"))
	if err != nil || len(secrets) != 8 {
		t.Fatalf("%d secrets (%v)", len(secrets), err)
	}
	for _, path := range made {
		for _, file := range secrets {
			if strings.Contains(read(t, path), read(t, file)) {
				t.Errorf("%s holds the secret of %s", path, filepath.Base(file))
			}
		}
	}
	for _, path := range append(made, secrets...) {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
}

func TestApart_KeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	c := apart
	c.Data = t.TempDir()
	if _, err := stack.Apart(c); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(c.Data, "renthook.yaml")
	if err := os.WriteFile(mine, []byte(read(t, mine)+"\nlimits:\n  orders_per_hour: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(c.Data, "order.env")); err != nil {
		t.Fatal(err)
	}
	key := read(t, c.Data, "secrets", "installation.key")
	made, err := stack.Apart(c)
	if err != nil || len(made) != 1 || filepath.Base(made[0]) != "order.env" {
		t.Errorf("made %v (%v)", made, err)
	}
	if !strings.Contains(read(t, mine), "orders_per_hour: 3") || read(t, c.Data, "secrets", "installation.key") != key {
		t.Error("something was made anew")
	}
}

func TestApart_RefusesWhatServicesWouldRefuse(t *testing.T) {
	t.Parallel()
	for _, change := range []func(*stack.ApartConfig){
		func(c *stack.ApartConfig) { c.HTTP = "nowhere" },
		func(c *stack.ApartConfig) { c.Admin = "127.0.0.1:99999" },
		func(c *stack.ApartConfig) { c.MarketURL = "https://api.clore.ai" },
		func(c *stack.ApartConfig) { c.NATS = "user:password@127.0.0.1:4222" },
		func(c *stack.ApartConfig) { c.Data += "/with a space" },
	} {
		c := apart
		c.Data = t.TempDir()
		change(&c)
		if _, err := stack.Apart(c); err == nil {
			t.Errorf("%+v was taken", c)
		}
		if _, err := os.Stat(filepath.Join(c.Data, "renthook.yaml")); err == nil && c.Admin == apart.Admin {
			t.Errorf("%+v: refused settings were left behind", c)
		}
	}
}

// The real server reads the configuration, lets each user in by its password, and holds the client to its own subjects.
func TestApart_TheBrokerHoldsClientsToTheirSubjects(t *testing.T) {
	t.Parallel()
	c := apart
	c.Data, c.NATSListen = t.TempDir(), "127.0.0.1:-1"
	if _, err := stack.Apart(c); err != nil {
		t.Fatal(err)
	}
	opts, err := server.ProcessConfigFile(filepath.Join(c.Data, "nats", "nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	opts.NoSigs, opts.NoLog = true, true
	if !opts.SyncAlways || !opts.JetStream || opts.JetStreamMaxStore < 1<<43 || opts.StoreDir != filepath.Join(c.Data, "nats") {
		t.Errorf("JetStream %v, sync always %v, at most %d bytes in %s", opts.JetStream, opts.SyncAlways, opts.JetStreamMaxStore, opts.StoreDir)
	}
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not start")
	}
	for _, user := range []string{"ingress", "order", "pricewatch", "notifier"} {
		nc, err := nats.Connect(s.ClientURL(), nats.UserInfo(user, read(t, c.Data, "secrets", "nats-"+user)))
		if err != nil {
			t.Fatalf("%s: %v", user, err)
		}
		nc.Close()
	}
	for _, options := range [][]nats.Option{{nats.UserInfo("order", "wrong")}, {}} {
		if nc, err := nats.Connect(s.ClientURL(), options...); err == nil {
			nc.Close()
			t.Error("somebody without a password got in")
		}
	}
	denied := make(chan error, 8)
	local, err := nats.Connect(s.ClientURL(), nats.UserInfo("local", read(t, c.Data, "secrets", "nats-local")),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(local.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, subject := range []string{"renthook.v1.cmd.other.order.create.k", "renthook.v1.evt.order.main.local.ord_1.running", "renthook.v1.cmd.local.order.create.k"} {
		if err := errors.Join(local.Publish(subject, nil), local.FlushWithContext(ctx)); err != nil {
			t.Fatal(err)
		}
	}
	for _, subject := range []string{"renthook.v1.cmd.other.", "renthook.v1.evt.order."} {
		select {
		case err := <-denied:
			if !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), subject) {
				t.Errorf("%s: %v", subject, err)
			}
		case <-ctx.Done():
			t.Fatalf("a publish to %s was let through", subject)
		}
	}
	select {
	case err := <-denied:
		t.Errorf("its own command: %v", err)
	default:
	}
}
