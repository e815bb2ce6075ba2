package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/renthook/renthook/services/stack/wire"
)

// Alone is the whole of a service's main: flags, settings, signals, and the service until one comes.
func Alone(name, description string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var flags struct {
		SettingsFlags
		Health  bool `help:"Ask this service, already running, whether it is ready, and exit: 0 when it is."`
		Version bool `help:"Print the version."`
	}
	kong.Parse(&flags, kong.Name(name), kong.Description(description), kong.UsageOnError())
	s := &Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Environ: os.Environ()}
	if flags.Version {
		_ = Version{}.Run(s)
		return ExitOK
	}
	l, err := flags.Load(s, false)
	if err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return ExitUsage
	}
	if flags.Health {
		if err := Health(ctx, l.Settings.Telemetry.Address); err != nil {
			_, _ = fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			return ExitFailure
		}
		return ExitOK
	}
	if err := wire.Alone(ctx, name, l.Settings, ThisVersion()); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return ExitFailure
	}
	return ExitOK
}

// healthTimeout bounds the question whether a service is ready.
const healthTimeout = 3 * time.Second

// Health asks the process that serves /readyz at an address, such as that of telemetry, whether it is ready. One that
// listens everywhere is asked on loopback.
func Health(ctx context.Context, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("ask whether it is ready: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("ask whether it is ready: %w", err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask whether it is ready: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10))
		return fmt.Errorf("not ready:\n%s", why)
	}
	return nil
}
