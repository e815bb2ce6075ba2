package settings

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/renthook/renthook/pkg/config"
)

// Prefix starts every variable of ours.
const Prefix = "RENTHOOK"

// Sources say where settings are read, weakest first: File, existing names, .env, environment, Sets.
type Sources struct {
	// File is a YAML file; empty for none.
	File string
	// EnvFile is a .env file, ".env" for the one beside the program; empty for none. It need not exist, and the
	// environment is stronger.
	EnvFile string
	// Environ is the environment.
	Environ []string
	// Sets are "path=value".
	Sets []string
	// MakesCredentials says that the program gives a client a token itself before it listens.
	MakesCredentials bool
	// OtherNames are variables with our prefix that the program reads for itself.
	OtherNames []string
}

// Notice is something the operator should be told at start, though it stops nothing.
type Notice struct {
	// Setting is what it is about.
	Setting string
	// Text is a sentence.
	Text string
}

// String is both.
func (n Notice) String() string { return n.Setting + ": " + n.Text }

// Loaded are settings with where each was stated.
type Loaded struct {
	Settings Settings
	Origins  config.Origins
	Notices  []Notice
}

// Print writes the settings as YAML, secrets masked, with where each was stated.
func (l Loaded) Print(w io.Writer) error { return config.Print(w, l.Settings, l.Origins) }

// Load reads and checks the settings. The error joins every problem.
func Load(src Sources) (Settings, []Notice, error) {
	l, err := LoadAll(src)
	return l.Settings, l.Notices, err
}

// LoadAll is Load, and keeps where each setting was stated.
func LoadAll(src Sources) (Loaded, error) {
	env, err := environ(src)
	if err != nil {
		return Loaded{}, err
	}
	from := config.Sources{File: src.File, Environ: env, Prefix: Prefix, OtherNames: src.OtherNames, Sets: src.Sets}

	// The mode decides defaults and which existing names count, so it is read first; problems are told below.
	mode := Defaults()
	_, _ = config.Load(&mode, from)

	l := Loaded{Settings: defaultsOf(mode.Mode)}
	var problems []error
	from.Aliases, l.Notices, problems = aliases(env, mode.Mode)
	var read error
	l.Origins, read = config.Load(&l.Settings, from)
	problems = append(problems, read)
	problems = append(problems, l.Settings.adopt(env)...)
	c := checker{s: &l.Settings, makesCredentials: src.MakesCredentials}
	c.all()
	l.Notices = append(l.Notices, c.notices...)
	if err := errors.Join(append(problems, c.problems...)...); err != nil {
		return Loaded{Notices: l.Notices}, err
	}
	return l, nil
}

// environ puts the environment over the .env file, name by name.
func environ(src Sources) ([]string, error) {
	file := []string(nil)
	if src.EnvFile != "" {
		var err error
		if file, err = config.ReadEnvFile(src.EnvFile); err != nil {
			return nil, err
		}
	}
	merged := map[string]string{}
	for _, kv := range append(file, src.Environ...) {
		name, value, _ := strings.Cut(kv, "=")
		merged[name] = value
	}
	out := make([]string, 0, len(merged))
	for _, name := range slices.Sorted(maps.Keys(merged)) {
		out = append(out, name+"="+merged[name])
	}
	return out, nil
}

// existing are the names of the program that existing senders come from, and ours for each.
var existing = []struct{ name, path string }{
	{"WEBHOOK_SECRET", "ingress.webhook_secret"},
	{"WEBHOOK_SECRET_FILE", "ingress.webhook_secret_file"},
	{"DEFAULT_IMAGE", "order.image"},
	{"DEFAULT_CURRENCY", "order.currency"},
	{"MAX_ORDERS_PER_HOUR", "limits.orders_per_hour"},
	{"MAX_REQUESTS_PER_MINUTE", "limits.requests_per_minute"},
}

// existingOfMarket count outside mode sim only.
var existingOfMarket = []struct{ name, path string }{
	{"CLORE_API_KEY", "market.key"},
	{"CLORE_API_KEY_FILE", "market.key_file"},
	{"CLORE_API_URL", "market.url"},
}

// aliases turns existing names into settings of ours. An empty one counts as absent.
func aliases(env []string, mode string) (out []config.Assignment, notices []Notice, problems []error) {
	given := map[string]string{}
	for _, kv := range env {
		if name, value, _ := strings.Cut(kv, "="); value != "" {
			given[name] = value
		}
	}
	for _, e := range existing {
		if value, ok := given[e.name]; ok {
			out = append(out, config.Assignment{Path: e.path, Value: value, Origin: e.name})
		}
	}
	for _, e := range existingOfMarket {
		value, ok := given[e.name]
		switch {
		case !ok:
		case mode == Sim:
			notices = append(notices, Notice{e.name, "ignored: the mode is sim, and a key or an address in the environment never leaves it. " +
				"Set mode to observe to read the real market; name a simulator elsewhere by market.url"})
		default:
			out = append(out, config.Assignment{Path: e.path, Value: value, Origin: e.name})
		}
	}
	for _, name := range []string{"WEBHOOK_SECRET", "CLORE_API_KEY"} {
		if given[name] != "" && given[name+"_FILE"] != "" {
			problems = append(problems, fmt.Errorf("%s and %s_FILE are both set; give one", name, name))
		}
	}
	if port, ok := given["PORT"]; ok {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil {
			problems = append(problems, fmt.Errorf("PORT: %q is not a port", port))
		} else {
			out = append(out, config.Assignment{
				Path: "ingress.address", Value: net.JoinHostPort("0.0.0.0", strconv.FormatUint(n, 10)), Origin: "PORT",
			})
		}
	}
	if _, ok := given["REDIS_URL"]; ok {
		notices = append(notices, Notice{"REDIS_URL", "ignored: renthook keeps its state in NATS and needs no Redis"})
	}
	return out, notices, problems
}
