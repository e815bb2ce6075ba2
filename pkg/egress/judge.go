package egress

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// deniedV4 adds to the guard's own table, which is IANA's special-purpose registry: addresses that look public
// and are answered by the platform underneath.
var deniedV4 = []netip.Prefix{
	netip.MustParsePrefix("168.63.129.16/32"), // Azure's platform services
}

// Refused says that a URL will not be called.
type Refused struct {
	// Reason is a clause for people. It holds no path and no query.
	Reason string
	// Setting is what would allow it; empty when nothing does.
	Setting string
}

// Error is the reason and the setting.
func (r *Refused) Error() string {
	if r.Setting == "" {
		return r.Reason
	}
	return r.Reason + " (" + r.Setting + " would allow its network)"
}

func never(reason string) *Refused { return &Refused{Reason: reason} }

// target is a URL that was understood: a literal address that was judged, or a name still to be resolved.
type target struct {
	url  *url.URL
	host string
	ip   netip.Addr
	port uint16
}

const mostURLBytes = 2048

var (
	hostname = regexp.MustCompile(`^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*$`)
	// numberLast is how browsers and resolvers tell that a host is meant as an address: its last label is a
	// number. The odd ones among them ("2130706433", "0x7f.1", "127.1") mean different things to different programs.
	numberLast = regexp.MustCompile(`(^|\.)([0-9]+|0[xX][0-9A-Fa-f]*)$`)
)

// parse understands a URL and judges all that can be judged without resolving a name.
func (c *Client) parse(rawURL string) (target, error) {
	if len(rawURL) > mostURLBytes {
		return target{}, never("the URL is longer than 2048 bytes")
	}
	for _, b := range []byte(rawURL) {
		if b <= ' ' || b == 0x7f || b == '\\' {
			return target{}, never("the URL holds a space, a backslash or a control character")
		}
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		// The parser's text repeats the URL.
		return target{}, never("it is not a URL")
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return target{}, never("it does not start with https://")
	case u.User != nil:
		return target{}, never("user information in a URL is not supported")
	case u.Opaque != "" || u.Hostname() == "":
		return target{}, never("it names no host")
	}
	u.Fragment, u.RawFragment = "", ""
	t := target{url: u, host: strings.TrimSuffix(u.Hostname(), ".")}
	if t.port, err = portOf(u); err != nil {
		return target{}, err
	}
	if u.Scheme == "http" && (!c.config.AllowHTTP || len(c.config.AllowNetworks) == 0) {
		return target{}, &Refused{"http is not encrypted; use https", Setting}
	}
	if strings.HasPrefix(u.Host, "[") || strings.Contains(t.host, ":") {
		return c.literal(t, "it holds no IPv6 address in brackets")
	}
	if numberLast.MatchString(t.host) {
		return c.literal(t, "its host is a number that is not written as four decimal ones (192.0.2.1)")
	}
	if len(t.host) > 253 || !hostname.MatchString(t.host) {
		return target{}, never("its host is not a name in ASCII; write an international one in its xn-- form")
	}
	return t, nil
}

func portOf(u *url.URL) (uint16, error) {
	text := u.Port()
	if text == "" {
		if u.Scheme == "http" {
			return 80, nil
		}
		return 443, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, never("its port is not a number from 1 to 65535")
	}
	return uint16(n), nil
}

func (c *Client) literal(t target, malformed string) (target, error) {
	ip, err := netip.ParseAddr(t.host)
	if err != nil {
		return target{}, never(malformed)
	}
	if ip.Zone() != "" {
		return target{}, never("an address with a zone is not supported")
	}
	if ip.Is4In6() && !c.allowed(ip.Unmap()) {
		return target{}, never("its host is an IPv4 address written as IPv6")
	}
	t.ip = ip.Unmap()
	if r := c.judge(t.ip, t); r != nil {
		return target{}, r
	}
	return t, nil
}

func (c *Client) allowed(ip netip.Addr) bool {
	for _, p := range c.config.AllowNetworks {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// judge decides about one address, unmapped. The reason names an address only when the URL does: how a name
// resolves in here is nobody's business.
func (c *Client) judge(ip netip.Addr, t target) *Refused {
	if c.allowed(ip) {
		return nil
	}
	which := t.host
	if !t.ip.IsValid() {
		which += " leads to an address that"
	}
	switch {
	case c.guard.SafeAddr(ip) != nil:
		return &Refused{which + " is not public", Setting}
	case c.isOwn(ip):
		return &Refused{which + " is this machine's own", Setting}
	case t.url.Scheme != "https":
		return &Refused{"http is not encrypted; use https", Setting}
	case t.port != 443:
		return &Refused{"port " + strconv.Itoa(int(t.port)) + " is not 443", Setting}
	}
	return nil
}

func (c *Client) isOwn(ip netip.Addr) bool {
	for _, own := range c.own() {
		if own == ip {
			return true
		}
	}
	return false
}

// control judges once more what the kernel is about to connect to, in case the dialler were to change it.
func (c *Client) control(t target) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return never("the address to connect to is unreadable")
		}
		if r := c.judge(to.Addr().Unmap(), t); r != nil {
			return r
		}
		return nil
	}
}

// ownAddresses are those of this machine's interfaces: a public one among them would lead back to our own doors.
func ownAddresses() []netip.Addr {
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, n := range nets {
		if p, err := netip.ParsePrefix(n.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}
