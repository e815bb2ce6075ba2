package cloreapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/pkg/secret"
)

func TestRefusal_BodyBeforeStatus(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		body   string
		want   Refusal
	}{
		{500, `{"code":1}`, Refusal{Code: 1}},
		{200, `{"code":2}`, Refusal{Code: 2}},
		{401, `{"code":3}`, Refusal{Code: 3}},
		{404, `{"code":4}`, Refusal{Code: 4}},
		{429, `{"code":5}`, Refusal{Code: 5}},
		{200, `{"code":5}`, Refusal{Code: 5}},
		{200, `{"status":"x","error":"server-already-rented","code":6}`, Refusal{Code: 6, Name: "server-already-rented"}},
		{500, `{"error":"currency-not-allowed","code":6}`, Refusal{Code: 6, Name: "currency-not-allowed"}},
		{200, `{"error":"too_low_price","min_price":10.8,"code":6}`, Refusal{Code: 6, Name: "too_low_price", MinPrice: "10.8"}},
		{200, `{"error":"exceeded_max_step","max_step":0.000001,"code":6}`, Refusal{Code: 6, Name: "exceeded_max_step", MaxStep: "0.000001"}},
		{200, `{"error":"can_lower_every_600_seconds","time_to_lowering":41,"code":6}`,
			Refusal{Code: 6, Name: "can_lower_every_600_seconds", SecondsToLowering: "41"}},
		{200, `{"error":{"a":1},"code":6}`, Refusal{Code: 6}},
		{200, `{"code":"5"}`, Refusal{Code: 5}},
		{502, `{"code":77,"error":"new"}`, Refusal{Code: 77, Name: "new"}},
	} {
		for name, call := range calls(answering(t, c.status, c.body)) {
			want := c.want
			want.Endpoint, want.Status = name, c.status
			var got *Refusal
			if err := call(t.Context()); !errors.As(err, &got) || *got != want {
				t.Errorf("%s, %d %s: %v", name, c.status, c.body, err)
			}
		}
	}
}

func TestUnreadable_IsNoAnswer(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 403, 500, 502, 520} {
		for _, body := range []string{
			``, `null`, `[]`, `7`, `"code"`, `{}`, `{"code":null}`, `{"code":"x"}`, `{"code":1.5}`, `{"code":0`, `{"code":0}}`,
			`<!DOCTYPE html><html><title>error 1010</title></html>`, "\x00\x01", `{"error":"x"}`,
			`{"code":0,"servers":[{"id":1}`, `{"servers":{},"code":0}`,
			`{"servers":[{"id":1}],"servers":[],"code":0}`, strings.Repeat(`[`, 20_000),
		} {
			for name, call := range calls(answering(t, status, body)) {
				var failed *CallError
				err := call(t.Context())
				if strings.HasPrefix(body, `{"servers"`) && name != "marketplace" {
					continue // to others it is an answer with members they do not read
				}
				if !errors.As(err, &failed) || failed.Status != status || !failed.Sent || !errors.Is(err, ErrNotJSON) {
					t.Errorf("%s, %d %.60q: %v", name, status, body, err)
				}
			}
		}
	}
}

