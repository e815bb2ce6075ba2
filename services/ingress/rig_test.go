package ingress_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/fault"
	"github.com/renthook/renthook/pkg/seal"
	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/pkg/webhook"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/ingress"
	"github.com/renthook/renthook/services/internal/auth"
	"github.com/renthook/renthook/services/internal/marketview"
	"github.com/renthook/renthook/services/internal/settings"
	"github.com/renthook/renthook/services/internal/topology"
)

const (
	legacySecret = "the-secret-of-existing-senders"
	newSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	otherSecret  = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	token        = "rht_local"
	readToken    = "rht_reader"
	otherToken   = "rht_other"
)

var loopback = netip.MustParsePrefix("127.0.0.0/8")

// small is full after some dozen commands.
var small = func() topology.Sizes {
	s := topology.DefaultSizes()
	s.CommandsBytes = 128 << 10
	return s
}()

// busConfig connects to another address than the broker's own.
func busConfig(url string) bus.Config {
	return bus.Config{URL: url, Name: "through a proxy", Logger: slog.New(slog.DiscardHandler)}
}

func clients() []settings.Client {
	return []settings.Client{
		{
			Name: "local", SeedDoor: true, Scopes: []string{"*"}, Tokens: []secret.String{secret.New(token)},
			Secrets: []secret.String{secret.New(legacySecret), secret.New(newSecret)},
		},
		{Name: "reader", Scopes: []string{"read"}, Tokens: []secret.String{secret.New(readToken)}},
		{
			Name: "other", Scopes: []string{"*"}, Tokens: []secret.String{secret.New(otherToken)},
			Secrets: []secret.String{secret.New(otherSecret)},
		},
	}
}

func box(t testing.TB) *seal.Box {
	t.Helper()
	b, err := seal.New(secret.New("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// callbacks refuses one host.
type callbacks struct{}

func (callbacks) Check(_ context.Context, url string) error {
	if strings.Contains(url, "//10.") {
		return errors.New("10.0.0.1 is a private address; egress.allow_networks would allow it")
	}
	return nil
}

// board is a market that a test sets.
type board struct {
	mu     sync.Mutex
	poll   uint64
	models []marketview.Model
}

func (b *board) set(models ...marketview.Model) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.poll, b.models = b.poll+1, models
}

func (b *board) Models() []marketview.Model {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.models
}

func (b *board) Snapshot() (uint64, time.Time, time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.poll, time.Time{}, 0
}

// orders is the order service as the doors see it, over real gRPC.
type orders struct {
	orderv1.UnimplementedOrderServiceServer
	mu     sync.Mutex
	orders map[string]*orderv1.Order
	ops    map[string]*orderv1.Operation
	listed []*orderv1.ListOrdersRequest
	// asked counts the reads of an operation.
	asked map[string]int
}

// waitForAsk returns once somebody reads an operation.
func (o *orders) waitForAsk(t testing.TB, id string) {
	t.Helper()
	bustest.Eventually(t, "somebody to ask for "+id, func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.asked[id] > 0
	})
}

func (o *orders) put(op *orderv1.Operation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ops[op.Id] = op
}

func (o *orders) GetOrder(ctx context.Context, r *orderv1.GetOrderRequest) (*orderv1.GetOrderResponse, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if order := o.orders[r.Id]; order != nil && order.Client == auth.ClientFrom(ctx) {
		return &orderv1.GetOrderResponse{Order: order}, nil
	}
	return nil, fault.New(fault.NotFound, "NOT_FOUND", "there is no such order")
}

func (o *orders) ListOrders(ctx context.Context, r *orderv1.ListOrdersRequest) (*orderv1.ListOrdersResponse, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.listed = append(o.listed, r)
	resp := &orderv1.ListOrdersResponse{NextPageToken: "next"}
	for _, order := range o.orders {
		if order.Client == auth.ClientFrom(ctx) {
			resp.Orders = append(resp.Orders, order)
		}
	}
	return resp, nil
}

func (o *orders) GetOperation(_ context.Context, r *orderv1.GetOperationRequest) (*orderv1.GetOperationResponse, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked[r.Id]++
	if op := o.ops[r.Id]; op != nil {
		return &orderv1.GetOperationResponse{Operation: op}, nil
	}
	return nil, fault.New(fault.NotFound, "NOT_FOUND", "there is no such operation")
}

// rig is one or more replicas of the service over one broker.
type rig struct {
	t      testing.TB
	nats   *bustest.Server
	bus    *bus.Conn
	market *board
	orders *orders
	grpc   *grpc.Server
	conn   *grpc.ClientConn
	base   string
}

// newRig starts everything, with the configuration that change makes of the usual one.
func newRig(t testing.TB, change ...func(*ingress.Config)) *rig {
	t.Helper()
	r := &rig{
		t: t, nats: bustest.Start(t), market: &board{},
		orders: &orders{orders: map[string]*orderv1.Order{}, ops: map[string]*orderv1.Operation{}, asked: map[string]int{}},
	}
	r.bus = bustest.Connect(t, busConfig(r.nats.URL()))
	known, err := auth.New(clients())
	if err != nil {
		t.Fatal(err)
	}
	r.grpc = grpc.NewServer(grpc.UnaryInterceptor(auth.Unary(known.OrOnBehalf(auth.InternalToken(box(t))))))
	orderv1.RegisterOrderServiceServer(r.grpc, r.orders)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = r.grpc.Serve(listener) })
	t.Cleanup(func() { r.grpc.Stop(); serving.Wait() })
	r.conn, err = grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.conn.Close() })
	service, _ := r.replica(change...)
	r.base = "http://" + service.Addr()
	return r
}

