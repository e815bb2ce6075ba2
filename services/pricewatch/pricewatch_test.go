package pricewatch_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/govalues/decimal"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/cloreapi"
	"github.com/renthook/renthook/pkg/cloreapi/cloresim"
	"github.com/renthook/renthook/pkg/fault"
	"github.com/renthook/renthook/pkg/secret"
	marketv1 "github.com/renthook/renthook/proto/gen/renthook/market/v1"
	"github.com/renthook/renthook/services/internal/auth"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/market/clore"
	"github.com/renthook/renthook/services/internal/settings"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/pricewatch"
)

const token = "rht_a-token-of-a-client"

// interval is short, and long enough to tell two calls apart on a slow machine.
const interval = 200 * time.Millisecond

// recorder notes when the market is called.
type recorder struct {
	market market.Offers
	mu     sync.Mutex
	calls  []time.Time
}

func (r *recorder) Offers(ctx context.Context) (market.Listing, error) {
	r.mu.Lock()
	r.calls = append(r.calls, time.Now())
	r.mu.Unlock()
	return r.market.Offers(ctx)
}

type world struct {
	t      *testing.T
	broker *bustest.Server
	offers *recorder
	auth   *auth.Clients
}

func newWorld(t *testing.T, cfg cloresim.Config) *world {
	t.Helper()
	cfg.NoRateLimit = true
	sim, err := cloresim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Stop(context.WithoutCancel(t.Context())) })
	if err := sim.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	clients, err := auth.New([]settings.Client{{Name: "somebody", Tokens: []secret.String{secret.New(token)}}})
	if err != nil {
		t.Fatal(err)
	}
	offers := clore.NewOffers(clore.OffersConfig{
		Rates: map[string]decimal.Decimal{"bitcoin": decimal.MustParse("70000"), "CLORE-Blockchain": decimal.MustParse("0.12")},
	}, cloreapi.NewPublic(cloreapi.Config{BaseURL: "http://" + sim.Addr()}), nil)
	return &world{t: t, broker: bustest.Start(t), offers: &recorder{market: offers}, auth: clients}
}

// service starts a replica on a connection of its own.
func (w *world) service(name string) (*pricewatch.Service, *bus.Conn) {
	w.t.Helper()
	conn := w.broker.Connect(w.t)
	s, err := pricewatch.New(pricewatch.Config{Interval: interval, Holder: name}, pricewatch.Deps{
		Conn: conn, Offers: w.offers, Authenticate: w.auth.Authenticate,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := s.Start(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return s, conn
}

func (w *world) running(name string) *pricewatch.Service {
	w.t.Helper()
	s, _ := w.service(name)
	w.t.Cleanup(func() { w.stop(s) })
	return s
}

func (w *world) stop(s *pricewatch.Service) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.t.Context()), time.Minute)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		w.t.Error(err)
	}
}

