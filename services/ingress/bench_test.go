package ingress_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/webhook"
	"github.com/renthook/renthook/services/ingress"
	"github.com/renthook/renthook/services/internal/topology"
)

// BenchmarkAdmission measures accepted webhooks per second as shares of two yardsticks, all in one run over one broker
// that writes to disk before it acknowledges: a bare handler that verifies the signature, and one that also publishes
// once. Beside them, so that it is known what costs what: the service with a key in each request, which needs no
// window, and without rate limits.
func BenchmarkAdmission(b *testing.B) {
	broker := bustest.Start(b, bustest.SyncAlways())
	publishing := http.NewServeMux()
	conn := bustest.Connect(b, busConfig(broker.URL()))
	yard := topology.CommandsStream(topology.DefaultSizes())
	yard.Name, yard.Subjects = "YARDSTICK", []string{"yardstick.>"}
	if err := conn.EnsureStream(b.Context(), yard); err != nil {
		b.Fatal(err)
	}
	var published atomic.Int64
	verified := func(w http.ResponseWriter, r *http.Request) []byte {
		body, err := io.ReadAll(r.Body)
		mac := hmac.New(sha256.New, []byte(legacySecret))
		mac.Write(body)
		given, herr := hex.DecodeString(r.Header.Get(webhook.HeaderLegacy))
		if err != nil || herr != nil || !hmac.Equal(given, mac.Sum(nil)) {
			w.WriteHeader(http.StatusUnauthorized)
			return nil
		}
		return body
	}
	publishing.HandleFunc("/bare", func(w http.ResponseWriter, r *http.Request) {
		if verified(w, r) != nil {
			_, _ = io.WriteString(w, `{"status":"queued"}`)
		}
	})
	publishing.HandleFunc("/publish", func(w http.ResponseWriter, r *http.Request) {
		body := verified(w, r)
		if body == nil {
			return
		}
		_, err := conn.JetStream().PublishMsg(r.Context(), &nats.Msg{Subject: fmt.Sprint("yardstick.", published.Add(1)), Data: body})
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, `{"status":"queued"}`)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	plain := &http.Server{Handler: publishing, ReadHeaderTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() { _ = plain.Serve(listener) })
	b.Cleanup(func() { _ = plain.Close(); serving.Wait() })

	limited := benchService(b, broker, 1_000_000_000)
	free := benchService(b, broker, 0)
	for _, connections := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("connections=%d", connections), func(b *testing.B) {
			l := &load{b: b, connections: connections, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}}
			defer l.client.CloseIdleConnections()
			base := "http://" + listener.Addr().String()
			var bare, once, ours, keyed, unlimited time.Duration
			// In turns, so that whatever else the machine does falls on all alike.
			for done := 0; done < b.N; done += turn {
				n := min(turn, b.N-done)
				bare += l.run(base+"/bare", n, false)
				once += l.run(base+"/publish", n, false)
				ours += l.run(limited+"/webhook/create-order", n, false)
				keyed += l.run(limited+"/webhook/create-order", n, true)
				unlimited += l.run(free+"/webhook/create-order", n, false)
			}
			b.ReportMetric(float64(b.N)/ours.Seconds(), "accepted/s")
			b.ReportMetric(bare.Seconds()/ours.Seconds(), "of_bare")
			b.ReportMetric(once.Seconds()/ours.Seconds(), "of_publishing")
			b.ReportMetric(once.Seconds()/keyed.Seconds(), "of_publishing_keyed")
			b.ReportMetric(once.Seconds()/unlimited.Seconds(), "of_publishing_unlimited")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func benchService(b *testing.B, broker *bustest.Server, perMinute int) string {
	s, err := ingress.New(ingress.Config{Address: "127.0.0.1:0", DedupeWindow: time.Minute, RequestsPerMinute: perMinute, Clients: clients()}, ingress.Deps{
		Bus: bustest.Connect(b, busConfig(broker.URL())), Seal: box(b), Callbacks: callbacks{}, Market: &board{}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Stop(b.Context()) })
	bustest.Eventually(b, "the service is ready", func() bool { return s.Ready() == nil })
	return "http://" + s.Addr()
}

// turn is how many requests one side answers before the next has its turn.
const turn = 250

// load sends requests, each different, over some connections.
type load struct {
	b           *testing.B
	connections int
	client      *http.Client
}

var sent atomic.Int64

// run gives how long n requests take.
func (l *load) run(url string, n int, keyed bool) time.Duration {
	l.b.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	began := time.Now()
	var wg sync.WaitGroup
	for range l.connections {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				n := sent.Add(1)
				body := fmt.Sprintf(`{"gpu_type":"RTX %d","max_price":0.50}`, n)
				req, err := http.NewRequestWithContext(l.b.Context(), http.MethodPost, url, strings.NewReader(body))
				if err != nil {
					l.b.Error(err)
					return
				}
				req.Header.Set(webhook.HeaderLegacy, webhook.SignLegacy(legacySecret, []byte(body)))
				if keyed {
					req.Header.Set("Idempotency-Key", fmt.Sprint(n))
				}
				resp, err := l.client.Do(req)
				if err != nil {
					l.b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					l.b.Errorf("%s answered %d", url, resp.StatusCode)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}
