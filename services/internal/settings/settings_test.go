package settings_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/services/internal/settings"
)

const (
	good   = "a-secret-of-enough-bytes-1"
	other  = "a-secret-of-enough-bytes-2"
	pubkey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKHEChAAp8XOhS1rcIyMAXQzvFOwjMGyfg1ByyQ6Cnbr me@here"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, src settings.Sources) (settings.Settings, []settings.Notice) {
	t.Helper()
	s, notices, err := settings.Load(src)
	if err != nil {
		t.Fatal(err)
	}
	return s, notices
}

func noticed(notices []settings.Notice, setting string) bool {
	return slices.ContainsFunc(notices, func(n settings.Notice) bool { return n.Setting == setting })
}

// TestTheNamesAndDefaultsOthersRelyOn pins what scripts and documents name.
func TestTheNamesAndDefaultsOthersRelyOn(t *testing.T) {
	t.Parallel()
	l, err := settings.LoadAll(settings.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(l.Settings, settings.Defaults()) {
		t.Errorf("nothing stated gives %+v", l.Settings)
	}
	var out strings.Builder
	if err := l.Print(&out); err != nil {
		t.Fatal(err)
	}
	const want = `mode: sim
installation:
  key: ""
market:
  url: ""
  address: 127.0.0.1:8090
  key: <secret>
  poll_interval: 3s
  call_gap: 1.2s
  create_gap: 5.5s
  rates: {CLORE-Blockchain: "0.12", USD-Blockchain: "1", bitcoin: "70000"}
account:
  name: main
nats:
  url: nats://127.0.0.1:4222
  address: 127.0.0.1:4222
  user: ""
  password: ""
  replicas: 1
ingress:
  address: 127.0.0.1:8080
  public_url: ""
  webhook_secret: ""
  legacy_dedupe_window: 1m
  legacy_signature: allow
  allow_weak_legacy_secret: false
  trusted_proxies: []
order:
  grpc_address: 127.0.0.1:9090
  confirm_window: 3m
  confirm_window_blind: 10m
  call_timeout: 15s
  lease_ttl: 30s
  boot_deadline: 10m
  place_deadline: 30m
  boot_budget: "0.50"
  max_candidates: 5
  sweep_interval: 45s
  max_duration: 1d
  min_reliability: "0.8"
  spot_headroom: "1.02"
  marker_ports: 2
  required_price: true
  ssh_probe: true
  ssh_key: ""
  image: nvidia/cuda:12.8.0-base-ubuntu22.04
  ports: {"22": tcp, "8888": http}
  currency: auto
  ends_file: ""
pricewatch:
  grpc_address: 127.0.0.1:9091
notifier:
  grpc_address: 127.0.0.1:9092
limits:
  orders_per_hour: 10
  creates_per_hour: 30
  live_rentals: 10
  price_per_hour: "5"
  burn_per_hour: "0"
  spend_per_day: "0"
  spend_per_month: "0"
  at_spend_limit: stop
  timezone: UTC
  requests_per_minute: 60
fees:
  on_demand: "0.05"
  spot: "0.0125"
  creation: "0.10"
watch:
  default_expiry: 30d
watchdog:
  margin: 10m
  interval: 5m
egress:
  allow_networks: []
notify:
  ssh_in_channel: false
  endpoints: []
telemetry:
  address: 127.0.0.1:8081
  log_level: info
  log_format: json
clients: []
`
	if out.String() != want {
		t.Errorf("prints\n%s", out.String())
	}
}

func TestWhatIsPrintedIsReadBack(t *testing.T) {
	t.Parallel()
	l, err := settings.LoadAll(settings.Sources{Sets: []string{
		"market.key=", "egress.allow_networks=10.0.0.0/8", "order.ssh_key=" + pubkey, "order.max_duration=7d",
	}})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := l.Print(&out); err != nil {
		t.Fatal(err)
	}
	back, err := settings.LoadAll(settings.Sources{File: write(t, out.String())})
	if err != nil {
		t.Fatal(err)
	}
	var again strings.Builder
	back.Origins = l.Origins
	if err := back.Print(&again); err != nil || again.String() != out.String() {
		t.Errorf("%v, read back:\n%s", err, again.String())
	}
}

func TestTheEnvironmentOfExistingSenders(t *testing.T) {
	t.Parallel()
	env := []string{
		"CLORE_API_KEY=real-key", "CLORE_API_URL=https://api.clore.ai/v1", "WEBHOOK_SECRET=" + good, "PORT=5000",
		"SLACK_WEBHOOK_URL=https://hooks.slack.com/services/T/B/x", "DISCORD_WEBHOOK_URL=https://discord.com/api/webhooks/1/x",
		"DEFAULT_IMAGE=my/image:1", "DEFAULT_CURRENCY=bitcoin", "MAX_ORDERS_PER_HOUR=3", "MAX_REQUESTS_PER_MINUTE=7",
		"REDIS_URL=redis://localhost:6379/0", "HOME=/root", "PATH=/bin",
	}
	fromFile := write(t, strings.Join(env, "\n"))
	for name, src := range map[string]settings.Sources{"environment": {Environ: env}, ".env": {EnvFile: fromFile}} {
		s, notices := load(t, src)
		if s.Mode != settings.Sim || s.Market.URL != "" || s.Market.Key.Reveal() == "real-key" {
			t.Errorf("%s: the key left sim: %s %s", name, s.Mode, s.Market.URL)
		}
		if s.Ingress.Address != "0.0.0.0:5000" || s.Order.Image != "my/image:1" || s.Order.Currency != "bitcoin" ||
			s.Limits.OrdersPerHour != 3 || s.Limits.RequestsPerMinute != 7 {
			t.Errorf("%s: %+v", name, s)
		}
		wantClients := []settings.Client{{
			Name: "local", Account: "main", Secrets: []secret.String{secret.New(good)}, Scopes: []string{"*"}, SeedDoor: true,
		}}
		if !reflect.DeepEqual(s.Clients, wantClients) {
			t.Errorf("%s: clients %+v", name, s.Clients)
		}
		events := []string{"placed", "running", "failed", "cancelled"}
		wantEndpoints := []settings.Endpoint{
			{Name: "slack", Channel: "slack", URL: secret.New("https://hooks.slack.com/services/T/B/x"), Events: events},
			{Name: "discord", Channel: "discord", URL: secret.New("https://discord.com/api/webhooks/1/x"), Events: events},
		}
		if !reflect.DeepEqual(s.Notify.Endpoints, wantEndpoints) {
			t.Errorf("%s: endpoints %+v", name, s.Notify.Endpoints)
		}
		for _, setting := range []string{"CLORE_API_KEY", "CLORE_API_URL", "REDIS_URL"} {
			if !noticed(notices, setting) {
				t.Errorf("%s: no notice about %s in %v", name, setting, notices)
			}
		}
		if err := s.NeedSecret(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEmptyOnesCountAsAbsent(t *testing.T) {
	t.Parallel()
	s, notices := load(t, settings.Sources{Environ: []string{
		"CLORE_API_KEY=", "CLORE_API_URL=", "WEBHOOK_SECRET=", "PORT=", "SLACK_WEBHOOK_URL=", "DISCORD_WEBHOOK_URL=", "DEFAULT_IMAGE=",
		"DEFAULT_CURRENCY=", "MAX_ORDERS_PER_HOUR=", "MAX_REQUESTS_PER_MINUTE=", "REDIS_URL=", "RENTHOOK_MODE=",
	}})
	if !reflect.DeepEqual(s, settings.Defaults()) || noticed(notices, "REDIS_URL") || noticed(notices, "CLORE_API_KEY") {
		t.Errorf("%+v, %v", s, notices)
	}
	if s.NeedSecret() == nil {
		t.Error("nobody has a secret and that is fine")
	}
}

func TestOurNamesAreStrongerThanExistingOnes(t *testing.T) {
	t.Parallel()
	file := write(t, "limits: {orders_per_hour: 1}\norder: {image: file/image}")
	s, _ := load(t, settings.Sources{
		File: file, EnvFile: write(t, "MAX_ORDERS_PER_HOUR=2\nPORT=1\nDEFAULT_IMAGE=dotenv/image"),
		Environ: []string{"PORT=2", "RENTHOOK_LIMITS_ORDERS_PER_HOUR=3"}, Sets: []string{"ingress.address=127.0.0.1:0"},
	})
	if s.Limits.OrdersPerHour != 3 || s.Ingress.Address != "127.0.0.1:0" || s.Order.Image != "dotenv/image" {
		t.Errorf("%d %s %s", s.Limits.OrdersPerHour, s.Ingress.Address, s.Order.Image)
	}
}

func TestModes(t *testing.T) {
	t.Parallel()
	s, notices := load(t, settings.Sources{Environ: []string{"RENTHOOK_MODE=observe", "CLORE_API_KEY_FILE=" + write(t, "real-key\n")}})
	if s.Market.URL != "https://api.clore.ai" || !s.Market.Key.Equal("real-key") || s.Market.PollInterval != 0 || len(s.Market.Rates) != 0 {
		t.Errorf("observe: %+v", s.Market)
	}
	if noticed(notices, "egress") || noticed(notices, "market.key") {
		t.Errorf("observe: %v", notices)
	}
	s, notices = load(t, settings.Sources{Environ: []string{"RENTHOOK_MODE=observe"}, Sets: []string{"order.confirm_window=60s"}})
	if !s.Market.Key.Empty() || !noticed(notices, "market.key") || !noticed(notices, "order.confirm_window") {
		t.Errorf("observe without a key, with a short window: %+v %v", s.Market, notices)
	}
	s, notices = load(t, settings.Sources{Environ: []string{"RENTHOOK_MODE=observe", "CLORE_API_URL=https://api.clore.ai/v1"}})
	if s.Market.URL != "https://api.clore.ai/v1" {
		t.Errorf("observe with an address: %+v %v", s.Market, notices)
	}
	s, notices = load(t, settings.Sources{Sets: []string{"market.url=http://marketsim:8090", "order.confirm_window=3s", "order.confirm_window_blind=3s"}})
	if s.Market.URL != "http://marketsim:8090" || noticed(notices, "order.confirm_window") || !noticed(notices, "egress") {
		t.Errorf("sim: %+v %v", s.Market, notices)
	}
}

func TestTheSecretOfExistingSendersFindsItsClient(t *testing.T) {
	t.Parallel()
	env := []string{"WEBHOOK_SECRET_FILE=" + write(t, good)}
	s, _ := load(t, settings.Sources{Environ: env, File: write(t, `
clients:
  - {name: a, tokens: [`+other+`], scopes: [read]}
  - {name: b, secrets: [`+other+`x], scopes: ["*"], seed_door: true}
`)})
	if len(s.Clients) != 2 || len(s.Clients[1].Secrets) != 2 || !s.Clients[1].Secrets[0].Equal(good) {
		t.Errorf("with a client on the door: %+v", s.Clients)
	}
	s, _ = load(t, settings.Sources{Environ: env, File: write(t, `clients: [{name: local, tokens: [`+other+`], scopes: [read]}]`)})
	if len(s.Clients) != 1 || !s.Clients[0].SeedDoor || !s.Clients[0].Secrets[0].Equal(good) || s.Clients[0].May("orders:create") || !s.Clients[0].May("read") {
		t.Errorf("with a client of that name: %+v", s.Clients)
	}
	s, _ = load(t, settings.Sources{Environ: env, File: write(t, `clients: [{name: b, secrets: [`+good+`], scopes: ["*"], seed_door: true}]`)})
	if len(s.Clients[0].Secrets) != 1 || !s.Clients[0].May("rentals:cancel_any") {
		t.Errorf("stated twice: %+v", s.Clients)
	}
	s, _ = load(t, settings.Sources{File: write(t, `clients: [{name: b, secrets: [`+good+`], scopes: [read], seed_door: true}]`)})
	if l := s.Local(); l.SeedDoor || len(s.Clients) != 2 || s.Local() != l {
		t.Errorf("Local beside another on the door: %+v", s.Clients)
	}
}

func TestWeakSecrets(t *testing.T) {
	t.Parallel()
	short := "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 23))
	for _, weak := range []string{"x", "your-secret-key", "your-webhook-secret-here", strings.Repeat("x", 23), short, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"} {
		for name, src := range map[string]settings.Sources{
			"WEBHOOK_SECRET": {Environ: []string{"WEBHOOK_SECRET=" + weak}},
			"clients[0]":     {Sets: []string{"clients=[{name: a, secrets: [" + weak + "], scopes: [read]}]"}},
		} {
			_, _, err := settings.Load(src)
			if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "renthook hook secret") || !strings.Contains(err.Error(), "ingress.allow_weak_legacy_secret") {
				t.Errorf("%s %q: %v", name, weak, err)
			}
			if err != nil && len(weak) > 1 && strings.Contains(err.Error(), weak) {
				t.Errorf("%s: shows it: %v", name, err)
			}
			src.Sets = append(src.Sets, "ingress.allow_weak_legacy_secret=true")
			if _, notices, err := settings.Load(src); err != nil || !strings.Contains(notices[len(notices)-1].Text, "allow_weak_legacy_secret") {
				t.Errorf("%s %q, allowed: %v, %v", name, weak, err, notices)
			}
		}
	}
	for _, fine := range []string{good, secret.Generate("whsec_").Reveal(), strings.Repeat("é", 12)} {
		load(t, settings.Sources{Environ: []string{"WEBHOOK_SECRET=" + fine}})
	}
	if _, notices := load(t, settings.Sources{Environ: []string{"WEBHOOK_SECRET=whsec_no base64 but long enough"}}); !strings.Contains(notices[len(notices)-1].Text, "base64") {
		t.Errorf("no notice about base64: %v", notices)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	client := func(text string) string { return "clients=[{" + text + "}]" }
	token := "tokens: [" + good + "]"
	for _, c := range []struct{ set, says string }{
		{"mode=live", "live is not in this version"},
		{"mode=prod", `"prod" is no mode`},
		{"market.url=https://api.clore.ai", "is the real market, and the mode is sim"},
		{"market.url=https://API.CLORE.AI./v1", "is the real market, and the mode is sim"},
		{"market.url=http://clore.ai", "is the real market, and the mode is sim"},
		{"market.url=ftp://x", "market.url: not a URL"},
		{"market.url=http://u:p@x", "put them into market.key"},
		{"market.rates=bitcoin=-1", "market.rates.bitcoin"},
		{"market.rates.bitcoin=NaN", "market.rates.bitcoin"},
		{"market.rates.bitcoin=0", "market.rates.bitcoin"},
		{"account.name=Main", "account.name"},
		{"nats.url=nats://u:p@x:4222", "put them into nats.user and nats.password"},
		{"nats.url=http://x", "nats.url: not a URL"},
		{"nats.replicas=2", "nats.replicas"},
		{"nats.password=x", "nats.password: stated without nats.user"},
		{"installation.key=short", "installation.key: shorter than 32"},
		{"ingress.address=8080", "ingress.address"},
		{"ingress.address=:99999", "ingress.address"},
		{"order.grpc_address=0.0.0.0:9090", "order.grpc_address: 0.0.0.0:9090 can be reached from other machines"},
		{"order.grpc_address=:9090", "can be reached from other machines"},
		{"order.grpc_address=[::]:9090", "can be reached from other machines"},
		{"pricewatch.grpc_address=192.168.1.2:1", "pricewatch.grpc_address"},
		{"notifier.grpc_address=example.org:1", "notifier.grpc_address"},
		{"ingress.legacy_dedupe_window=61m", "ingress.legacy_dedupe_window"},
		{"ingress.legacy_signature=maybe", "ingress.legacy_signature"},
		{"ingress.trusted_proxies=0.0.0.0/0", "anyone could claim any address"},
		{"egress.allow_networks=::/0", "is everything"},
		{"order.confirm_window=0s", "order.confirm_window: must be above 0"},
		{"order.confirm_window=11m", "order.confirm_window_blind"},
		{"order.call_timeout=0s", "order.call_timeout"},
		{"order.call_timeout=18s", "order.lease_ttl: 30s is too short for order.call_timeout of 18s"},
		{"order.lease_ttl=9s", "order.lease_ttl: want whole seconds"},
		{"watchdog.margin=0s", "watchdog.margin: must be above 0"},
		{"watchdog.interval=0s", "watchdog.interval: must be above 0"},
		{"order.lease_ttl=30500ms", "order.lease_ttl: want whole seconds"},
		{"order.max_candidates=0", "order.max_candidates"},
		{"order.marker_ports=3", "order.marker_ports"},
		{"order.min_reliability=80", "order.min_reliability"},
		{"order.spot_headroom=0.99", "order.spot_headroom"},
		{"order.boot_budget=-1", "order.boot_budget"},
		{"order.image=", "order.image"},
		{"order.image=a b", "order.image"},
		{"order.currency=", "order.currency"},
		{"order.ports=0=tcp", "order.ports"},
		{"order.ports=22=udp", "order.ports.22"},
		{"order.ssh_key=-----BEGIN OPENSSH PRIVATE KEY-----", "order.ssh_key"},
		{"limits.orders_per_hour=0", "limits.orders_per_hour"},
		{"limits.requests_per_minute=-1", "limits.requests_per_minute"},
		{"limits.price_per_hour=0", "limits.price_per_hour"},
		{"limits.spend_per_day=-5", "limits.spend_per_day: -5 is negative"},
		{"limits.burn_per_hour=-5", "limits.burn_per_hour: -5 is negative"},
		{"limits.at_spend_limit=panic", "limits.at_spend_limit: "},
		{"limits.timezone=Mars/Olympus", "limits.timezone"},
		{"fees.spot=1.25", "fees.spot"},
		{"fees.creation=-0.1", "fees.creation"},
		{"telemetry.log_level=loud", "telemetry.log_level"},
		{"telemetry.log_format=xml", "telemetry.log_format"},
		{"notify.endpoints=[{name: a.b, channel: slack, url: 'https://x', events: [placed]}]", "notify.endpoints[0].name"},
		{"notify.endpoints=[{name: a, channel: pager, url: 'https://x', events: [placed]}]", "notify.endpoints[0].channel"},
		{"notify.endpoints=[{name: a, channel: slack, url: nonsense-hush, events: [placed]}]", "notify.endpoints[0].url"},
		{"notify.endpoints=[{name: a, channel: slack, url: 'https://x', events: [order.placed]}]", "notify.endpoints[0].events"},
		{"notify.endpoints=[{name: a, channel: slack, url: 'https://x'}]", "notify.endpoints[0].events: empty"},
		{client("name: a.b, scopes: [read], " + token), "clients[0].name"},
		{client("name: '-', scopes: [read], " + token), "clients[0].name"},
		{client("name: a, " + token), "clients[0].scopes: empty"},
		{client("name: a, scopes: [write], " + token), `"write" is no scope`},
		{client("name: a, scopes: [read]"), "neither secrets nor tokens"},
		{client("name: a, scopes: [read], tokens: [short-hush]"), "clients[0].tokens[0]: shorter than 24"},
		{client("name: a, scopes: [read], seed_door: true, " + token), "clients[0].seed_door"},
		{client("name: a, scopes: [read], account: other, " + token), "works for one account"},
		{client("name: a, scopes: [read], secrets: [''], " + token), "clients[0].secrets[0]: empty"},
		{client("name: a, scopes: [read], " + token + "}, {name: a, scopes: [read], tokens: [" + other + "]"), `clients[1].name: "a" is used twice`},
		{client("name: a, scopes: [read], " + token + "}, {name: b, scopes: [read], " + token), "clients[1].tokens[0]: the same as clients[0].tokens[0]"},
		{"order.confirm_windw=1s", "did you mean order.confirm_window?"},
	} {
		_, _, err := settings.Load(settings.Sources{Sets: []string{c.set}})
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want %q", c.set, err, c.says)
		}
		if err != nil && (strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), good)) {
			t.Errorf("%s: shows a secret: %v", c.set, err)
		}
	}
}

func TestRefusalsOutsideSim(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ set, says string }{
		{"market.url=http://api.example.org", "the key would travel in clear"},
		{"market.call_gap=500ms", "at least 1s"},
		{"watchdog.margin=59s", "watchdog.margin"},
		{"watchdog.interval=30s", "watchdog.interval"},
		{"market.create_gap=1.2s", "at least 5s"},
		{"market.poll_interval=1s", "shorter than market.call_gap"},
	} {
		if _, _, err := settings.Load(settings.Sources{Sets: []string{"mode=observe", c.set}}); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.set, err)
		}
		if c.set != "market.url=http://api.example.org" {
			load(t, settings.Sources{Sets: []string{c.set}})
		}
	}
	load(t, settings.Sources{Sets: []string{"mode=observe", "market.url=http://127.0.0.1:1"}})
}

func TestRefusalsOfExistingNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env  []string
		says string
	}{
		{[]string{"PORT=http"}, "PORT"},
		{[]string{"PORT=70000"}, "PORT"},
		{[]string{"MAX_ORDERS_PER_HOUR=many"}, "MAX_ORDERS_PER_HOUR"},
		{[]string{"WEBHOOK_SECRET=" + good, "WEBHOOK_SECRET_FILE=/x"}, "WEBHOOK_SECRET and WEBHOOK_SECRET_FILE are both set"},
		{[]string{"WEBHOOK_SECRET_FILE=/does/not/exist"}, "/does/not/exist"},
		{[]string{"SLACK_WEBHOOK_URL=https://x", "SLACK_WEBHOOK_URL_FILE=/x"}, "SLACK_WEBHOOK_URL"},
		{[]string{"SLACK_WEBHOOK_URL=your-url-hush"}, "notify.endpoints[0].url"},
		{[]string{"RENTHOOK_ORDR_IMAGE=x"}, "did you mean RENTHOOK_ORDER_IMAGE?"},
		{[]string{"SLACK_WEBHOOK_URL=https://x", "RENTHOOK_NOTIFY_ENDPOINTS=[{name: slack, channel: slack, url: 'https://y', events: [placed]}]"}, "give one"},
	} {
		_, _, err := settings.Load(settings.Sources{Environ: c.env})
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%v: %v", c.env, err)
		}
	}
	if _, _, err := settings.Load(settings.Sources{EnvFile: write(t, "nonsense")}); err == nil {
		t.Error("a broken .env passed")
	}
	load(t, settings.Sources{EnvFile: filepath.Join(t.TempDir(), ".env"), Environ: []string{"RENTHOOK_DATA=x"}, OtherNames: []string{"RENTHOOK_DATA"}})
}

func TestAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	_, _, err := settings.Load(settings.Sources{
		Environ: []string{"PORT=x", "WEBHOOK_SECRET=x", "RENTHOOK_NOPE=1"}, Sets: []string{"mode=live", "order.marker_ports=9", "nope.nope=1"},
	})
	if err == nil || strings.Count(err.Error(), "\n") != 5 {
		t.Errorf("want six problems, one a line: %v", err)
	}
}

func TestTokensAllowListeningToOthers(t *testing.T) {
	t.Parallel()
	const withToken = "clients=[{name: a, scopes: ['*'], tokens: [" + good + "]}]"
	for address, others := range map[string]bool{
		"127.0.0.1:1": false, "127.9.9.9:1": false, "[::1]:0": false, "localhost:1": false, "[::ffff:127.0.0.1]:1": false,
		"0.0.0.0:1": true, ":1": true, "[::]:1": true, "10.0.0.1:1": true, "order:1": true, "localhost.example.org:1": true,
	} {
		if _, _, err := settings.Load(settings.Sources{Sets: []string{"order.grpc_address=" + address}}); (err != nil) != others {
			t.Errorf("%s without credentials: %v", address, err)
		}
		load(t, settings.Sources{Sets: []string{"order.grpc_address=" + address, withToken}})
	}
}
