package commands

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/renthook/renthook/pkg/webhook"
	"github.com/renthook/renthook/services/cmd/internal/cli"
	"github.com/renthook/renthook/services/stack"
)

// stopWithin bounds the end of everything.
const stopWithin = 40 * time.Second

// Up runs everything in one process.
type Up struct {
	cli.SettingsFlags
	Data            string `help:"Where all state is kept." default:"data/sim" placeholder:"DIR"`
	HTTP            string `name:"http" help:"Address of the HTTP doors (127.0.0.1:8080)." placeholder:"ADDR"`
	GRPC            string `name:"grpc" help:"Address of gRPC (127.0.0.1:9090)." placeholder:"ADDR"`
	Pricewatch      string `help:"Address of pricewatch's gRPC (127.0.0.1:9091)." placeholder:"ADDR"`
	Admin           string `help:"Address of metrics and health (127.0.0.1:8081)." placeholder:"ADDR"`
	Market          string `help:"Address of the simulated market (127.0.0.1:8090)." placeholder:"ADDR"`
	NATS            string `name:"nats" help:"Address of the embedded NATS (127.0.0.1:4222)." placeholder:"ADDR"`
	MarketURL       string `name:"market-url" help:"Use a simulator that runs already." placeholder:"URL"`
	MarketInventory string `name:"market-inventory" help:"Have the simulator list a recorded marketplace." type:"existingfile" placeholder:"FILE"`
	MarketRates     string `name:"market-rates" help:"USD for one unit of each coin: bitcoin=70000,CLORE-Blockchain=0.12." placeholder:"RATES"`
}

func (u *Up) sets() (sets []string) {
	for path, value := range map[string]string{
		"ingress.address": u.HTTP, "order.grpc_address": u.GRPC, "pricewatch.grpc_address": u.Pricewatch, "telemetry.address": u.Admin,
		"market.address": u.Market, "nats.address": u.NATS, "market.url": u.MarketURL,
	} {
		if value != "" {
			sets = append(sets, path+"="+value)
		}
	}
	if u.GRPC != "" && u.Pricewatch == "" && strings.HasSuffix(u.GRPC, ":0") {
		// Whoever asks for a free port asks for free ports.
		sets = append(sets, "pricewatch.grpc_address=127.0.0.1:0")
	}
	for rate := range strings.SplitSeq(u.MarketRates, ",") {
		if rate != "" {
			sets = append(sets, "market.rates."+rate)
		}
	}
	return sets
}

// Run starts everything, says how to use it, and stops at the first signal.
func (u *Up) Run(ctx context.Context, s *cli.Streams) error {
	l, err := u.Load(s, true, u.sets()...)
	if err != nil {
		return &cli.ExitError{Code: cli.ExitUsage, Err: err}
	}
	if _, stated := l.Origins["telemetry.log_format"]; !stated && terminal(s.Err) {
		l.Settings.Telemetry.LogFormat = "text" // somebody reads along
	}
	keepSmall(ctx)
	begun := time.Now()
	_, _ = fmt.Fprintln(s.Err, "starting …")
	up, err := stack.Up(ctx, stack.UpConfig{Settings: l.Settings, Data: u.Data, Inventory: u.MarketInventory, Version: cli.ThisVersion(), Logs: s.Err})
	if err != nil {
		return err
	}
	banner(s.Out, up.Addresses, l.Settings.Mode, time.Since(begun))
	<-ctx.Done()
	_, _ = fmt.Fprintln(s.Err, "stopping: rentals go on at the market until their end, or until renthook runs again and is told to end them")
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	return up.Stop(end)
}

// terminal says that w is somebody's screen.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// banner says where everything is, and prints one signed request that works when pasted.
func banner(w io.Writer, a stack.Addresses, mode string, took time.Duration) {
	real := "the market is simulated: nothing real is rented, and callbacks to this machine are allowed"
	if mode != "sim" {
		real = "the real market, reads only: nothing is rented"
	}
	_, _ = fmt.Fprintf(w, `
renthook is up after %s (mode %s: %s)

  HTTP    http://%s
  gRPC    %s
  NATS    nats://%s  (user %s, password in %s)
  admin   http://%s  (/metrics /livez /readyz)
  market  %s
  secret  %s
  token   %s
%s
Watch what becomes of it: renthook events      List orders: renthook ls      End one: renthook cancel <id>
`, took.Round(time.Millisecond), mode, real, a.HTTP, a.GRPC, a.NATS, a.NATSUser, a.NATSPasswordFile, a.Admin, a.Market, a.SecretFile, a.TokenFile,
		signedRequest(a.HTTP, a.SecretFile))
}

// signedRequest is a command line that rents a GPU, signed as existing senders sign. Where ingress listens everywhere,
// it is asked on loopback.
func signedRequest(address, secretFile string) string {
	if host, port, err := net.SplitHostPort(address); err == nil && (host == "" || net.ParseIP(host).IsUnspecified()) {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	body, _ := json.Marshal(map[string]any{"gpu_type": "RTX 4090", "max_price": 0.5})
	secret, _ := os.ReadFile(secretFile)
	return fmt.Sprintf(`
Rent a GPU:

  curl -sS http://%s/webhook/create-order -H 'Content-Type: application/json' \
    -H 'X-Webhook-Signature: %s' \
    -d '%s'
`, address, webhook.SignLegacy(strings.TrimSpace(string(secret)), body), body)
}
