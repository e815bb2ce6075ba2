// Package bustest runs a real broker for tests, and breaks the way to it.
//
// It guarantees a nats-server with JetStream on a free port of 127.0.0.1, its data in the test's temporary
// directory, down when the test ends, and a restart on the same port with the same data. It refuses to fake
// anything the broker does: what is broken is the wire (Proxy) or the process (Stop, Resume, Restart).
package bustest

import (
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/embed"
)

// Option changes how the server runs.
type Option func(*embed.Config)

// SyncAlways makes the server write to disk before it acknowledges.
func SyncAlways() Option { return func(c *embed.Config) { c.SyncAlways = true } }

// Users lets only these users connect.
func Users(users ...embed.User) Option { return func(c *embed.Config) { c.Users = users } }

// MaxStore bounds the disk that streams may reserve, in bytes.
func MaxStore(bytes int64) Option { return func(c *embed.Config) { c.MaxStore = bytes } }

// Server is a broker under test.
type Server struct {
	t      testing.TB
	cfg    embed.Config
	server *embed.Server
}

// Start runs a server until the test ends.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	s := &Server{t: t, cfg: embed.Config{Dir: t.TempDir()}}
	for _, opt := range opts {
		opt(&s.cfg)
	}
	s.start()
	t.Cleanup(s.Stop)
	return s
}

func (s *Server) start() {
	s.t.Helper()
	server, err := embed.Start(s.cfg)
	if err != nil {
		s.t.Fatalf("start the broker: %v", err)
	}
	_, port, err := net.SplitHostPort(server.Addr())
	if err != nil {
		s.t.Fatalf("address of the broker: %v", err)
	}
	// A restart comes back on the same port, as a real broker does.
	if s.cfg.Port, err = strconv.Atoi(port); err != nil {
		s.t.Fatalf("port of the broker: %v", err)
	}
	s.server = server
}

// URL of the server.
func (s *Server) URL() string { return s.server.URL() }

// Addr is the host and port of the server.
func (s *Server) Addr() string { return s.server.Addr() }

// Stop takes the server down; its data stays.
func (s *Server) Stop() { s.server.Shutdown() }

// Resume starts a stopped server again, on the same port with the same data.
func (s *Server) Resume() { s.t.Helper(); s.start() }

// Restart stops the server and starts it again, on the same port with the same data. Streams in memory are gone.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.Resume()
}

// Connect opens a connection until the test ends, as user when one is given.
func (s *Server) Connect(t testing.TB, user ...embed.User) *bus.Conn {
	t.Helper()
	cfg := bus.Config{URL: s.URL(), Name: t.Name()}
	if len(user) > 0 {
		cfg.User, cfg.Password = user[0].Name, user[0].Password
	}
	return Connect(t, cfg)
}

// Connect opens a connection until the test ends.
func Connect(t testing.TB, cfg bus.Config) *bus.Conn {
	t.Helper()
	c, err := bus.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

// patience is generous: tests share slow machines.
const patience = 60 * time.Second

// Eventually polls until ok, and fails the test when that takes too long.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for: %s", patience, what)
		}
		<-time.After(5 * time.Millisecond)
	}
}
