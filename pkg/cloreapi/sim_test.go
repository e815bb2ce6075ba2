package cloreapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"testing"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/pkg/cloreapi"
	"github.com/renthook/renthook/pkg/cloreapi/cloresim"
	"github.com/renthook/renthook/pkg/secret"
)

// market is a simulator and a client of it.
func market(t *testing.T, c cloresim.Config) (*cloresim.Sim, *cloreapi.Client) {
	t.Helper()
	c.Servers, c.Visible, c.Boot = 200, -1, -1
	sim, err := cloresim.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sim.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := sim.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	client := cloreapi.New(cloreapi.Config{BaseURL: "http://" + sim.Addr(), Key: secret.New(cloresim.DefaultKey)})
	t.Cleanup(client.Close)
	return sim, client
}

func onDemand(server int64) cloreapi.CreateOrder {
	return cloreapi.CreateOrder{
		RentingServer: server, Type: cloreapi.TypeOnDemand, Currency: "USD-Blockchain", Image: "a/b",
		RequiredPrice: decimal.MustParse("11.76"), Ports: map[int]string{22: "tcp", 8888: "http", 20001: "tcp"}, SSHPassword: "x",
	}
}

func creates(sim *cloresim.Sim) int {
	n := 0
	for _, c := range sim.State(0, "").Calls {
		if c.Endpoint == "create_order" {
			n++
		}
	}
	return n
}