func TestCodeZero_WithAnErrorStatus(t *testing.T) {
	t.Parallel()
	const body = `{"wallets":[],"orders":[],"servers":[],"exists":true,"market":{},"code":0}`
	c := answering(t, 500, body)
	for name, call := range calls(c) {
		err := call(t.Context())
		switch name {
		case "create_order", "cancel_order", "set_spot_price":
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		default:
			// A list that came with an error status is not one to prove anything by.
			var failed *CallError
			if !errors.As(err, &failed) || failed.Status != 500 {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if a, err := c.CreateOrder(t.Context(), CreateOrder{}); err != nil || a.Status != 500 {
		t.Errorf("create_order says %+v, %v", a, err)
	}
}

func TestMarketplace_ABadRowCostsThatRow(t *testing.T) {
	t.Parallel()
	rows := []string{
		`{"id":9,"mrl":72.0,"price":{"on_demand":{"bitcoin":1e-5,"X":"NaN"},"spot":null},"rented":true,"reliability":1,"gpu_array":[" RTX 3090"]}`,
		`{"id":0}`, `{}`, `{"id":"8"}`, `7`, `null`, `[]`, `{"id":7,"price":[]}`, `{"id":6,"mrl":"x"}`, `{"id":5,"mrl":1.5}`,
		`{"id":4,"price":{"on_demand":{"bitcoin":true}}}`, `{"id":3,"rating":{"cnt":[]}}`,
		`{"id":2,"specs":null,"price":null,"allowed_coins":null,"unknown":{"a":[1]}}`,
	}
	body := `{"servers":[` + strings.Join(rows, ",") + `],"my_servers":[],"code":0}`
	m, err := answering(t, 200, body).Marketplace(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Servers) != 2 || m.Unreadable != len(rows)-2 {
		t.Fatalf("%d servers, %d unreadable of %d", len(m.Servers), m.Unreadable, len(rows))
	}
	s := m.Servers[0]
	want := Server{
		ID: 9, MRL: 72, Rented: true, Reliability: "1", GPUArray: []string{" RTX 3090"},
		Price: Price{OnDemand: map[string]Number{"bitcoin": "1e-5", "X": "NaN"}},
	}
	if !reflect.DeepEqual(s, want) || m.Servers[1].ID != 2 {
		t.Errorf("the servers are %+v", m.Servers)
	}
}

func TestMarketplace_DigestTellsChangesApart(t *testing.T) {
	t.Parallel()
	read := func(body string) string {
		m, err := answering(t, 200, body).Marketplace(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return m.Digest
	}
	one := `{"servers":[{"id":1}],"code":0}`
	first, again := read(one), read(one)
	if first != again || first == read(`{"servers":[{"id":2}],"code":0}`) || len(first) != 64 {
		t.Error("the digest does not follow the answer")
	}
	if read(`{"code":0,"servers":[]}`) == "" {
		t.Error("an empty market has no digest")
	}
}

func TestMyOrders_ARowThatCannotBeReadIsNoList(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"orders":null,"code":0}`, `{"code":0}`, `{"orders":{},"code":0}`, `{"orders":[{}],"code":0}`,
		`{"orders":[{"id":1,"si":2},{"id":3}],"code":0}`, `{"orders":[{"id":"1","si":2}],"code":0}`,
		`{"orders":[{"id":1,"si":2,"ct":"x"}],"code":0}`, `{"orders":[{"id":1,"si":2,"tcp_ports":{"22":1}}],"code":0}`,
		`{"orders":[null],"code":0}`, `{"orders":[{"id":1,"si":2}],"limit":"many","code":0}`,
	} {
		var failed *CallError
		if _, err := answering(t, 200, body).MyOrders(t.Context(), false); !errors.As(err, &failed) || !errors.Is(err, ErrNotJSON) {
			t.Errorf("%s: %v", body, err)
		}
	}
	o, err := answering(t, 200, `{"orders":[],"limit":50,"code":0}`).MyOrders(t.Context(), false)
	if err != nil || len(o.Orders) != 0 || o.Limit != 50 {
		t.Errorf("an empty list: %+v, %v", o, err)
	}
}

func TestOrder_Ports(t *testing.T) {
	t.Parallel()
	o := Order{ID: 1, TCPPorts: []string{"22:1972", "20001:8"}}
	if got, err := o.Ports(); err != nil || !reflect.DeepEqual(got, map[int]int{22: 1972, 20001: 8}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "22", "22:", ":22", "22:x", "x:22", "22:70000", "-1:5", "22:1:2"} {
		o.TCPPorts = []string{bad}
		if got, err := o.Ports(); err == nil {
			t.Errorf("%q was read as %v", bad, got)
		}
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	var v struct {
		N []Number
		I []Int
	}
	raw := `{"N":[2,2.50,1e300,-1,"NaN","3",null,0.001388888888888889],"I":[2,2.0,"4",null,-3,""]}`
	if err := json.Unmarshal([]byte(raw), &v); err != nil {
		t.Fatal(err)
	}
	if want := []Number{"2", "2.50", "1e300", "-1", "NaN", "3", "", "0.001388888888888889"}; !reflect.DeepEqual(v.N, want) {
		t.Errorf("numbers are %q", v.N)
	}
	if want := []Int{2, 2, 4, 0, -3, 0}; !reflect.DeepEqual(v.I, want) {
		t.Errorf("ints are %v", v.I)
	}
	for n, want := range map[Number]string{"2": "2", "1e-5": "0.00001", "0.001388888888888889": "0.001388888888888889", "-1": "-1"} {
		if d, err := n.Decimal(); err != nil || d.String() != want {
			t.Errorf("%s is %s, %v", n, d, err)
		}
	}
	for _, n := range []Number{"", "NaN", "Infinity", "1e300", "x", "0x10", " 1"} {
		if d, err := n.Decimal(); err == nil {
			t.Errorf("%q was read as %s", n, d)
		}
	}
	for n, want := range map[Number]float64{"11.99": 11.99, "NaN": 0, "": 0, "1e300": 0, "Inf": 0} {
		if got := n.Float(); got != want {
			t.Errorf("%q is %v", n, got)
		}
	}
}

// sent is what a call put on the wire.
type sent struct {
	method, uri, body string
	header            http.Header
}

func TestRequests_AreTheMarkets(t *testing.T) {
	t.Parallel()
	got := make(chan sent, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- sent{r.Method, r.URL.RequestURI(), string(body), r.Header}
		_, _ = io.WriteString(w, `{"wallets":[],"orders":[],"servers":[],"exists":true,"market":{},"code":0}`)
	}))
	t.Cleanup(srv.Close)
	for _, base := range []string{srv.URL, srv.URL + "/", srv.URL + "/v1", srv.URL + "/v1/"} {
		c := client(t, Config{BaseURL: base, Key: secret.New("the-key")})
		full := CreateOrder{
			RentingServer: 88028, Type: TypeOnDemand, Currency: "USD-Blockchain", Image: "a/b:c",
			SpotPrice: decimal.MustParse("9"), RequiredPrice: decimal.MustParse("2.00"),
			Ports: map[int]string{22: "tcp", 8888: "http"}, Env: map[string]string{"ROLE": "worker"}, Command: "run <it>",
			SSHPassword: "Abc123", SSHKey: "ssh-ed25519 AAAA", AutoSSH: true,
		}
		spot := CreateOrder{RentingServer: 1, Type: TypeSpot, Currency: "bitcoin", Image: "i", SpotPrice: decimal.MustParse("0.000030")}
		for _, e := range []struct {
			call              func(context.Context) error
			method, uri, body string
		}{
			{calls(c)["wallets"], "GET", "/v1/wallets", ""},
			{calls(c)["marketplace"], "GET", "/v1/marketplace", ""},
			{calls(c)["my_orders"], "GET", "/v1/my_orders?return_completed=true", ""},
			{calls(c)["spot_marketplace"], "GET", "/v1/spot_marketplace?market=7", ""},
			{calls(c)["cancel_order"], "POST", "/v1/cancel_order", `{"id":7}`},
			{calls(c)["set_spot_price"], "POST", "/v1/set_spot_price", `{"order_id":7,"desired_price":1}`},
			{func(ctx context.Context) error { _, err := c.CreateOrder(ctx, full); return err }, "POST", "/v1/create_order",
				`{"currency":"USD-Blockchain","image":"a/b:c","renting_server":88028,"type":"on-demand","required_price":2,` +
					`"ports":{"22":"tcp","8888":"http"},"env":{"ROLE":"worker"},"command":"run \u003cit\u003e",` +
					`"ssh_password":"Abc123","ssh_key":"ssh-ed25519 AAAA","autossh_entrypoint":true}`},
			{func(ctx context.Context) error { _, err := c.CreateOrder(ctx, spot); return err }, "POST", "/v1/create_order",
				`{"currency":"bitcoin","image":"i","renting_server":1,"type":"spot","spotprice":0.00003}`},
		} {
			if err := e.call(t.Context()); err != nil {
				t.Fatalf("%s: %v", e.uri, err)
			}
			s := <-got
			if s.method != e.method || s.uri != e.uri || s.body != e.body {
				t.Errorf("sent %s %s %s, want %s %s %s", s.method, s.uri, s.body, e.method, e.uri, e.body)
			}
			if s.header.Get("auth") != "the-key" || s.header.Get("User-Agent") != "renthook" || s.header.Get("Authorization") != "" {
				t.Errorf("%s has the headers %v", s.uri, s.header)
			}
			if (e.method == "POST") != (s.header.Get("Content-Type") == "application/json") {
				t.Errorf("%s has the content type %q", s.uri, s.header.Get("Content-Type"))
			}
		}
	}
	p := NewPublic(Config{BaseURL: srv.URL, Key: secret.New("the-key"), UserAgent: "renthook/1 (+test)"})
	t.Cleanup(p.Close)
	if _, err := p.Marketplace(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s.header.Get("auth") != "" || s.header.Get("User-Agent") != "renthook/1 (+test)" {
		t.Errorf("without a key it has the headers %v", s.header)
	}
}

func TestTypes_OnlyTheClientCanSpend(t *testing.T) {
	t.Parallel()
	for _, v := range []any{NewPublic(Config{}), NewReader(Config{})} {
		for _, name := range []string{"CreateOrder", "CancelOrder", "SetSpotPrice"} {
			if _, ok := reflect.TypeOf(v).MethodByName(name); ok {
				t.Errorf("%T has %s", v, name)
			}
		}
	}
	if _, ok := reflect.TypeFor[*Public]().MethodByName("MyOrders"); ok {
		t.Error("a client without a key has MyOrders")
	}
}

func FuzzMarketplace(f *testing.F) {
	f.Add(`{"servers":[{"id":1,"price":{"on_demand":{"bitcoin":1e-5}}},{"id":"x"}],"my_servers":[],"code":0}`)
	f.Add(`{"code":5}`)
	f.Add(`<html>`)
	f.Add(`{"servers":[{"id":1,"servers":[{"id":2}]}],"servers":[],"code":0}`)
	f.Fuzz(func(t *testing.T, body string) {
		m, v, err := decodeMarketplace(strings.NewReader(body))
		if err != nil {
			return
		}
		if !json.Valid([]byte(body)) {
			t.Fatalf("%q is no JSON and was read", body)
		}
		if v == nil || m == nil {
			t.Fatal("neither an error nor an answer")
		}
		for _, s := range m.Servers {
			if s.ID <= 0 {
				t.Errorf("a server without id came out of %q", body)
			}
		}
	})
}

func FuzzOrders(f *testing.F) {
	f.Add(`{"orders":[{"id":1,"si":2,"tcp_ports":["22:1"],"fee":null}],"limit":3,"code":0}`)
	f.Fuzz(func(t *testing.T, body string) {
		var v struct {
			Orders []Order `json:"orders"`
		}
		if json.Unmarshal([]byte(body), &v) != nil {
			return
		}
		for i := range v.Orders {
			ports, err := v.Orders[i].Ports()
			for container, public := range ports {
				if err == nil && (container < 0 || container > 65535 || public < 0 || public > 65535) {
					t.Errorf("%q gave the ports %v", body, ports)
				}
			}
		}
	})
}
