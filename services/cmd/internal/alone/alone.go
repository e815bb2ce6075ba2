// Package alone is the whole of a service's main. It guarantees that every service takes the same flags and ends with the
// same exit codes, and decides nothing else.
package alone

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/renthook/renthook/services/cmd/internal/cli"
	"github.com/renthook/renthook/services/stack/wire"
)

// Main is the whole of a service's main: flags, settings, signals, and the service until one comes.
func Main(name, description string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var flags struct {
		cli.SettingsFlags
		Health  bool `help:"Ask this service, already running, whether it is ready, and exit: 0 when it is."`
		Version bool `help:"Print the version."`
	}
	kong.Parse(&flags, kong.Name(name), kong.Description(description), kong.UsageOnError())
	s := &cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Environ: os.Environ()}
	if flags.Version {
		_ = cli.Version{}.Run(s)
		return cli.ExitOK
	}
	l, err := flags.Load(s, false)
	if err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return cli.ExitUsage
	}
	if flags.Health {
		if err := cli.Health(ctx, l.Settings.Telemetry.Address); err != nil {
			_, _ = fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			return cli.ExitFailure
		}
		return cli.ExitOK
	}
	if err := wire.Alone(ctx, name, l.Settings, cli.ThisVersion()); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return cli.ExitFailure
	}
	return cli.ExitOK
}
