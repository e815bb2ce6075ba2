package settings

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/govalues/decimal"
	"golang.org/x/crypto/ssh"

	"github.com/renthook/renthook/pkg/config"
	"github.com/renthook/renthook/pkg/seal"
	"github.com/renthook/renthook/services/internal/money"
	"github.com/renthook/renthook/services/internal/topology"
)

// checker holds settings against the rules and collects what it finds.
type checker struct {
	// makesCredentials: the program gives its own client a token before it listens.
	makesCredentials bool
	s                *Settings
	problems         []error
	notices          []Notice
}

func (c *checker) refuse(setting, format string, args ...any) {
	c.problems = append(c.problems, fmt.Errorf("%s: %s", setting, fmt.Sprintf(format, args...)))
}

func (c *checker) notice(setting, format string, args ...any) {
	c.notices = append(c.notices, Notice{setting, fmt.Sprintf(format, args...)})
}

// must refuses when a rule does not hold.
func (c *checker) must(holds bool, setting, format string, args ...any) {
	if !holds {
		c.refuse(setting, format, args...)
	}
}

func (c *checker) all() {
	c.mode()
	c.addresses()
	c.market()
	c.timing()
	c.order()
	c.limits()
	c.outgoing()
	c.endpoints()
	c.clients()
}

func (c *checker) mode() {
	switch c.s.Mode {
	case Sim, Observe:
	case Live:
		c.refuse("mode", "live is not in this version: it rents on the simulator (sim) and reads the real market (observe)")
	default:
		c.refuse("mode", "%q is no mode; it is sim or observe", c.s.Mode)
	}
	k := c.s.Installation.Key
	c.must(k.Empty() || len(k.Reveal()) >= seal.KeyBytes, "installation.key", "shorter than %d bytes", seal.KeyBytes)
	c.oneOf("telemetry.log_level", c.s.Telemetry.LogLevel, "debug", "info", "warn", "error")
	c.oneOf("telemetry.log_format", c.s.Telemetry.LogFormat, "json", "text")
}

func (c *checker) oneOf(setting, value string, allowed ...string) {
	c.must(slices.Contains(allowed, value), setting, "%q is none of %s", value, strings.Join(allowed, ", "))
}

func (c *checker) addresses() {
	tokens := c.makesCredentials || slices.ContainsFunc(c.s.Clients, func(c Client) bool { return len(c.Tokens) > 0 })
	for _, a := range []struct {
		setting, address string
		grpc             bool
	}{
		{"ingress.address", c.s.Ingress.Address, false},
		{"order.grpc_address", c.s.Order.GRPCAddress, true},
		{"pricewatch.grpc_address", c.s.Pricewatch.GRPCAddress, true},
		{"notifier.grpc_address", c.s.Notifier.GRPCAddress, true},
		{"telemetry.address", c.s.Telemetry.Address, false},
		{"nats.address", c.s.NATS.Address, false},
		{"market.address", c.s.Market.Address, false},
	} {
		if _, err := hostOf(a.address); err != nil {
			c.refuse(a.setting, "%v", err)
		} else if a.grpc {
			if err := checkBind(a.setting, a.address, tokens, "give a client a token"); err != nil {
				c.problems = append(c.problems, err)
			}
		}
	}
	for u := range strings.SplitSeq(c.s.NATS.URL, ",") {
		c.url("nats.url", strings.TrimSpace(u), "nats.user and nats.password", "nats", "tls", "ws", "wss")
	}
	c.must(c.s.NATS.Replicas == 1 || c.s.NATS.Replicas == 3, "nats.replicas", "%d is neither 1 nor 3", c.s.NATS.Replicas)
	c.must(c.s.NATS.Password.Empty() || c.s.NATS.User != "", "nats.password", "stated without nats.user")
}

// checkBind refuses an address that other machines may reach when nothing there asks for credentials.
func checkBind(setting, address string, credentials bool, remedy string) error {
	host, err := hostOf(address)
	if err != nil {
		return fmt.Errorf("%s: %w", setting, err)
	}
	if credentials || loopback(host) {
		return nil
	}
	return fmt.Errorf("%s: %s can be reached from other machines and nothing there asks for credentials: %s, or listen on 127.0.0.1", setting, address, remedy)
}

