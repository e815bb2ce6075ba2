package clore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/pkg/cloreapi"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/market/clore"
)

func amount(s string) decimal.Decimal { return decimal.MustParse(s) }

// list shows what the adapter makes of rows, each a JSON object.
func list(t *testing.T, rates map[string]decimal.Decimal, rows ...string) market.Listing {
	t.Helper()
	body := `{"servers":[`
	for i, row := range rows {
		if i > 0 {
			body += ","
		}
		body += row
	}
	l, err := clore.NewOffers(clore.OffersConfig{Rates: rates}, public(t, body+`],"my_servers":[],"code":0}`), nil).Offers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func public(t testing.TB, body string) *cloreapi.Public {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/marketplace" || r.Header.Get("auth") != "" {
			t.Errorf("called %s with key %q", r.URL.Path, r.Header.Get("auth"))
		}
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return cloreapi.NewPublic(cloreapi.Config{BaseURL: server.URL})
}

// row is a good row with some members replaced; nil removes one.
func row(id int64, replace map[string]any) string {
	r := map[string]any{
		"id": id, "owner": 2288, "mrl": 168, "rented": false,
		"price": map[string]any{
			"on_demand": map[string]any{"bitcoin": 0.00007805, "CLORE-Blockchain": 4001.04, "USD-Blockchain": 5},
			"spot":      map[string]any{"bitcoin": 0.00003, "CLORE-Blockchain": 1600, "USD-Blockchain": 2},
			"usd":       map[string]any{"on_demand_btc": 5.004526730470482, "on_demand_clore": 5.000044473142094, "on_demand_usd": 5, "spot": 0},
		},
		"specs": map[string]any{
			"gpu": "1x NVIDIA GeForce RTX 4090", "gpuram": 23.99, "ram": 128.8107, "disk": "2320 102.4688GB",
			"net": map[string]any{"up": 29.35, "down": 106.23, "cc": "US"}, "pcie_rev": 3, "pcie_width": 16.0,
		},
		"reliability": 0.9969, "allowed_coins": []string{"bitcoin", "USD-Blockchain"},
		"rating": map[string]any{"avg": 4.64, "cnt": 44}, "gpu_array": []string{" RTX 4090"}, "cuda_version": "13.0",
	}
	for k, v := range replace {
		if v == nil {
			delete(r, k)
		} else {
			r[k] = v
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestRowOfToday(t *testing.T) {
	t.Parallel()
	l := list(t, nil, row(111414, nil))
	if len(l.Offers) != 1 || l.Dropped != 0 || l.Digest == "" {
		t.Fatalf("%+v", l)
	}
	o := l.Offers[0]
	onDemand, spot := o.OnDemand, o.Spot
	o.OnDemand, o.Spot = nil, nil
	want := market.Offer{
		ServerID: 111414, GPU: "rtx-4090", Name: "RTX 4090", FullName: "NVIDIA GeForce RTX 4090", GPUCount: 1, VRAMGB: 23.99,
		MaxRental: 168 * time.Hour, Reliability: 0.9969, Rating: 4.64, Ratings: 44, Country: "US", CUDA: "13.0",
		DownMbps: 106.23, UpMbps: 29.35, RAMGB: 128.8107, DiskGB: 102.4688, PCIeGen: 3, PCIeLane: 16, Owner: 2288,
	}
	if fmt.Sprintf("%+v", o) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", o, want)
	}
	for i, want := range []struct {
		coin, onDemand, spot, usdOnDemand, usdSpot string
		allowed                                    bool
	}{
		{"CLORE-Blockchain", "4001.04", "1600", "0.208335", "0.083312", false},
		{"USD-Blockchain", "5", "2", "0.208333", "0.083333", true},
		{"bitcoin", "0.00007805", "0.00003", "0.208522", "0.080149", true},
	} {
		for kind, q := range map[string]market.Quote{want.onDemand + " " + want.usdOnDemand: onDemand[i], want.spot + " " + want.usdSpot: spot[i]} {
			got := q.PerDay.String() + " " + q.USDPerHour.Round(6).String()
			if q.Currency != want.coin || got != kind || !q.Priced || q.Allowed != want.allowed {
				t.Errorf("%s: got %s %+v, want %s", want.coin, got, q, kind)
			}
		}
	}
	if r := l.Rates["bitcoin"]; r.Source != "answer" || r.USD.Round(2).String() != "64119.50" {
		t.Errorf("rate of bitcoin %+v", r)
	}
}

// row:52
func TestRowsThatMakeNoSenseAreDropped(t *testing.T) {
	t.Parallel()
	price := func(onDemand string) any {
		return json.RawMessage(`{"on_demand":` + onDemand + `,"spot":{"bitcoin":0.00003}}`)
	}
	specs := func(s string) any { return json.RawMessage(s) }
	for name, replace := range map[string]map[string]any{
		"price NaN in a string":  {"price": price(`{"bitcoin":"NaN"}`)},
		"price infinite":         {"price": price(`{"bitcoin":"Infinity"}`)},
		"price negative":         {"price": price(`{"bitcoin":-0.0001}`)},
		"price absurd":           {"price": price(`{"bitcoin":1e300}`)},
		"price a text":           {"price": price(`{"bitcoin":"cheap"}`)},
		"price an object":        {"price": price(`{"bitcoin":{}}`)},
		"price a list":           {"price": json.RawMessage(`[]`)},
		"no price":               {"price": nil},
		"no coins":               {"price": json.RawMessage(`{"on_demand":{},"spot":{}}`)},
		"only free of charge":    {"price": json.RawMessage(`{"on_demand":{"bitcoin":0},"spot":{"bitcoin":0.0}}`)},
		"no id":                  {"id": nil},
		"negative id":            {"id": -1},
		"no GPU":                 {"specs": specs(`{}`), "gpu_array": nil},
		"no specs":               {"specs": nil, "gpu_array": nil},
		"GPU a number":           {"specs": specs(`{"gpu":7}`)},
		"GPU without a name":     {"specs": specs(`{"gpu":"  "}`), "gpu_array": nil},
		"endless GPU name":       {"specs": specs(fmt.Sprintf(`{"gpu":"%0999d"}`, 7))},
		"a thousand GPUs":        {"specs": specs(`{"gpu":"999x NVIDIA GeForce RTX 4090"}`)},
		"reliability above one":  {"reliability": 1.5},
		"reliability negative":   {"reliability": -0.1},
		"reliability NaN":        {"reliability": "NaN"},
		"VRAM negative":          {"specs": specs(`{"gpu":"1x NVIDIA GeForce RTX 4090","gpuram":-1}`)},
		"rental length negative": {"mrl": -1},
		"rental length absurd":   {"mrl": 1 << 40},
	} {
		l := list(t, nil, row(1, nil), row(2, replace), `7`, `null`)
		if len(l.Offers) != 1 || l.Offers[0].ServerID != 1 || l.Dropped != 3 {
			t.Errorf("%s: %d offers, %d dropped", name, len(l.Offers), l.Dropped)
		}
	}
}

func TestRowsThatAreOnlyOdd(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		replace map[string]any
		ok      func(market.Offer) bool
	}{
		"old shape": {
			map[string]any{"gpu_array": nil, "cuda_version": nil, "price": json.RawMessage(`{"on_demand":{"bitcoin":1},"spot":{"bitcoin":1}}`)},
			func(o market.Offer) bool { return o.CUDA == "" && len(o.OnDemand) == 1 && !o.OnDemand[0].Priced },
		},
		"a coin without a price": {
			map[string]any{"price": json.RawMessage(`{"on_demand":{"bitcoin":null,"USD-Blockchain":2},"spot":{"USD-Blockchain":0}}`)},
			func(o market.Offer) bool { return len(o.OnDemand) == 1 && len(o.Spot) == 0 },
		},
		"no price on demand": {
			map[string]any{"price": json.RawMessage(`{"spot":{"bitcoin":1}}`)},
			func(o market.Offer) bool { return len(o.OnDemand) == 0 && len(o.Spot) == 1 },
		},
		"no reliability yet":         {map[string]any{"reliability": nil}, func(o market.Offer) bool { return o.Reliability == 0 }},
		"reliability an int":         {map[string]any{"reliability": 1}, func(o market.Offer) bool { return o.Reliability == 1 }},
		"GPUs only in the array":     {map[string]any{"specs": map[string]any{}, "gpu_array": []string{" RTX 3090", " RTX 3090"}}, func(o market.Offer) bool { return o.GPU == "rtx-3090" && o.GPUCount == 2 }},
		"several models":             {map[string]any{"specs": map[string]any{}, "gpu_array": []string{" RTX 3090", " RTX 4090"}}, func(o market.Offer) bool { return o.GPU == "mixed" && o.GPUCount == 2 }},
		"count only in the array":    {map[string]any{"specs": map[string]any{"gpu": "RTX 4090"}, "gpu_array": []string{" RTX 4090", " RTX 4090"}}, func(o market.Offer) bool { return o.GPUCount == 2 }},
		"disk in TB":                 {map[string]any{"specs": map[string]any{"gpu": "RTX 4090", "disk": "KINGSTONx20 1.5TB"}}, func(o market.Offer) bool { return o.DiskGB == 1500 }},
		"disk unreadable":            {map[string]any{"specs": map[string]any{"gpu": "RTX 4090", "disk": "KINGSTON -5GB"}}, func(o market.Offer) bool { return o.DiskGB == 0 }},
		"a country that is a novel":  {map[string]any{"specs": map[string]any{"gpu": "RTX 4090", "net": map[string]any{"cc": "ÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄ", "down": -3}}}, func(o market.Offer) bool { return o.Country == "ÄÄÄÄÄÄÄÄ" && o.DownMbps == 0 }},
		"numbers as floats and text": {map[string]any{"mrl": json.RawMessage(`72.0`), "reliability": json.RawMessage(`"0.5"`)}, func(o market.Offer) bool { return o.MaxRental == 72*time.Hour && o.Reliability == 0.5 }},
	} {
		l := list(t, nil, row(1, c.replace))
		if len(l.Offers) != 1 || l.Dropped != 0 || !c.ok(l.Offers[0]) {
			t.Errorf("%s: %+v", name, l)
		}
	}
}

// row:52
func TestAnAnswerOfUnknownShapeIsAnError(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"no row makes sense":      `{"servers":[{"id":1},{"id":2}],"code":0}`,
		"hardly a row does":       `{"servers":[` + row(1, nil) + strings.Repeat(`,{"id":2}`, 10) + `],"code":0}`,
		"no servers":              `{"code":0}`,
		"servers null":            `{"servers":null,"code":0}`,
		"servers an object":       `{"servers":{},"code":0}`,
		"no code":                 `{"servers":[` + row(1, nil) + `]}`,
		"code 1":                  `{"servers":[` + row(1, nil) + `],"code":1}`,
		"cut":                     `{"servers":[` + row(1, nil) + `,`,
		"a page":                  `<html>`,
		"NaN that is no string":   `{"servers":[{"id":1,"reliability":NaN}],"code":0}`,
		"something after the end": `{"servers":[` + row(1, nil) + `],"code":0}{}`,
	} {
		if l, err := clore.NewOffers(clore.OffersConfig{}, public(t, body), nil).Offers(t.Context()); err == nil {
			t.Errorf("%s: %+v", name, l)
		}
	}
	if l, err := clore.NewOffers(clore.OffersConfig{}, public(t, `{"servers":[],"code":0}`), nil).Offers(t.Context()); err != nil || len(l.Offers) != 0 {
		t.Errorf("an empty market: %+v %v", l, err)
	}
}

