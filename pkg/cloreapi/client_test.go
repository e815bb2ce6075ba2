package cloreapi

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/pkg/secret"
)

// calls are every call of the client, by name.
func calls(c *Client) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"marketplace":      func(ctx context.Context) error { _, err := c.Marketplace(ctx); return err },
		"wallets":          func(ctx context.Context) error { _, err := c.Wallets(ctx); return err },
		"my_orders":        func(ctx context.Context) error { _, err := c.MyOrders(ctx, true); return err },
		"spot_marketplace": func(ctx context.Context) error { _, err := c.SpotMarketplace(ctx, 7); return err },
		"create_order":     func(ctx context.Context) error { _, err := c.CreateOrder(ctx, CreateOrder{}); return err },
		"cancel_order":     func(ctx context.Context) error { _, err := c.CancelOrder(ctx, 7, ""); return err },
		"set_spot_price":   func(ctx context.Context) error { _, err := c.SetSpotPrice(ctx, 7, decimal.One); return err },
	}
}

func client(t *testing.T, c Config) *Client {
	t.Helper()
	cl := New(c)
	t.Cleanup(cl.Close)
	return cl
}

// peer is a TCP server that counts the connections and the requests it reads, and answers none of them.
type peer struct {
	url             string
	conns, requests atomic.Int64
}

// newPeer handles each connection by handle, which gets the reader of its requests.
func newPeer(t *testing.T, handle func(p *peer, c net.Conn, r *bufio.Reader)) *peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{url: "http://" + l.Addr().String()}
	var running sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); running.Wait() })
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.conns.Add(1)
			running.Go(func() {
				defer func() { _ = c.Close() }()
				_ = c.SetDeadline(time.Now().Add(30 * time.Second))
				handle(p, c, bufio.NewReader(c))
			})
		}
	})
	return p
}

// request reads one request whole.
func (p *peer) request(r *bufio.Reader) bool {
	req, err := http.ReadRequest(r)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, req.Body)
	p.requests.Add(1)
	return err == nil
}

func TestSent_FalseOnlyWhenNoByteCanHaveLeft(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := "http://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	closing := newPeer(t, func(*peer, net.Conn, *bufio.Reader) {})
	dropping := newPeer(t, func(p *peer, _ net.Conn, r *bufio.Reader) { p.request(r) })
	cutting := newPeer(t, func(p *peer, c net.Conn, r *bufio.Reader) {
		p.request(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"code\":0")
	})
	silent := newPeer(t, func(p *peer, _ net.Conn, r *bufio.Reader) {
		p.request(r)
		_, _ = r.ReadByte() // until the caller gives up
	})
	garbled := newPeer(t, func(p *peer, c net.Conn, r *bufio.Reader) {
		p.request(r)
		_, _ = io.WriteString(c, "no HTTP at all\r\n\r\n")
	})
	untrusted := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(untrusted.Close)

	for _, c := range []struct {
		name, url string
		timeout   time.Duration
		sent      bool
	}{
		{"nobody listens", refused, 0, false},
		{"no such scheme", "ftp://127.0.0.1", 0, false},
		{"no URL", "http://bad host", 0, false},
		{"no TLS that can be trusted", untrusted.URL, 0, false},
		{"closed at once", closing.url, 0, true},
		{"the reply is dropped", dropping.url, 0, true},
		{"the reply is cut", cutting.url, 0, true},
		{"the reply is garbled", garbled.url, 0, true},
		{"no reply in time", silent.url, 2 * time.Second, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var asking sync.WaitGroup
			for name, call := range calls(client(t, Config{BaseURL: c.url, Timeout: c.timeout})) {
				asking.Go(func() {
					var failed *CallError
					if err := call(t.Context()); !errors.As(err, &failed) {
						t.Errorf("%s: %v", name, err)
					} else if failed.Sent != c.sent || failed.Endpoint != name {
						t.Errorf("%s: sent is %v: %v", name, failed.Sent, err)
					}
				})
			}
			asking.Wait()
		})
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	var failed *CallError
	if _, err := client(t, Config{BaseURL: dropping.url}).CreateOrder(ended, CreateOrder{}); !errors.As(err, &failed) || failed.Sent {
		t.Errorf("a call that was over before it began: %v", err)
	}
}

