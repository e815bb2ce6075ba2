package bustest

import (
	"bytes"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Proxy stands between clients and the broker and breaks what passes: the way to have a message stored whose
// answer never comes, or one that never arrives.
type Proxy struct {
	t        testing.TB
	listener net.Listener
	target   func() string
	// muted swallows what the broker says, deaf what clients say.
	muted, deaf atomic.Bool
	// lost is what clients say in vain, last what they say before the broker falls mute.
	lost, last atomic.Pointer[string]

	mu     sync.Mutex
	closed bool
	down   bool
	conns  map[net.Conn]struct{}
	done   sync.WaitGroup
}

// Proxy starts a proxy before the server, until the test ends.
func (s *Server) Proxy(t testing.TB) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	p := &Proxy{t: t, listener: listener, target: s.Addr, conns: map[net.Conn]struct{}{}}
	p.done.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// URL that clients connect to.
func (p *Proxy) URL() string { return "nats://" + p.listener.Addr().String() }

// Mute swallows what the broker says from now on: messages arrive there, answers do not come back.
func (p *Proxy) Mute() { p.muted.Store(true) }

// MuteAfter is Mute from the moment a client has said text: its message arrives, the answer to it does not.
func (p *Proxy) MuteAfter(text string) { p.last.Store(&text) }

// Deafen swallows what clients say from now on: their messages do not arrive.
func (p *Proxy) Deafen() { p.deaf.Store(true) }

// Lose swallows what clients say where it contains text, as long as it comes in pieces of its own, which small
// requests do; their connections stand. An empty text loses nothing.
func (p *Proxy) Lose(text string) { p.lost.Store(&text) }

// Down cuts every connection and lets no new one through.
func (p *Proxy) Down() { p.setDown(true) }

// Heal lets everything through again. Connections are cut first, since they have lost bytes.
func (p *Proxy) Heal() {
	p.cut()
	p.last.Store(nil)
	p.muted.Store(false)
	p.deaf.Store(false)
	p.setDown(false)
}

func (p *Proxy) setDown(down bool) {
	p.mu.Lock()
	p.down = down
	p.mu.Unlock()
	if down {
		p.cut()
	}
}

func (p *Proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.listener.Close()
	p.cut()
	p.done.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.done.Go(func() { p.serve(client) })
	}
}

// keep remembers a connection so that it can be cut; it says no when none may pass.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.down {
		_ = c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) drop(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *Proxy) serve(client net.Conn) {
	if !p.keep(client) {
		return
	}
	defer p.drop(client)
	broker, err := net.Dial("tcp", p.target())
	if err != nil || !p.keep(broker) {
		return
	}
	defer p.drop(broker)
	var back sync.WaitGroup
	back.Go(func() { pass(client, broker, func([]byte) bool { return p.muted.Load() }) })
	pass(broker, client, p.swallows)
	back.Wait()
}

func (p *Proxy) swallows(said []byte) bool {
	if last := p.last.Load(); last != nil && bytes.Contains(said, []byte(*last)) {
		p.muted.Store(true)
	}
	lost := p.lost.Load()
	return p.deaf.Load() || lost != nil && *lost != "" && bytes.Contains(said, []byte(*lost))
}

// pass copies until either side is closed, and closes both.
func pass(to, from net.Conn, swallows func([]byte) bool) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if swallows(buf[:n]) {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
