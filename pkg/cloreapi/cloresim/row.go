package cloresim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unique"

	"github.com/govalues/decimal"
)

// member is one member of a JSON object, as it was printed.
type member struct {
	name string
	raw  json.RawMessage
}

// readObject splits a JSON object into its members, in their order and verbatim. The members share b's memory.
func readObject(b []byte) ([]member, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("read an object: it begins with %v: %w", t, errNotObject)
	}
	var ms []member
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("read an object: %w", err)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, fmt.Errorf("read member %v: %w", name, err)
		}
		// Decode copies: the same bytes stand in b. Thousands of rows share some dozen names.
		end := int(d.InputOffset())
		ms = append(ms, member{unique.Make(name.(string)).Value(), b[end-len(raw) : end : end]})
	}
	return ms, nil
}

func find(ms []member, name string) json.RawMessage {
	for _, m := range ms {
		if m.name == name {
			return m.raw
		}
	}
	return nil
}

// coinPrice is a price per day in one coin, as listed. A broken one is listed and cannot be rented at.
type coinPrice struct {
	coin   string
	raw    json.RawMessage
	amount decimal.Decimal
	sound  bool
}

func readPrices(raw json.RawMessage) []coinPrice {
	ms, err := readObject(raw)
	if err != nil {
		return nil
	}
	ps := make([]coinPrice, len(ms))
	for i, m := range ms {
		ps[i] = coinPrice{coin: m.name, raw: m.raw}
		ps[i].amount, ps[i].sound = readAmount(m.raw)
	}
	return ps
}

// listing is a server as an inventory lists it. It never changes.
type listing struct {
	id      int64
	members []member
	// price holds the members of price, nil when there is none to change.
	price            []member
	onDemand, spot   []coinPrice
	allowed          []string
	mrlHours         int64
	gpu              string
	rented           bool
	reliability      decimal.Decimal
	soundReliability bool
	// steady listings do not drift: the seeded traps.
	steady bool
}

func readListing(row []byte) (*listing, error) {
	ms, err := readObject(row)
	if err != nil {
		return nil, err
	}
	l := &listing{members: ms}
	if err := json.Unmarshal(find(ms, "id"), &l.id); err != nil || l.id <= 0 {
		return nil, fmt.Errorf("read a server: id %.40s is not an id", find(ms, "id"))
	}
	// What follows may be missing or broken in an honest recording: the row is listed all the same.
	_ = json.Unmarshal(find(ms, "rented"), &l.rented)
	_ = json.Unmarshal(find(ms, "mrl"), &l.mrlHours)
	_ = json.Unmarshal(find(ms, "allowed_coins"), &l.allowed)
	var specs struct {
		GPU string `json:"gpu"`
	}
	_ = json.Unmarshal(find(ms, "specs"), &specs)
	l.gpu = specs.GPU
	l.reliability, l.soundReliability = readAmount(find(ms, "reliability"))
	if price, err := readObject(find(ms, "price")); err == nil {
		l.price = price
		l.onDemand, l.spot = readPrices(find(price, "on_demand")), readPrices(find(price, "spot"))
	}
	return l, nil
}

// object writes JSON objects member by member.
type object struct {
	b     []byte
	empty bool
}

func openObject() object { return object{[]byte{'{'}, true} }

func (o *object) raw(name string, value []byte) {
	if !o.empty {
		o.b = append(o.b, ',')
	}
	o.empty = false
	o.b = appendText(o.b, name)
	o.b = append(o.b, ':')
	o.b = append(o.b, value...)
}

func (o *object) close() []byte { return append(o.b, '}') }

// appendText appends a JSON string. Names of members, by far the most of them, need no escapes.
func appendText(b []byte, s string) []byte {
	if !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' || strings.ContainsRune(`"\\<>&`, c) }) {
		b = append(b, '"')
		b = append(b, s...)
		return append(b, '"')
	}
	// A string always marshals.
	raw, _ := json.Marshal(s)
	return append(b, raw...)
}
