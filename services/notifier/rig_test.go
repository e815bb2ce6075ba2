package notifier

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/egress"
	"github.com/renthook/renthook/pkg/seal"
	"github.com/renthook/renthook/pkg/secret"
	deliveryv1 "github.com/renthook/renthook/proto/gen/renthook/delivery/v1"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/settings"
	"github.com/renthook/renthook/services/internal/topology"
)

const (
	account = "main"
	client  = "local"
	key     = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	sealKey = "a-key-for-tests-of-at-least-32-bytes"
)

// fast is a schedule of six tries within moments.
var fast = []time.Duration{0, 20 * time.Millisecond, 20 * time.Millisecond, 20 * time.Millisecond, 20 * time.Millisecond, 20 * time.Millisecond}

// rig is a broker, what is written to it, and everything the notifiers logged.
type rig struct {
	*bustest.Server
	t    *testing.T
	conn *bus.Conn
	log  *logbook
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{Server: bustest.Start(t), t: t, log: &logbook{}}
	r.conn = r.Connect(t)
	for _, stream := range []jetstream.StreamConfig{
		topology.OrdersStream(account, sizes()), topology.DeliveriesStream(sizes()), topology.AttemptsStream(sizes()), topology.DeadLettersStream(sizes()),
	} {
		if err := r.conn.EnsureStream(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func sizes() topology.Sizes {
	s := topology.DefaultSizes()
	s.JournalBytes, s.DeliveriesBytes, s.AttemptsBytes, s.DeadLettersBytes = 16<<20, 16<<20, 16<<20, 16<<20
	return s
}

// logbook keeps what is logged.
type logbook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func config(endpoints ...settings.Endpoint) Config {
	return Config{
		Accounts: []string{account}, Secrets: map[string]secret.String{client: secret.New(key)},
		Endpoints: endpoints, Schedule: fast, Sizes: sizes(), Version: "1.2.3",
	}
}

// guard lets the notifier call loopback, as the simulator's mode does.
func guard() egress.Config {
	return egress.Config{
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		AllowHTTP:     true, Timeout: 5 * time.Second,
	}
}

func box(t *testing.T) *seal.Box {
	t.Helper()
	b, err := seal.New(secret.New(sealKey))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// start runs a notifier until the test ends or it is stopped.
func (r *rig) start(cfg Config, g egress.Config) *Service {
	r.t.Helper()
	conn, err := bus.Connect(r.t.Context(), bus.Config{URL: r.URL(), Name: r.t.Name()})
	if err != nil {
		r.t.Fatal(err)
	}
	s, err := New(cfg, Deps{
		Bus: conn, Egress: egress.New(g), Seal: box(r.t),
		Logger: slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := s.Start(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		r.stop(s)
		conn.Close()
	})
	bustest.Eventually(r.t, "the notifier to be ready", func() bool { return s.Ready() == nil })
	return s
}

func (r *rig) stop(s *Service) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.t.Context()), time.Minute)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		r.t.Error(err)
	}
}

// event is one of the recorded events, its callbacks sent to url.
func event(t *testing.T, name, url string) *orderv1.OrderEvent {
	t.Helper()
	b, err := os.ReadFile("internal/compose/testdata/" + name + ".event.json")
	if err != nil {
		t.Fatal(err)
	}
	ev := &orderv1.OrderEvent{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, ev); err != nil {
		t.Fatal(err)
	}
	for _, s := range ev.GetSettled() {
		s.Callback.Url = url
	}
	return ev
}

// about makes the event one of another order.
func about(ev *orderv1.OrderEvent, n int) *orderv1.OrderEvent {
	ev.Order.Id = fmt.Sprintf("ord_%032x", n)
	return ev
}

// publish writes an event into the journal and gives its id.
func (r *rig) publish(ev *orderv1.OrderEvent) string {
	r.t.Helper()
	body, err := protojson.Marshal(ev)
	if err != nil {
		r.t.Fatal(err)
	}
	id := ev.GetOrder().GetId()
	if id == "" {
		id = "-"
	}
	return r.publishRaw(topology.OrderEvent(account, client, id, strings.TrimPrefix(ev.GetType(), "order.")), body)
}

func (r *rig) publishRaw(subject string, body []byte) string {
	r.t.Helper()
	var ack bus.Ack
	var err error
	bustest.Eventually(r.t, "the journal to take a record", func() bool {
		ack, err = r.conn.Publish(r.t.Context(), &nats.Msg{Subject: subject, Data: body})
		return err == nil
	})
	return topology.EventID(ack.Stream, ack.Seq)
}

// attempts reads what is recorded of a delivery, oldest first.
func (r *rig) attempts(delivery, endpoint string) []*deliveryv1.Attempt {
	r.t.Helper()
	var out []*deliveryv1.Attempt
	for _, m := range r.messages(topology.Attempts) {
		a := &deliveryv1.Attempt{}
		if err := protojson.Unmarshal(m.Data, a); err != nil {
			r.t.Fatal(err)
		}
		if a.GetDeliveryId() == delivery && (endpoint == "" || a.GetEndpoint() == endpoint) {
			if want := topology.DeliveryEvent(client, a.GetEndpoint(), a.GetOutcome()); m.Subject != want {
				r.t.Errorf("attempt recorded on %s, want %s", m.Subject, want)
			}
			out = append(out, a)
		}
	}
	return out
}

// settled waits for the recorded end of a delivery and gives all its attempts.
func (r *rig) settled(delivery string) []*deliveryv1.Attempt {
	r.t.Helper()
	var all []*deliveryv1.Attempt
	bustest.Eventually(r.t, "the end of "+delivery, func() bool {
		all = r.attempts(delivery, "")
		return len(all) > 0 && all[len(all)-1].GetOutcome() != "retrying"
	})
	return all
}

// messages reads a stream whole.
func (r *rig) messages(stream string) []*jetstream.RawStreamMsg {
	r.t.Helper()
	s, err := r.conn.JetStream().Stream(r.t.Context(), stream)
	if err != nil {
		r.t.Fatal(err)
	}
	var out []*jetstream.RawStreamMsg
	for seq := s.CachedInfo().State.FirstSeq; seq <= s.CachedInfo().State.LastSeq && seq > 0; seq++ {
		m, err := s.GetMsg(r.t.Context(), seq)
		if err != nil {
			r.t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

// idle waits until nothing is on its way: every record was read, and every delivery acknowledged.
func (r *rig) idle() {
	r.t.Helper()
	bustest.Eventually(r.t, "nothing to be on its way", func() bool {
		busy := 0
		for _, stream := range []string{topology.Orders(account), topology.Deliveries} {
			s, err := r.conn.JetStream().Stream(r.t.Context(), stream)
			if err != nil {
				return false
			}
			consumers := s.ListConsumers(r.t.Context())
			for info := range consumers.Info() {
				if info.Config.Durable != "" {
					busy += int(info.NumPending) + info.NumAckPending
				}
			}
			if consumers.Err() != nil {
				return false
			}
		}
		return busy == 0
	})
}

func outcomes(all []*deliveryv1.Attempt) []string {
	var out []string
	for _, a := range all {
		out = append(out, fmt.Sprintf("%d %s", a.GetNumber(), a.GetOutcome()))
	}
	return out
}

func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}
