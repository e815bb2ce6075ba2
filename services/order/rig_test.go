package order_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/cloreapi"
	"github.com/renthook/renthook/pkg/cloreapi/cloresim"
	"github.com/renthook/renthook/pkg/seal"
	"github.com/renthook/renthook/pkg/secret"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/auth"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/market/clore"
	"github.com/renthook/renthook/services/internal/settings"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/order"
)

// patience bounds every wait for an outcome; generous, since machines are shared.
const patience = 60 * time.Second

// rig is the order service over a real broker and a real simulator, with the market handed to it.
type rig struct {
	t        *testing.T
	settings settings.Settings
	nats     *bustest.Server
	sim      *httptest.Server
	bus      *bus.Conn
	books    *books
	service  *order.Service
	orders   orderv1.OrderServiceClient
	log      *slog.Logger
	// dial reaches ssh ports; nil is the network.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	// wrap stands between the service and the market; nil is nothing.
	wrap func(market.Account) market.Account
}

// quick are settings under which a whole life takes seconds; every window keeps its place among the others.
func quick() settings.Settings {
	s := settings.Defaults()
	s.Clients = []settings.Client{
		{Name: "local", Tokens: []secret.String{secret.New("token-of-local")}, Scopes: []string{"*"}},
		{Name: "other", Tokens: []secret.String{secret.New("token-of-other")}, Scopes: []string{"orders:create", "orders:cancel", "read"}},
	}
	s.Order.GRPCAddress = "127.0.0.1:0"
	s.Market.CallGap, s.Market.CreateGap = 20*time.Millisecond, 60*time.Millisecond
	s.Order.ConfirmWindow, s.Order.ConfirmWindowBlind = 2*time.Second, 4*time.Second
	s.Order.CallTimeout, s.Order.LeaseTTL, s.Order.SweepInterval = 3*time.Second, 10*time.Second, 500*time.Millisecond
	s.Limits.OrdersPerHour, s.Limits.CreatesPerHour, s.Limits.LiveRentals = 1000, 1000, 1000
	return s
}

func newRig(t *testing.T, st settings.Settings, sim cloresim.Config) *rig {
	t.Helper()
	r := &rig{t: t, settings: st, log: slog.New(slog.DiscardHandler)}
	if os.Getenv("RENTHOOK_TEST_LOG") != "" {
		r.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	r.nats = bustest.Start(t)
	sim.NoRateLimit = true
	if sim.Boot == 0 {
		sim.Boot = 50 * time.Millisecond
	}
	if sim.Visible == 0 {
		sim.Visible = 10 * time.Millisecond
	}
	if sim.Servers == 0 {
		sim.Servers = 300
	}
	s, err := cloresim.New(sim)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop(context.Background()) })
	r.sim = httptest.NewServer(s.Handler())
	t.Cleanup(r.sim.Close)
	r.bus = r.nats.Connect(t)
	r.books = &books{changed: make(chan struct{}), offers: clore.NewOffers(clore.OffersConfig{}, cloreapi.NewPublic(r.api()), nil)}
	r.books.poll(t)
	r.start()
	return r
}

func (r *rig) api() cloreapi.Config {
	return cloreapi.Config{BaseURL: r.sim.URL, Key: secret.New(cloresim.DefaultKey), Timeout: r.settings.Order.CallTimeout}
}