func TestSim_ARentalsLife(t *testing.T) {
	t.Parallel()
	sim, client := market(t, cloresim.Config{NoRateLimit: true})
	ctx := t.Context()
	m, err := client.Marketplace(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// The rows without specs or price decode too: judging them is not the client's work.
	if len(m.Servers) != 200 || m.Unreadable != 0 {
		t.Errorf("%d servers, %d unreadable", len(m.Servers), m.Unreadable)
	}
	wallets, err := client.Wallets(ctx)
	if err != nil || len(wallets) != 3 || wallets[2] != (cloreapi.Wallet{Name: "USD-Blockchain", Balance: "1000"}) {
		t.Errorf("wallets %v, %v", wallets, err)
	}
	if a, err := client.CreateOrder(ctx, onDemand(cloresim.TrapRight)); err != nil || a.Status != 200 {
		t.Fatalf("create_order: %+v, %v", a, err)
	}
	orders, err := client.MyOrders(ctx, false)
	if err != nil || len(orders.Orders) != 1 || orders.Limit != 100 {
		t.Fatalf("my_orders: %+v, %v", orders, err)
	}
	o := orders.Orders[0]
	ports, err := o.Ports()
	if err != nil || len(ports) != 2 || ports[22] == 0 || ports[20001] == 0 || o.HTTPPort != "8888" {
		t.Errorf("ports %v, http %s, %v", ports, o.HTTPPort, err)
	}
	if o.SI != cloresim.TrapRight || o.Price != "11.76" || o.Image != "a/b" || o.MonContainer != 2 || o.Expired || o.Spot || o.MRL != 720*3600 {
		t.Errorf("the order is %+v", o)
	}
	var refusal *cloreapi.Refusal
	if _, err := client.CreateOrder(ctx, onDemand(cloresim.TrapRight)); !errors.As(err, &refusal) || refusal.Name != "server-already-rented" {
		t.Errorf("again: %v", err)
	}
	if _, err := client.CancelOrder(ctx, o.ID, "test"); err != nil {
		t.Error(err)
	}
	if orders, err = client.MyOrders(ctx, true); err != nil || len(orders.Orders) != 1 || !orders.Orders[0].Expired || orders.Orders[0].OrderEnd == 0 {
		t.Errorf("after the cancel: %+v, %v", orders, err)
	}
	if got := creates(sim); got != 2 {
		t.Errorf("two creates came as %d calls", got)
	}
}

func TestSim_SpotRentalsLife(t *testing.T) {
	t.Parallel()
	_, client := market(t, cloresim.Config{NoRateLimit: true})
	ctx := t.Context()
	ask := onDemand(cloresim.TrapRight)
	ask.Type, ask.SpotPrice = cloreapi.TypeSpot, decimal.MustParse("10")
	var refusal *cloreapi.Refusal
	if _, err := client.CreateOrder(ctx, ask); !errors.As(err, &refusal) || refusal.MinPrice != "10.8" {
		t.Fatalf("a low bid: %v", err)
	}
	ask.SpotPrice = decimal.MustParse("10.8")
	if _, err := client.CreateOrder(ctx, ask); err != nil {
		t.Fatal(err)
	}
	orders, err := client.MyOrders(ctx, false)
	if err != nil || len(orders.Orders) != 1 || !orders.Orders[0].Spot {
		t.Fatalf("%+v, %v", orders, err)
	}
	id := orders.Orders[0].ID
	if _, err := client.SetSpotPrice(ctx, id, decimal.MustParse("12")); err != nil {
		t.Error(err)
	}
	m, err := client.SpotMarketplace(ctx, cloresim.TrapRight)
	want := cloreapi.SpotOffer{OfferID: id, Bid: "12", Active: true, My: true, Currency: "USD-Blockchain"}
	if err != nil || !m.Exists || len(m.Offers) != 1 || m.Offers[0] != want || m.Rates["bitcoin"] != "70000" || m.MinPrice["USD-Blockchain"] != "10.8" {
		t.Errorf("spot_marketplace: %+v, %v", m, err)
	}
}

// TestSim_EveryLieAboutACreate plays what a create can come back as, applied and not applied, and checks that the
// client calls once and says no more than it knows.
func TestSim_EveryLieAboutACreate(t *testing.T) {
	t.Parallel()
	html := "<html>busy</html>"
	for _, applied := range []bool{true, false} {
		for name, step := range map[string]cloresim.Step{
			"dropped": {Drop: "after"}, "500": {Status: new(500)}, "502": {Status: new(502)}, "503": {Status: new(503)},
			"504": {Status: new(504)}, "520": {Status: new(520)}, "html": {Body: &html},
			"code 1": {Status: new(500), Code: new(1)}, "code 5": {Status: new(429), Code: new(5)}, "code 0": {},
		} {
			t.Run(name+", applied "+strconv.FormatBool(applied), func(t *testing.T) {
				t.Parallel()
				sim, client := market(t, cloresim.Config{NoRateLimit: true})
				step.Apply = &applied
				if err := sim.Script(map[string][]cloresim.Step{"create_order": {step}}); err != nil {
					t.Fatal(err)
				}
				_, err := client.CreateOrder(t.Context(), onDemand(cloresim.TrapRight))
				var failed *cloreapi.CallError
				var refusal *cloreapi.Refusal
				switch {
				case errors.As(err, &failed) && !failed.Sent:
					t.Errorf("it claims that nothing was sent: %v", err)
				case errors.As(err, &refusal) && (step.Code == nil || refusal.Code != *step.Code):
					t.Errorf("it read a refusal that was not said: %v", err)
				case err == nil && name != "code 0":
					t.Error("it read an answer that was not given")
				}
				if got := creates(sim); got != 1 {
					t.Errorf("one create came as %d calls", got)
				}
				if got := len(sim.State(0, "").Rentals) == 1; got != applied {
					t.Errorf("a rental was made: %v", got)
				}
			})
		}
	}
}

func TestSim_RateLimitIsARefusal(t *testing.T) {
	t.Parallel()
	sim, client := market(t, cloresim.Config{})
	var refusal *cloreapi.Refusal
	// A slow machine may call late enough to pass once; never thirty times.
	for range 30 {
		if _, err := client.MyOrders(t.Context(), false); errors.As(err, &refusal) {
			break
		}
	}
	if refusal == nil || refusal.Code != cloreapi.CodeTooManyRequests || refusal.Status != 429 || refusal.Endpoint != "my_orders" {
		t.Errorf("calls without a pause: %+v", refusal)
	}
	if st := sim.State(0, ""); st.Violations == 0 {
		t.Error("the simulator counted no violation")
	}
	raw, err := json.Marshal(sim.State(0, "").GapsMS)
	if err != nil || string(raw) == `{"any":null,"create":null}` {
		t.Errorf("gaps: %s, %v", raw, err)
	}
}
