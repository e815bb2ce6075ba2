package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/renthook/renthook/services/stack/wire"
)

// Alone is the whole of a service's main: flags, settings, signals, and the service until one comes.
func Alone(name, description string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var flags struct {
		SettingsFlags
		Version bool `help:"Print the version."`
	}
	kong.Parse(&flags, kong.Name(name), kong.Description(description), kong.UsageOnError())
	s := &Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Environ: os.Environ()}
	if flags.Version {
		_ = Version{}.Run(s)
		return ExitOK
	}
	l, err := flags.Load(s)
	if err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return ExitUsage
	}
	if err := wire.Alone(ctx, name, l.Settings, ThisVersion()); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return ExitFailure
	}
	return ExitOK
}
