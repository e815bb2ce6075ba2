package cloresim

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/govalues/decimal"
)

// reply is an honest answer: the HTTP status, and the members beside code.
type reply struct {
	status  int
	code    int
	err     string
	members map[string]any
}

var taken = reply{status: http.StatusOK}

// refusedWith is code 6. Recordings have it with HTTP 200 and with 500.
func refusedWith(status int, err string) reply { return reply{status: status, code: 6, err: err} }

// codeOnly is an answer that holds nothing but its code, with the HTTP status that goes with it: 500 and 429 are
// recorded, 401 is documented, the statuses of codes 2 and 4 are guesses.
func codeOnly(code int) reply {
	status := map[int]int{1: 500, 2: 400, 3: 401, 4: 404, 5: 429}[code]
	return reply{status: status, code: code}
}

// createAsk is the body of create_order.
type createAsk struct {
	Server        int64             `json:"renting_server"`
	Type          string            `json:"type"`
	Currency      string            `json:"currency"`
	Image         string            `json:"image"`
	SpotPrice     json.RawMessage   `json:"spotprice"`
	RequiredPrice json.RawMessage   `json:"required_price"`
	Ports         map[string]string `json:"ports"`
	Env           map[string]string `json:"env"`
	SSHPassword   string            `json:"ssh_password"`
	SSHKey        string            `json:"ssh_key"`
	JupyterToken  string            `json:"jupyter_token"`
}

// read refuses what the market's documentation does not allow.
func (a *createAsk) read(body []byte) (ports []port, ok bool) {
	if err := json.Unmarshal(body, a); err != nil {
		return nil, false
	}
	if a.Server <= 0 || a.Image == "" || a.Currency == "" || a.Type != "on-demand" && a.Type != "spot" {
		return nil, false
	}
	if len(a.SSHPassword) > 32 || len(a.SSHKey) > 3072 || len(a.JupyterToken) > 32 {
		return nil, false
	}
	for name, kind := range a.Ports {
		n, err := strconv.Atoi(name)
		if err != nil || n < 1 || n > 65535 || kind != "tcp" && kind != "http" {
			return nil, false
		}
		ports = append(ports, port{Container: n, Kind: kind})
	}
	slices.SortFunc(ports, func(a, b port) int { return a.Container - b.Container })
	return ports, true
}

// create is create_order.
func (w *world) create(at time.Time, key string, body []byte, step *Step) (reply, bool) {
	var ask createAsk
	ports, ok := ask.read(body)
	if !ok {
		return codeOnly(2), false
	}
	for _, v := range ask.Env {
		if strings.Contains(v, "&") {
			return codeOnly(1), false
		}
	}
	s := w.servers[ask.Server]
	switch {
	case s == nil || s.at(at).Removed:
		return refusedWith(http.StatusOK, "server-dont-exist"), false
	case !s.online(at):
		return refusedWith(http.StatusOK, "server-offline"), false
	case !slices.Contains(s.allowed, ask.Currency) || slices.Contains(s.at(at).RefuseCoins, ask.Currency):
		return refusedWith(http.StatusInternalServerError, "currency-not-allowed"), false
	}
	spot := ask.Type == "spot"
	price, ok := priceIn(w.prices(s, spot, at), ask.Currency)
	if !ok {
		return refusedWith(http.StatusInternalServerError, "currency-not-allowed"), false
	}
	if spot {
		price, ok = judgeBid(ask.SpotPrice, price)
	}
	r := &rental{
		Server: s.id, Key: key, Spot: spot, Currency: ask.Currency, Price: price,
		CreationFee: inCoin(creationFeeUSD, w.rates[ask.Currency], ask.Currency),
		Image:       ask.Image, Ports: ports, SSHPassword: ask.SSHPassword, SSHKey: ask.SSHKey, Env: ask.Env,
	}
	switch {
	case !ok:
		no := refusedWith(http.StatusOK, "too_low_price")
		no.members = map[string]any{"min_price": number(price)}
		return no, false
	case !spot && (s.hostRented(at) || s.onDemandHolder(at) != nil):
		return alreadyRented(), false
	case !spot && w.mismatch(ask.RequiredPrice, price):
		return codeOnly(1), false
	case spot && w.settings.SpotDoubleBid == "refuse" && slices.ContainsFunc(s.bids(at), func(b *rental) bool { return b.Key == key }):
		return refusedWith(http.StatusOK, "you_already_have_spot_order"), false
	case w.balance(w.account(key), ask.Currency, at).Cmp(r.CreationFee) <= 0:
		return refusedWith(http.StatusOK, "not_enough_balance"), false
	case w.live(key) >= w.settings.OrderLimit:
		return refusedWith(http.StatusOK, "order_limit_reached"), false
	}
	if step != nil {
		if f, ok := readAmount(json.RawMessage(step.PriceFactor)); ok {
			r.Price = times(r.Price, f)
		}
	}
	if err := w.open(r, at, step); err != nil {
		return codeOnly(1), false
	}
	return taken, true
}

