// Package commands is the command line of renthook: it starts everything, talks to a running renthook, signs webhooks
// and prints. It guarantees that data goes to standard output and everything else to standard error. It refuses to
// guess: what it cannot find it says how to give.
package commands

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/renthook/renthook/services/cmd/internal/cli"
	"github.com/renthook/renthook/services/cmd/internal/lookout"
	"github.com/renthook/renthook/services/stack"
)

// Description heads the help.
const Description = `Rents GPUs on a marketplace when something tells it to: at most once, never above the ceiling, and until the market itself says the rental is gone.

Start everything, with a simulated market inside: renthook up`

// Renthook is the command line.
type Renthook struct {
	Up       Up               `cmd:"" help:"Run everything in one process: broker, simulated market and the four services."`
	Init     Init             `cmd:"" help:"Write what the services need as processes of their own."`
	Hook     Hook             `cmd:"" help:"Sign and send webhooks."`
	Ls       Ls               `cmd:"" help:"List orders, newest first."`
	Get      Get              `cmd:"" help:"Show one order."`
	Events   Events           `cmd:"" help:"Follow events as they are recorded."`
	Cancel   Cancel           `cmd:"" help:"End an order."`
	Explain  Explain          `cmd:"" help:"Tell every decision about an order, and why."`
	Extend   Extend           `cmd:"" help:"Move an order's end."`
	Halt     Halt             `cmd:"" help:"Stop renting; with --close end everything that is rented."`
	Resume   Resume           `cmd:"" help:"Go on renting after a halt."`
	Disown   Disown           `cmd:"" help:"Say that a rental which might be ours is not: it blocks nothing any more."`
	Account  Account          `cmd:"" help:"Show halts, limits, and what counts against them."`
	Watchdog lookout.Watchdog `cmd:"" help:"End rentals that are overdue, when renthook itself is down."`
	Config   Config           `cmd:"" help:"Show the settings."`
	Version  cli.Version      `cmd:"" help:"Print the version."`
}

// Config is the group of commands about settings.
type Config struct {
	Print ConfigPrint `cmd:"" help:"Print every setting, where it was set, and secrets masked."`
}

// ConfigPrint prints the settings.
type ConfigPrint struct{ cli.SettingsFlags }

// Run prints them.
func (c *ConfigPrint) Run(s *cli.Streams) error {
	l, err := c.Load(s, true)
	if err != nil {
		return err
	}
	return l.Print(s.Out)
}

// RunFlags find a running renthook.
type RunFlags struct {
	Run string `help:"The run.json of a running renthook." default:"data/sim/run.json" env:"RENTHOOK_RUN" placeholder:"FILE"`
}

func (f RunFlags) addresses() (stack.Addresses, error) {
	var a stack.Addresses
	b, err := os.ReadFile(f.Run)
	if err != nil {
		return a, &cli.ExitError{Code: cli.ExitUnreachable, Err: fmt.Errorf("no running renthook: %s is not there; start one with `renthook up`, or name its run.json by --run", f.Run)}
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("read %s: %w", filepath.Base(f.Run), err)
	}
	return a, nil
}
