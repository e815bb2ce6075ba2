package cloresim

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/govalues/decimal"
)

// closeWithCode ends an answer: every one holds its code, behind its own members.
func closeWithCode(o object, code int) []byte {
	o.raw("code", strconv.AppendInt(nil, int64(code), 10))
	return o.close()
}

// render is a reply as bytes.
func (r reply) render() outgoing {
	o := openObject()
	for _, name := range slices.Sorted(maps.Keys(r.members)) {
		// Members are strings, numbers and the rows below, all of which marshal.
		raw, _ := json.Marshal(r.members[name])
		o.raw(name, raw)
	}
	if r.err != "" {
		o.raw("error", appendText(nil, r.err))
	}
	return outgoing{status: r.status, code: r.code, err: r.err, body: pieces(closeWithCode(o, r.code))}
}

func priceList(prices []coinPrice) []byte {
	o := openObject()
	for _, p := range prices {
		if p.sound {
			o.raw(p.coin, []byte(number(p.amount)))
		} else {
			o.raw(p.coin, p.raw)
		}
	}
	return o.close()
}

// usdMember is price.usd. Its spot member was 0 in every recording.
func usdMember(onDemand []coinPrice, rates map[string]decimal.Decimal) []byte {
	o := openObject()
	for _, e := range []struct{ coin, name string }{
		{"bitcoin", "on_demand_btc"}, {"CLORE-Blockchain", "on_demand_clore"}, {"USD-Blockchain", "on_demand_usd"},
	} {
		if p, ok := priceIn(onDemand, e.coin); ok {
			o.raw(e.name, []byte(number(times(p, rates[e.coin]))))
		}
	}
	o.raw("spot", []byte{'0'})
	return o.close()
}

// originalMember is price.original_usd: what the host asks in USD, by coin.
func originalMember(onDemand, spot []coinPrice, rates map[string]decimal.Decimal) []byte {
	o := openObject()
	for _, p := range onDemand {
		rate, ok := rates[p.coin]
		floor, has := priceIn(spot, p.coin)
		if !ok || !has || !p.sound {
			continue
		}
		each := openObject()
		each.raw("on_demand", []byte(number(times(p.amount, rate).Round(4))))
		each.raw("spot", []byte(number(times(floor, rate).Round(4))))
		o.raw(p.coin, each.close())
	}
	return o.close()
}

// marketplace lists every server as it was at t, in pieces. What a rental changed shows later by the visibility lag.
func (w *world) marketplace(t time.Time, step *Step) [][]byte {
	rows, factor := len(w.order), decimal.One
	if step != nil {
		if step.Truncate != nil {
			rows = min(rows, *step.Truncate)
		}
		if step.Empty {
			rows = 0
		}
		if f, ok := readAmount(json.RawMessage(step.PriceFactor)); ok {
			factor = f
		}
	}
	pieces := make([][]byte, 0, 2*rows+2)
	pieces = append(pieces, []byte(`{"servers":[`))
	for _, id := range w.order {
		s := w.servers[id]
		if rows == 0 {
			break
		}
		if !s.online(t) {
			continue
		}
		if len(pieces) > 1 {
			pieces = append(pieces, comma)
		}
		pieces, rows = append(pieces, w.serverRow(s, t, factor)), rows-1
	}
	return append(pieces, []byte(`],"my_servers":[],"code":0}`))
}

var comma = []byte{','}

// shown is a rendered row and what it depends on. The bytes are never written to again.
type shown struct {
	row    []byte
	since  time.Time
	drift  decimal.Decimal
	rented bool
}