func (w *world) dial(s *pricewatch.Service) *grpc.ClientConn {
	w.t.Helper()
	conn, err := grpc.NewClient(s.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func bearer(ctx context.Context, value string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", value)
}

// list asks a replica until it shows a poll.
func (w *world) list(s *pricewatch.Service, poll uint64, gpus ...string) *marketv1.ListModelsResponse {
	w.t.Helper()
	client := marketv1.NewMarketServiceClient(w.dial(s))
	var res *marketv1.ListModelsResponse
	bustest.Eventually(w.t, "the replica to show the market", func() bool {
		var err error
		res, err = client.ListModels(bearer(w.t.Context(), "Bearer "+token), &marketv1.ListModelsRequest{Gpus: gpus})
		if err != nil {
			w.t.Fatal(err)
		}
		return res.GetPoll() >= poll
	})
	return res
}

func TestListModels(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloresim.Config{Servers: 100})
	s := w.running("one")
	res := w.list(s, 1)
	total, available := 0, 0
	for _, m := range res.GetModels() {
		total += int(m.GetTotal())
		available += int(m.GetAvailable())
	}
	if total != int(res.GetTotalServers()) || available != int(res.GetTotalAvailable()) || res.GetBeginTime() == nil {
		t.Errorf("%d servers and %d available in the models, told %d and %d", total, available, res.GetTotalServers(), res.GetTotalAvailable())
	}
	if !slices.IsSortedFunc(res.GetModels(), func(a, b *marketv1.Model) int { return strings.Compare(a.GetGpu(), b.GetGpu()) }) {
		t.Error("not by slug")
	}
	rows := w.list(s, 1, "RTX 4090 Laptop", "4090d", "no such thing").GetModels()
	if len(rows) != 2 || rows[0].GetGpu() != "rtx-4090-d" || rows[1].GetGpuName() != "RTX 4090 Laptop" {
		t.Errorf("asked by names: %v", rows)
	}
	if rows[0].GetMinOnDemandUsdPerHour() == "" || rows[0].GetMinSpotUsdPerHour() == "" || rows[0].GetTotal() != 1 {
		t.Errorf("the D of the traps: %v", rows[0])
	}
	bustest.Eventually(t, "the replica to be ready", func() bool { return s.Ready() == nil })
}

func TestOnlyClientsMayAsk(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloresim.Config{Servers: 1})
	conn := w.dial(w.running("one"))
	client := marketv1.NewMarketServiceClient(conn)
	for name, ctx := range map[string]context.Context{
		"nothing":     t.Context(),
		"wrong token": bearer(t.Context(), "Bearer rht_of-nobody"),
		"no scheme":   bearer(t.Context(), token),
		"basic":       bearer(t.Context(), "Basic "+token),
		"empty":       bearer(t.Context(), "Bearer "),
		"two":         bearer(bearer(t.Context(), "Bearer "+token), "Bearer "+token),
	} {
		_, err := client.ListModels(ctx, &marketv1.ListModelsRequest{})
		f, ok := fault.From(err)
		if status.Code(err) != codes.Unauthenticated || !ok || f.Reason != "UNAUTHENTICATED" || strings.Contains(err.Error(), "rht_") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := client.ListModels(bearer(t.Context(), "bearer "+token), &marketv1.ListModelsRequest{}); err != nil {
		t.Errorf("scheme in lower case: %v", err)
	}
	if _, err := client.ListModels(bearer(t.Context(), "Bearer "+token), &marketv1.ListModelsRequest{Gpus: make([]string, 1001)}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("too many names: %v", err)
	}

	health, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{Service: "renthook.market.v1.MarketService"})
	if err != nil || health.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health %v, error %v", health, err)
	}
	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{},
	}); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil || !strings.Contains(answer.String(), "renthook.market.v1.MarketService") {
		t.Errorf("reflection %v, error %v", answer, err)
	}
}

func TestAnotherReplicaTakesOver(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*world, *pricewatch.Service, *bus.Conn){
		"the holder stops":          func(w *world, s *pricewatch.Service, _ *bus.Conn) { w.stop(s) },
		"the holder loses the way":  func(_ *world, _ *pricewatch.Service, c *bus.Conn) { c.Close() },
		"the broker starts anew":    func(w *world, _ *pricewatch.Service, _ *bus.Conn) { w.broker.Restart() },
		"the streams are made anew": remake,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, cloresim.Config{Servers: 50})
			first, conn := w.service("first")
			w.list(first, 2)
			second := w.running("second")
			before := w.list(second, 2).GetPoll()
			leave(w, first, conn)
			if name == "the streams are made anew" {
				before = 0
			}
			after := w.list(second, before+3)
			if len(after.GetModels()) == 0 || after.GetTotalServers() == 0 {
				t.Errorf("after the takeover: %v", after)
			}
			if name != "the holder stops" {
				w.stop(first)
			}
			w.offers.spaced(t)
		})
	}
}

// remake loses everything the broker holds of the market.
func remake(w *world, _ *pricewatch.Service, _ *bus.Conn) {
	conn := w.broker.Connect(w.t)
	for _, cfg := range []jetstream.StreamConfig{topology.MarketStream(topology.DefaultSizes()), topology.TicksStream(topology.DefaultSizes())} {
		if err := conn.JetStream().DeleteStream(w.t.Context(), cfg.Name); err != nil {
			w.t.Fatal(err)
		}
		if err := conn.EnsureStream(w.t.Context(), cfg); err != nil {
			w.t.Fatal(err)
		}
	}
}

// spaced fails if there were more calls, of whichever replica, than intervals. A broker that lost its memory grants
// one too many.
func (r *recorder) spaced(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	span := r.calls[len(r.calls)-1].Sub(r.calls[0])
	if most := int(span/interval) + 2; len(r.calls) > most {
		t.Errorf("%d calls in %s, %d intervals", len(r.calls), span, span/interval)
	}
}