func TestCalls_AreOneRequestEach(t *testing.T) {
	t.Parallel()
	answer := "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"code\":0}"
	for name, handle := range map[string]func(p *peer, c net.Conn, r *bufio.Reader){
		"the connection ends after the request": func(p *peer, _ net.Conn, r *bufio.Reader) { p.request(r) },
		"the connection is reset": func(p *peer, c net.Conn, r *bufio.Reader) {
			p.request(r)
			_ = c.(*net.TCPConn).SetLinger(0)
		},
		"busy, come again": func(p *peer, c net.Conn, r *bufio.Reader) {
			p.request(r)
			_, _ = io.WriteString(c, "HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n")
		},
		"timed out, come again": func(p *peer, c net.Conn, r *bufio.Reader) {
			p.request(r)
			_, _ = io.WriteString(c, "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		},
		"the kept connection ends at its second request": func(p *peer, c net.Conn, r *bufio.Reader) {
			if p.request(r) {
				_, _ = io.WriteString(c, answer)
				p.request(r)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t, handle)
			c := client(t, Config{BaseURL: p.url})
			for name, call := range calls(c) {
				// Warm whatever connections the client keeps.
				_, _ = c.Wallets(t.Context())
				before := p.requests.Load()
				_ = call(t.Context())
				if got := p.requests.Load() - before; got != 1 {
					t.Errorf("one %s came as %d requests", name, got)
				}
			}
		})
	}
}

// TestWrites_TheReplayIsReal shows that what the client guards against happens: net/http by itself sends a POST
// twice when a kept connection dies and the request says that it may.
func TestWrites_TheReplayIsReal(t *testing.T) {
	t.Parallel()
	p := newPeer(t, func(p *peer, c net.Conn, r *bufio.Reader) {
		if p.request(r) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
			p.request(r)
		}
	})
	var transport http.Transport
	defer transport.CloseIdleConnections()
	for range 2 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Idempotency-Key", "x")
		res, err := (&http.Client{Transport: &transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
	if got := p.requests.Load(); got != 3 {
		t.Errorf("two POSTs came as %d requests; the test server no longer provokes a replay", got)
	}
}

func TestCalls_SpeakHTTP1AndSayNothingOfIdempotency(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		_, _ = io.WriteString(w, `{"code":0}`)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	c := client(t, Config{BaseURL: srv.URL, Key: secret.New("the-key")})
	trusted := srv.Client().Transport.(*http.Transport).TLSClientConfig
	c.http.Transport.(*http.Transport).TLSClientConfig = trusted.Clone()
	for name, call := range calls(c) {
		// What the reads make of so short an answer is not the matter here.
		_ = call(t.Context())
		r := <-seen
		if r.ProtoMajor != 1 || !r.Close {
			t.Errorf("%s came over %s, close %v: a connection that is kept or shared can be replayed on", name, r.Proto, r.Close)
		}
		for _, header := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
			if r.Header.Get(header) != "" {
				t.Errorf("%s has the header %s, with which net/http replays", name, header)
			}
		}
	}
}

func TestCalls_FollowNoRedirect(t *testing.T) {
	t.Parallel()
	var stolen atomic.Int64
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		stolen.Add(1)
		_, _ = io.WriteString(w, `{"code":0}`)
	}))
	t.Cleanup(target.Close)
	for _, status := range []int{301, 302, 303, 307, 308} {
		srv := httptest.NewServer(http.RedirectHandler(target.URL, status))
		t.Cleanup(srv.Close)
		for name, call := range calls(client(t, Config{BaseURL: srv.URL, Key: secret.New("the-key")})) {
			var failed *CallError
			if err := call(t.Context()); !errors.As(err, &failed) || failed.Status != status || !failed.Sent {
				t.Errorf("%s after %d: %v", name, status, err)
			}
		}
	}
	if n := stolen.Load(); n != 0 {
		t.Errorf("%d redirects were followed", n)
	}
}

// row:52
func TestCalls_BoundWhatTheyRead(t *testing.T) {
	t.Parallel()
	const limit = 256 << 10
	row := strings.Repeat(`{"id":1,"price":{"on_demand":{"bitcoin":0.1}}},`, 100)
	for name, parts := range map[string][2]string{
		"rows":   {`{"servers":[`, row},
		"text":   {`{"code":0,"error":"`, strings.Repeat("x", 4096)},
		"spaces": {``, strings.Repeat(" ", 4096)},
	} {
		for _, zipped := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", zipped ", zipped), func(t *testing.T) {
				t.Parallel()
				srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					if !zipped {
						_ = repeat(w, parts, 100<<20)
						return
					}
					w.Header().Set("Content-Encoding", "gzip")
					z := gzip.NewWriter(w)
					_ = repeat(z, parts, 4<<20)
					_ = z.Close()
				}))
				t.Cleanup(srv.Close)
				for endpoint, call := range calls(client(t, Config{BaseURL: srv.URL, MaxBody: limit})) {
					if err := call(t.Context()); !errors.Is(err, ErrTooLarge) {
						t.Errorf("%s: %v", endpoint, err)
					}
				}
			})
		}
	}
}

// repeat writes a head and then a piece over and over, up to a size or until the reader has had enough.
func repeat(w io.Writer, parts [2]string, size int) error {
	if _, err := io.WriteString(w, parts[0]); err != nil {
		return err
	}
	for n := 0; n < size; n += len(parts[1]) {
		if _, err := io.WriteString(w, parts[1]); err != nil {
			return err
		}
	}
	return nil
}

func TestCalls_BodyOfExactlyTheLimitIsRead(t *testing.T) {
	t.Parallel()
	body := []byte(`{"wallets":[],"code":0}`)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
	t.Cleanup(srv.Close)
	if _, err := client(t, Config{BaseURL: srv.URL, MaxBody: int64(len(body))}).Wallets(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := client(t, Config{BaseURL: srv.URL, MaxBody: int64(len(body)) - 1}).Wallets(t.Context()); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one byte more than allowed: %v", err)
	}
}

func TestCalls_ReadZippedAnswers(t *testing.T) {
	t.Parallel()
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(z, `{"servers":[{"id":7}],"code":0}`)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "gzip" {
			t.Errorf("it accepts %q", r.Header.Get("Accept-Encoding"))
		}
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(zipped.Bytes())
	}))
	t.Cleanup(srv.Close)
	m, err := client(t, Config{BaseURL: srv.URL}).Marketplace(t.Context())
	if err != nil || len(m.Servers) != 1 || m.Servers[0].ID != 7 {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestErrors_HoldNoSecretAndNoURL(t *testing.T) {
	t.Parallel()
	dropping := newPeer(t, func(p *peer, _ net.Conn, r *bufio.Reader) { p.request(r) })
	url := strings.Replace(dropping.url, "http://", "http://user:canary-pass@", 1)
	c := client(t, Config{BaseURL: url, Key: secret.New("canary-key")})
	ask := CreateOrder{SSHPassword: "canary-ssh", Env: map[string]string{"A": "canary-env"}}
	_, err := c.CreateOrder(t.Context(), ask)
	if err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("the error is %v", err)
	}
	if s := fmt.Sprintf("%v %+v", c.config, c); strings.Contains(s, "canary-key") {
		t.Error("the printed client shows its key")
	}
}