// serverRow is a server's row. Rows change seldom and are asked for all the time, so the last one is kept.
func (w *world) serverRow(s *server, t time.Time, factor decimal.Decimal) []byte {
	f := s.at(t)
	now := shown{since: f.Since, drift: w.drift(s, t)}
	now.rented = s.hostRented(t) || s.onDemandHolder(t.Add(-millis(w.settings.VisibleMS))) != nil
	if c := &s.shown; factor.IsOne() && c.row != nil &&
		c.since.Equal(now.since) && c.drift == now.drift && c.rented == now.rented {
		return c.row
	}
	moved := f.OnDemandUSD != nil || f.SpotUSD != nil || !factor.IsOne() || !now.drift.IsOne()
	o := openObject()
	for _, m := range s.members {
		switch {
		case m.name == "rented" && now.rented != s.rented:
			o.raw(m.name, strconv.AppendBool(nil, now.rented))
		case m.name == "price" && moved && s.price != nil:
			o.raw(m.name, w.priceNow(s, t, factor))
		case m.name == "reliability" && f.Reliability != nil:
			o.raw(m.name, []byte(number(*f.Reliability)))
		default:
			o.raw(m.name, m.raw)
		}
	}
	now.row = slices.Clip(o.close())
	if factor.IsOne() {
		s.shown = now
	}
	return now.row
}

// priceNow is the price member with today's prices: the listed members in their order, broken values as they stand.
func (w *world) priceNow(s *server, t time.Time, factor decimal.Decimal) []byte {
	now := func(listed []coinPrice, spot bool) []coinPrice {
		prices := w.prices(s, spot, t)
		for i := range prices {
			prices[i].amount = times(prices[i].amount, factor).Round(8)
		}
		for _, p := range listed {
			if _, ok := priceIn(prices, p.coin); !ok && !p.sound {
				prices = append(prices, p)
			}
		}
		return prices
	}
	onDemand, spot := now(s.onDemand, false), now(s.spot, true)
	o := openObject()
	for _, m := range s.price {
		switch m.name {
		case "on_demand":
			o.raw(m.name, priceList(onDemand))
		case "spot":
			o.raw(m.name, priceList(spot))
		case "usd":
			o.raw(m.name, usdMember(onDemand, w.rates))
		case "original_usd":
			o.raw(m.name, originalMember(onDemand, spot, w.rates))
		default:
			o.raw(m.name, m.raw)
		}
	}
	return o.close()
}

// wallets are the balances at t; the documentation's row has the two members more, recordings do not.
func (w *world) wallets(a *account, t time.Time, step *Step) reply {
	type wallet struct {
		Name    string       `json:"name"`
		Deposit string       `json:"deposit,omitempty"`
		Balance json.Number  `json:"balance"`
		Fee     *json.Number `json:"withdrawal_fee,omitempty"`
	}
	rows := []wallet{}
	for _, coin := range everyCoin {
		if _, ok := w.rates[coin]; !ok || step != nil && step.Empty {
			continue
		}
		row := wallet{Name: coin, Balance: number(w.balance(a, coin, t))}
		if coin == "bitcoin" {
			fee := json.Number("0.0001")
			row.Deposit, row.Fee = "tb1q-simulated", &fee
		}
		rows = append(rows, row)
	}
	if step != nil && step.Truncate != nil {
		rows = rows[:min(len(rows), *step.Truncate)]
	}
	return reply{status: 200, members: map[string]any{"wallets": rows}}
}

// myOrders lists a key's orders as they showed at t, newest first. What happened shows later by the visibility lag.
func (w *world) myOrders(key string, t time.Time, completed bool, step *Step) reply {
	rows := []json.RawMessage{}
	seen := t.Add(-millis(w.settings.VisibleMS))
	for _, r := range slices.Backward(w.rentals) {
		if r.Key != key || t.Before(r.Created.Add(millis(r.VisibleMS))) {
			continue
		}
		ended := !r.Ended.IsZero() && !seen.Before(r.Ended)
		if !ended || completed {
			rows = append(rows, w.orderRow(r, seen, ended))
		}
	}
	if step != nil {
		if step.Truncate != nil {
			rows = rows[:min(len(rows), *step.Truncate)]
		}
		if step.Empty {
			rows = rows[:0]
		}
	}
	return reply{status: 200, members: map[string]any{"orders": rows, "limit": w.settings.OrderLimit}}
}

