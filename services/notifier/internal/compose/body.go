package compose

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/money"
	"github.com/renthook/renthook/services/notifier/internal/channel"
)

const (
	// bodyLimit is what a callback may weigh. Source: the Standard Webhooks specification, "payloads … under 20kb".
	bodyLimit = 20_000
	// passwordRoom is kept free for data.ssh.password.
	passwordRoom = 64
	// textLimit bounds a sentence in a body, in characters.
	textLimit = 1000
)

// members of a JSON object; a map, so that they can be added and left out.
type members map[string]any

// body is the callback of one settlement: type, timestamp and data, and for a seed-style callback the seed's own
// members beside them.
func body(ev *orderv1.OrderEvent, s *orderv1.Settlement) ([]byte, error) {
	data := order(ev.GetOrder())
	if s.GetCommand() == "order.report" {
		data = report(ev.GetReport())
	}
	data["operation"] = operation(s)
	if line := ssh(ev.GetOrder(), s); line != nil {
		data["ssh"] = line
	}
	top := members{}
	if s.GetCallback().GetSeed() {
		top = seed(ev, s)
	}
	top["type"], top["timestamp"], top["data"] = callbackType(ev, s), stamp(ev.GetTime()), data
	return fit(top, data)
}

// fit encodes the body, leaving out the longest of what is only a convenience until it is below the limit.
func fit(top, data members) ([]byte, error) {
	leaveOut := []string{"labels", "attempts", "waiting", "rentals"}
	for {
		b, err := json.Marshal(top)
		if err != nil {
			return nil, fmt.Errorf("encode body: %w", err)
		}
		if len(b) <= bodyLimit-passwordRoom {
			return b, nil
		}
		rows, _ := top["orders"].([]members)
		switch {
		case len(leaveOut) > 0:
			delete(data, leaveOut[0])
			leaveOut = leaveOut[1:]
		case len(rows) > 0:
			top["orders"] = rows[:len(rows)*3/4]
		default:
			return nil, fmt.Errorf("body of %d bytes cannot be made shorter", len(b))
		}
		data["truncated"] = true
	}
}

// seed gives the members that receivers of the seed's callbacks read.
func seed(ev *orderv1.OrderEvent, s *orderv1.Settlement) members {
	if s.GetCommand() == "order.report" {
		return seedReport(ev.GetReport())
	}
	m := members{"success": s.GetSucceeded()}
	if s.GetCommand() == "order.cancel" {
		m["order_id"] = asSent(s.GetCallback().GetOrderAsSent())
	}
	switch {
	case !s.GetSucceeded():
		m["error"] = cut(seedError(s))
	case s.GetCommand() == "order.cancel":
		m["status"] = "cancelled"
	case s.GetCommand() == "order.create":
		o := ev.GetOrder()
		m["order_id"], m["server_id"], m["status"] = o.GetMarketOrderId(), o.GetServer().GetId(), "running"
		m["ssh_connection"] = orNull(channel.SSHLine(o.GetAccess()))
		m["gpu"] = slices.Repeat([]string{o.GetServer().GetGpuName()}, max(int(o.GetServer().GetGpuCount()), 1))
		m["price_usd"] = number(o.GetCost().GetUsdPerHour())
	}
	return m
}

// seedError is the seed's text; an outcome the seed did not know has only ours.
func seedError(s *orderv1.Settlement) string {
	if text := s.GetCallback().GetSeedError(); text != "" {
		return text
	}
	return s.GetFailure().GetMessage()
}

// seedReport is the seed's answer to a status task; it has no success member.
func seedReport(r *orderv1.Report) members {
	active, creating := 0, 0
	rows := make([]members, 0, len(r.GetRentals()))
	for _, l := range r.GetRentals() {
		switch l.GetStatus() {
		case "running":
			active++
		case "creating_order":
			creating++
		}
		rows = append(rows, members{
			"order_id": l.GetMarketOrderId(), "status": l.GetStatus(), "ssh": orNull(l.GetSsh()), "managed": l.GetManaged(),
		})
	}
	return members{"total_orders": len(rows), "active": active, "creating": creating, "orders": rows}
}

// asSent is what the sender wrote, number or string, kept as JSON.
func asSent(text string) any {
	if json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	return text
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// number turns a decimal into a JSON number of at most six places, millionths of a dollar: 0.49, never
// 0.49000000001, and 1.0, since receivers in Python had a float. What is no amount is null: a callback without its
// price is better than none.
func number(amount string) any {
	d, err := money.Parse(amount)
	if err != nil {
		return nil
	}
	return json.Number(d.Round(6).Trim(1).Pad(1).String())
}

func cut(s string) string { return channel.Truncate(s, textLimit) }

func stamp(t *timestamppb.Timestamp) string { return t.AsTime().UTC().Format(time.RFC3339Nano) }
