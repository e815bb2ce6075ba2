package egress

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// special are IANA's special-purpose registries (IPv4 and IPv6, with the multicast and reserved blocks), and the
// addresses beside them that must not be called either. One address of each is tried at both ends.
var special = []string{
	"0.0.0.0/8", "0.0.0.0/32", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.0.0/29", "192.0.0.8/32", "192.0.0.9/32", "192.0.0.10/32", "192.0.0.170/32", "192.0.0.171/32",
	"192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.88.99.2/32", "192.168.0.0/16", "192.175.48.0/24",
	"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32",
	"168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32", "169.254.169.254/32",

	"::/128", "::1/128", "::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64",
	"2001::/23", "2001::/32", "2001:1::1/128", "2001:1::2/128", "2001:1::3/128", "2001:2::/48", "2001:3::/32", "2001:4:112::/48",
	"2001:10::/28", "2001:20::/28", "2001:30::/28", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20", "5f00::/16",
	"fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "fd00:ec2::254/128",
}

func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func urlOf(ip netip.Addr) string { return "https://" + netip.AddrPortFrom(ip, 443).String() + "/" }

func TestSpecialPurposeNetworksAreRefused(t *testing.T) {
	t.Parallel()
	c := New(Config{})
	for _, s := range special {
		p := netip.MustParsePrefix(s)
		for _, ip := range []netip.Addr{p.Masked().Addr(), last(p)} {
			if err := c.Check(t.Context(), urlOf(ip)); err == nil {
				t.Errorf("%s of %s may be called", ip, p)
			}
			// The same by way of a name.
			named := New(Config{})
			named.lookup = answers(ip)
			if err := named.Check(t.Context(), "https://name.test/"); err == nil {
				t.Errorf("a name for %s of %s may be called", ip, p)
			}
		}
	}
}