// orderRow is one order, with the members and kinds of recorded ones: a live one has its ports and hosts, an ended
// one has lost them and still says online and its last mon_container.
func (w *world) orderRow(r *rental, seen time.Time, ended bool) json.RawMessage {
	if seen.Before(r.Created) {
		seen = r.Created
	}
	s := w.servers[r.Server]
	o := openObject()
	add := func(name string, v any) {
		// Numbers, strings and lists of them always marshal.
		raw, _ := json.Marshal(v)
		o.raw(name, raw)
	}
	echo := func(names ...string) {
		for _, name := range names {
			if raw := find(s.members, name); raw != nil {
				o.raw(name, raw)
			}
		}
	}
	add("id", r.ID)
	add("creation_fee", number(r.CreationFee))
	add("price", number(r.priceAt(seen)))
	add("mrl", r.MRLSeconds)
	add("image", r.Image)
	add("currency", r.Currency)
	add("spend", number(r.spend(seen)))
	add("ct", r.Created.Unix())
	if ended {
		add("order_end", r.Ended.Unix())
		add("expired", true)
		count := max(1, leadingNumber(s.gpu))
		add("gpu_count", count)
		add("total_gpus", count)
	}
	if r.Spot {
		add("spot", true)
	}
	if specs := orderSpecs(find(s.members, "specs")); specs != nil {
		o.raw("specs", specs)
	}
	add("si", r.Server)
	add("mon_container", r.container(seen))
	add("online", ended || s.online(seen))
	w.addPorts(r, seen, ended, add)
	echo("rating", "reliability", "owner", "cuda_version", "gpu_array")
	return o.close()
}

// orderSpecs are a server's specs as an order echoes them: without the power limits.
func orderSpecs(specs json.RawMessage) json.RawMessage {
	members, err := readObject(specs)
	if err != nil {
		return specs
	}
	o := openObject()
	for _, m := range members {
		if m.name != "pl" && m.name != "stock_pl" {
			o.raw(m.name, m.raw)
		}
	}
	return o.close()
}

func (w *world) addPorts(r *rental, seen time.Time, ended bool, add func(string, any)) {
	ports := []string{}
	_, holds := r.holdsAt(seen)
	shown := !ended && holds && !seen.Before(r.Created.Add(millis(r.PortsMS)))
	http := ""
	for _, p := range r.Ports {
		switch {
		case !shown:
		case p.Kind == "http":
			http = strconv.Itoa(p.Container)
		default:
			ports = append(ports, strconv.Itoa(p.Container)+":"+strconv.Itoa(p.Public))
		}
	}
	if shown {
		add("pub_cluster", []string{w.host})
	}
	add("tcp_ports", ports)
	if http != "" {
		add("http_port", http)
		add("http_pub", r.HTTPPub)
	}
}

// leadingNumber is the count in "8x NVIDIA …".
func leadingNumber(gpu string) int {
	n := 0
	for _, c := range gpu {
		if c < '0' || c > '9' || n > 1000 {
			break
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// spotMarket is spot_marketplace: the bids that stand for one server.
func (w *world) spotMarket(key string, id int64, t time.Time) reply {
	rates := map[string]json.Number{}
	for coin, rate := range w.rates {
		rates[coin] = number(rate)
	}
	market := map[string]any{"currency_rates_in_usd": rates, "offers": []any{}, "server": map[string]any{}}
	s := w.servers[id]
	exists := s != nil && !s.at(t).Removed
	if exists {
		offers := []map[string]any{}
		for _, b := range s.bids(t) {
			_, active := b.holdsAt(t)
			offers = append(offers, map[string]any{
				"offer_id": b.ID, "bid": number(b.Price), "active": active, "my": b.Key == key, "currency": b.Currency,
			})
		}
		market["offers"] = offers
		market["server"] = map[string]any{
			"min_pricing": json.RawMessage(priceList(w.prices(s, true, t))),
			"mrl":         s.mrlHours, "online": s.online(t), "visibility": "public",
		}
	}
	return reply{status: 200, members: map[string]any{"market": market, "exists": exists}}
}
