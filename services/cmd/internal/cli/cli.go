// Package cli is what the commands do between their flags and the services: it reads settings, talks to a running
// renthook, and prints. It guarantees that data goes to standard output and everything else to standard error, and that
// exit codes mean one thing each. It refuses to guess: what it cannot find it says how to give.
package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/renthook/renthook/services/internal/settings"
	"github.com/renthook/renthook/services/stack"
)

// Description heads the help.
const Description = `Rents GPUs on a marketplace when something tells it to: at most once, never above the ceiling, and until the market itself says the rental is gone.

Start everything, with a simulated market inside: renthook up`

// Exit codes.
const (
	ExitOK      = 0
	ExitFailure = 1
	// ExitUsage: the command line makes no sense.
	ExitUsage = 2
	// ExitNotFound: the order or operation does not exist.
	ExitNotFound = 3
	// ExitUnreachable: no running renthook answers.
	ExitUnreachable = 4
)

// ExitError carries an exit code.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string { return e.Err.Error() }
func (e *ExitError) Unwrap() error { return e.Err }

// Streams are the process's, handed in so that tests have their own.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	Environ  []string
}

// Renthook is the command line.
type Renthook struct {
	Up      Up      `cmd:"" help:"Run everything in one process: broker, simulated market and the four services."`
	Hook    Hook    `cmd:"" help:"Sign and send webhooks."`
	Ls      Ls      `cmd:"" help:"List orders, newest first."`
	Get     Get     `cmd:"" help:"Show one order."`
	Events  Events  `cmd:"" help:"Follow events as they are recorded."`
	Cancel  Cancel  `cmd:"" help:"End an order."`
	Config  Config  `cmd:"" help:"Show the settings."`
	Version Version `cmd:"" help:"Print the version."`
}

// stamped is the version set by the linker: -X github.com/renthook/renthook/services/cmd/internal/cli.stamped=…
var stamped string

// ThisVersion is the version of this build.
func ThisVersion() string {
	if stamped != "" {
		return stamped
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "0.1.0-dev"
}

// Version prints it.
type Version struct{}

// Run prints the version.
func (Version) Run(s *Streams) error {
	_, err := fmt.Fprintln(s.Out, "renthook", ThisVersion())
	return err
}

// SettingsFlags say where settings are read.
type SettingsFlags struct {
	Config string   `help:"YAML file with settings." type:"existingfile" placeholder:"FILE"`
	Set    []string `help:"Set one setting by its name; may be repeated." placeholder:"PATH=VALUE" sep:"none"`
}

// load reads the settings and prints what the operator should know.
func (f SettingsFlags) load(s *Streams, sets ...string) (settings.Loaded, error) {
	l, err := settings.LoadAll(settings.Sources{File: f.Config, EnvFile: ".env", Environ: s.Environ, Sets: append(sets, f.Set...), OtherNames: otherNames})
	for _, n := range l.Notices {
		_, _ = fmt.Fprintln(s.Err, "notice:", n)
	}
	return l, err
}

// otherNames are variables with our prefix that are no settings.
var otherNames = []string{"RENTHOOK_RECORDINGS", "RENTHOOK_RUN", "RENTHOOK_TEST_LOG"}

// Config is the group of commands about settings.
type Config struct {
	Print ConfigPrint `cmd:"" help:"Print every setting, where it was set, and secrets masked."`
}

// ConfigPrint prints the settings.
type ConfigPrint struct{ SettingsFlags }

// Run prints them.
func (c *ConfigPrint) Run(s *Streams) error {
	l, err := c.load(s)
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
		return a, &ExitError{ExitUnreachable, fmt.Errorf("no running renthook: %s is not there; start one with `renthook up`, or name its run.json by --run", f.Run)}
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("read %s: %w", filepath.Base(f.Run), err)
	}
	return a, nil
}
