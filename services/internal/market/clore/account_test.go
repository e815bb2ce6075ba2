package clore_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/renthook/renthook/pkg/cloreapi"
	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/market/clore"
)

// account is an adapter to a market that answers one thing.
func account(t *testing.T, status int, body string) *clore.Account {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return clore.NewAccount(cloreapi.New(cloreapi.Config{BaseURL: server.URL, Key: secret.New("key"), Timeout: time.Minute}))
}

// row:30 row:38 row:41 row:42
func TestWhatAnAnswerToCreateProves(t *testing.T) {
	t.Parallel()
	refusal := func(name string) string { return `{"error":"` + name + `","code":6}` }
	for _, c := range []struct {
		status int
		body   string
		want   market.Outcome
	}{
		{200, `{"code":0}`, market.Outcome{Verdict: market.Unknown, Reason: "code-0"}},
		{200, refusal("server-dont-exist"), market.Outcome{Verdict: market.Refused, Reason: "server-dont-exist", Code: 6}},
		{200, refusal("server-offline"), market.Outcome{Verdict: market.Refused, Reason: "server-offline", Code: 6}},
		{200, refusal("not_enough_balance"), market.Outcome{Verdict: market.Refused, Reason: "not_enough_balance", Code: 6}},
		{200, `{"error":"too_low_price","min_price":0.5,"code":6}`, market.Outcome{Verdict: market.Refused, Reason: "too_low_price", Code: 6, MinPrice: amount("0.5")}},
		{500, refusal("currency-not-allowed"), market.Outcome{Verdict: market.Refused, Reason: "currency-not-allowed", Code: 6}},
		{200, refusal("cant_rent_from_yourself"), market.Outcome{Verdict: market.Refused, Reason: "cant_rent_from_yourself", Code: 6}},
		{200, refusal("machine-is-on-gigaspot"), market.Outcome{Verdict: market.Refused, Reason: "machine-is-on-gigaspot", Code: 6}},
		{400, `{"code":2}`, market.Outcome{Verdict: market.Refused, Reason: "code-2", Code: 2}},
		{401, `{"code":3}`, market.Outcome{Verdict: market.Refused, Reason: "code-3", Code: 3}},
		{200, `{"code":4}`, market.Outcome{Verdict: market.Refused, Reason: "code-4", Code: 4}},
		{200, `{"status":"x","error":"server-already-rented","code":6}`, market.Outcome{Verdict: market.Look, Reason: "server-already-rented", Code: 6}},
		{200, refusal("you_already_have_spot_order"), market.Outcome{Verdict: market.Look, Reason: "you_already_have_spot_order", Code: 6}},
		// Everything else proves nothing.
		{500, `{"code":1}`, market.Outcome{Reason: "code-1", Code: 1}},
		{429, `{"code":5}`, market.Outcome{Reason: "code-5", Code: 5, Throttled: true}},
		{429, `slow down`, market.Outcome{Reason: "http-429", Throttled: true}},
		{200, refusal("something-new"), market.Outcome{Reason: "something-new", Code: 6}},
		{200, refusal("Server-Offline"), market.Outcome{Reason: "Server-Offline", Code: 6}},
		{200, `{"error":["server-offline"],"code":6}`, market.Outcome{Reason: "code-6", Code: 6}},
		{200, `{"code":6}`, market.Outcome{Reason: "code-6", Code: 6}},
		{200, `{"code":7}`, market.Outcome{Reason: "code-7", Code: 7}},
		{502, refusal("server-offline"), market.Outcome{Reason: "server-offline", Code: 6}},
		{520, `{"code":2}`, market.Outcome{Reason: "code-2", Code: 2}},
		{500, `oops`, market.Outcome{Reason: "http-500"}},
		{403, `error code: 1010`, market.Outcome{Reason: "http-403"}},
		{302, ``, market.Outcome{Reason: "http-302"}},
		{200, `{"status":"ok"}`, market.Outcome{Reason: "http-200"}},
		{200, refusal(strings.Repeat("ä", 300)), market.Outcome{Reason: strings.Repeat("ä", 40), Code: 6}},
	} {
		c.want.Sent, c.want.Status = true, c.status
		got := account(t, c.status, c.body).Create(t.Context(), market.CreateRequest{ServerID: 1, Type: market.OnDemand})
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%d %.60s\n got %+v\nwant %+v", c.status, c.body, got, c.want)
		}
	}
}