func TestAsksTheHolderOfTheAccountForASlot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloresim.Config{Servers: 5})
	conn := w.broker.Connect(t)
	var mu sync.Mutex
	var asked []string
	granted := false
	sub, err := conn.NATS().Subscribe(topology.Slot, func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, string(m.Data))
		answer := `{"granted":false,"retry_after_ms":20}`
		if granted {
			answer = `{"granted":true}`
		}
		_ = m.Respond([]byte(answer))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.NATS().Flush(); err != nil {
		t.Fatal(err)
	}
	s := w.running("one")
	bustest.Eventually(t, "being asked", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(asked) >= 5
	})
	w.offers.mu.Lock()
	calls := len(w.offers.calls)
	w.offers.mu.Unlock()
	if calls != 0 {
		t.Errorf("%d calls without a slot", calls)
	}
	mu.Lock()
	granted = true
	if !json.Valid([]byte(asked[0])) || !strings.Contains(asked[0], `"endpoint":"marketplace"`) {
		t.Errorf("asked %s", asked[0])
	}
	mu.Unlock()
	poll := w.list(s, 1).GetPoll()
	// With nobody left to ask it goes on.
	if err := sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	w.list(s, poll+2)
}

func TestWillNotStartOnAStreamThatIsAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloresim.Config{Servers: 1})
	conn := w.broker.Connect(t)
	cfg := topology.MarketStream(topology.DefaultSizes())
	cfg.MaxMsgsPerSubject = 7
	if err := conn.EnsureStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	s, err := pricewatch.New(pricewatch.Config{}, pricewatch.Deps{Conn: conn, Offers: w.offers, Authenticate: w.auth.Authenticate})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Run(t.Context())
	if _, ok := errors.AsType[*bus.DriftError](err); !ok {
		t.Errorf("%v", err)
	}
	if s.Ready() == nil {
		t.Error("ready without having started")
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloresim.Config{Servers: 1})
	s, err := pricewatch.New(pricewatch.Config{}, pricewatch.Deps{Conn: w.broker.Connect(t), Offers: w.offers, Authenticate: w.auth.Authenticate})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	w.list(s, 1)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// The row of the RTX 4090 counts what the recording lists under that name, and nothing else.
func TestRecordedMarketplace(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("RENTHOOK_RECORDINGS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data", "clore")
	}
	file := filepath.Join(dir, "marketplace-2024-05-21.full.json")
	body, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("no recording of the marketplace in " + dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	var raw struct {
		Servers []struct {
			Rented       bool
			AllowedCoins []string `json:"allowed_coins"`
			Price        struct{ Spot map[string]float64 }
			Specs        struct{ GPU string }
		}
	}
	if err := json.Unmarshal(body, &raw); err != nil {
		t.Fatal(err)
	}
	var total, available int32
	floor := 0.0
	for _, s := range raw.Servers {
		if _, name, _ := strings.Cut(s.Specs.GPU, "x "); name != "NVIDIA GeForce RTX 4090" {
			continue
		}
		total++
		if s.Rented {
			continue
		}
		available++
		for coin, usd := range map[string]float64{"bitcoin": 70000, "CLORE-Blockchain": 0.12} {
			perHour := s.Price.Spot[coin] * usd / 24
			if perHour > 0 && slices.Contains(s.AllowedCoins, coin) && (floor == 0 || perHour < floor) {
				floor = perHour
			}
		}
	}

	w := newWorld(t, cloresim.Config{Inventory: file})
	res := w.list(w.running("one"), 1, "RTX 4090")
	if len(res.GetModels()) != 1 {
		t.Fatalf("%v", res.GetModels())
	}
	row := res.GetModels()[0]
	if row.GetGpuName() != "RTX 4090" || row.GetTotal() != total || row.GetAvailable() != available || total < 100 {
		t.Errorf("%v, the recording has %d, %d of them free", row, total, available)
	}
	least, _ := decimal.MustParse(row.GetMinSpotUsdPerHour()).Float64()
	if diff := least - floor; diff > 1e-9 || diff < -1e-9 {
		t.Errorf("least spot floor %g, the recording has %g", least, floor)
	}
	if int(res.GetTotalServers()) != len(raw.Servers) {
		t.Errorf("%d servers, the recording has %d", res.GetTotalServers(), len(raw.Servers))
	}
}