func TestTheSameServerTwice(t *testing.T) {
	t.Parallel()
	l := list(t, nil, row(1, nil), row(1, map[string]any{"rented": true}))
	if len(l.Offers) != 1 || l.Offers[0].Rented || l.Dropped != 1 {
		t.Errorf("%+v", l)
	}
}

func priced(onDemand, usd string) map[string]any {
	return map[string]any{"price": json.RawMessage(`{"on_demand":` + onDemand + `,"spot":{},"usd":` + usd + `}`)}
}

func TestRates(t *testing.T) {
	t.Parallel()
	l := list(t, map[string]decimal.Decimal{"bitcoin": amount("1"), "CLORE-Blockchain": amount("0.12"), "doge": amount("0.1")},
		row(1, priced(`{"bitcoin":0.0001}`, `{"on_demand_btc":6.4}`)),
		row(2, priced(`{"bitcoin":0.0001}`, `{"on_demand_btc":6.0}`)),
		row(3, priced(`{"bitcoin":0.0001}`, `{"on_demand_btc":1000}`)),
		// Neither a zero nor nonsense counts, nor what a dropped row says.
		row(4, priced(`{"bitcoin":0.0001}`, `{"on_demand_btc":0}`)),
		row(5, priced(`{"bitcoin":0.0001}`, `{"on_demand_btc":-5}`)),
		row(6, priced(`{"bitcoin":0.0001,"x":-1}`, `{"on_demand_btc":1}`)),
		row(7, priced(`{"CLORE-Blockchain":100,"penny":3}`, `{}`)))
	want := map[string]market.Rate{
		"bitcoin":          {USD: amount("64000"), Source: "answer"},
		"CLORE-Blockchain": {USD: amount("0.12"), Source: "setting"},
		"doge":             {USD: amount("0.1"), Source: "setting"},
	}
	if len(l.Rates) != len(want) {
		t.Errorf("rates %v", l.Rates)
	}
	for coin, r := range want {
		if got := l.Rates[coin]; got.USD.Cmp(r.USD) != 0 || got.Source != r.Source {
			t.Errorf("%s: %+v, want %+v", coin, got, r)
		}
	}
	if q := l.Offers[5].OnDemand; q[0].USDPerHour.Cmp(amount("0.5")) != 0 || q[1].Currency != "penny" || q[1].Priced {
		t.Errorf("quotes %+v", q)
	}
}

