package cloresim

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/govalues/decimal"
)

// ErrNotFound is wrapped when a control call names a server or a rental that does not exist.
var ErrNotFound = errors.New("no such thing")

// ErrConflict is wrapped when a control call cannot be done in the state things are in.
var ErrConflict = errors.New("not in this state")

// steer does a control call under the lock and puts it on disk.
func (s *Sim) steer(do func(now time.Time) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.world.advance(now)
	err := do(now)
	s.commit()
	return errors.Join(err, s.broken)
}

// Script replaces the queues of steps it names.
func (s *Sim) Script(queues map[string][]Step) error {
	return s.steer(func(time.Time) error { return s.world.script(queues) })
}

// ServerPatch changes a server. Nil members stay. Prices are USD per DAY.
type ServerPatch struct {
	OnDemandUSD *decimal.Decimal `json:"on_demand_usd_per_day"`
	SpotUSD     *decimal.Decimal `json:"spot_usd_per_day"`
	Rented      *bool            `json:"rented"`
	Reliability *decimal.Decimal `json:"reliability"`
	Online      *bool            `json:"online"`
	// Boots false: containers created from now on stay at mon_container 0. SSH false: the ssh port does not answer.
	Boots *bool `json:"boots"`
	SSH   *bool `json:"ssh"`
	// RefuseCoins are refused with currency-not-allowed although they are listed.
	RefuseCoins []string `json:"refuse_coins"`
}

func (p *ServerPatch) check() error {
	for _, d := range []*decimal.Decimal{p.OnDemandUSD, p.SpotUSD, p.Reliability} {
		if d != nil && (d.IsNeg() || d.Cmp(most) > 0) {
			return fmt.Errorf("%s is not an amount", d)
		}
	}
	return nil
}

// PatchServer changes a server from now on.
func (s *Sim) PatchServer(id int64, p ServerPatch) (ServerState, error) {
	var st ServerState
	err := s.steer(func(now time.Time) error {
		server, err := s.world.listed(id, now)
		if err != nil {
			return err
		}
		if err := p.check(); err != nil {
			return err
		}
		f := server.at(now)
		f.Since = now
		replace(&f.OnDemandUSD, p.OnDemandUSD)
		replace(&f.SpotUSD, p.SpotUSD)
		replace(&f.Rented, p.Rented)
		replace(&f.Reliability, p.Reliability)
		replace(&f.Online, p.Online)
		replace(&f.Boots, p.Boots)
		replace(&f.SSH, p.SSH)
		if p.RefuseCoins != nil {
			f.RefuseCoins = p.RefuseCoins
		}
		s.world.set(server, f)
		st = s.world.serverState(server, now)
		return nil
	})
	return st, err
}

func replace[T any](old **T, by *T) {
	if by != nil {
		*old = by
	}
}

func (w *world) listed(id int64, now time.Time) (*server, error) {
	s := w.servers[id]
	if s == nil || s.at(now).Removed {
		return nil, fmt.Errorf("server %d: %w", id, ErrNotFound)
	}
	return s, nil
}

func (w *world) set(s *server, f facts) {
	s.change(f)
	w.changed.server(s)
	w.auction(s, f.Since)
}

// NewServer is a server to list. Row is a whole marketplace row and excludes the others; else GPU is what specs.gpu
// shall say ("1x NVIDIA GeForce RTX 4090"). The zero ID is the next free one.
type NewServer struct {
	ID           int64            `json:"id"`
	GPU          string           `json:"gpu"`
	OnDemandUSD  *decimal.Decimal `json:"on_demand_usd_per_day"`
	SpotUSD      *decimal.Decimal `json:"spot_usd_per_day"`
	Reliability  *decimal.Decimal `json:"reliability"`
	MRL          int64            `json:"mrl"`
	AllowedCoins []string         `json:"allowed_coins"`
	Rented       bool             `json:"rented"`
	Row          json.RawMessage  `json:"row"`
}

// AddServer lists a server and gives its id. What is not named is usual: reliability 0.99, 720 hours, every coin, a
// spot floor at 0.7 of the price.
func (s *Sim) AddServer(n NewServer) (int64, error) {
	var id int64
	err := s.steer(func(time.Time) error {
		raw, err := n.row(s.world)
		if err != nil {
			return err
		}
		l, err := readListing(raw)
		if err != nil {
			return err
		}
		if s.world.servers[l.id] != nil {
			return fmt.Errorf("server %d is listed: %w", l.id, ErrConflict)
		}
		s.world.list(l).steady = true
		s.world.added = append(s.world.added, raw)
		s.world.changed.listed = append(s.world.changed.listed, raw)
		id = l.id
		return nil
	})
	return id, err
}

