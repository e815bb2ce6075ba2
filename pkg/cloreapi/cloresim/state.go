package cloresim

import (
	"encoding/json"
	"time"

	"github.com/govalues/decimal"
)

// Time is a moment as the control API prints it: RFC 3339 with milliseconds.
type Time struct{ time.Time }

// MarshalJSON prints UTC with milliseconds.
func (t Time) MarshalJSON() ([]byte, error) {
	return []byte(t.UTC().Format(`"2006-01-02T15:04:05.000Z"`)), nil
}

// State is the simulator's own view: the truth now, without lag.
type State struct {
	Servers  []ServerState `json:"servers"`
	Rentals  []RentalState `json:"rentals"`
	Calls    []CallState   `json:"calls"`
	GapsMS   Gaps          `json:"gaps_ms"`
	Overlaps []Overlap     `json:"overlaps"`
	// Violations counts calls that came too early for the limits of their key.
	Violations int `json:"violations"`
}

// ServerState is a server. Prices are USD per DAY, null where none is sound; Rented is on demand, by whomever.
type ServerState struct {
	ID          int64        `json:"id"`
	GPU         string       `json:"gpu"`
	Rented      bool         `json:"rented"`
	Online      bool         `json:"online"`
	OnDemandUSD *json.Number `json:"on_demand_usd_per_day"`
	SpotUSD     *json.Number `json:"spot_usd_per_day"`
	Reliability *json.Number `json:"reliability"`
}

// RentalState is a rental, a waiting spot bid included.
type RentalState struct {
	ID       int64  `json:"id"`
	ServerID int64  `json:"server_id"`
	Type     string `json:"type"`
	Currency string `json:"currency"`
	// PricePerDay is in Currency, USDPerHour its equivalent; whole server, without fees.
	PricePerDay json.Number `json:"price_per_day"`
	USDPerHour  json.Number `json:"usd_per_hour"`
	Image       string      `json:"image"`
	// Ports are the container ports.
	Ports     []int  `json:"ports"`
	CreatedAt Time   `json:"created_at"`
	EndedAt   *Time  `json:"ended_at"`
	EndReason string `json:"end_reason"`
	// Spend is in Currency, without fees.
	Spend        json.Number `json:"spend"`
	Key          string      `json:"key"`
	Foreign      bool        `json:"foreign"`
	MonContainer int         `json:"mon_container"`
	// Holds is false for a spot bid that waits.
	Holds bool `json:"holds"`
}

// CallState is one call. EndedAt is null while it is in work; Status is 0 when it was not answered.
type CallState struct {
	N        int64           `json:"n"`
	At       Time            `json:"at"`
	EndedAt  *Time           `json:"ended_at"`
	Endpoint string          `json:"endpoint"`
	Key      string          `json:"key"`
	Request  json.RawMessage `json:"request"`
	Status   int             `json:"status"`
	Code     int             `json:"code"`
	Error    string          `json:"error"`
	// Applied says that a rental came of it, or ended, or that a bid changed.
	Applied bool `json:"applied"`
}

// Gaps are the smallest gaps between the arrivals of two calls of one key, and before a create_order; null while
// there were no two.
type Gaps struct {
	Any    *int64 `json:"any"`
	Create *int64 `json:"create"`
}

// State gives the truth now: calls with a number above callsAfter, and rentals, calls, gaps and violations of one
// key only unless key is empty.
func (s *Sim) State(callsAfter int64, key string) State {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.world.advance(now)
	s.commit()
	return s.world.state(now, callsAfter, key)
}

func (w *world) state(now time.Time, callsAfter int64, key string) State {
	st := State{
		Servers: make([]ServerState, 0, len(w.order)), Rentals: []RentalState{}, Calls: []CallState{}, Overlaps: []Overlap{},
	}
	for _, id := range w.order {
		if s := w.servers[id]; !s.at(now).Removed {
			st.Servers = append(st.Servers, w.serverState(s, now))
		}
	}
	for _, r := range w.rentals {
		if key == "" || r.Key == key {
			st.Rentals = append(st.Rentals, w.rentalState(r, now))
		}
	}
	for _, c := range w.calls {
		if c.N > callsAfter && (key == "" || c.Key == key) {
			st.Calls = append(st.Calls, CallState{
				c.N, Time{c.At}, orNull(c.EndedAt), c.Endpoint, c.Key, c.Request, c.Status, c.Code, c.Error, c.Applied,
			})
		}
	}
	for _, o := range w.overlaps(now) {
		if key == "" || o.Key == key {
			st.Overlaps = append(st.Overlaps, o)
		}
	}
	for _, a := range w.accounts {
		if key != "" && a.Key != key {
			continue
		}
		st.Violations += a.Violations
		if a.GapAnyMS != nil {
			least(&st.GapsMS.Any, *a.GapAnyMS)
		}
		if a.GapCreateMS != nil {
			least(&st.GapsMS.Create, *a.GapCreateMS)
		}
	}
	return st
}

func orNull(t time.Time) *Time {
	if t.IsZero() {
		return nil
	}
	return &Time{t}
}

func (w *world) serverState(s *server, now time.Time) ServerState {
	usd := func(spot bool) *json.Number {
		d, ok := w.usdPerDay(w.prices(s, spot, now))
		return numberIf(d, ok)
	}
	f := s.at(now)
	reliability := numberIf(s.reliability, s.soundReliability)
	if f.Reliability != nil {
		reliability = numberIf(*f.Reliability, true)
	}
	return ServerState{
		ID: s.id, GPU: s.gpu, Rented: s.hostRented(now) || s.onDemandHolder(now) != nil, Online: s.online(now),
		OnDemandUSD: usd(false), SpotUSD: usd(true), Reliability: reliability,
	}
}

func numberIf(d decimal.Decimal, ok bool) *json.Number {
	if !ok {
		return nil
	}
	n := number(d)
	return &n
}

func (w *world) rentalState(r *rental, now time.Time) RentalState {
	st := RentalState{
		ID: r.ID, ServerID: r.Server, Type: "on-demand", Currency: r.Currency, PricePerDay: number(r.Price),
		USDPerHour: number(over(w.usd(r), hoursPerDay).Round(8)), Image: r.Image, Ports: []int{},
		CreatedAt: Time{r.Created}, EndedAt: orNull(r.Ended), EndReason: r.EndReason, Spend: number(r.spend(now)),
		Key: r.Key, Foreign: r.Foreign, MonContainer: r.container(now),
	}
	if r.Spot {
		st.Type = "spot"
	}
	for _, p := range r.Ports {
		st.Ports = append(st.Ports, p.Container)
	}
	_, st.Holds = r.holdsAt(now)
	return st
}