func TestBait(t *testing.T) {
	t.Parallel()
	coins := `{"bitcoin":0.0001,"CLORE-Blockchain":30,"USD-Blockchain":4}`
	for usd, want := range map[string]bool{
		`{"on_demand_btc":4.0,"on_demand_clore":4.6,"on_demand_usd":4.0}`:            false,
		`{"on_demand_btc":4.0,"on_demand_clore":4.61,"on_demand_usd":4.0}`:           true,
		`{"on_demand_btc":4.04,"on_demand_clore":4.0,"on_demand_usd":1.61,"spot":0}`: true,
		`{"on_demand_btc":0,"on_demand_clore":4.0,"on_demand_usd":4.1,"spot":0}`:     false,
		`{"on_demand_clore":4.0}`: false,
		`{}`:                      false,
		`{"on_demand_btc":"NaN","on_demand_clore":4.0,"on_demand_usd":4.0}`: false,
	} {
		if l := list(t, nil, row(1, priced(coins, usd))); len(l.Offers) != 1 || l.Offers[0].Bait != want {
			t.Errorf("%s: %+v", usd, l)
		}
	}
}

type spotMarket struct {
	asked int
	err   error
}

func (s *spotMarket) SpotMarketplace(_ context.Context, server int64) (*cloreapi.SpotMarket, error) {
	s.asked++
	if server != 1 {
		return nil, errors.New("no such server")
	}
	return &cloreapi.SpotMarket{Rates: map[string]cloreapi.Number{"bitcoin": "64120.5", "x": "NaN"}}, s.err
}