func TestWhatAnAnswerToCancelProves(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		body   string
		want   market.Outcome
	}{
		{200, `{"code":0}`, market.Outcome{Verdict: market.Done, Reason: "code-0"}},
		{200, `{"error":"order_dont_exist","code":6}`, market.Outcome{Verdict: market.Refused, Reason: "order_dont_exist", Code: 6}},
		{200, `{"error":"order_not_active","code":6}`, market.Outcome{Verdict: market.Refused, Reason: "order_not_active", Code: 6}},
		{200, `{"error":"server-already-rented","code":6}`, market.Outcome{Reason: "server-already-rented", Code: 6}},
		{401, `{"code":3}`, market.Outcome{Verdict: market.Refused, Reason: "code-3", Code: 3}},
		{429, `{"code":5}`, market.Outcome{Reason: "code-5", Code: 5, Throttled: true}},
		{502, `<html>`, market.Outcome{Reason: "http-502"}},
	} {
		c.want.Sent, c.want.Status = true, c.status
		if got := account(t, c.status, c.body).Cancel(t.Context(), 1, "why"); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%d %s\n got %+v\nwant %+v", c.status, c.body, got, c.want)
		}
	}
}

// row:31
func TestCreateWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-release
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(release) })
	a := clore.NewAccount(cloreapi.New(cloreapi.Config{BaseURL: server.URL, Timeout: time.Minute}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	if o := a.Create(ctx, market.CreateRequest{ServerID: 1}); o.Verdict != market.Unknown || !o.Sent || o.Reason != "no-answer" {
		t.Errorf("%+v", o)
	}
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if o := a.Create(late, market.CreateRequest{ServerID: 1}); o.Verdict != market.Refused || o.Sent || o.Reason != "not-sent" {
		t.Errorf("after the deadline: %+v", o)
	}
}

const liveOrder = `{"id":1939941,"creation_fee":0.1,"price":2,"mrl":604800,"image":"a/b:v1","currency":"USD-Blockchain",
 "spend":0.001388888888888889,"ct":1783703890,"specs":{"gpu":"2x NVIDIA GeForce RTX 3090"},"si":88028,"mon_container":0,"online":true,
 "pub_cluster":["n1.us.clorecloud.net","n2"],"tcp_ports":["22:1972","20001:1973"],"http_port":"8080","http_pub":"2q.us.clorecloud.net",
 "gpu_array":[" RTX 3090"]}`

func TestRental(t *testing.T) {
	t.Parallel()
	l, err := account(t, 200, `{"orders":[`+liveOrder+`],"limit":25,"code":0}`).Rentals(t.Context(), true)
	if err != nil || l.Limit != 25 || !l.WithEnded || len(l.Rentals) != 1 {
		t.Fatalf("%+v %v", l, err)
	}
	want := market.Rental{
		ID: 1939941, ServerID: 88028, Type: market.OnDemand, Currency: "USD-Blockchain", PerDay: amount("2"), Image: "a/b:v1",
		Created: time.Unix(1783703890, 0).UTC(), Spend: amount("0.001388888888888889"), CreationFee: amount("0.1"),
		TCPPorts: map[int]int{22: 1972, 20001: 1973}, HTTPPort: 8080, HTTPHost: "2q.us.clorecloud.net", Host: "n1.us.clorecloud.net",
		GPUs: []string{"NVIDIA GeForce RTX 3090", "NVIDIA GeForce RTX 3090"}, Limit: 168 * time.Hour,
	}
	if !reflect.DeepEqual(l.Rentals[0], want) {
		t.Errorf("got  %+v\nwant %+v", l.Rentals[0], want)
	}
}

// row:36
func TestListsOfUnknownShapeAreErrors(t *testing.T) {
	t.Parallel()
	change := func(old, new string) string {
		return `{"orders":[` + strings.Replace(liveOrder, old, new, 1) + `],"code":0}`
	}
	for name, body := range map[string]string{
		"no orders":         `{"limit":25,"code":0}`,
		"orders null":       `{"orders":null,"code":0}`,
		"orders an object":  `{"orders":{},"code":0}`,
		"the same twice":    `{"orders":[` + liveOrder + `,` + liveOrder + `],"code":0}`,
		"no id":             change(`"id":1939941,`, ``),
		"no server":         change(`"si":88028,`, ``),
		"no currency":       change(`"USD-Blockchain"`, `""`),
		"no time":           change(`"ct":1783703890`, `"ct":null`),
		"no price":          change(`"price":2,`, ``),
		"price NaN":         change(`"price":2,`, `"price":"NaN",`),
		"price negative":    change(`"price":2,`, `"price":-2,`),
		"spend a text":      change(`"spend":0.001388888888888889`, `"spend":"much"`),
		"fee a text":        change(`"creation_fee":0.1`, `"creation_fee":"much"`),
		"ports of a dict":   change(`["22:1972","20001:1973"]`, `{"22":1972}`),
		"ports of nonsense": change(`"22:1972"`, `"ssh:1972"`),
		"http port a text":  change(`"8080"`, `"http"`),
	} {
		if l, err := account(t, 200, body).Rentals(t.Context(), false); err == nil {
			t.Errorf("%s: read as %+v", name, l)
		}
	}
	if l, err := account(t, 200, `{"orders":[],"limit":25,"code":0}`).Rentals(t.Context(), false); err != nil || len(l.Rentals) != 0 {
		t.Errorf("an empty list: %+v %v", l, err)
	}
}

func TestMixedRental(t *testing.T) {
	t.Parallel()
	body := strings.Replace(liveOrder, `2x NVIDIA GeForce RTX 3090`, `2x Mixed GPUs`, 1)
	body = strings.Replace(body, `[" RTX 3090"]`, `[" RTX 3090"," RTX 4090"]`, 1)
	l, err := account(t, 200, `{"orders":[`+body+`],"code":0}`).Rentals(t.Context(), false)
	if err != nil || !reflect.DeepEqual(l.Rentals[0].GPUs, []string{"RTX 3090", "RTX 4090"}) {
		t.Errorf("%+v %v", l, err)
	}
}

// row:37 row:51
func TestErrorsOfReads(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status         int
		body           string
		throttled, key bool
	}{
		{429, `{"code":5}`, true, false},
		{200, `{"code":5}`, true, false},
		{429, `<html>`, true, false},
		{401, `{"code":3}`, false, true},
		{200, `{"code":3}`, false, true},
		{401, `<html>`, false, false},
		{500, `{"code":1}`, false, false},
		{503, ``, false, false},
	} {
		_, err := account(t, c.status, c.body).Rentals(t.Context(), false)
		_, throttled := errors.AsType[*market.ThrottledError](err)
		_, key := errors.AsType[*market.KeyError](err)
		if err == nil || throttled != c.throttled || key != c.key {
			t.Errorf("%d %s: %v", c.status, c.body, err)
		}
	}
}

func TestWallets(t *testing.T) {
	t.Parallel()
	l, err := account(t, 200, `{"wallets":[{"name":"bitcoin","balance":0.00153176},{"name":"USD-Blockchain","balance":-0.02}],"code":0}`).Wallets(t.Context())
	want := []market.Wallet{{Currency: "bitcoin", Balance: amount("0.00153176")}, {Currency: "USD-Blockchain", Balance: amount("-0.02")}}
	if err != nil || !reflect.DeepEqual(l, want) {
		t.Errorf("%+v %v", l, err)
	}
	for _, body := range []string{`{"code":0}`, `{"wallets":[{"name":"bitcoin","balance":"NaN"}],"code":0}`, `{"wallets":[{"name":"bitcoin"}],"code":0}`} {
		if l, err := account(t, 200, body).Wallets(t.Context()); err == nil {
			t.Errorf("%s: read as %+v", body, l)
		}
	}
}
