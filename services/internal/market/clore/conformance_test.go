package clore_test

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/renthook/renthook/pkg/cloreapi"
	"github.com/renthook/renthook/pkg/cloreapi/cloresim"
	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/services/internal/market/clore"
	"github.com/renthook/renthook/services/internal/market/markettest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	markettest.Run(t, openSimulator)
}

func openSimulator(t *testing.T) *markettest.Market {
	sim, err := cloresim.New(cloresim.Config{
		Servers: 60, NoRateLimit: true, Boot: 50 * time.Millisecond, Visible: 20 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Stop(t.Context()) })
	if err := sim.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	client := func(address string) *clore.Account {
		return clore.NewAccount(cloreapi.New(cloreapi.Config{
			BaseURL: "http://" + address, Key: secret.New(cloresim.DefaultKey), Timeout: time.Minute,
		}))
	}
	m := &markettest.Market{
		Offers:      clore.NewOffers(clore.OffersConfig{}, cloreapi.NewPublic(cloreapi.Config{BaseURL: "http://" + sim.Addr()}), nil),
		Account:     client(sim.Addr()),
		Stranger:    account(t, http.StatusUnauthorized, `{"code":3}`),
		Unreachable: client(unused(t)),
		Free:        []int64{cloresim.TrapRight, cloresim.TrapAbove},
		// NaN, huge, negative, no coins, no price, no specs, reliability NaN.
		Broken: 7,
		Break: func(t *testing.T, e markettest.Endpoint, f markettest.Fault) {
			t.Helper()
			script(t, sim.Addr(), endpoints[e], faults[f])
		},
	}
	m.Unpayable.Server, m.Unpayable.Currency = cloresim.TrapCoin, "CLORE-Blockchain"
	return m
}

var endpoints = map[markettest.Endpoint]string{
	markettest.Listing: "marketplace", markettest.Rentals: "my_orders", markettest.Wallets: "wallets",
	markettest.Create: "create_order", markettest.Cancel: "cancel_order",
}

// faults are steps of the simulator's script.
var faults = map[markettest.Fault]string{
	markettest.Throttled:     `{"apply":false,"status":429,"code":5}`,
	markettest.Garbage:       `{"apply":false,"body":"<html>","status":200}`,
	markettest.Unshaped:      `{"apply":false,"body":"{\"code\":0}"}`,
	markettest.DroppedBefore: `{"drop":"before"}`,
	markettest.DroppedAfter:  `{"drop":"after"}`,
	markettest.ServerError:   `{"status":502}`,
	markettest.NotApplied:    `{"apply":false}`,
}

func script(t *testing.T, address, endpoint, step string) {
	t.Helper()
	body, err := json.Marshal(map[string][]json.RawMessage{endpoint: {json.RawMessage(step)}})
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Post("http://"+address+"/sim/v1/script", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		t.Fatalf("script %s: HTTP status %d", body, res.StatusCode)
	}
}

// unused is an address where nothing listens.
func unused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
