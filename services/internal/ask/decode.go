package ask

import (
	"errors"
	"mime"

	"google.golang.org/protobuf/proto"

	"github.com/renthook/renthook/pkg/fault"
	controlv1 "github.com/renthook/renthook/proto/gen/renthook/control/v1"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
)

// Decode reads the body of renthook.v1.cmd.<client>.<noun>.<verb>.<key>, whoever published it: protobuf when
// contentType says so, else JSON, the message's own or in the seed's shape. It gives a *CreateOrder, *CancelOrder,
// *ExtendOrder or *ReportOrders, checked, with an Origin, or a *Halt,
// *Resume or *Disown. A fault of kind NotFound means that there is no such command.
func Decode(noun, verb, contentType string, body []byte) (proto.Message, error) {
	if noun != "order" && noun != "control" {
		return nil, noCommand(noun, verb)
	}
	if kind, _, err := mime.ParseMediaType(contentType); err == nil && (kind == "application/protobuf" || kind == "application/x-protobuf") {
		return decodeProtobuf(noun, verb, body)
	}
	o, err := parseObject(body)
	if noun == "control" && errors.Is(err, errEmpty) {
		o, err = &object{members: map[string]any{}}, nil
	}
	if err != nil {
		return nil, err
	}
	if noun == "control" {
		m, _, err := control(o, verb)
		return notNil(m, err)
	}
	switch verb {
	case "create":
		c, err := create(o, DoorNATS)
		if err != nil {
			return nil, err
		}
		if c.Rentals != 1 {
			return nil, invalid("count: publish one command a rental")
		}
		return c.Command, nil
	case "cancel":
		cmd, _, err := cancel(o, DoorNATS)
		return notNil(cmd, err)
	case "extend":
		cmd, _, err := extend(o, DoorNATS)
		return notNil(cmd, err)
	case "report":
		cmd, err := report(o)
		return notNil(cmd, err)
	}
	return nil, noCommand(noun, verb)
}

// notNil keeps a nil pointer from becoming a message that is not nil.
func notNil(m proto.Message, err error) (proto.Message, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}

func decodeProtobuf(noun, verb string, body []byte) (proto.Message, error) {
	var m proto.Message
	switch noun + "." + verb {
	case "order.create":
		m = &orderv1.CreateOrder{}
	case "order.cancel":
		m = &orderv1.CancelOrder{}
	case "order.extend":
		m = &orderv1.ExtendOrder{}
	case "order.report":
		m = &orderv1.ReportOrders{}
	case "control.halt":
		m = &controlv1.Halt{}
	case "control.resume":
		m = &controlv1.Resume{}
	case "control.disown":
		m = &controlv1.Disown{}
	default:
		return nil, noCommand(noun, verb)
	}
	if err := proto.Unmarshal(body, m); err != nil {
		return nil, invalid("the body is not a %s in protobuf", m.ProtoReflect().Descriptor().FullName())
	}
	if len(m.ProtoReflect().GetUnknown()) > 0 {
		return nil, invalid("the body has members that %s does not", m.ProtoReflect().Descriptor().FullName())
	}
	origin := &orderv1.Origin{Door: DoorNATS}
	switch m := m.(type) {
	case *orderv1.CreateOrder:
		if m.Origin == nil {
			origin.GpuAsSent = m.GetSpec().GetGpu()
			m.Origin = origin
		}
		if m.Spec == nil {
			m.Spec = &orderv1.OrderSpec{}
		}
		return m, Check(m.Spec)
	case *orderv1.CancelOrder:
		if m.OrderId == "" {
			return nil, invalid("order_id required")
		}
		if m.Origin == nil {
			m.Origin = origin
		}
	case *orderv1.ExtendOrder:
		if m.OrderId == "" {
			return nil, invalid("order_id required")
		}
		if m.Origin == nil {
			m.Origin = origin
		}
		return m, checkExtend(m)
	case *orderv1.ReportOrders:
		if m.Origin == nil {
			m.Origin = origin
		}
	}
	return m, nil
}

func noCommand(noun, verb string) error {
	return fault.New(fault.NotFound, "NO_SUCH_COMMAND", "there is no command %s.%s", noun, verb)
}