// alreadyRented has the three members that recordings have; the value of status was not recorded.
func alreadyRented() reply {
	no := refusedWith(http.StatusOK, "server-already-rented")
	no.members = map[string]any{"status": "error"}
	return no
}

// judgeBid gives the bid, or the floor and false when the bid is under it.
func judgeBid(raw json.RawMessage, floor decimal.Decimal) (decimal.Decimal, bool) {
	bid, ok := readAmount(raw)
	if !ok || bid.Cmp(floor) < 0 {
		return floor, false
	}
	return bid, true
}

// mismatch says whether required_price forbids the price.
func (w *world) mismatch(raw json.RawMessage, price decimal.Decimal) bool {
	required, ok := readAmount(raw)
	if !ok {
		return false
	}
	switch w.settings.RequiredPrice {
	case "higher":
		return price.Cmp(required) > 0
	case "any":
		return price.Cmp(required) != 0
	default:
		return false
	}
}

func (w *world) live(key string) int {
	n := 0
	for _, r := range w.rentals {
		if r.Key == key && r.Ended.IsZero() {
			n++
		}
	}
	return n
}

// open makes a rental that nothing stands against.
func (w *world) open(r *rental, at time.Time, step *Step) error {
	s := w.servers[r.Server]
	for i := range r.Ports {
		p := &r.Ports[i]
		switch {
		case p.Kind == "http":
			if r.HTTPPub == "" {
				r.HTTPPub = randomName(13) + ".us.clorecloud.net"
			}
		case p.Container == 22:
			public, err := w.reserve()
			if err != nil {
				return err
			}
			p.Public = public
		default:
			p.Public = 1024 + rand.IntN(8000) //nolint:gosec // a number to show, nothing listens there
		}
	}
	r.ID, r.Created = w.nextRental, at
	// Ids grow by what the rest of the world rents meanwhile.
	w.nextRental += 1 + rand.Int64N(7) //nolint:gosec // guards nothing
	r.VisibleMS, r.BootMS, r.PortsMS = w.settings.VisibleMS, w.settings.BootMS, w.settings.PortsMS
	if step != nil && step.VisibleAfterMS != nil {
		r.VisibleMS = *step.VisibleAfterMS
	}
	// With this prefix real orders hung in deploying.
	if f := s.at(at); f.Boots != nil && !*f.Boots || strings.HasPrefix(r.Image, "docker.io/") {
		r.BootMS = -1
	}
	hours := s.mrlHours
	if hours <= 0 {
		hours = 72
	}
	r.MRLSeconds = hours * 3600
	w.rentals, w.byID[r.ID], s.rentals = append(w.rentals, r), r, append(s.rentals, r)
	if !r.Spot {
		r.hold(at)
	}
	w.changed.rental(r)
	w.changed.next = true
	w.auction(s, at)
	return nil
}

func randomName(n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[rand.IntN(len(letters))] //nolint:gosec // a name to show, nothing answers there
	}
	return string(b)
}

// auction gives a server to whom it belongs at t: to the on-demand rental, else to the highest bid in USD, the
// older one of two equal ones. Whoever loses it is outbid.
func (w *world) auction(s *server, at time.Time) {
	bids := s.bids(at)
	var winner *rental
	if s.onDemandHolder(at) == nil && !s.hostRented(at) {
		for _, b := range bids {
			if winner == nil || w.usd(b).Cmp(w.usd(winner)) > 0 {
				winner = b
			}
		}
	}
	for _, b := range bids {
		if _, holds := b.holdsAt(at); !holds || b == winner {
			continue
		}
		if w.settings.OutbidEnding == "queued" {
			b.letGo(at)
		} else {
			b.end(at, "outbid")
		}
		w.changed.rental(b)
	}
	if winner != nil {
		if _, holds := winner.holdsAt(at); !holds {
			winner.hold(at)
			w.changed.rental(winner)
		}
	}
}

func (w *world) usd(r *rental) decimal.Decimal { return times(r.Price, w.rates[r.Currency]) }