// hostOf gives the host of an address that is host:port.
func hostOf(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("%q is not host:port", address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("%q has no port from 0 to 65535", address)
	}
	return host, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// url refuses credentials inside: they would be printed. It shows no more of the URL than its scheme.
func (c *checker) url(setting, text, credentials string, schemes ...string) *url.URL {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || !slices.Contains(schemes, u.Scheme) {
		c.refuse(setting, "not a URL that starts with %s://", strings.Join(schemes, ":// or "))
		return nil
	}
	if u.User != nil {
		c.refuse(setting, "credentials in a URL are printed in logs: put them into %s", credentials)
		return nil
	}
	return u
}

var realHosts = regexp.MustCompile(`(?i)(^|\.)clore\.ai\.?$`)

func (c *checker) market() {
	m := c.s.Market
	var u *url.URL
	if m.URL != "" {
		u = c.url("market.url", m.URL, "market.key", "http", "https")
	}
	if u != nil {
		isReal := realHosts.MatchString(u.Hostname())
		c.must(c.s.Mode != Sim || !isReal, "market.url", "%s is the real market, and the mode is sim: set mode to observe to read it", u.Hostname())
		c.must(c.s.Mode == Sim || u.Scheme == "https" || loopback(u.Hostname()), "market.url", "the key would travel in clear: use https")
	}
	if c.s.Mode == Observe && m.Key.Empty() {
		c.notice("market.key", "none: only what the market shows to everybody is read")
	}
	for coin, rate := range m.Rates {
		if _, err := money.Positive(rate); err != nil {
			c.refuse("market.rates."+coin, "%v", err)
		}
	}
	c.must(accountName.MatchString(c.s.Account.Name), "account.name", "%q: want lower-case letters, digits and hyphens, at most 32", c.s.Account.Name)
}

var accountName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

func (c *checker) timing() {
	o, m := c.s.Order, c.s.Market
	for _, d := range []struct {
		setting string
		d       time.Duration
	}{
		{"market.call_gap", m.CallGap}, {"market.create_gap", m.CreateGap},
		{"order.confirm_window", o.ConfirmWindow}, {"order.confirm_window_blind", o.ConfirmWindowBlind},
		{"order.call_timeout", o.CallTimeout}, {"order.boot_deadline", o.BootDeadline}, {"order.place_deadline", o.PlaceDeadline},
		{"order.sweep_interval", o.SweepInterval}, {"order.max_duration", o.MaxDuration}, {"watch.default_expiry", c.s.Watch.DefaultExpiry},
		{"watchdog.margin", c.s.Watchdog.Margin}, {"watchdog.interval", c.s.Watchdog.Interval},
	} {
		c.must(d.d > 0, d.setting, "must be above 0")
	}
	c.must(o.ConfirmWindowBlind >= o.ConfirmWindow, "order.confirm_window_blind", "%s is shorter than order.confirm_window, %s",
		config.FormatDuration(o.ConfirmWindowBlind), config.FormatDuration(o.ConfirmWindow))
	// The lease is counted from its last renewal, a third of it old at most; a create must fit into the rest.
	c.must(o.LeaseTTL >= 10*time.Second && o.LeaseTTL%time.Second == 0, "order.lease_ttl", "want whole seconds, at least 10")
	c.must(o.LeaseTTL*2/3 > o.CallTimeout+2*time.Second, "order.lease_ttl", "%s is too short for order.call_timeout of %s: no create could go out",
		config.FormatDuration(o.LeaseTTL), config.FormatDuration(o.CallTimeout))
	// The bucket that remembers the asks keeps them for an hour at most.
	c.must(c.s.Ingress.LegacyDedupeWindow <= time.Hour, "ingress.legacy_dedupe_window", "more than 1h")
	if c.s.Mode == Sim {
		return
	}
	c.must(m.CallGap >= time.Second, "market.call_gap", "the market allows one call a second: at least 1s")
	c.must(c.s.Watchdog.Margin >= time.Minute, "watchdog.margin", "%s is less than renthook itself may take to end a rental: at least 1m", config.FormatDuration(c.s.Watchdog.Margin))
	c.must(c.s.Watchdog.Interval >= time.Minute, "watchdog.interval", "the account's calls are needed elsewhere: at least 1m")
	c.must(m.CreateGap >= 5*time.Second, "market.create_gap", "the market allows one create in five seconds: at least 5s")
	c.must(m.PollInterval == 0 || m.PollInterval >= m.CallGap, "market.poll_interval", "shorter than market.call_gap")
	if o.ConfirmWindow < 180*time.Second {
		c.notice("order.confirm_window", "%s is short: a rental that shows up later than that is only caught by the sweep", config.FormatDuration(o.ConfirmWindow))
	}
}

var one = decimal.MustNew(1, 0)

// between says whether low <= d <= high.
func between(d, low, high decimal.Decimal) bool { return d.Cmp(low) >= 0 && d.Cmp(high) <= 0 }

func (c *checker) order() {
	o := c.s.Order
	c.must(o.MaxCandidates >= 1 && o.MaxCandidates <= 100, "order.max_candidates", "%d is not from 1 to 100", o.MaxCandidates)
	c.must(o.MarkerPorts >= 0 && o.MarkerPorts <= 2, "order.marker_ports", "%d is not 0, 1 or 2", o.MarkerPorts)
	c.must(between(o.MinReliability, decimal.Zero, one), "order.min_reliability", "%s is not from 0 to 1", o.MinReliability)
	c.must(between(o.SpotHeadroom, one, decimal.MustNew(2, 0)), "order.spot_headroom", "%s is not from 1 to 2", o.SpotHeadroom)
	c.must(!o.BootBudget.IsNeg(), "order.boot_budget", "%s is negative", o.BootBudget)
	c.must(o.Image != "" && !strings.ContainsAny(o.Image, " \t\r\n"), "order.image", "%q is no image", o.Image)
	c.must(o.Currency != "", "order.currency", "empty; auto takes the cheapest")
	for port, kind := range o.Ports {
		n, err := strconv.ParseUint(port, 10, 16)
		c.must(err == nil && n > 0, "order.ports", "%q is not a port", port)
		c.oneOf("order.ports."+port, kind, "tcp", "http")
	}
	if o.SSHKey != "" {
		// The text is not shown: it may be the private half.
		_, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(o.SSHKey))
		c.must(err == nil && len(rest) == 0, "order.ssh_key", "not one public key as in ~/.ssh/id_ed25519.pub")
	}
}