func TestPublicAddressesMayBeCalled(t *testing.T) {
	t.Parallel()
	c := New(Config{})
	for _, s := range []string{
		"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0", "168.63.129.15",
		"168.63.129.17", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255",
		"2001:200::", "2001:4860:4860::8888", "2003::1", "2606:4700::1111", "3ffe::1", "2a00::1",
	} {
		if err := c.Check(t.Context(), urlOf(netip.MustParseAddr(s))); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}

func answers(ips ...netip.Addr) func(context.Context, string) ([]netip.Addr, error) {
	return func(context.Context, string) ([]netip.Addr, error) { return ips, nil }
}

// hostile are URLs that must be refused without a look at any name: the resolver of the test gives a public
// address for whatever it is asked.
var hostile = []string{
	// Loopback and neighbours in every spelling.
	"https://127.0.0.1/", "https://127.0.0.1:443/", "https://127.1/", "https://127.0.1/", "https://127.255.255.254/", "https://0/", "https://0.0.0.0/",
	"https://2130706433/", "https://0x7f000001/", "https://0x7F.0.0.1/", "https://0x7f.1/", "https://017700000001/", "https://0177.0.0.1/",
	"https://0177.0.0.01/", "https://127.0.0.0x1/", "https://127.0.0.1./", "https://2130706433./", "https://127.000.000.001/", "https://1.1.1.1.1/",
	"https://256.256.256.256/", "https://4294967297/", "https://999999999999/", "https://0x/", "https://8.8.8.0x8/", "https://08.8.8.8/",
	"https://[::1]/", "https://[::]/", "https://[0:0:0:0:0:0:0:1]/", "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[::127.0.0.1]/",
	"https://[::ffff:8.8.8.8]/", "https://[::ffff:0:127.0.0.1]/",
	// Private, link-local, metadata.
	"https://10.0.0.1/", "https://172.16.0.1/", "https://192.168.1.1/", "https://169.254.169.254/latest/meta-data/", "https://2852039166/",
	"https://0xa9fea9fe/", "https://0251.0376.0251.0376/", "https://[::ffff:169.254.169.254]/", "https://[fd00:ec2::254]/", "https://168.63.129.16/",
	"https://100.100.100.200/", "https://192.0.0.192/", "https://[fe80::1]/", "https://[fe80::1%25eth0]/", "https://[2606:4700::1111%25eth0]/", "https://[fec0::1]/",
	// IPv4 carried in IPv6.
	"https://[64:ff9b::7f00:1]/", "https://[64:ff9b::10.0.0.1]/", "https://[64:ff9b:1::1]/", "https://[2002:7f00:1::]/", "https://[2002:a00:1::1]/",
	"https://[2001:0:7f00:1::]/",
	// User information, and hosts that are not what they seem.
	"https://good.example@127.0.0.1/", "https://user:pass@good.example/", "https://@good.example/", "https://good.example:443@evil.example/",
	"https://good.example\\@evil.example/", "https://good.example%2f@evil.example/", "https://good.example%00.evil/", "https://127.0.0.1%2f.evil.example/",
	"https://%31%32%37.0.0.1/", "https://good.example /", " https://good.example/", "https://good.example/\n", "https://good.example/a\tb", "https://good.example/\r\nX: y",
	"https://good.example\x00/", "https:///path", "https://", "https:good.example", "//good.example/", "/path", "", "https://:443/", "https://./", "https://../",
	"https://good..example/", "https://good.example../", "https://.good.example/", "https://-good.example/", "https://good.example-/", "https://go*d.example/",
	"https://good.example,evil.example/", "https://" + strings.Repeat("a", 64) + ".example/", "https://" + strings.Repeat("a.", 127) + "example/",
	"https://good.example/" + strings.Repeat("a", 2048),
	// Brackets and colons.
	"https://[127.0.0.1]/", "https://[good.example]/", "https://[::1/", "https://::1/", "https://[]/",
	// International names: only their ASCII form.
	"https://münchen.example/", "https://ｅxample.com/", "https://①②⑦.⓪.⓪.①/", "https://127。0。0。1/", "https://good.example\u200b/", "https://еxample.com/",
	"https://%E2%91%A0.example/",
	// Ports.
	"https://good.example:22/", "https://good.example:80/", "https://good.example:6379/", "https://good.example:0/", "https://good.example:65536/",
	"https://good.example:99999999999/", "https://good.example:-1/", "https://good.example:+443/", "https://good.example:443x/", "https://8.8.8.8:8080/",
	// Schemes.
	"http://good.example/", "http://good.example:443/", "HTTP://good.example/", "http://8.8.8.8/", "ftp://good.example/", "file:///etc/passwd", "gopher://good.example/",
	"dict://good.example:11211/", "ldap://good.example/", "javascript:alert(1)", "data:text/plain,x", "unix:///run/docker.sock", "ws://good.example/", "good.example",
	"https+unix://good.example/", "jar:https://good.example/!/", "1https://good.example/",
}

func TestHostileURLsAreRefused(t *testing.T) {
	t.Parallel()
	c := New(Config{})
	c.lookup = answers(netip.MustParseAddr("8.8.8.8"))
	if len(hostile) < 60 {
		t.Fatalf("only %d", len(hostile))
	}
	for _, u := range hostile {
		err := c.Check(t.Context(), u)
		var refused *Refused
		if !errors.As(err, &refused) || refused.Reason == "" {
			t.Errorf("Check(%q) = %v", u, err)
			continue
		}
		if _, err := c.Post(t.Context(), u, nil, nil); !errors.As(err, &refused) {
			t.Errorf("Post(%q) = %v", u, err)
		}
	}
	for _, u := range []string{
		"https://good.example", "https://good.example/", "HTTPS://GOOD.example:443/path?query#fragment", "https://good.example.:443/", "https://good.example:/",
		"https://xn--mnchen-3ya.example/", "https://a_b.example/", "https://8.8.8.8/", "https://[2606:4700::1111]/", "https://1.good/", "https://good.example/ü/é?q=ü",
	} {
		if err := c.Check(t.Context(), u); err != nil {
			t.Errorf("Check(%q) = %v", u, err)
		}
	}
}

func TestANameIsJudgedByAllItsAddresses(t *testing.T) {
	t.Parallel()
	public, private := netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("10.1.2.3")
	for name, c := range map[string]struct {
		ips     []netip.Addr
		refused bool
	}{
		"public":              {[]netip.Addr{public}, false},
		"public, mapped":      {[]netip.Addr{netip.AddrFrom16(public.As16())}, false},
		"private":             {[]netip.Addr{private}, true},
		"private, mapped":     {[]netip.Addr{netip.AddrFrom16(private.As16())}, true},
		"one of two":          {[]netip.Addr{public, private}, true},
		"the other of two":    {[]netip.Addr{private, public}, true},
		"loopback":            {[]netip.Addr{netip.MustParseAddr("127.0.0.1")}, true},
		"this machine itself": {[]netip.Addr{netip.MustParseAddr("9.9.9.9")}, true},
		"no address":          {nil, false},
	} {
		client := New(Config{})
		client.lookup = answers(c.ips...)
		client.own = func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("9.9.9.9")} }
		err := client.Check(t.Context(), "https://name.test/hush?hush")
		if (err != nil) != c.refused {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && (strings.Contains(err.Error(), "10.1.2.3") || strings.Contains(err.Error(), "hush")) {
			t.Errorf("%s: says too much: %v", name, err)
		}
	}
	client := New(Config{})
	client.lookup = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such host") }
	if err := client.Check(t.Context(), "https://name.test/"); err != nil {
		t.Errorf("a name that does not resolve now is refused: %v", err)
	}
	client.own = func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("9.9.9.9")} }
	if err := client.Check(t.Context(), "https://9.9.9.9/"); err == nil || !strings.Contains(err.Error(), "own") {
		t.Errorf("this machine's own public address: %v", err)
	}
}