// start runs the service; stop it with r.stop.
func (r *rig) start() {
	r.t.Helper()
	box, err := seal.New(secret.New(strings.Repeat("installation", 4)))
	if err != nil {
		r.t.Fatal(err)
	}
	clients, err := auth.New(r.settings.Clients)
	if err != nil {
		r.t.Fatal(err)
	}
	var account market.Account = clore.NewAccount(cloreapi.New(r.api()))
	if r.wrap != nil {
		account = r.wrap(account)
	}
	r.service, err = order.New(order.Config{Settings: r.settings}, order.Deps{
		Log: r.log, Bus: r.bus, Box: box, Auth: clients.Authenticate, Market: account, Books: r.books, Dial: r.dial,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.service.Start(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	service := r.service
	r.t.Cleanup(func() { r.stopService(service) })
	conn, err := grpc.NewClient(r.service.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	r.orders = orderv1.NewOrderServiceClient(conn)
}

func (r *rig) stopService(s *order.Service) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		r.t.Errorf("stop: %v", err)
	}
}

// as speaks for a client.
func (r *rig) as(client string) context.Context {
	return metadata.AppendToOutgoingContext(r.t.Context(), "authorization", "Bearer token-of-"+client)
}

// command publishes one command about orders and gives its operation.
func (r *rig) command(client, verb, key string, m proto.Message) string {
	r.t.Helper()
	return r.publish(client, "order", verb, key, m)
}

func (r *rig) publish(client, noun, verb, key string, m proto.Message) string {
	r.t.Helper()
	body, err := protojson.Marshal(m)
	if err != nil {
		r.t.Fatal(err)
	}
	c := topology.Command{Client: client, Noun: noun, Verb: verb, Key: key}
	msg := nats.NewMsg(c.Subject())
	msg.Data = body
	if _, err := r.bus.Publish(r.t.Context(), msg); err != nil {
		r.t.Fatal(err)
	}
	return c.Operation()
}

// create asks for a GPU by a price in USD per hour.
func (r *rig) create(key, gpu, price string) string {
	r.t.Helper()
	return r.command("local", "create", key, &orderv1.CreateOrder{Spec: &orderv1.OrderSpec{
		Gpu: gpu, MaxPrice: &orderv1.Price{Amount: price, Currency: "USD", Per: "hour", Scope: "server"},
	}})
}

// operation waits until ok likes what the operation has become.
func (r *rig) operation(client, id, what string, ok func(*orderv1.Operation) bool) *orderv1.Operation {
	r.t.Helper()
	var last *orderv1.Operation
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		got, err := r.orders.GetOperation(r.as(client), &orderv1.GetOperationRequest{Id: id})
		if err == nil {
			if last = got.GetOperation(); ok(last) {
				return last
			}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-r.t.Context().Done():
			r.t.Fatal("the test ended")
		}
	}
	r.t.Fatalf("operation %s: waited in vain for %s; last: %s", id, what, protojson.Format(last))
	return nil
}

func settled(o *orderv1.Operation) bool { return o.GetDone() }

func inState(s orderv1.Order_State) func(*orderv1.Operation) bool {
	return func(o *orderv1.Operation) bool { return o.GetOrder().GetState() == s }
}

// script tells the simulator how to answer.
func (r *rig) script(body string) { r.post("/sim/v1/script", body) }

func (r *rig) post(path, body string) {
	r.t.Helper()
	res, err := http.Post(r.sim.URL+path, "application/json", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode >= 300 {
		text, _ := io.ReadAll(res.Body)
		r.t.Fatalf("%s: %d %s", path, res.StatusCode, text)
	}
}

// simState is what the simulator's own ledger says.
type simState struct {
	Rentals []struct {
		ID       int64   `json:"id"`
		ServerID int64   `json:"server_id"`
		Type     string  `json:"type"`
		USD      float64 `json:"usd_per_hour"`
		Image    string  `json:"image"`
		Ports    []int   `json:"ports"`
		EndedAt  *string `json:"ended_at"`
		Foreign  bool    `json:"foreign"`
	} `json:"rentals"`
	Calls []struct {
		Endpoint string          `json:"endpoint"`
		Request  json.RawMessage `json:"request"`
		Applied  bool            `json:"applied"`
	} `json:"calls"`
	Violations int `json:"violations"`
}

func (r *rig) state() simState {
	r.t.Helper()
	res, err := http.Get(r.sim.URL + "/sim/v1/state")
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var s simState
	if err := json.NewDecoder(res.Body).Decode(&s); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// live counts rentals that bill: ours, and a human's.
func (s simState) live() (ours, foreign int) {
	for _, x := range s.Rentals {
		switch {
		case x.EndedAt != nil:
		case x.Foreign:
			foreign++
		default:
			ours++
		}
	}
	return ours, foreign
}

func (s simState) calls(endpoint string) int {
	n := 0
	for _, c := range s.Calls {
		if c.Endpoint == endpoint {
			n++
		}
	}
	return n
}

// alarmed says that the newest alarm is of this name.
func (r *rig) alarmed(name string) bool {
	stream, err := r.bus.JetStream().Stream(r.t.Context(), topology.Orders("main"))
	if err != nil {
		return false
	}
	m, err := stream.GetLastMsgForSubject(r.t.Context(), topology.OrderEvent("main", "-", "-", "alarm"))
	return err == nil && strings.Contains(string(m.Data), name)
}

// atRest waits until exactly so many rentals of ours bill.
func (r *rig) atRest(want int) simState {
	r.t.Helper()
	var s simState
	bustest.Eventually(r.t, fmt.Sprintf("%d rentals of ours at rest", want), func() bool {
		s = r.state()
		ours, _ := s.live()
		return ours == want
	})
	return s
}

// books is the market as one read of the simulator shows it.
type books struct {
	offers *clore.Offers

	mu      sync.Mutex
	n       uint64
	byGPU   map[string][]market.Offer
	changed chan struct{}
}

func (b *books) poll(t *testing.T) {
	t.Helper()
	l, err := b.offers.Offers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.byGPU = map[string][]market.Offer{}
	for _, o := range l.Offers {
		b.byGPU[o.GPU] = append(b.byGPU[o.GPU], o)
	}
	b.n++
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *books) Book(gpu string) []market.Offer {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.byGPU[gpu]
}

func (b *books) Snapshot() (uint64, time.Time, time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n, time.Now(), time.Second
}

func (b *books) Fresh(time.Time) bool { return true }

func (b *books) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}
