package cloresim

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// guest is what an ssh server knows of the rental it stands for.
type guest struct {
	rental, server int64
	gpu            string
	password, key  string
	env            map[string]string
}

// sshServers are the ssh servers of rentals, one for each public port. A port is bound from the creation of its
// rental to the end; until the container runs, connections are closed at once.
type sshServers struct {
	bind   string
	signer ssh.Signer
	// find gives who is behind a port now; false while nothing runs there.
	find   func(port int) (guest, bool)
	logger *slog.Logger

	mu      sync.Mutex
	closed  bool
	servers map[int]*sshServer
	running sync.WaitGroup
}

type sshServer struct {
	listener net.Listener
	conns    map[net.Conn]struct{}
}

// Public ports are taken from below the range that systems take outgoing ports from, so that a port can be bound
// again after a restart.
const firstSSHPort, lastSSHPort = 10_000, 32_000

func newSSHServers(host string, hostKey []byte, find func(int) (guest, bool), logger *slog.Logger) (*sshServers, error) {
	signer, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(hostKey))
	if err != nil {
		return nil, fmt.Errorf("read the host key: %w", err)
	}
	bind := "0.0.0.0"
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() || host == "localhost" {
		bind = host
	}
	return &sshServers{bind: bind, signer: signer, find: find, logger: logger, servers: map[int]*sshServer{}}, nil
}

// reserve binds a free port.
func (s *sshServers) reserve() (int, error) {
	var last error
	for range 64 {
		port := firstSSHPort + rand.IntN(lastSSHPort-firstSSHPort) //nolint:gosec // a port is no secret
		if last = s.open(port); last == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("find a free port for ssh: %w", last)
}

func (s *sshServers) open(port int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.servers[port] != nil {
		return errors.New("the port is in use")
	}
	l, err := net.Listen("tcp", net.JoinHostPort(s.bind, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	server := &sshServer{listener: l, conns: map[net.Conn]struct{}{}}
	s.servers[port] = server
	s.running.Go(func() { s.accept(port, server) })
	return nil
}

// sync closes the servers of ports that are no longer wanted and opens the missing ones, as after a restart.
func (s *sshServers) sync(wanted map[int]bool) {
	s.mu.Lock()
	for port, server := range s.servers {
		if !wanted[port] {
			server.close()
			delete(s.servers, port)
		}
	}
	missing := slices.DeleteFunc(slices.Collect(maps.Keys(wanted)), func(p int) bool { return s.servers[p] != nil })
	s.mu.Unlock()
	for _, port := range missing {
		if err := s.open(port); err != nil {
			s.logger.Warn("a rental has lost its ssh server", "port", port, "error", err)
		}
	}
}

func (s *sshServer) close() {
	_ = s.listener.Close()
	for c := range s.conns {
		_ = c.Close()
	}
}

// close ends every server and session, and waits for them.
func (s *sshServers) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.sync(nil)
	s.running.Wait()
}

func (s *sshServers) accept(port int, server *sshServer) {
	for {
		conn, err := server.listener.Accept()
		if err != nil {
			return
		}
		g, up := s.find(port)
		s.mu.Lock()
		if !up || s.servers[port] != server {
			s.mu.Unlock()
			_ = conn.Close()
			continue
		}
		server.conns[conn] = struct{}{}
		s.mu.Unlock()
		s.running.Go(func() {
			s.session(conn, g)
			s.mu.Lock()
			delete(server.conns, conn)
			s.mu.Unlock()
		})
	}
}

// Nobody holds a connection for longer than this, logged in or not.
const (
	loginTime   = 30 * time.Second
	sessionTime = time.Hour
)

// session serves one connection.
func (s *sshServers) session(conn net.Conn, g guest) {
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(loginTime))
	sc, channels, requests, err := ssh.NewServerConn(conn, s.login(g))
	if err != nil {
		return
	}
	_ = conn.SetDeadline(time.Now().Add(sessionTime))
	var serving sync.WaitGroup
	defer serving.Wait()
	defer func() { _ = sc.Close() }()
	serving.Go(func() { ssh.DiscardRequests(requests) })
	for ch := range channels {
		if ch.ChannelType() != "session" {
			_ = ch.Reject(ssh.UnknownChannelType, "only sessions are simulated")
			continue
		}
		channel, reqs, err := ch.Accept()
		if err != nil {
			return
		}
		serving.Go(func() { g.serve(channel, reqs) })
	}
}

// login lets root in with what the order was created with.
func (s *sshServers) login(g guest) *ssh.ServerConfig {
	c := &ssh.ServerConfig{}
	if g.password != "" {
		c.PasswordCallback = func(m ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
			if m.User() != "root" || subtle.ConstantTimeCompare(password, []byte(g.password)) != 1 {
				return nil, errors.New("permission denied")
			}
			return nil, nil
		}
	}
	c.PublicKeyCallback = func(m ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		allowed, _, _, _, err := ssh.ParseAuthorizedKey([]byte(g.key))
		if err != nil || m.User() != "root" || !bytes.Equal(allowed.Marshal(), key.Marshal()) {
			return nil, errors.New("permission denied")
		}
		return nil, nil
	}
	c.AddHostKey(s.signer)
	return c
}

// serve is one session channel: a command, or a shell that takes commands line by line.
func (g guest) serve(channel ssh.Channel, requests <-chan *ssh.Request) {
	defer func() { _ = channel.Close() }()
	for req := range requests {
		switch req.Type {
		case "exec":
			var command struct{ Line string }
			if ssh.Unmarshal(req.Payload, &command) != nil {
				_ = req.Reply(false, nil)
				continue
			}
			_ = req.Reply(true, nil)
			exit(channel, g.run(channel, command.Line))
			return
		case "shell":
			_ = req.Reply(true, nil)
			go ssh.DiscardRequests(requests)
			exit(channel, g.shell(channel))
			return
		default: // pty-req, env and the like are taken and mean nothing
			_ = req.Reply(true, nil)
		}
	}
}

func exit(channel ssh.Channel, status uint32) {
	_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
}

func (g guest) shell(rw io.ReadWriter) uint32 {
	fmt.Fprintf(rw, "simulated rental %d on server %d; exit leaves\r\n$ ", g.rental, g.server)
	in := bufio.NewScanner(rw)
	status := uint32(0)
	for in.Scan() {
		line := strings.TrimSpace(in.Text())
		if line == "exit" {
			break
		}
		if line != "" {
			status = g.run(rw, line)
		}
		fmt.Fprint(rw, "$ ")
	}
	return status
}

// run answers a command. Nothing is executed.
func (g guest) run(w io.Writer, line string) uint32 {
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return 0
	}
	switch fields[0] {
	case "true":
	case "false":
		return 1
	case "hostname":
		fmt.Fprintf(w, "clore-%d\n", g.server)
	case "whoami":
		fmt.Fprintln(w, "root")
	case "env":
		for _, name := range slices.Sorted(maps.Keys(g.env)) {
			fmt.Fprintf(w, "%s=%s\n", name, g.env[name])
		}
	case "echo":
		fmt.Fprintln(w, strings.Join(fields[1:], " "))
	case "nvidia-smi":
		_, name, _ := strings.Cut(g.gpu, "x ")
		for i := range max(1, leadingNumber(g.gpu)) {
			fmt.Fprintf(w, "GPU %d: %s (UUID: GPU-%08x-%04x)\n", i, name, g.rental, i)
		}
	default:
		fmt.Fprintf(w, "rental %d on server %d: %s\n", g.rental, g.server, line)
	}
	return 0
}
