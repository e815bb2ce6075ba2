// Package cli is what every command has in common: its streams, exit codes, version and settings. It guarantees that exit
// codes mean one thing each and that notices go to standard error. It links neither a service nor a broker nor a simulator.
package cli

import (
	"fmt"
	"io"
	"runtime/debug"

	"github.com/renthook/renthook/services/internal/settings"
)

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
	// ExitEnded: the watchdog ended rentals that were overdue.
	ExitEnded = 5
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

// The linker sets the version of a build: -X github.com/renthook/renthook/services/cmd/internal/cli.stamped=VERSION.
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
	Config string   `help:"YAML file with settings." type:"existingfile" env:"RENTHOOK_CONFIG" placeholder:"FILE"`
	Set    []string `help:"Set one setting by its name; may be repeated." placeholder:"PATH=VALUE" sep:"none"`
}

// Load reads the settings and prints what the operator should know. makesCredentials is for a program that gives its
// own client a token before it listens.
func (f SettingsFlags) Load(s *Streams, makesCredentials bool, sets ...string) (settings.Loaded, error) {
	l, err := settings.LoadAll(settings.Sources{
		File: f.Config, EnvFile: ".env", Environ: s.Environ, Sets: append(sets, f.Set...), OtherNames: otherNames, MakesCredentials: makesCredentials,
	})
	for _, n := range l.Notices {
		_, _ = fmt.Fprintln(s.Err, "notice:", n)
	}
	return l, err
}

// otherNames are variables with our prefix that are no settings.
var otherNames = []string{"RENTHOOK_CONFIG", "RENTHOOK_RECORDINGS", "RENTHOOK_RUN", "RENTHOOK_TEST_LOG"}
