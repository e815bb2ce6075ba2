package ask

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	controlv1 "github.com/renthook/renthook/proto/gen/renthook/control/v1"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
)

// requestIDMember is the sender's key inside a body; it is no part of the command.
const requestIDMember = "request_id"

// envelope are the members of a create that are not of its spec, and what a bare spec may have beside its own.
var envelope = []string{"paper", "not_after", "notAfter", "origin", requestIDMember}

// Create is what a native body asks: one command, and the sender's key if it has one.
type Create struct {
	Command   *orderv1.CreateOrder
	RequestID string
	// Rentals is above 1 only for a body of the seed's shape.
	Rentals int
}

// V1Create reads the body of POST /v1/orders: an OrderSpec, flat or under "spec", or the seed's flat shape.
// Members it does not know, and those that only a door may write, are refused.
func V1Create(body []byte) (Create, error) {
	o, err := parseObject(body)
	if err != nil {
		return Create{}, err
	}
	c, err := create(o, DoorV1)
	if err != nil {
		return Create{}, err
	}
	return c, nil
}

// V1Cancel reads the body of POST /v1/orders/{id}/cancel, which may be empty, and gives the sender's key.
func V1Cancel(id string, body []byte) (*orderv1.CancelOrder, string, error) {
	o, err := parseObject(body)
	switch {
	case errors.Is(err, errEmpty):
		o = &object{members: map[string]any{}}
	case err != nil:
		return nil, "", err
	case o.has("order_id") || o.has("orderId"):
		return nil, "", unknown("order_id", "the body: the path names the order", nil)
	}
	o.names, o.members["order_id"] = append(o.names, "order_id"), id
	return cancel(o, DoorV1)
}

// V1Extend reads the body of POST /v1/orders/{id}/extend, and gives the sender's key.
func V1Extend(id string, body []byte) (*orderv1.ExtendOrder, string, error) {
	o, err := parseObject(body)
	switch {
	case err != nil:
		return nil, "", err
	case o.has("order_id") || o.has("orderId"):
		return nil, "", unknown("order_id", "the body: the path names the order", nil)
	}
	o.names, o.members["order_id"] = append(o.names, "order_id"), id
	return extend(o, DoorV1)
}

// V1Control reads the body of POST /v1/halt, /v1/resume and /v1/disown, which may be empty, and gives the sender's key.
func V1Control(verb string, body []byte) (proto.Message, string, error) {
	o, err := parseObject(body)
	if errors.Is(err, errEmpty) {
		o, err = &object{members: map[string]any{}}, nil
	}
	if err != nil {
		return nil, "", err
	}
	return control(o, verb)
}

// control reads a halt, a resume or a disown.
func control(o *object, verb string) (proto.Message, string, error) {
	key, err := named(o, DoorV1)
	if err != nil {
		return nil, "", err
	}
	var m proto.Message
	switch verb {
	case "halt":
		m = &controlv1.Halt{}
	case "resume":
		m = &controlv1.Resume{}
	case "disown":
		m = &controlv1.Disown{}
	default:
		return nil, "", noCommand("control", verb)
	}
	return m, key, fill(m, o)
}

func parseObject(body []byte) (*object, error) {
	v, err := parse(body, false)
	if err != nil {
		return nil, badJSON(err)
	}
	o, ok := v.(*object)
	if !ok {
		return nil, badJSON(errors.New("the body is JSON, but not an object"))
	}
	return o, nil
}

// create reads either shape. Only on the bus, where the doors themselves write, may a body hold what doors write.
func create(o *object, door string) (Create, error) {
	key, err := requestID(o)
	if err != nil {
		return Create{}, err
	}
	if o.has("gpu_type") {
		c, err := seedShaped(o, door)
		return Create{Command: c.Command, RequestID: key, Rentals: c.Rentals}, err
	}
	outer := nested(o)
	cmd := &orderv1.CreateOrder{}
	spec, ok := outer["spec"].(*object)
	if !ok {
		return Create{}, invalid("spec must be an object")
	}
	if door != DoorNATS {
		for name, from := range map[string]map[string]any{"origin": outer, "sealed": spec.members} {
			if _, written := from[name]; written {
				return Create{}, unknown(name, "", nil)
			}
		}
	}
	sent, err := spellPrice(spec)
	if err != nil {
		return Create{}, err
	}
	delete(outer, requestIDMember)
	if err := fill(cmd, &object{names: slices.Sorted(maps.Keys(outer)), members: outer}); err != nil {
		return Create{}, err
	}
	if cmd.Origin == nil {
		cmd.Origin = &orderv1.Origin{Door: door, GpuAsSent: cmd.GetSpec().GetGpu(), PriceAsSent: sent}
	}
	return Create{Command: cmd, RequestID: key, Rentals: 1}, Check(cmd.Spec)
}

