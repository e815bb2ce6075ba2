// Package view turns the machine's own state of an order into the public object. It guarantees that nothing sealed,
// derived or internal gets out, and that every price carries its unit; it decides nothing.
package view

import (
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/money"
	"github.com/renthook/renthook/services/order/internal/ledger"
	"github.com/renthook/renthook/services/order/internal/rental"
)

// Order is the public object.
func Order(o *rental.Order, f ledger.Fees) *orderv1.Order {
	p := &orderv1.Order{
		Id: o.ID, Client: o.Client, Account: o.Account, Revision: o.Revision,
		State:       orderv1.Order_State(orderv1.Order_State_value[o.State.String()]),
		Spec:        spec(&o.Ask),
		CreateTime:  stamp(o.Created),
		UpdateTime:  stamp(o.Updated),
		EndsAt:      stamp(o.EndsAt),
		Failure:     Failure(o.Failure),
		OperationId: o.Create.ID,
		Paper:       o.Ask.Paper,
		Unprobed:    o.Unprobed,
	}
	for n := range o.Intents {
		i := &o.Intents[n]
		p.Attempts = append(p.Attempts, &orderv1.Attempt{
			Number: int32(i.Number), ServerId: i.Server.ID, Outcome: string(i.Outcome), Reason: i.Reason,
			MarketType: i.Type, UsdPerHour: money.Text(i.USDPerHour), Time: stamp(i.At),
		})
	}
	if i := o.Current(); i != nil && (i.Outcome.Live() || i.Outcome == rental.Over && o.State.Terminal()) {
		p.MarketOrderId, p.MarketType = i.RentalID, i.Type
		p.Server = &orderv1.Server{
			Id: i.Server.ID, Gpu: i.Server.GPU, GpuName: i.Server.FullName, GpuCount: int32(i.Server.GPUCount),
			VramGb: i.Server.VRAMGB, Country: i.Server.Country, Reliability: i.Server.Reliability,
		}
		p.Cost = cost(i, f)
		p.Access = access(i)
	}
	return p
}

func spec(a *rental.Ask) *orderv1.OrderSpec {
	s := &orderv1.OrderSpec{
		Gpu: a.GPU, Count: int32(a.Count), MarketType: a.MarketType, Currency: a.Currency, Image: a.Image, SshKey: a.SSHKey,
		MaxPrice:    &orderv1.Price{Amount: money.Text(a.Ceiling), Currency: "USD", Per: "hour", Scope: "server"},
		MaxDuration: "never", WaitUntil: stamp(a.WaitUntil), Labels: a.Labels,
	}
	if a.Duration > 0 {
		s.MaxDuration = a.Duration.String()
	}
	if len(a.Ports) > 0 {
		s.Ports = map[string]string{}
		for port, kind := range a.Ports {
			s.Ports[strconv.Itoa(port)] = kind
		}
	}
	r := a.Requirements
	if r.MinVRAMGB != 0 || r.MinReliability != 0 || len(r.Countries) > 0 || r.MinCUDA != "" || r.MinDownMbps != 0 || r.MinUpMbps != 0 || r.MinRAMGB != 0 || r.MinDiskGB != 0 {
		s.Requirements = &orderv1.Requirements{
			MinVramGb: r.MinVRAMGB, MinReliability: r.MinReliability, Countries: r.Countries, MinCuda: r.MinCUDA,
			MinDownMbps: r.MinDownMbps, MinUpMbps: r.MinUpMbps, MinRamGb: r.MinRAMGB, MinDiskGb: r.MinDiskGB,
		}
	}
	return s
}

// cost shows what is really billed once it is known, and what was sent until then.
func cost(i *rental.Intent, f ledger.Fees) *orderv1.Cost {
	perDay, usd := i.PerDay, i.USDPerHour
	if i.RealPerDay.IsPos() {
		perDay = i.RealPerDay
		if real, err := money.USDPerHour(perDay, i.USDRate); err == nil {
			usd = real
		}
	}
	c := &orderv1.Cost{
		UsdPerHour: money.Text(usd.Round(8)), NativePerDay: money.Text(perDay), Currency: i.Currency, UsdRate: money.Text(i.USDRate),
		CreationFeeUsd: money.Text(f.Creation), Spend: money.Text(i.Spend), WorstCaseUsd: money.Text(i.Reserved.Round(4)),
	}
	if fee, err := money.Times(usd, f.Part(i.Type)); err == nil {
		c.FeesUsdPerHour = money.Text(fee.Round(8))
	}
	return c
}

func access(i *rental.Intent) *orderv1.Access {
	if i.Outcome != rental.Placed || i.Access.Host == "" && i.Access.HTTPHost == "" {
		return nil
	}
	a := &orderv1.Access{Host: i.Access.Host, SshUser: "root", TcpPorts: map[string]int32{}}
	for c, port := range i.Access.TCPPorts {
		if slices.Contains(i.Markers, c) {
			continue // markers are internal
		}
		a.TcpPorts[strconv.Itoa(c)] = int32(port)
	}
	a.SshPort = int32(i.Access.TCPPorts[22])
	if i.Access.HTTPHost != "" {
		a.HttpUrl = "https://" + i.Access.HTTPHost
	}
	return a
}

// Failure is the public form; the seed's own text stays inside.
func Failure(f *rental.Failure) *orderv1.Failure {
	if f == nil {
		return nil
	}
	return &orderv1.Failure{Code: f.Code, Message: f.Message, Retryable: f.Retryable}
}

// Settlement is the public form.
func Settlement(s rental.Settlement) *orderv1.Settlement {
	out := &orderv1.Settlement{
		OperationId: s.Operation.ID, Command: s.Operation.Command, Succeeded: s.Failure == nil, Failure: Failure(s.Failure),
	}
	if c := s.Operation.Callback; c != nil {
		out.Callback = &orderv1.Callback{Url: c.URL, Seed: c.Seed, OrderAsSent: c.OrderAsSent}
		if s.Failure != nil {
			out.Callback.SeedError = s.Failure.Seed
		}
	}
	return out
}

// Changed names the members that differ, in JSON names.
func Changed(before, after *orderv1.Order) []string {
	var names []string
	b, a := before.ProtoReflect(), after.ProtoReflect()
	fields := a.Descriptor().Fields()
	for n := range fields.Len() {
		fd := fields.Get(n)
		if fd.Name() == "revision" || fd.Name() == "update_time" {
			continue
		}
		if !equal(b, a, fd) {
			names = append(names, fd.JSONName())
		}
	}
	return names
}

// equal compares one member of two orders: every other member of the copies is cleared first.
func equal(b, a protoreflect.Message, fd protoreflect.FieldDescriptor) bool {
	if b.Has(fd) != a.Has(fd) {
		return false
	}
	if !a.Has(fd) {
		return true
	}
	x, y := b.New(), a.New()
	x.Set(fd, b.Get(fd))
	y.Set(fd, a.Get(fd))
	return proto.Equal(x.Interface(), y.Interface())
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
