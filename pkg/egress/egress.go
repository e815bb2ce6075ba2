// Package egress is the only HTTP client that may call a URL a user gave.
//
// It guarantees that a request reaches a public address by https on port 443, or an address in a network the
// operator allowed; that every address a name resolves to is judged, and that the address judged is the address
// dialled, so that a name cannot change its mind in between; and that a receiver can take no more than a bounded
// time and answer no more than a bounded number of bytes. It refuses user information in a URL, addresses in
// unusual spellings, and the special-purpose networks of IANA's registries. It follows no redirect, uses no proxy
// whatever the environment says, keeps no cookie, no connection and no compressed answer.
// Its errors never hold a URL's path, query or user information: those are often secrets.
package egress

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"code.dny.dev/ssrf"
)

// Setting is what an operator changes to allow a network, any port of it and, with AllowHTTP, plain http to it.
const Setting = "egress.allow_networks"

const (
	defaultTimeout  = 10 * time.Second
	defaultMaxBytes = 64 << 10
	maxHeaderBytes  = 16 << 10
	// resolveTimeout bounds the look at a name in Check, which somebody waits for.
	resolveTimeout = 2 * time.Second
	// dialTimeout bounds one address, so that a dead one leaves time for the next.
	dialTimeout = 3 * time.Second
	mostDials   = 4
	// mostErrorBytes bounds what a receiver can write into our logs by way of an error.
	mostErrorBytes = 300
)

// Config says what may be called. The zero value allows public addresses by https on port 443.
type Config struct {
	// AllowNetworks may be called although they are not public, on any port.
	AllowNetworks []netip.Prefix
	// AllowHTTP allows plain http to AllowNetworks, and nowhere else.
	AllowHTTP bool
	// Timeout bounds one Post from the name's resolution to the answer's last byte; 0 is 10 s.
	Timeout time.Duration
	// MaxBytes is how much of an answer's body is read; 0 is 64 KiB.
	MaxBytes int64
	// UserAgent is sent unless the request's headers name another.
	UserAgent string
}

// Client calls users' URLs. It is safe for concurrent use and holds nothing open between calls.
type Client struct {
	config Config
	guard  *ssrf.Guardian
	// Hooks of tests.
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	own    func() []netip.Addr
	tls    *tls.Config
}

// New makes a client.
func New(config Config) *Client {
	if config.Timeout <= 0 {
		config.Timeout = defaultTimeout
	}
	if config.MaxBytes <= 0 {
		config.MaxBytes = defaultMaxBytes
	}
	return &Client{
		config: config,
		guard:  ssrf.New(ssrf.WithAnyPort(), ssrf.WithDeniedV4Prefixes(deniedV4...)),
		lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		},
		own: ownAddresses,
		tls: &tls.Config{MinVersion: tls.VersionTLS12},
	}
}

// Response is what a receiver answered.
type Response struct {
	Status int
	Header http.Header
	// Body is what was read of it: at most MaxBytes, less when the receiver stopped in the middle.
	Body []byte
}

// Check says whether Post would refuse the URL now: a *Refused, or nil. A name is resolved, for two seconds at
// most; one that does not resolve now may do so later, and is not refused.
func (c *Client) Check(ctx context.Context, rawURL string) error {
	t, err := c.parse(rawURL)
	if err != nil {
		return err
	}
	if t.ip.IsValid() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	_, err = c.resolve(ctx, t)
	var refused *Refused
	if errors.As(err, &refused) {
		return refused
	}
	return nil
}

// Post sends body once and reads the answer, whatever its status. The error is a *Refused when nothing was sent
// because of where it would have gone; after any other error the receiver may or may not have seen the request.
func (c *Client) Post(ctx context.Context, rawURL string, h http.Header, body []byte) (Response, error) {
	t, err := c.parse(rawURL)
	if err != nil {
		return Response{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url.String(), bytes.NewReader(body))
	if err != nil {
		return Response{}, t.failed(err)
	}
	req.Header = h.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", c.config.UserAgent)
	}
	// A transport of its own: no connection outlives the call, and the dial knows what it is for. RoundTrip
	// follows no redirect and knows no cookie jar.
	transport := &http.Transport{
		Proxy:                  nil,
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx, t) },
		TLSClientConfig:        c.tls.Clone(),
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(req)
	if err != nil {
		return Response{}, t.failed(err)
	}
	defer func() { _ = res.Body.Close() }()
	// The status is the answer: a body that breaks off, drips or goes on for ever changes nothing about it.
	read, _ := io.ReadAll(io.LimitReader(res.Body, c.config.MaxBytes))
	return Response{Status: res.StatusCode, Header: res.Header, Body: read}, nil
}

// dial connects to the first address of the target that answers. All of them were judged before.
func (c *Client) dial(ctx context.Context, t target) (net.Conn, error) {
	addrs := []netip.Addr{t.ip}
	if !t.ip.IsValid() {
		var err error
		if addrs, err = c.resolve(ctx, t); err != nil {
			return nil, err
		}
	}
	dialer := net.Dialer{Timeout: dialTimeout, ControlContext: c.control(t)}
	var first error
	for _, ip := range addrs[:min(len(addrs), mostDials)] {
		conn, err := dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(ip, t.port).String())
		if err == nil {
			return conn, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// resolve gives the addresses of the target's name, IPv4 first. One that is refused refuses them all.
func (c *Client) resolve(ctx context.Context, t target) ([]netip.Addr, error) {
	found, err := c.lookup(ctx, t.host)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, errors.New("the name has no address")
	}
	var four, six []netip.Addr
	for _, ip := range found {
		ip = ip.Unmap()
		if r := c.judge(ip, t); r != nil {
			return nil, r
		}
		if ip.Is4() {
			four = append(four, ip)
		} else {
			six = append(six, ip)
		}
	}
	return append(four, six...), nil
}

// failure keeps the cause for errors.Is and shows a text that was cleaned.
type failure struct {
	text  string
	cause error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.cause }

// failed words an error of a call: where it went, and no part of the URL beyond that.
func (t target) failed(err error) error {
	var refused *Refused
	if errors.As(err, &refused) {
		return refused
	}
	text := err.Error()
	if errors.Is(err, context.DeadlineExceeded) {
		text = "no answer in time"
	}
	// What the receiver sent may be quoted in an error, and may repeat the URL.
	for _, part := range []string{t.url.RawQuery, t.url.EscapedPath(), t.url.Path} {
		if len(part) > 1 {
			text = strings.ReplaceAll(text, part, "…")
		}
	}
	if len(text) > mostErrorBytes {
		text = strings.ToValidUTF8(text[:mostErrorBytes], "") + "…"
	}
	where := (&url.URL{Scheme: t.url.Scheme, Host: t.url.Host}).String()
	return &failure{fmt.Sprintf("post to %s: %s", where, text), err}
}