// nested gives the members of a create with the spec in its place: a bare spec is put under "spec".
func nested(o *object) map[string]any {
	if o.has("spec") {
		return maps.Clone(o.members)
	}
	outer, spec := map[string]any{}, &object{members: map[string]any{}}
	for _, name := range o.names {
		if slices.Contains(envelope, name) {
			outer[name] = o.members[name]
			continue
		}
		spec.names, spec.members[name] = append(spec.names, name), o.members[name]
	}
	outer["spec"] = spec
	return outer
}

// seedMembers are what the seed's shape has, where a member it lacks is refused.
var seedMembers = []string{
	"gpu_type", "max_price", "image", "use_spot", "callback_url", requestIDMember, "count", "max_duration", "ssh_key",
	"env", "command", "sent_at",
}

func seedShaped(o *object, door string) (SeedCreate, error) {
	for _, name := range o.names {
		if !slices.Contains(seedMembers, name) {
			return SeedCreate{}, unknown(name, "an ask with gpu_type", seedMembers)
		}
	}
	c, err := (&Seed{body: o}).Create()
	if err == nil {
		c.Command.Origin.Door = door
	}
	return c, err
}

// spellPrice replaces a bare number by the price it means, and says how the seed's texts print it: not at all when
// it is not USD per hour for the server.
func spellPrice(spec *object) (sent string, err error) {
	name := "max_price"
	if spec.has("maxPrice") {
		if spec.has(name) {
			return "", sameMember(name, "maxPrice")
		}
		name = "maxPrice"
	}
	switch v := spec.get(name).(type) {
	case nil:
		return "", nil
	case number, string:
		price, echo, ok := seedPrice(v)
		if !ok {
			return "", invalid("max_price must be above zero: a number, or an object with amount, currency, per, scope")
		}
		spec.members[name] = &object{
			names:   []string{"amount", "currency", "per", "scope"},
			members: map[string]any{"amount": price.Amount, "currency": price.Currency, "per": price.Per, "scope": price.Scope},
		}
		return echo, nil
	case *object:
		if n, ok := v.get("amount").(number); ok {
			sent, v.members["amount"] = n.str(), string(n)
		} else if s, ok := v.get("amount").(string); ok {
			sent = s
		}
		for member, plainly := range map[string]string{"currency": "USD", "per": "hour", "scope": "server"} {
			if s, ok := v.get(member).(string); ok && s != "" && s != plainly {
				sent = ""
			}
		}
		return sent, nil
	}
	return "", invalid("max_price must be a number, or an object with amount, currency, per, scope")
}

// cancel reads {"order_id", "reason", "callback_url"}; the seed's shape is the same.
func cancel(o *object, door string) (*orderv1.CancelOrder, string, error) {
	key, err := named(o, door)
	if err != nil {
		return nil, "", err
	}
	cmd := &orderv1.CancelOrder{}
	sent, err := nameOrder(o)
	if err != nil {
		return nil, "", err
	}
	if err := fill(cmd, o); err != nil {
		return nil, "", err
	}
	if cmd.Origin == nil {
		cmd.Origin = &orderv1.Origin{Door: door, OrderAsSent: sent}
	}
	return cmd, key, nil
}

func extend(o *object, door string) (*orderv1.ExtendOrder, string, error) {
	key, err := named(o, door)
	if err != nil {
		return nil, "", err
	}
	cmd := &orderv1.ExtendOrder{}
	sent, err := nameOrder(o)
	if err != nil {
		return nil, "", err
	}
	if err := fill(cmd, o); err != nil {
		return nil, "", err
	}
	if cmd.Origin == nil {
		cmd.Origin = &orderv1.Origin{Door: door, OrderAsSent: sent}
	}
	return cmd, key, checkExtend(cmd)
}

func checkExtend(cmd *orderv1.ExtendOrder) error {
	by, err := duration("by", cmd.By)
	if err != nil || by == "never" {
		return invalid("by must be a duration such as \"2h\"")
	}
	cmd.By = by
	return nil
}

func report(o *object) (*orderv1.ReportOrders, error) {
	if _, err := named(o, DoorNATS); err != nil {
		return nil, err
	}
	cmd := &orderv1.ReportOrders{}
	if err := fill(cmd, o); err != nil {
		return nil, err
	}
	if cmd.Origin == nil {
		cmd.Origin = &orderv1.Origin{Door: DoorNATS}
	}
	return cmd, nil
}