func TestRatesOfTheSpotMarketplace(t *testing.T) {
	t.Parallel()
	body := `{"servers":[` + row(1, priced(`{"bitcoin":0.0001}`, `{}`)) + `],"code":0}`
	rates := map[string]decimal.Decimal{"bitcoin": amount("1")}
	spot := &spotMarket{}
	o := clore.NewOffers(clore.OffersConfig{Rates: rates}, public(t, body), spot)
	for range 3 {
		l, err := o.Offers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r := l.Rates["bitcoin"]; r.Source != "spot_marketplace" || r.USD.Cmp(amount("64120.5")) != 0 || len(l.Rates) != 1 {
			t.Errorf("rates %+v", l.Rates)
		}
	}
	if spot.asked != 1 {
		t.Errorf("asked %d times", spot.asked)
	}
	failing := &spotMarket{err: errors.New("no")}
	l, err := clore.NewOffers(clore.OffersConfig{Rates: rates}, public(t, body), failing).Offers(t.Context())
	if err != nil || l.Rates["bitcoin"].Source != "setting" {
		t.Errorf("rates %+v, error %v", l.Rates, err)
	}
	stated := &spotMarket{}
	if _, err := clore.NewOffers(clore.OffersConfig{}, public(t, `{"servers":[`+row(1, nil)+`],"code":0}`), stated).Offers(t.Context()); err != nil || stated.asked != 0 {
		t.Errorf("asked %d times for rates that were stated, error %v", stated.asked, err)
	}
}