func TestCheckWaitsForAResolverOnlySoLong(t *testing.T) {
	t.Parallel()
	client := New(Config{})
	client.lookup = func(ctx context.Context, _ string) ([]netip.Addr, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err := client.Check(t.Context(), "https://name.test/"); err != nil {
		t.Error(err)
	}
}

func TestAllowedNetworks(t *testing.T) {
	t.Parallel()
	c := New(Config{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}, AllowHTTP: true})
	at := netip.MustParseAddr("127.0.0.1")
	c.lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
		switch host {
		case "localhost":
			return []netip.Addr{at, netip.IPv6Loopback()}, nil
		case "mixed.test":
			return []netip.Addr{at, netip.MustParseAddr("8.8.8.8")}, nil
		}
		return []netip.Addr{netip.MustParseAddr("8.8.8.8")}, nil
	}
	for u, reason := range map[string]string{
		"http://127.0.0.1:9/": "", "https://127.0.0.1:9/": "", "http://[::1]:9/": "", "http://[::ffff:127.0.0.1]:9/": "", "http://localhost:9/": "",
		"https://mixed.test/": "", "https://public.test/": "",
		"http://10.0.0.1/": "not public", "http://127.1:9/": "four decimal", "http://public.test/": "not encrypted", "http://mixed.test/": "not encrypted",
		"http://8.8.8.8:443/": "not encrypted", "https://public.test:8443/": "port 8443", "https://mixed.test:8443/": "port 8443", "http://u@127.0.0.1:9/": "user information",
	} {
		err := c.Check(t.Context(), u)
		if reason == "" && err != nil || reason != "" && (err == nil || !strings.Contains(err.Error(), reason)) {
			t.Errorf("%s: %v; want %q", u, err, reason)
		}
	}
	c = New(Config{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err := c.Check(t.Context(), "http://127.0.0.1/"); err == nil {
		t.Error("http is allowed although AllowHTTP is not set")
	}
}

func TestRefusalsSayWhatWouldAllowThem(t *testing.T) {
	t.Parallel()
	c := New(Config{})
	for u, want := range map[string]string{
		"https://10.0.0.1/hush":         "10.0.0.1 is not public (egress.allow_networks would allow its network)",
		"http://good.example/hush":      "http is not encrypted; use https (egress.allow_networks would allow its network)",
		"https://8.8.8.8:81/hush":       "port 81 is not 443 (egress.allow_networks would allow its network)",
		"https://me:hush@good.example/": "user information in a URL is not supported",
		"ftp://good.example/hush":       "it does not start with https://",
		"https://%zz/hush":              "it is not a URL",
	} {
		if err := c.Check(t.Context(), u); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", u, err, want)
		}
	}
}

func FuzzCheck(f *testing.F) {
	for _, u := range hostile {
		f.Add(u)
	}
	f.Fuzz(func(t *testing.T, u string) {
		c := New(Config{})
		c.own = func() []netip.Addr { return nil }
		asked := ""
		c.lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
			asked = host
			return []netip.Addr{netip.MustParseAddr("8.8.8.8")}, nil
		}
		if c.Check(t.Context(), u) != nil {
			return
		}
		if !strings.HasPrefix(strings.ToLower(u), "https://") || strings.ContainsAny(asked, "@/\\:%") {
			t.Fatalf("%q passed, asking for %q", u, asked)
		}
		if ip, err := netip.ParseAddr(asked); err == nil {
			t.Fatalf("%q: the address %s was resolved as a name", u, ip)
		}
	})
}
