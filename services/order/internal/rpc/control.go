package rpc

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/renthook/renthook/pkg/fault"
	controlv1 "github.com/renthook/renthook/proto/gen/renthook/control/v1"
	"github.com/renthook/renthook/services/internal/auth"
	"github.com/renthook/renthook/services/internal/money"
	"github.com/renthook/renthook/services/order/internal/ledger"
)

// Control is ControlService.
type Control struct {
	controlv1.UnimplementedControlServiceServer
	server *Server
}

// NewControl makes the server.
func NewControl(d Deps) *Control { return &Control{server: New(d)} }

func (c *Control) allowed(ctx context.Context) (string, error) {
	client := auth.ClientFrom(ctx)
	if !c.server.deps.Control(client) {
		return "", fault.New(fault.Forbidden, "SCOPE_DENIED", "this client lacks the scope control")
	}
	return client, nil
}

// admit stores the command that a request stands for, and gives its operation.
func (c *Control) admit(ctx context.Context, verb, requestID string, request, command proto.Message) (string, error) {
	client, err := c.allowed(ctx)
	if err != nil {
		return "", err
	}
	hash, err := hashOf(request)
	if err != nil {
		return "", err
	}
	receipt, err := c.server.admit(ctx, client, "control", verb, requestID, hash, command)
	return receipt.Operation, err
}

// Halt admits a halt.
func (c *Control) Halt(ctx context.Context, r *controlv1.HaltRequest) (*controlv1.HaltResponse, error) {
	m := r.GetHalt()
	if m == nil {
		m = &controlv1.Halt{}
	}
	id, err := c.admit(ctx, "halt", r.GetRequestId(), r, m)
	if err != nil {
		return nil, err
	}
	return &controlv1.HaltResponse{OperationId: id}, nil
}

// Resume admits a resume.
func (c *Control) Resume(ctx context.Context, r *controlv1.ResumeRequest) (*controlv1.ResumeResponse, error) {
	m := r.GetResume()
	if m == nil {
		m = &controlv1.Resume{}
	}
	id, err := c.admit(ctx, "resume", r.GetRequestId(), r, m)
	if err != nil {
		return nil, err
	}
	return &controlv1.ResumeResponse{OperationId: id}, nil
}

// Disown admits a person's word about a rental.
func (c *Control) Disown(ctx context.Context, r *controlv1.DisownRequest) (*controlv1.DisownResponse, error) {
	if r.GetDisown().GetMarketOrderId() <= 0 {
		return nil, fault.New(fault.Invalid, "INVALID_ARGUMENT", "disown.market_order_id is required: the market's number of the rental")
	}
	id, err := c.admit(ctx, "disown", r.GetRequestId(), r, r.GetDisown())
	if err != nil {
		return nil, err
	}
	return &controlv1.DisownResponse{OperationId: id}, nil
}

// GetAccount says how the account stands.
func (c *Control) GetAccount(ctx context.Context, _ *controlv1.GetAccountRequest) (*controlv1.GetAccountResponse, error) {
	if _, err := c.allowed(ctx); err != nil {
		return nil, err
	}
	d := c.server.deps
	now := time.Now().In(d.Zone)
	out := &controlv1.GetAccountResponse{Account: d.Account, LiveOrders: int32(len(d.World.Live()))}
	for _, h := range d.World.Halts() {
		out.Halts = append(out.Halts, &controlv1.GetAccountResponse_Standing{Client: h.Client, By: h.By, Reason: h.Reason, Since: timestamppb.New(h.Since), Close: h.Close})
	}
	orders := d.World.Since(ledger.Month(now).From)
	burn, err := ledger.Burn(orders, d.Fees)
	if err != nil {
		return nil, err
	}
	limit := &controlv1.GetAccountResponse_Limit{Setting: "limits.burn_per_hour", Committed: money.Text(burn.Round(4))}
	if d.Limits.BurnPerHour.IsPos() {
		limit.Limit = money.Text(d.Limits.BurnPerHour)
	}
	out.Limits = append(out.Limits, limit)
	uses, err := d.Limits.Uses(orders, d.Fees, now)
	if err != nil {
		return nil, err
	}
	for _, u := range uses {
		l := &controlv1.GetAccountResponse_Limit{Setting: "limits." + u.Setting, Committed: money.Text(u.Committed.Round(4)), Spent: money.Text(u.Spent.Round(4))}
		if u.Limit.IsPos() {
			l.Limit = money.Text(u.Limit)
		}
		out.Limits = append(out.Limits, l)
	}
	return out, nil
}
