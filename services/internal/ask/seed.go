package ask

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
)

// MostRentals is how many rentals one ask of the seed's shape may want by count.
const MostRentals = 10

// Doors, as Origin.Door names them.
const (
	DoorSeed = "seed"
	DoorV1   = "v1"
	DoorNATS = "nats"
)

// Seed is a body of the seed's shape. Members it does not know are ignored; null is absent, but for use_spot.
type Seed struct{ body *object }

// ParseSeed reads a body as the seed's parser did, NaN and infinities included, and refuses what is ambiguous.
// With emptyAllowed no body and any falsy JSON mean an object without members.
func ParseSeed(body []byte, emptyAllowed bool) (*Seed, error) {
	v, err := parse(body, true)
	if emptyAllowed && (errors.Is(err, errEmpty) || err == nil && !truthy(v)) {
		return &Seed{body: &object{}}, nil
	}
	if err != nil {
		return nil, badJSON(err)
	}
	o, ok := v.(*object)
	if !ok {
		return nil, badJSON(errors.New("the body is JSON, but not an object"))
	}
	return &Seed{body: o}, nil
}

// SentAt is when the sender says it wrote the body: RFC 3339. It is false when the member is absent.
func (s *Seed) SentAt() (time.Time, bool, error) {
	v := s.body.get("sent_at")
	if v == nil {
		return time.Time{}, false, nil
	}
	text, _ := v.(string)
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, true, invalid("sent_at must be a time such as 2026-11-24T10:00:00Z")
	}
	return at, true, nil
}

// RequestID is the sender's key, empty when there is none.
func (s *Seed) RequestID() (string, error) { return s.optional("request_id") }

// optional reads a string; falsy is absent.
func (s *Seed) optional(name string) (string, error) {
	v := s.body.get(name)
	if !truthy(v) {
		return "", nil
	}
	text, ok := v.(string)
	if !ok {
		return "", invalid("%s must be a string", name)
	}
	return text, nil
}

func (s *Seed) callback() (string, error) {
	url, err := s.optional("callback_url")
	if err != nil {
		return "", invalid("callback_url refused: it must be a string")
	}
	return url, nil
}

func (s *Seed) gpu() (string, error) {
	gpu, ok := s.body.get("gpu_type").(string)
	if !ok {
		return "", invalid("gpu_type must be a string")
	}
	return gpu, nil
}

// SeedCreate is what a create-order asks: the command, and how many times.
type SeedCreate struct {
	Command *orderv1.CreateOrder
	// Rentals is 1 to MostRentals; each is a command of its own.
	Rentals int
}

// Create reads a create-order. The callback_url is taken as it is: judging it needs the network.
func (s *Seed) Create() (SeedCreate, error) {
	none := SeedCreate{}
	if !truthy(s.body.get("gpu_type")) {
		return none, invalid("gpu_type required")
	}
	gpu, err := s.gpu()
	if err != nil {
		return none, err
	}
	spec := &orderv1.OrderSpec{Gpu: gpu}
	origin := &orderv1.Origin{Door: DoorSeed, SeedCallback: true, GpuAsSent: gpu}
	if v := s.body.get("max_price"); v != nil {
		var ok bool
		if spec.MaxPrice, origin.PriceAsSent, ok = seedPrice(v); !ok {
			return none, invalid("max_price must be a positive number")
		}
	}
	spot := true
	if s.body.has("use_spot") {
		v := s.body.get("use_spot")
		is, ok := v.(bool)
		if !ok && v != nil {
			return none, invalid("use_spot must be true or false")
		}
		spot = is
	}
	spec.MarketType = "on-demand"
	if spot {
		spec.MarketType = "any"
	}
	rentals, err := s.rentals()
	if err != nil {
		return none, err
	}
	if err := s.rest(spec); err != nil {
		return none, err
	}
	return SeedCreate{Command: &orderv1.CreateOrder{Spec: spec, Origin: origin}, Rentals: rentals}, nil
}

func (s *Seed) rentals() (int, error) {
	switch v := s.body.get("count").(type) {
	case nil:
		return 1, nil
	case number:
		whole, _ := amount(string(v))
		if n, err := strconv.Atoi(whole); err == nil && n <= MostRentals {
			return n, nil
		}
	}
	return 0, invalid("count must be a whole number from 1 to %d", MostRentals)
}

// rest reads the members that are strings, and env.
func (s *Seed) rest(spec *orderv1.OrderSpec) error {
	var err error
	for _, m := range []struct {
		name string
		into *string
	}{{"image", &spec.Image}, {"ssh_key", &spec.SshKey}, {"command", &spec.Command}, {"max_duration", &spec.MaxDuration}} {
		if *m.into, err = s.optional(m.name); err != nil {
			return err
		}
	}
	if v := s.body.get("env"); truthy(v) {
		o, ok := v.(*object)
		if !ok {
			return invalid("env must be an object of strings")
		}
		spec.Env = make(map[string]string, len(o.names))
		for name, member := range o.members {
			text, ok := member.(string)
			if !ok {
				return invalid("env must be an object of strings: %q is not one", name)
			}
			spec.Env[name] = text
		}
	}
	if spec.CallbackUrl, err = s.callback(); err != nil {
		return err
	}
	return checkSpec(spec)
}

// Cancel reads a cancel-order.
func (s *Seed) Cancel() (*orderv1.CancelOrder, error) {
	v := s.body.get("order_id")
	if !truthy(v) {
		return nil, invalid("order_id required")
	}
	id, sent, err := orderID(v)
	if err != nil {
		return nil, err
	}
	url, err := s.callback()
	if err != nil {
		return nil, err
	}
	return &orderv1.CancelOrder{
		OrderId: id, CallbackUrl: url,
		Origin: &orderv1.Origin{Door: DoorSeed, SeedCallback: true, OrderAsSent: sent},
	}, nil
}

// orderID reads how a sender names an order: the number or text to look up, and its JSON as it was sent.
func orderID(v any) (id, sent string, err error) {
	switch v := v.(type) {
	case number:
		if v.isInt() || finite(v.float()) {
			return strings.TrimSuffix(v.str(), ".0"), string(v), nil
		}
	case string:
		sent, err := json.Marshal(v)
		return v, string(sent), err
	}
	return "", "", invalid("order_id must be a number or a string")
}

// Echo prints an order_id, given as the JSON a sender wrote (Origin.OrderAsSent), the way Python's str does.
func Echo(orderAsSent string) string {
	v, err := parse([]byte(orderAsSent), false)
	if n, ok := v.(number); ok && err == nil {
		return n.str()
	}
	if s, ok := v.(string); ok && err == nil {
		return s
	}
	return orderAsSent
}

// Report reads a status request.
func (s *Seed) Report() (*orderv1.ReportOrders, error) {
	url, err := s.callback()
	if err != nil {
		return nil, err
	}
	return &orderv1.ReportOrders{CallbackUrl: url, Origin: &orderv1.Origin{Door: DoorSeed, SeedCallback: true}}, nil
}

// Alert checks the members of a price-alert and gives its callback_url.
func (s *Seed) Alert() (callbackURL string, err error) {
	if !truthy(s.body.get("gpu_type")) || !truthy(s.body.get("target_price")) {
		return "", invalid("gpu_type and target_price required")
	}
	if _, err := s.gpu(); err != nil {
		return "", err
	}
	if _, _, ok := seedPrice(s.body.get("target_price")); !ok {
		return "", invalid("target_price must be a positive number")
	}
	if _, err := s.optional("image"); err != nil {
		return "", err
	}
	return s.callback()
}