// replica starts one more service and gives how to stop it.
func (r *rig) replica(change ...func(*ingress.Config)) (*ingress.Service, func()) {
	r.t.Helper()
	cfg := ingress.Config{Address: "127.0.0.1:0", DedupeWindow: time.Minute, Clients: clients()}
	for _, c := range change {
		c(&cfg)
	}
	s, err := ingress.New(cfg, ingress.Deps{
		Bus: r.bus, Seal: box(r.t), Orders: orderv1.NewOrderServiceClient(r.conn), Callbacks: callbacks{}, Market: r.market,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := s.Start(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			r.t.Errorf("stop: %v", err)
		}
	})
	r.t.Cleanup(stop)
	bustest.Eventually(r.t, "the service is ready", func() bool { return s.Ready() == nil })
	return s, stop
}

// reply is an answer, read.
type reply struct {
	status int
	header http.Header
	raw    string
	body   map[string]any
}

func (r reply) String() string { return fmt.Sprintf("%d %v %s", r.status, r.header, r.raw) }

// do sends a request and reads the answer.
func (r *rig) do(method, url, body string, header ...string) reply {
	r.t.Helper()
	out, err := r.try(method, url, body, header...)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, url, err)
	}
	return out
}

func (r *rig) try(method, url, body string, header ...string) (reply, error) {
	if strings.HasPrefix(url, "/") {
		url = r.base + url
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, err
	}
	out := reply{status: resp.StatusCode, header: resp.Header, raw: string(b)}
	_ = json.Unmarshal(b, &out.body)
	return out, nil
}

// signed sends a POST the way the seed's senders do.
func (r *rig) signed(path, body string, header ...string) reply {
	r.t.Helper()
	return r.do(http.MethodPost, path, body, append([]string{webhook.HeaderLegacy, webhook.SignLegacy(legacySecret, []byte(body))}, header...)...)
}

// standard are the headers of Standard Webhooks.
func standard(secret, id string, at time.Time, body string) []string {
	return []string{
		webhook.HeaderID, id, webhook.HeaderTimestamp, strconv.FormatInt(at.Unix(), 10),
		webhook.HeaderSignature, webhook.SignStandard(secret, id, at, []byte(body)),
	}
}

// bearer sends a request to /v1.
func (r *rig) bearer(method, path, body string, header ...string) reply {
	r.t.Helper()
	return r.do(method, path, body, append([]string{"Authorization", "Bearer " + token}, header...)...)
}

// want fails unless the answer has this status and exactly these members; "*" stands for any value.
func (r *rig) want(got reply, status int, body string) {
	r.t.Helper()
	if got.status != status || !jsonEqual(r.t, got.raw, body) {
		r.t.Errorf("got  %s\nwant %d %s", got, status, body)
	}
}

func jsonEqual(t testing.TB, got, want string) bool {
	t.Helper()
	var g, w any
	gd, wd := json.NewDecoder(strings.NewReader(got)), json.NewDecoder(strings.NewReader(want))
	gd.UseNumber()
	wd.UseNumber()
	if err := wd.Decode(&w); err != nil {
		t.Fatalf("%s: %v", want, err)
	}
	if err := gd.Decode(&g); err != nil {
		return false
	}
	if gm, ok := g.(map[string]any); ok {
		for name, v := range w.(map[string]any) {
			if _, there := gm[name]; v == "*" && there {
				gm[name] = "*"
			}
		}
	}
	return reflect.DeepEqual(g, w)
}

// commands are the messages of the stream, oldest first.
func (r *rig) commands() []*jetstream.RawStreamMsg {
	r.t.Helper()
	stream, err := r.bus.JetStream().Stream(r.t.Context(), topology.Commands)
	if err != nil {
		r.t.Fatal(err)
	}
	info, err := stream.Info(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	var all []*jetstream.RawStreamMsg
	for seq := info.State.FirstSeq; seq != 0 && seq <= info.State.LastSeq; seq++ {
		m, err := stream.GetMsg(r.t.Context(), seq)
		if err != nil {
			r.t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

// compact prints JSON without white space, members in order of their names.
func compact(t testing.TB, b []byte) string {
	t.Helper()
	var v any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