// idOf reads an order id that may be a number or a string.
func idOf(raw json.RawMessage) (int64, bool) {
	id, err := strconv.ParseInt(strings.Trim(string(raw), `"`), 10, 64)
	return id, err == nil
}

// cancel is cancel_order.
func (w *world) cancel(at time.Time, key string, body []byte) (reply, bool) {
	var ask struct {
		ID    json.RawMessage `json:"id"`
		Issue string          `json:"issue"`
	}
	if err := json.Unmarshal(body, &ask); err != nil || len(ask.Issue) > 2048 {
		return codeOnly(2), false
	}
	id, ok := idOf(ask.ID)
	if !ok {
		return codeOnly(2), false
	}
	r := w.byID[id]
	known := r != nil && r.Key == key
	if known && r.Ended.IsZero() {
		w.endRental(r, at, "cancelled")
		return taken, true
	}
	switch {
	case w.settings.UnknownCancel == "ok":
		return taken, false
	case known:
		return refusedWith(http.StatusOK, "order_not_active"), false
	default:
		return refusedWith(http.StatusOK, "order_dont_exist"), false
	}
}

// loweringEvery is how often a bid may be lowered, maxStep by how much of itself at once.
const loweringEvery = 600 * time.Second

var maxStep = decimal.MustNew(10, 2)

// setSpotPrice is set_spot_price.
func (w *world) setSpotPrice(at time.Time, key string, body []byte) (reply, bool) {
	var ask struct {
		ID    json.RawMessage `json:"order_id"`
		Price json.RawMessage `json:"desired_price"`
	}
	if err := json.Unmarshal(body, &ask); err != nil {
		return codeOnly(2), false
	}
	id, ok := idOf(ask.ID)
	price, sound := readAmount(ask.Price)
	if !ok || !sound {
		return codeOnly(2), false
	}
	r := w.byID[id]
	if r == nil || r.Key != key || !r.Spot {
		return refusedWith(http.StatusOK, "order_dont_exist"), false
	}
	if !r.Ended.IsZero() {
		return refusedWith(http.StatusOK, "order_not_active"), false
	}
	s := w.servers[r.Server]
	if floor, ok := priceIn(w.prices(s, true, at), r.Currency); ok && price.Cmp(floor) < 0 {
		no := refusedWith(http.StatusOK, "too_low_price")
		no.members = map[string]any{"min_price": number(floor)}
		return no, false
	}
	if price.Cmp(r.Price) < 0 {
		if step := times(r.Price, maxStep); minus(r.Price, price).Cmp(step) > 0 {
			no := refusedWith(http.StatusOK, "exceeded_max_step")
			no.members = map[string]any{"max_step": number(step)}
			return no, false
		}
		if wait := loweringEvery - at.Sub(r.Lowered); !r.Lowered.IsZero() && wait > 0 {
			no := refusedWith(http.StatusOK, "can_lower_every_600_seconds")
			no.members = map[string]any{"time_to_lowering": int64(wait/time.Second) + 1}
			return no, false
		}
		r.Lowered = at
	}
	r.Billed = append(r.Billed, billed{Until: at, Price: r.Price})
	r.Price = price
	w.changed.rental(r)
	w.auction(s, at)
	return taken, true
}

// rentByHand is a human renting on an account outside of whatever is under test.
func (w *world) rentByHand(at time.Time, key string, server int64, image string, ports []int) (*rental, error) {
	s := w.servers[server]
	if s == nil || !s.online(at) {
		return nil, fmt.Errorf("server %d is not listed", server)
	}
	if s.hostRented(at) || s.onDemandHolder(at) != nil {
		return nil, fmt.Errorf("server %d is rented", server)
	}
	prices := w.prices(s, false, at)
	coins := slices.Concat([]string{"USD-Blockchain"}, slices.Sorted(maps.Keys(w.rates)))
	for _, coin := range coins {
		price, ok := priceIn(prices, coin)
		if !ok || !slices.Contains(s.allowed, coin) {
			continue
		}
		r := &rental{
			Server: server, Key: key, Foreign: true, Currency: coin, Price: price, Image: image,
			CreationFee: inCoin(creationFeeUSD, w.rates[coin], coin),
		}
		for _, p := range ports {
			r.Ports = append(r.Ports, port{Container: p, Kind: "tcp"})
		}
		return r, w.open(r, at, nil)
	}
	return nil, fmt.Errorf("server %d takes no coin that has a price and a rate", server)
}
