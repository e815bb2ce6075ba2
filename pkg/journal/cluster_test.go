package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/journal"
)

// cluster runs three servers that replicate, and connects to one of them.
func cluster(t *testing.T) *bus.Conn {
	t.Helper()
	// Servers that replicate must know one another's address before any of them has one.
	ports := make([]int, 3)
	var routes []*url.URL
	var listeners []net.Listener
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ports[i] = l.Addr().(*net.TCPAddr).Port
		routes = append(routes, &url.URL{Scheme: "nats", Host: l.Addr().String()})
		listeners = append(listeners, l)
	}
	for _, l := range listeners {
		_ = l.Close()
	}
	servers := make([]*server.Server, 3)
	for i := range servers {
		s, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprintf("s%d", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
			JetStream: true, StoreDir: t.TempDir(), Routes: routes,
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: ports[i]},
		})
		if err != nil {
			t.Fatal(err)
		}
		servers[i] = s
		go s.Start()
		t.Cleanup(s.WaitForShutdown)
		t.Cleanup(s.Shutdown)
	}
	for _, s := range servers {
		if !s.ReadyForConnections(time.Minute) {
			t.Fatal("a server is not ready")
		}
	}
	bustest.Eventually(t, "a leader of three", func() bool {
		for _, s := range servers {
			if s.JetStreamIsLeader() && len(s.JetStreamClusterPeers()) == 3 {
				return true
			}
		}
		return false
	})
	return bustest.Connect(t, bus.Config{URL: servers[0].ClientURL()})
}

// Leaders change under a writer: no append is lost, stored twice or refused wrongly.
// row:12
func TestAppend_LeadersChange(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("elections take seconds")
	}
	c := cluster(t)
	cfg := config("A")
	cfg.Replicas = 3
	bustest.Eventually(t, "the stream to be made", func() bool { return c.EnsureStream(t.Context(), cfg) == nil })
	j := journal.Open(c.JetStream(), "A")
	w := claim(t, j, "A", "one", 0)

	const changes = 10
	var changed atomic.Int64
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			ask, cancel := context.WithTimeout(ctx, 2*time.Second)
			answer, err := c.NATS().RequestWithContext(ask, "$JS.API.STREAM.LEADER.STEPDOWN.A", nil)
			cancel()
			if err == nil && bytes.Contains(answer.Data, []byte(`"success":true`)) {
				changed.Add(1)
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	entries := 0
	for i := 0; i < 20 || changed.Load() < changes; i++ {
		batch := make([]journal.Entry, 1+i%3)
		for k := range batch {
			batch[k] = entry("A", "x", fmt.Sprint(entries))
			entries++
		}
		first, last, err := w.Append(t.Context(), batch...)
		if err != nil {
			t.Fatalf("append %d: %v", i, err)
		}
		if want := uint64(entries + 1); last != want || first != want-uint64(len(batch))+1 {
			t.Fatalf("append %d is at %d to %d, want it to end at %d", i, first, last, want)
		}
	}
	stop()
	<-done
	records := replay(t, j, 0)
	if len(records) != entries+1 {
		t.Fatalf("%d records, want %d", len(records), entries+1)
	}
	for i, r := range records[1:] {
		if string(r.Data) != fmt.Sprint(i) {
			t.Fatalf("record %d holds %s", i, r.Data)
		}
	}
	// The fence holds here as on one server, where the refusal has another code.
	if _, err := j.Claim(t.Context(), "two", 3, entry("A", "holder", "two")); !errors.Is(err, journal.ErrFenced) {
		t.Fatalf("a claim after an older end: %v", err)
	}
}
