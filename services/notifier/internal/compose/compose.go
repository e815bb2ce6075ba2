// Package compose turns a record of an order journal into the deliveries it causes. It is pure: the same record
// always gives the same deliveries, ids and bytes included, so a record handled twice causes nothing twice. It
// guarantees one callback for every settlement that names one, in the seed's words beside ours, with numbers that
// are never binary floats, and bodies below 20 kB. It refuses to put a password into a body: the last step does.
package compose

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"net/url"
	"slices"
	"strings"

	deliveryv1 "github.com/renthook/renthook/proto/gen/renthook/delivery/v1"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/topology"
)

// Event is a record of a journal as deliveries see it.
type Event struct {
	// ID is the record's stream and sequence.
	ID string
	// Client whose order it is.
	Client string
	// Traceparent is its trace context, empty when it has none.
	Traceparent string
	*orderv1.OrderEvent
}

// CallbackLanes is how many consumers share the callbacks.
const CallbackLanes = 16

// LanePrefix begins the endpoint names of callback lanes; no configured endpoint may use it.
const LanePrefix = "cb-"

// Lanes lists the endpoint names of all lanes.
func Lanes() []string {
	names := make([]string, CallbackLanes)
	for i := range names {
		names[i] = fmt.Sprintf("%s%02d", LanePrefix, i)
	}
	return names
}

// lane hashes by host, so that a receiver that is down fills one lane and not all.
func lane(rawURL string) string {
	host := rawURL
	if u, err := url.Parse(rawURL); err == nil {
		host = strings.ToLower(u.Host)
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(host)) // never fails
	return Lanes()[h.Sum32()%CallbackLanes]
}

// Callbacks makes one delivery for every operation the event settles whose sender wants to be told.
func Callbacks(ev Event) ([]*deliveryv1.Delivery, error) {
	var out []*deliveryv1.Delivery
	for _, s := range ev.GetSettled() {
		if s.GetCallback().GetUrl() == "" {
			continue
		}
		body, err := body(ev.OrderEvent, s)
		if err != nil {
			return nil, fmt.Errorf("compose callback of %s for %s: %w", ev.ID, s.GetOperationId(), err)
		}
		d := delivery(ev, callbackID(ev.ID, s.GetOperationId()), lane(s.GetCallback().GetUrl()), body)
		d.Channel = "callback"
		d.EventType = callbackType(ev.OrderEvent, s)
		d.Url = s.GetCallback().GetUrl()
		d.Seed = s.GetCallback().GetSeed()
		d.RevealSshAttempt = passwordOf(ev.GetOrder(), s)
		out = append(out, d)
	}
	return out, nil
}

// Route makes the delivery of the event to a configured endpoint, with the body its channel rendered.
func Route(ev Event, endpoint, channel string, body []byte) *deliveryv1.Delivery {
	d := delivery(ev, ev.ID, endpoint, body)
	d.Channel, d.EventType = channel, ev.GetType()
	return d
}

func delivery(ev Event, id, endpoint string, body []byte) *deliveryv1.Delivery {
	return &deliveryv1.Delivery{
		Id: id, Client: ev.Client, Endpoint: endpoint, OrderId: ev.GetOrder().GetId(), Revision: ev.GetRevision(),
		Body: body, EventTime: ev.GetTime(), Traceparent: ev.Traceparent,
	}
}

// callbackID is "<event-id>-<operation>". What cannot stand in a subject, by length or letters, is hashed.
func callbackID(event, operation string) string {
	id := event + "-" + operation
	if topology.ValidToken(id) {
		return id
	}
	sum := sha256.Sum256([]byte(operation))
	return event + "-" + hex.EncodeToString(sum[:16])
}

// callbackType is the event that a settlement is told as. One record may settle several operations: the end of an
// order that was never running settles its create as the end it was, and its cancel as a success.
func callbackType(ev *orderv1.OrderEvent, s *orderv1.Settlement) string {
	switch {
	case s.GetCommand() == "order.cancel" && s.GetSucceeded():
		return "order.cancelled"
	case s.GetCommand() == "order.cancel":
		return "order.cancel_failed"
	case s.GetCommand() == "order.report":
		return "order.reported"
	default:
		return ev.GetType()
	}
}

// passwordOf says whose password goes into the callback: the attempt that runs, when its ssh was asked for without
// a key and the asker is being told of success.
func passwordOf(o *orderv1.Order, s *orderv1.Settlement) int32 {
	if s.GetCommand() != "order.create" || !s.GetSucceeded() || o.GetAccess().GetSshPort() == 0 || o.GetSpec().GetSshKey() != "" {
		return 0
	}
	return current(o).GetNumber()
}

// current is the attempt whose rental the order holds: the last one placed.
func current(o *orderv1.Order) *orderv1.Attempt {
	for _, a := range slices.Backward(o.GetAttempts()) {
		if a.GetOutcome() == "placed" {
			return a
		}
	}
	return nil
}

// Filter says which events an endpoint wants.
type Filter struct {
	// Events without "order."; "*" is all.
	Events []string
	// Labels the order must carry, each with this value.
	Labels map[string]string
}

// account are the events about no order that endpoints may want; others are told to whoever asked.
var account = []string{"alarm", "halted", "resumed", "closed"}

// Matches says whether the event goes to an endpoint with this filter. An endpoint that wants labels hears of orders
// only.
func (f Filter) Matches(ev *orderv1.OrderEvent) bool {
	name := strings.TrimPrefix(ev.GetType(), "order.")
	switch {
	case ev.GetOrder() == nil && (!slices.Contains(account, name) || len(f.Labels) > 0):
		return false
	case !slices.Contains(f.Events, name) && !slices.Contains(f.Events, "*"):
		return false
	case name == "cancelled" && ev.GetOrder().GetState() != orderv1.Order_CANCELLED:
		// A cancel of an order that had ended before is settled by an event of this name, and nothing happened.
		return false
	}
	for k, v := range f.Labels {
		if got, ok := ev.GetOrder().GetSpec().GetLabels()[k]; !ok || got != v {
			return false
		}
	}
	return true
}