func (c *checker) limits() {
	l, f := c.s.Limits, c.s.Fees
	for _, n := range []struct {
		setting string
		n       int
	}{
		{"orders_per_hour", l.OrdersPerHour}, {"creates_per_hour", l.CreatesPerHour}, {"live_rentals", l.LiveRentals},
		{"requests_per_minute", l.RequestsPerMinute},
	} {
		c.must(n.n >= 1, "limits."+n.setting, "%d is below 1", n.n)
	}
	c.must(l.PricePerHour.IsPos(), "limits.price_per_hour", "%s is not above 0", l.PricePerHour)
	for _, d := range []struct {
		setting string
		d       decimal.Decimal
	}{{"burn_per_hour", l.BurnPerHour}, {"spend_per_day", l.SpendPerDay}, {"spend_per_month", l.SpendPerMonth}} {
		c.must(!d.d.IsNeg(), "limits."+d.setting, "%s is negative; 0 is none", d.d)
	}
	c.oneOf("limits.at_spend_limit", l.AtSpendLimit, "stop", "close")
	if _, err := time.LoadLocation(l.Timezone); err != nil || l.Timezone == "" {
		c.refuse("limits.timezone", "%q is not in the tz database", l.Timezone)
	}
	c.must(between(f.OnDemand, decimal.Zero, one), "fees.on_demand", "%s is not a share from 0 to 1", f.OnDemand)
	c.must(between(f.Spot, decimal.Zero, one), "fees.spot", "%s is not a share from 0 to 1", f.Spot)
	c.must(!f.Creation.IsNeg(), "fees.creation", "%s is negative", f.Creation)
}

func (c *checker) outgoing() {
	for _, p := range c.s.Egress.AllowNetworks {
		c.must(p.Bits() > 0, "egress.allow_networks", "%s is everything: name the networks of your receivers", p)
	}
	for _, p := range c.s.Ingress.TrustedProxies {
		c.must(p.Bits() > 0, "ingress.trusted_proxies", "%s is everybody: anyone could claim any address", p)
	}
	if public := c.s.Ingress.PublicURL; public != "" {
		u, err := url.Parse(public)
		c.must(err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "", "ingress.public_url", "%q is no URL with a host", public)
	}
	c.oneOf("ingress.legacy_signature", c.s.Ingress.LegacySignature, "allow", "warn", "deny")
	if c.s.Mode == Sim {
		c.notice("egress", "callbacks to this machine (127.0.0.0/8, ::1), by http and on any port, are allowed because the mode is sim")
	}
}

func (c *checker) endpoints() {
	seen := map[string]bool{}
	for i, e := range c.s.Notify.Endpoints {
		at := fmt.Sprintf("notify.endpoints[%d]", i)
		c.must(topology.ValidToken(e.Name), at+".name", "%q: want letters, digits, underscores and hyphens", e.Name)
		c.must(!seen[e.Name], at+".name", "%q is used twice", e.Name)
		seen[e.Name] = true
		c.oneOf(at+".channel", e.Channel, "slack", "discord")
		u, err := url.Parse(e.URL.Reveal())
		c.must(err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "", at+".url", "not an https URL")
		c.must(len(e.Events) > 0, at+".events", "empty: name the events to send, or \"*\"")
		for _, event := range e.Events {
			c.must(slices.Contains(Events, event), at+".events", "%q is no event: one of %s", event, strings.Join(Events, " "))
		}
	}
}