// named takes the sender's key out of a body, and refuses what only doors may write.
func named(o *object, door string) (string, error) {
	key, err := requestID(o)
	if err != nil {
		return "", err
	}
	if door != DoorNATS && o.has("origin") {
		return "", unknown("origin", "", nil)
	}
	delete(o.members, requestIDMember)
	o.names = slices.DeleteFunc(o.names, func(n string) bool { return n == requestIDMember })
	return key, nil
}

// nameOrder turns a number in order_id into the text the command holds, and gives the JSON that was sent.
func nameOrder(o *object) (string, error) {
	name := "order_id"
	if o.has("orderId") {
		name = "orderId"
	}
	if !truthy(o.get(name)) {
		return "", invalid("order_id required")
	}
	id, sent, err := orderID(o.get(name))
	if err != nil {
		return "", err
	}
	o.members[name] = id
	return sent, nil
}

func requestID(o *object) (string, error) {
	v := o.get(requestIDMember)
	if v == nil {
		return "", nil
	}
	text, ok := v.(string)
	if !ok || text == "" || len(text) > mostRequest {
		return "", invalid("request_id must be a string of 1 to %d bytes", mostRequest)
	}
	return text, nil
}

// fill reads o into m, refusing members that m does not have and values of another type.
func fill(m proto.Message, o *object) error {
	if err := conform(o, m.ProtoReflect().Descriptor(), ""); err != nil {
		return err
	}
	b, err := json.Marshal(plain(o))
	if err != nil {
		return badJSON(errors.New("the body cannot be read"))
	}
	if err := protojson.Unmarshal(b, m); err != nil {
		// The library prints a position in bytes of ours; what follows it is about the sender's value.
		_, text, ok := strings.Cut(err.Error(), "): ")
		if !ok {
			text = "a value cannot be read"
		}
		return invalid("%s", text)
	}
	return nil
}

// conform walks o beside the message it is to become.
func conform(o *object, md protoreflect.MessageDescriptor, where string) error {
	seen := map[protoreflect.Name]string{}
	for _, name := range o.names {
		f := md.Fields().ByJSONName(name)
		if f == nil {
			f = md.Fields().ByTextName(name)
		}
		if f == nil {
			return unknown(name, where, names(md))
		}
		if other, twice := seen[f.Name()]; twice {
			return sameMember(other, name)
		}
		seen[f.Name()] = name
		path := string(f.Name())
		switch {
		case where != "":
			path = where + "." + path
		case path == "spec":
			path = "" // a sender may have written it flat
		}
		if err := conformField(o.members[name], f, path); err != nil {
			return err
		}
	}
	return nil
}

func sameMember(a, b string) error {
	return badJSON(fmt.Errorf("the members %q and %q are the same one", a, b))
}

func conformField(v any, f protoreflect.FieldDescriptor, path string) error {
	if v == nil {
		return nil
	}
	switch {
	case f.IsMap():
		o, ok := v.(*object)
		if !ok {
			return invalid("%s must be an object", path)
		}
		for _, name := range o.names {
			if o.members[name] == nil {
				return invalid("%s.%s must not be null", path, name)
			}
			if err := conformValue(o.members[name], f.MapValue(), path+"."+name); err != nil {
				return err
			}
		}
		return nil
	case f.IsList():
		list, ok := v.([]any)
		if !ok {
			return invalid("%s must be a list", path)
		}
		for _, item := range list {
			if err := conformValue(item, f, path); err != nil {
				return err
			}
		}
		return nil
	}
	return conformValue(v, f, path)
}

func conformValue(v any, f protoreflect.FieldDescriptor, path string) error {
	want := "a string"
	var ok bool
	switch f.Kind() {
	case protoreflect.MessageKind:
		if f.Message().ParentFile().Package() == "google.protobuf" {
			_, ok = v.(string)
			want = "a time such as \"2026-11-24T10:00:00Z\""
			break
		}
		o, isObject := v.(*object)
		if isObject {
			return conform(o, f.Message(), path)
		}
		want = "an object"
	case protoreflect.BoolKind:
		_, ok = v.(bool)
		want = "true or false"
	case protoreflect.StringKind:
		_, ok = v.(string)
	case protoreflect.Int64Kind, protoreflect.Uint64Kind:
		// In protobuf's own JSON these are strings.
		_, ok = v.(number)
		if !ok {
			_, ok = v.(string)
		}
		want = "a number"
	default:
		_, ok = v.(number)
		want = "a number"
	}
	if !ok {
		return invalid("%s must be %s", path, want)
	}
	return nil
}

func names(md protoreflect.MessageDescriptor) []string {
	list := make([]string, 0, md.Fields().Len())
	for i := range md.Fields().Len() {
		list = append(list, string(md.Fields().Get(i).Name()))
	}
	return list
}
