package egress

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// local may call this machine, as a test must.
func local(mutate func(*Config)) *Client {
	config := Config{AllowNetworks: loopback, AllowHTTP: true, UserAgent: "egress-test/1", Timeout: time.Minute}
	if mutate != nil {
		mutate(&config)
	}
	return New(config)
}

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// listen gives each connection to talk, for receivers that no HTTP server would play.
func listen(t *testing.T, talk func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			talk(conn)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return "http://" + l.Addr().String()
}

func TestPostSendsWhatItWasGiven(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTeapot)
		_, _ = fmt.Fprintf(w, "%s %s %s %s %s %s", r.Method, r.URL, r.Header.Get("X-One"), r.UserAgent(), r.Header.Get("Accept-Encoding"), body)
	})
	given := http.Header{"X-One": {"1"}}
	res, err := local(nil).Post(t.Context(), s.URL+"/p?q=1#frag", given, []byte("body"))
	if err != nil || res.Status != http.StatusTeapot || res.Header.Get("Retry-After") != "7" {
		t.Fatalf("%+v, %v", res, err)
	}
	if got := string(res.Body); got != "POST /p?q=1 1 egress-test/1  body" {
		t.Errorf("the receiver saw %q", got)
	}
	if len(given) != 1 {
		t.Errorf("the caller's headers changed: %v", given)
	}
	res, err = local(nil).Post(t.Context(), s.URL, http.Header{"User-Agent": {"own/2"}}, nil)
	if err != nil || !strings.Contains(string(res.Body), "own/2") {
		t.Errorf("%s, %v", res.Body, err)
	}
}

func TestPostOverTLSToAName(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) }))
	t.Cleanup(s.Close)
	port := s.Listener.Addr().(*net.TCPAddr).Port
	c := local(nil)
	c.lookup = answers(netip.MustParseAddr("127.0.0.1"))
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	c.tls = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	res, err := c.Post(t.Context(), fmt.Sprintf("https://example.com:%d/", port), nil, nil)
	if err != nil || string(res.Body) != fmt.Sprintf("example.com:%d", port) {
		t.Errorf("%s, %v", res.Body, err)
	}
	if _, err := c.Post(t.Context(), fmt.Sprintf("https://other.test:%d/hush", port), nil, nil); err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("a certificate for another name: %v", err)
	}
	if _, err := local(nil).Post(t.Context(), s.URL+"/hush", nil, nil); err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("an unknown authority: %v", err)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	var reached atomic.Bool
	inner := serve(t, func(http.ResponseWriter, *http.Request) { reached.Store(true) })
	for _, status := range []int{300, 301, 302, 303, 307, 308} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", inner.URL)
			w.WriteHeader(status)
		})
		res, err := local(nil).Post(t.Context(), s.URL, nil, []byte("x"))
		if err != nil || res.Status != status {
			t.Errorf("%d: %d, %v", status, res.Status, err)
		}
	}
	if reached.Load() {
		t.Error("a redirect was followed")
	}
}

