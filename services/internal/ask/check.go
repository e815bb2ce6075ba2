package ask

import (
	"regexp"
	"strconv"
	"strings"

	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
)

// Bounds of what a sender may write; generous, and there so that nothing is unbounded.
const (
	mostLabels  = 64
	mostEnv     = 256
	mostPorts   = 64
	mostRequest = 256
)

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// Check puts a spec into its one written form (price in full, days as hours) and refuses what makes no sense in
// any installation. The fault says which member and why.
func Check(spec *orderv1.OrderSpec) error {
	switch {
	case spec.GetGpu() == "":
		return invalid("gpu is required: a model such as \"RTX 4090\"")
	case spec.GetCount() < 0 || spec.GetCount() > 64:
		return invalid("count is the number of GPUs the server must hold: 0 to 64")
	case spec.MarketType != "" && spec.MarketType != "spot" && spec.MarketType != "on-demand" && spec.MarketType != "any":
		return invalid("market_type is %q: want \"spot\", \"on-demand\" or \"any\"", spec.MarketType)
	}
	if p := spec.MaxPrice; p != nil {
		if err := checkPrice(p); err != nil {
			return err
		}
	}
	return checkSpec(spec)
}

func checkPrice(p *orderv1.Price) error {
	a, ok := amount(p.Amount)
	if !ok {
		return invalid("max_price must be above zero: %q is not", p.Amount)
	}
	p.Amount = a
	if p.Currency == "" || strings.EqualFold(p.Currency, "USD") {
		p.Currency = "USD"
	}
	switch p.Per {
	case "":
		p.Per = "hour"
	case "hour", "day":
	default:
		return invalid("max_price.per is %q: want \"hour\" or \"day\"", p.Per)
	}
	switch p.Scope {
	case "":
		p.Scope = "server"
	case "server", "gpu":
	default:
		return invalid("max_price.scope is %q: want \"server\" or \"gpu\"", p.Scope)
	}
	return nil
}

// checkSpec refuses what is wrong in either shape.
func checkSpec(spec *orderv1.OrderSpec) error {
	if spec.MaxDuration != "" {
		d, err := duration("max_duration", spec.MaxDuration)
		if err != nil {
			return err
		}
		spec.MaxDuration = d
	}
	if strings.ContainsAny(spec.SshKey, "\r\n") {
		return invalid("ssh_key must be one line: a public key as in authorized_keys")
	}
	if strings.ContainsAny(spec.Image, " \t\r\n") {
		return invalid("image must be the name of a Docker image")
	}
	if len(spec.Env) > mostEnv || len(spec.Ports) > mostPorts || len(spec.Labels) > mostLabels {
		return invalid("too many: at most %d of env, %d ports, %d labels", mostEnv, mostPorts, mostLabels)
	}
	for name := range spec.Env {
		if !envName.MatchString(name) {
			return invalid("env: %q cannot be the name of a variable", name)
		}
	}
	for port, kind := range spec.Ports {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return invalid("ports: %q is not a port from 1 to 65535", port)
		}
		if kind != "tcp" && kind != "http" {
			return invalid("ports: %s is %q: want \"tcp\" or \"http\"", port, kind)
		}
	}
	return nil
}