func (n NewServer) row(w *world) (json.RawMessage, error) {
	if n.Row != nil {
		return n.Row, nil
	}
	if n.GPU == "" || n.OnDemandUSD == nil {
		return nil, errors.New("a server needs gpu and on_demand_usd_per_day, or row")
	}
	if n.ID == 0 && len(w.order) > 0 {
		n.ID = w.order[0] + 1
	}
	spot, reliability := times(*n.OnDemandUSD, decimal.MustNew(7, 1)), decimal.MustNew(99, 2)
	if n.SpotUSD != nil {
		spot = *n.SpotUSD
	}
	if n.Reliability != nil {
		reliability = *n.Reliability
	}
	r := trapRow(max(n.ID, 1), rtx4090, 1, 1, w.rates)
	r.Specs.GPU, r.GPUArray, r.Rented, r.Reliability = n.GPU, nil, n.Rented, number(reliability)
	for _, m := range catalog {
		if n.GPU == fmt.Sprintf("%dx %s", leadingNumber(n.GPU), m.name) {
			r.Specs.GPURAM = m.vram
			for range leadingNumber(n.GPU) {
				r.GPUArray = append(r.GPUArray, shortName(m.name))
			}
		}
	}
	if n.MRL > 0 {
		r.MRL = n.MRL
	}
	if n.AllowedCoins != nil {
		r.AllowedCoins = n.AllowedCoins
	}
	r.Price = priceMember(*n.OnDemandUSD, spot, r.AllowedCoins, w.rates)
	return json.Marshal(r)
}

// RemoveServer takes a server off the list. Rentals on it go on.
func (s *Sim) RemoveServer(id int64) error {
	return s.steer(func(now time.Time) error {
		server, err := s.world.listed(id, now)
		if err != nil {
			return err
		}
		f := server.at(now)
		f.Since, f.Removed = now, true
		s.world.set(server, f)
		return nil
	})
}

// HandRental is what a human rents on an account, on demand. An empty Key is DefaultKey.
type HandRental struct {
	ServerID int64  `json:"server_id"`
	Image    string `json:"image"`
	Ports    []int  `json:"ports"`
	Key      string `json:"key"`
}

// Rent lets a human rent a server and gives the order's id.
func (s *Sim) Rent(h HandRental) (int64, error) {
	if h.Key == "" {
		h.Key = DefaultKey
	}
	var id int64
	err := s.steer(func(now time.Time) error {
		if _, err := s.world.listed(h.ServerID, now); err != nil {
			return err
		}
		r, err := s.world.rentByHand(now, h.Key, h.ServerID, h.Image, h.Ports)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrConflict, err)
		}
		id = r.ID
		return nil
	})
	return id, err
}

// EndRental ends a rental from outside: "outbid" (spot only, in the style of the switch), "host_offline" (the
// server goes offline too) or "expired".
func (s *Sim) EndRental(id int64, reason string) error {
	if !slices.Contains([]string{"outbid", "host_offline", "expired"}, reason) {
		return fmt.Errorf(`the reason is "outbid", "host_offline" or "expired", not %q`, reason)
	}
	return s.steer(func(now time.Time) error {
		r := s.world.byID[id]
		switch {
		case r == nil:
			return fmt.Errorf("rental %d: %w", id, ErrNotFound)
		case !r.Ended.IsZero():
			return fmt.Errorf("rental %d has ended: %w", id, ErrConflict)
		case reason == "outbid" && !r.Spot:
			return fmt.Errorf("rental %d is on demand and cannot be outbid: %w", id, ErrConflict)
		case reason == "outbid":
			s.world.outbid(r, now)
		case reason == "host_offline":
			server, offline := s.world.servers[r.Server], false
			f := server.at(now)
			f.Since, f.Online = now, &offline
			s.world.set(server, f)
			s.world.endRental(r, now, reason)
		default:
			s.world.endRental(r, now, reason)
		}
		return nil
	})
}

// outbidder is the account of the bids that control calls make to outbid.
const outbidder = "outbidder"

// outbid lets somebody bid a tenth more. Where outbid orders end, that bid does not stay.
func (w *world) outbid(r *rental, now time.Time) {
	if w.settings.OutbidEnding != "queued" {
		w.endRental(r, now, "outbid")
		return
	}
	by := &rental{
		Server: r.Server, Key: outbidder, Foreign: true, Spot: true, Currency: r.Currency,
		Price: times(r.Price, decimal.MustNew(11, 1)), Image: "somebody/else",
	}
	// It asks for no ports, so that nothing can fail.
	_ = w.open(by, now, nil)
}

// Reset makes a new world: rentals, calls, accounts and scripts are gone, ids go on. Members of raw that are not
// given stay as they are; their names are seed, servers, boot_ms, visible_ms, ports_ms, rate_limit, address_limit,
// balance_usd, drift, order_limit and the switches.
func (s *Sim) Reset(raw []byte) error {
	return s.steer(func(time.Time) error {
		var generated struct{ Seed, Servers *int64 }
		set := s.world.settings
		if err := errors.Join(strict(raw, &set), json.Unmarshal(raw, &generated)); err != nil {
			return err
		}
		if s.inventory != nil && (generated.Seed != nil || generated.Servers != nil) {
			return fmt.Errorf("the inventory is a recording, not one of a seed: %w", ErrConflict)
		}
		set.Inventory = s.world.settings.Inventory
		if err := set.check(); err != nil {
			return err
		}
		listings, err := s.listings(&set)
		if err != nil {
			return err
		}
		s.world.clear()
		s.world.settings = set
		s.world.stock(listings)
		s.world.changed.reset = true
		return nil
	})
}
