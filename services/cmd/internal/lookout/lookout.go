// Package lookout is the command line of the watchdog, as a program of its own and as a part of renthook. It guarantees
// that its exit codes tell a scheduler whether all was well. It links neither a broker nor another service.
package lookout

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/renthook/renthook/pkg/telemetry"
	"github.com/renthook/renthook/services/cmd/internal/cli"
	"github.com/renthook/renthook/services/internal/ends"
	"github.com/renthook/renthook/services/stack/guard"
)

// Watchdog ends what is ours and overdue.
type Watchdog struct {
	cli.SettingsFlags
	Data      string        `help:"The data directory of renthook up, or a copy of its ends.sealed and secrets/installation.key." placeholder:"DIR"`
	MarketURL string        `name:"market-url" help:"The market." placeholder:"URL"`
	Once      bool          `help:"Look once and exit: 0 when nothing was to be done, 5 when something was ended, 1 when something is wrong."`
	Wait      time.Duration `help:"With --once, how long to wait until the market shows that what was ended is gone." default:"5m"`
}

func (c *Watchdog) sets() (sets []string) {
	if c.Data != "" {
		sets = append(sets, "order.ends_file="+filepath.Join(c.Data, ends.File), "installation.key_file="+filepath.Join(c.Data, "secrets", "installation.key"))
	}
	if c.MarketURL != "" {
		sets = append(sets, "market.url="+c.MarketURL)
	}
	return sets
}

// Run watches until ctx ends, or once.
func (c *Watchdog) Run(ctx context.Context, s *cli.Streams) error {
	l, err := c.Load(s, true, c.sets()...)
	if err != nil {
		return &cli.ExitError{Code: cli.ExitUsage, Err: err}
	}
	tel, err := telemetry.New(ctx, telemetry.Config{
		Service: "renthook-watchdog", Version: cli.ThisVersion(), Output: s.Err, Level: l.Settings.Telemetry.LogLevel, Format: l.Settings.Telemetry.LogFormat,
	})
	if err != nil {
		return err
	}
	defer func() { _ = tel.Shutdown(context.WithoutCancel(ctx)) }()
	w, err := guard.New(l.Settings, cli.ThisVersion(), tel.Logger().With("component", "watchdog"))
	if err != nil {
		return &cli.ExitError{Code: cli.ExitUsage, Err: err}
	}
	if !c.Once {
		return w.Run(ctx)
	}
	switch ended, err := w.Once(ctx, c.Wait); {
	case err != nil:
		return err
	case ended > 0:
		return &cli.ExitError{Code: cli.ExitEnded, Err: fmt.Errorf("overdue rentals that were ended: %d; renthook did not end them, so look after it", ended)}
	}
	return nil
}