func TestNoCookieAndNoConnectionIsKept(t *testing.T) {
	t.Parallel()
	var cookies, conns atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cookies.Add(int32(len(r.Cookies())))
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
	}))
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	c := local(nil)
	for range 3 {
		if _, err := c.Post(t.Context(), s.URL, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if cookies.Load() != 0 || conns.Load() != 3 {
		t.Errorf("%d cookies came back over %d connections", cookies.Load(), conns.Load())
	}
}

// TestANameThatChangesItsMind is DNS rebinding: judged public, then private by the time of the call.
func TestANameThatChangesItsMind(t *testing.T) {
	t.Parallel()
	var reached atomic.Bool
	s := serve(t, func(http.ResponseWriter, *http.Request) { reached.Store(true) })
	port := s.Listener.Addr().(*net.TCPAddr).Port
	var asked atomic.Int32
	// Loopback is refused here, as it is outside tests; the port is allowed by way of another network.
	c := New(Config{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, AllowHTTP: true, Timeout: time.Minute})
	c.lookup = func(context.Context, string) ([]netip.Addr, error) {
		if asked.Add(1) == 1 {
			return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	u := fmt.Sprintf("http://rebind.test:%d/", port)
	if err := c.Check(t.Context(), u); err != nil {
		t.Fatalf("the first look: %v", err)
	}
	_, err := c.Post(t.Context(), u, nil, nil)
	var refused *Refused
	if !errors.As(err, &refused) || reached.Load() {
		t.Errorf("after the change: %v, reached %v", err, reached.Load())
	}
	if asked.Load() != 2 {
		t.Errorf("the name was resolved %d times; each look is one, and the address looked at is the one dialled", asked.Load())
	}
}

// TestTheKernelsAddressIsJudgedToo checks the last guard by itself.
func TestTheKernelsAddressIsJudgedToo(t *testing.T) {
	t.Parallel()
	c := New(Config{})
	target, err := c.parse("https://name.test/")
	if err != nil {
		t.Fatal(err)
	}
	control := c.control(target)
	for address, refused := range map[string]bool{"8.8.8.8:443": false, "127.0.0.1:443": true, "[::1]:443": true, "[::ffff:10.0.0.1]:443": true, "nonsense": true} {
		if err := control(t.Context(), "tcp", address, nil); (err != nil) != refused {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestTheNextAddressIsTried(t *testing.T) {
	t.Parallel()
	s := serve(t, func(http.ResponseWriter, *http.Request) {})
	port := s.Listener.Addr().(*net.TCPAddr).Port
	c := local(nil)
	c.lookup = answers(netip.IPv6Loopback(), netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.1"))
	if res, err := c.Post(t.Context(), fmt.Sprintf("http://name.test:%d/", port), nil, nil); err != nil || res.Status != 200 {
		t.Errorf("%+v, %v", res, err)
	}
	c.lookup = answers(netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3"))
	if _, err := c.Post(t.Context(), fmt.Sprintf("http://name.test:%d/hush", port), nil, nil); err == nil || !strings.Contains(err.Error(), "127.0.0.2") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestNoProxyIsUsed(t *testing.T) {
	proxy := listen(t, func(net.Conn) { t.Error("the proxy was called") })
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		t.Setenv(name, proxy)
	}
	t.Setenv("NO_PROXY", "")
	c := New(Config{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, AllowHTTP: true, Timeout: time.Minute})
	c.lookup = answers(netip.MustParseAddr("127.0.0.1"))
	s := serve(t, func(http.ResponseWriter, *http.Request) {})
	port := s.Listener.Addr().(*net.TCPAddr).Port
	if _, err := c.Post(t.Context(), fmt.Sprintf("http://name.test:%d/", port), nil, nil); err != nil {
		t.Error(err)
	}
}

func TestReceiversAreBoundedInTimeAndBytes(t *testing.T) {
	t.Parallel()
	const short = 300 * time.Millisecond
	brief := local(func(c *Config) { c.Timeout, c.MaxBytes = short, 1000 })
	patient := local(func(c *Config) { c.MaxBytes = 1000 })
	// hang says nothing until the caller gives up.
	hang := func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
	var squeezed bytes.Buffer
	z := gzip.NewWriter(&squeezed)
	_, _ = z.Write(make([]byte, 1<<20))
	_ = z.Close()

	for name, c := range map[string]struct {
		client *Client
		talk   func(net.Conn)
		status int
		body   int // -1: not looked at
	}{
		"says nothing":         {brief, hang, 0, 0},
		"stops in the headers": {brief, func(c net.Conn) { respond("HTTP/1.1 200 OK\r\nX: ")(c); hang(c) }, 0, 0},
		"stops in the body": {brief, func(c net.Conn) {
			respond("HTTP/1.1 202 OK\r\nContent-Length: 99\r\n\r\nabc")(c)
			hang(c)
		}, 202, 3},
		"drips headers":         {brief, drip("HTTP/1.1 200 OK\r\n", "X: y\r\n"), 0, 0},
		"drips a body":          {brief, drip("HTTP/1.1 200 OK\r\n\r\n", "y"), 200, -1},
		"headers without end":   {patient, flood("HTTP/1.1 200 OK\r\n", "X: "+strings.Repeat("y", 100)+"\r\n"), 0, 0},
		"one header, no end":    {patient, flood("HTTP/1.1 200 OK\r\nX: ", "y"), 0, 0},
		"early answers, no end": {patient, flood("", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"), 0, 0},
		"a body without end":    {patient, flood("HTTP/1.1 200 OK\r\n\r\n", strings.Repeat("y", 1000)), 200, 1000},
		"chunks without end":    {patient, flood("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\ny\r\n"), 200, 1000},
		"a compressed bomb":     {patient, respond("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + squeezed.String()), 200, min(squeezed.Len(), 1000)},
		"a lie about length":    {patient, respond("HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\nabc"), 200, 3},
		"switches protocols":    {patient, respond("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc"), 101, -1},
		"no HTTP":               {patient, respond("220 mail.test ESMTP\r\n"), 0, 0},
		"closes at once":        {patient, func(net.Conn) {}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res, err := c.client.Post(t.Context(), listen(t, c.talk)+"/hush?hush", nil, []byte("x"))
			if (err != nil) != (c.status == 0) || res.Status != c.status {
				t.Fatalf("%d, %v; want %d", res.Status, err, c.status)
			}
			if c.body >= 0 && len(res.Body) != c.body || len(res.Body) > 1000 {
				t.Errorf("read %d bytes, want %d", len(res.Body), c.body)
			}
			if err != nil && strings.Contains(err.Error(), "hush") {
				t.Errorf("shows the URL: %v", err)
			}
			if c.client == brief && err != nil && (!errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer in time")) {
				t.Errorf("does not say that time ran out: %v", err)
			}
		})
	}
}

// consume reads a request's head, so that the answer does not come before the question.
func consume(conn net.Conn) {
	buf := make([]byte, 4096)
	_, _ = conn.Read(buf)
}

func respond(text string) func(net.Conn) {
	return func(conn net.Conn) {
		consume(conn)
		_, _ = io.WriteString(conn, text)
	}
}

// flood writes as fast as the other side takes it.
func flood(head, again string) func(net.Conn) {
	return func(conn net.Conn) {
		consume(conn)
		_, err := io.WriteString(conn, head)
		for err == nil {
			_, err = io.WriteString(conn, again)
		}
	}
}

// drip writes now and then, so that no single read times out.
func drip(head, again string) func(net.Conn) {
	return func(conn net.Conn) {
		consume(conn)
		_, err := io.WriteString(conn, head)
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for ; err == nil; <-ticker.C {
			_, err = io.WriteString(conn, again)
		}
	}
}

func TestErrorsHoldNothingOfTheURLButItsHost(t *testing.T) {
	t.Parallel()
	// The receiver repeats the path in what is no HTTP, at length.
	echo := listen(t, func(conn net.Conn) {
		buf := make([]byte, 4096)
		n, _ := conn.Read(buf)
		_, _ = conn.Write(bytes.Repeat(buf[:n], 3))
	})
	_, err := local(nil).Post(t.Context(), echo+"/services/hush?token=hush", nil, nil)
	if err == nil || strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), echo) || len(err.Error()) > 400 {
		t.Errorf("%v", err)
	}
	gone := listen(t, func(net.Conn) {})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := local(nil).Post(ctx, gone+"/hush", nil, nil); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "hush") {
		t.Errorf("cancelled: %v", err)
	}
	c := local(nil)
	c.lookup = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such host") }
	if _, err := c.Post(t.Context(), "https://name.test/hush", nil, nil); err == nil || err.Error() != "post to https://name.test: no such host" {
		t.Errorf("no such host: %v", err)
	}
}