// row:52
func FuzzRow(f *testing.F) {
	f.Add(`{"bitcoin":"NaN"}`, "1x NVIDIA GeForce RTX 4090", "0.5")
	f.Add(`{"bitcoin":1e-30,"x":123456789012345678901234567890}`, "", `"1"`)
	f.Fuzz(func(t *testing.T, prices, gpu, reliability string) {
		name, err := json.Marshal(gpu)
		if err != nil || !json.Valid([]byte(prices)) || !json.Valid([]byte(reliability)) {
			return
		}
		r := row(1, map[string]any{
			"price":       json.RawMessage(`{"on_demand":` + prices + `,"spot":` + prices + `,"usd":{"on_demand_btc":5}}`),
			"specs":       json.RawMessage(`{"gpu":` + string(name) + `}`),
			"reliability": json.RawMessage(reliability),
		})
		l := list(t, map[string]decimal.Decimal{"x": amount("0.1")}, row(2, nil), r)
		if len(l.Offers)+l.Dropped != 2 {
			t.Fatalf("%d offers, %d dropped", len(l.Offers), l.Dropped)
		}
		for _, o := range l.Offers {
			for _, q := range append(o.OnDemand, o.Spot...) {
				if !q.PerDay.IsPos() || q.USDPerHour.IsNeg() || o.Reliability < 0 || o.Reliability > 1 {
					t.Fatalf("%+v", o)
				}
			}
		}
	})
}

// recording is the body of a recorded answer.
func recording(t testing.TB, name string) []byte {
	t.Helper()
	dir := os.Getenv("RENTHOOK_RECORDINGS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "..", "shared", "data", "clore")
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no recording %s in %s", name, dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRecordedMarketplace(t *testing.T) {
	t.Parallel()
	body := recording(t, "marketplace-2024-05-21.full.json")
	rates := map[string]decimal.Decimal{"bitcoin": amount("70000"), "CLORE-Blockchain": amount("0.12")}
	l, err := clore.NewOffers(clore.OffersConfig{Rates: rates}, public(t, string(body)), nil).Offers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var raw struct {
		Servers []struct {
			ID    int64
			Specs struct{ GPU string }
		}
	}
	if err := json.Unmarshal(body, &raw); err != nil {
		t.Fatal(err)
	}
	if len(l.Offers) != len(raw.Servers) || l.Dropped != 0 {
		t.Errorf("%d offers and %d dropped of %d rows", len(l.Offers), l.Dropped, len(raw.Servers))
	}
	for i, o := range l.Offers {
		if o.ServerID != raw.Servers[i].ID || fmt.Sprintf("%dx %s", o.GPUCount, o.FullName) != raw.Servers[i].Specs.GPU {
			t.Fatalf("row %d: %+v of %+v", i, o, raw.Servers[i])
		}
	}
}

// BenchmarkRecordedMarketplace reads what the market listed one day. The yardstick decodes the same bytes into any.
func BenchmarkRecordedMarketplace(b *testing.B) {
	body := recording(b, "marketplace-2024-05-21.full.json")
	client := public(b, string(body))
	rates := map[string]decimal.Decimal{"bitcoin": amount("70000"), "CLORE-Blockchain": amount("0.12")}
	for _, bench := range []struct {
		name string
		read func() error
	}{
		{"any", func() error { var v any; return json.NewDecoder(bytes.NewReader(body)).Decode(&v) }},
		{"parse", func() error { _, err := client.Marketplace(b.Context()); return err }},
		{"normalise", func() error {
			_, err := clore.NewOffers(clore.OffersConfig{Rates: rates}, client, nil).Offers(b.Context())
			return err
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := bench.read(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
