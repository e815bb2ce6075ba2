// Package rpc serves OrderService: it translates, asks the world or admits a command, and translates back. It holds no
// rule of its own. It guarantees that a caller sees and changes only what is its own client's; it refuses callers
// without a client.
package rpc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/renthook/renthook/pkg/fault"
	"github.com/renthook/renthook/pkg/journal"
	"github.com/renthook/renthook/pkg/seal"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/admit"
	"github.com/renthook/renthook/services/internal/ask"
	"github.com/renthook/renthook/services/internal/auth"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/order/internal/ledger"
	"github.com/renthook/renthook/services/order/internal/rental"
	"github.com/renthook/renthook/services/order/internal/view"
	"github.com/renthook/renthook/services/order/internal/world"
)

const (
	// defaultPage and mostPage are orders a page.
	defaultPage, mostPage = 50, 500
	// heartbeat is how often an idle stream says that it is alive.
	heartbeat = 20 * time.Second
	// settleSoon is how long a create waits to answer with the order itself.
	settleSoon = 2 * time.Second
)

// Deps are what the server works with.
type Deps struct {
	Log     *slog.Logger
	Account string
	World   *world.World
	Journal *journal.Journal
	Admit   *admit.Admitter
	Box     *seal.Box
	Fees    ledger.Fees
	// Limits are the account's, and Zone where its days begin: told by ControlService.
	Limits ledger.Limits
	Zone   *time.Location
	// Control says whether a client may brake.
	Control func(client string) bool
	// Judge refuses callback addresses that could not be called.
	Judge func(ctx context.Context, url string) error
}

// Server is OrderService.
type Server struct {
	orderv1.UnimplementedOrderServiceServer
	deps Deps
}

// New makes the server.
func New(d Deps) *Server { return &Server{deps: d} }

func notFound(what, id string) error {
	return fault.New(fault.NotFound, "NOT_FOUND", "%s %s not found", what, id)
}

// CreateOrder admits a create.
func (s *Server) CreateOrder(ctx context.Context, r *orderv1.CreateOrderRequest) (*orderv1.CreateOrderResponse, error) {
	client := auth.ClientFrom(ctx)
	spec, ok := proto.Clone(r.GetSpec()).(*orderv1.OrderSpec)
	if !ok || spec == nil {
		return nil, fault.New(fault.Invalid, "INVALID_ARGUMENT", "spec is required")
	}
	if spec.GetSealed() != "" {
		return nil, fault.New(fault.Invalid, "INVALID_ARGUMENT", "spec.sealed is set by renthook; send env and command")
	}
	if err := ask.Check(spec); err != nil {
		return nil, err
	}
	if url := spec.GetCallbackUrl(); url != "" && s.deps.Judge != nil {
		if err := s.deps.Judge(ctx, url); err != nil {
			return nil, fault.New(fault.Invalid, "INVALID_ARGUMENT", "callback_url refused: %s", err)
		}
	}
	if r.GetValidateOnly() {
		return &orderv1.CreateOrderResponse{}, nil
	}
	hash, err := hashOf(r)
	if err != nil {
		return nil, err
	}
	if err := ask.Seal(s.deps.Box, spec); err != nil {
		return nil, err
	}
	m := &orderv1.CreateOrder{Spec: spec, Paper: r.GetPaper(), Origin: &orderv1.Origin{Door: "grpc", GpuAsSent: spec.GetGpu()}}
	receipt, err := s.admit(ctx, client, "order", "create", r.GetRequestId(), hash, m)
	if err != nil {
		return nil, err
	}
	order := s.await(ctx, client, receipt.Operation)
	if order == nil {
		order = &orderv1.Order{Client: client, Account: s.deps.Account, State: orderv1.Order_PENDING, OperationId: receipt.Operation}
	}
	return &orderv1.CreateOrderResponse{Order: order, OperationId: receipt.Operation, Replayed: receipt.Replayed}, nil
}

// hashOf stands for the request as it was meant: the deterministic form of its message.
func hashOf(m proto.Message) (string, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

func (s *Server) admit(ctx context.Context, client, noun, verb, requestID, hash string, m proto.Message) (admit.Receipt, error) {
	key := admit.Fresh()
	if requestID != "" {
		key = admit.Key(client, requestID)
	}
	return s.deps.Admit.Admit(ctx, admit.Ask{
		Command: topology.Command{Client: client, Noun: noun, Verb: verb, Key: key}, Body: m, Hash: hash,
	})
}

// await looks for the order of an operation for a moment: the writer is usually that fast.
func (s *Server) await(ctx context.Context, client, operation string) *orderv1.Order {
	ctx, cancel := context.WithTimeout(ctx, settleSoon)
	defer cancel()
	for {
		changed := s.deps.World.Changed()
		if o := s.deps.World.Find(client, operation); o != nil {
			return view.Order(o, s.deps.Fees)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// GetOrder reads an order.
func (s *Server) GetOrder(ctx context.Context, r *orderv1.GetOrderRequest) (*orderv1.GetOrderResponse, error) {
	o := s.deps.World.Find(auth.ClientFrom(ctx), r.GetId())
	if o == nil {
		return nil, notFound("order", r.GetId())
	}
	return &orderv1.GetOrderResponse{Order: view.Order(o, s.deps.Fees)}, nil
}

// ListOrders pages through the caller's orders, newest first.
func (s *Server) ListOrders(ctx context.Context, r *orderv1.ListOrdersRequest) (*orderv1.ListOrdersResponse, error) {
	wanted, err := filter(r.GetFilter())
	if err != nil {
		return nil, err
	}
	size := int(r.GetPageSize())
	switch {
	case size < 0:
		return nil, fault.New(fault.Invalid, "INVALID_ARGUMENT", "page_size must not be negative")
	case size == 0:
		size = defaultPage
	case size > mostPage:
		size = mostPage
	}
	client := auth.ClientFrom(ctx)
	all := s.deps.World.Orders()
	begin := len(all) - 1
	if t := r.GetPageToken(); t != "" {
		for begin >= 0 && all[begin].ID != t {
			begin--
		}
		if begin < 0 {
			return nil, fault.New(fault.Invalid, "INVALID_ARGUMENT", "page_token is not one of ours: take it from next_page_token")
		}
		begin--
	}
	out := &orderv1.ListOrdersResponse{}
	for n := begin; n >= 0; n-- {
		o := all[n]
		if o.Client != client || !wanted(o.State) {
			continue
		}
		if len(out.Orders) == size {
			out.NextPageToken = out.Orders[size-1].Id
			break
		}
		out.Orders = append(out.Orders, view.Order(o, s.deps.Fees))
	}
	return out, nil
}

// filter reads "live", or "state = X" joined by OR.
func filter(text string) (func(rental.State) bool, error) {
	text = strings.TrimSpace(text)
	switch text {
	case "":
		return func(rental.State) bool { return true }, nil
	case "live":
		return func(s rental.State) bool { return !s.Terminal() }, nil
	}
	set := map[rental.State]bool{}
	for term := range strings.SplitSeq(text, " OR ") {
		name, value, ok := strings.Cut(term, "=")
		var state rental.State
		err := state.UnmarshalText([]byte(strings.Trim(strings.TrimSpace(value), `"`)))
		if !ok || strings.TrimSpace(name) != "state" || err != nil || state == rental.New {
			return nil, fault.New(fault.Invalid, "INVALID_ARGUMENT", "filter %q: want \"live\", or \"state = RUNNING\", several joined by OR", term)
		}
		set[state] = true
	}
	return func(s rental.State) bool { return set[s] }, nil
}

// CancelOrder admits a cancel.
func (s *Server) CancelOrder(ctx context.Context, r *orderv1.CancelOrderRequest) (*orderv1.CancelOrderResponse, error) {
	client := auth.ClientFrom(ctx)
	if r.GetId() == "" {
		return nil, fault.New(fault.Invalid, "INVALID_ARGUMENT", "id is required: \"ord_…\", \"op_…\" or the market's number")
	}
	hash, err := hashOf(r)
	if err != nil {
		return nil, err
	}
	m := &orderv1.CancelOrder{OrderId: r.GetId(), Reason: r.GetReason(), Origin: &orderv1.Origin{Door: "grpc"}}
	receipt, err := s.admit(ctx, client, "order", "cancel", r.GetRequestId(), hash, m)
	if err != nil {
		return nil, err
	}
	out := &orderv1.CancelOrderResponse{OperationId: receipt.Operation}
	if o := s.deps.World.Find(client, r.GetId()); o != nil {
		out.Order = view.Order(o, s.deps.Fees)
	}
	return out, nil
}

// ExtendOrder admits an extension.
func (s *Server) ExtendOrder(ctx context.Context, r *orderv1.ExtendOrderRequest) (*orderv1.ExtendOrderResponse, error) {
	client := auth.ClientFrom(ctx)
	if r.GetId() == "" {
		return nil, fault.New(fault.Invalid, "INVALID_ARGUMENT", "id is required: \"ord_…\", \"op_…\" or the market's number")
	}
	if by, never, err := ask.ParseDuration(r.GetBy()); err != nil || never || by <= 0 {
		return nil, fault.New(fault.Invalid, "INVALID_ARGUMENT", "by must be a duration such as \"2h\"")
	}
	hash, err := hashOf(r)
	if err != nil {
		return nil, err
	}
	m := &orderv1.ExtendOrder{OrderId: r.GetId(), By: r.GetBy(), Origin: &orderv1.Origin{Door: "grpc"}}
	receipt, err := s.admit(ctx, client, "order", "extend", r.GetRequestId(), hash, m)
	if err != nil {
		return nil, err
	}
	out := &orderv1.ExtendOrderResponse{OperationId: receipt.Operation}
	if o := s.deps.World.Find(client, r.GetId()); o != nil {
		out.Order = view.Order(o, s.deps.Fees)
	}
	return out, nil
}

// GetOperation reads an operation, also one whose command no writer has seen yet.
func (s *Server) GetOperation(ctx context.Context, r *orderv1.GetOperationRequest) (*orderv1.GetOperationResponse, error) {
	client := auth.ClientFrom(ctx)
	op, ok := s.deps.World.Operation(client, r.GetId())
	if !ok {
		cmd, err := topology.ParseOperation(client, r.GetId())
		if err != nil {
			return nil, notFound("operation", r.GetId())
		}
		at, queued, err := s.deps.Admit.Queued(ctx, cmd)
		if err != nil {
			return nil, err
		}
		if !queued {
			return nil, notFound("operation", r.GetId())
		}
		return &orderv1.GetOperationResponse{Operation: &orderv1.Operation{Id: r.GetId(), Stage: "queued", CreateTime: timestamppb.New(at)}}, nil
	}
	out := &orderv1.Operation{Id: op.ID, Done: op.Done, Stage: "accepted", OrderId: op.OrderID, CreateTime: timestamppb.New(op.Accepted), Failure: view.Failure(op.Failure)}
	if op.Done {
		out.Stage, out.SettleTime = "succeeded", timestamppb.New(op.Settled)
		if op.Failure != nil {
			out.Stage = "failed"
		}
	}
	if o := s.deps.World.Order(op.OrderID); o != nil && o.Client == client {
		out.Order = view.Order(o, s.deps.Fees)
	}
	return &orderv1.GetOperationResponse{Operation: out}, nil
}

// explainTimeout bounds the reading of one order's records.
const explainTimeout = 10 * time.Second

// ExplainOrder reads the records of an order.
func (s *Server) ExplainOrder(ctx context.Context, r *orderv1.ExplainOrderRequest) (*orderv1.ExplainOrderResponse, error) {
	client := auth.ClientFrom(ctx)
	o := s.deps.World.Find(client, r.GetId())
	if o == nil {
		return nil, notFound("order", r.GetId())
	}
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	out := &orderv1.ExplainOrderResponse{Order: view.Order(o, s.deps.Fees)}
	enough := errors.New("enough")
	err := s.deps.Journal.Follow(ctx, 1, []string{topology.OrderEvent(s.deps.Account, client, o.ID, "*")}, func(rec journal.Record) error {
		ev := &orderv1.OrderEvent{}
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(rec.Data, ev); err != nil {
			return fmt.Errorf("decode record %d: %w", rec.Seq, err)
		}
		out.Decisions = append(out.Decisions, &orderv1.Decision{
			Time: ev.GetTime(), Revision: ev.GetRevision(), Type: ev.GetType(), State: ev.GetOrder().GetState(), Cause: ev.GetCause(),
		})
		if ev.GetRevision() >= o.Revision {
			return enough
		}
		return nil
	})
	switch {
	case errors.Is(err, enough):
		return out, nil
	case err != nil:
		s.deps.Log.ErrorContext(ctx, "the records of an order could not be read", "order_id", o.ID, "error", err.Error())
	}
	return nil, fault.New(fault.Unavailable, "UNAVAILABLE", "the journal cannot be read now; ask again")
}

var errToken = fault.New(fault.Invalid, "INVALID_ARGUMENT", "resume_token is not one of ours: take it from the last answer")

// StreamOrderEvents sends events as they are recorded. The resume token is the journal's sequence.
func (s *Server) StreamOrderEvents(r *orderv1.StreamOrderEventsRequest, stream orderv1.OrderService_StreamOrderEventsServer) error {
	ctx := stream.Context()
	client := auth.ClientFrom(ctx)
	token := s.deps.World.Last()
	if t := r.GetResumeToken(); t != "" {
		n, err := strconv.ParseUint(t, 10, 63)
		if err != nil {
			return errToken
		}
		token = n
	}
	subject := topology.OrderEvents(s.deps.Account, client)
	if id := r.GetOrderId(); id != "" {
		o := s.deps.World.Find(client, id)
		if o == nil {
			return notFound("order", id)
		}
		subject = topology.OrderEvent(s.deps.Account, client, o.ID, "*")
	}
	ctx, cancel := context.WithCancel(ctx)
	records := make(chan journal.Record)
	done := make(chan error, 1)
	go func() {
		done <- s.deps.Journal.Follow(ctx, token+1, []string{subject}, func(rec journal.Record) error {
			select {
			case records <- rec:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	err := s.relay(ctx, stream, token, records, done)
	cancel()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (s *Server) relay(ctx context.Context, stream orderv1.OrderService_StreamOrderEventsServer, token uint64, records <-chan journal.Record, done <-chan error) error {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case rec := <-records:
			ev := &orderv1.OrderEvent{}
			if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(rec.Data, ev); err != nil {
				s.deps.Log.ErrorContext(ctx, "an event could not be read", "sequence", rec.Seq, "error", err.Error())
				continue
			}
			ev.Internal = nil
			token = rec.Seq
			if err := stream.Send(&orderv1.StreamOrderEventsResponse{Order: ev.GetOrder(), Event: ev, ResumeToken: strconv.FormatUint(token, 10)}); err != nil {
				return err
			}
		case <-beat.C:
			if err := stream.Send(&orderv1.StreamOrderEventsResponse{ResumeToken: strconv.FormatUint(token, 10)}); err != nil {
				return err
			}
		case err := <-done:
			if err == nil || ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, journal.ErrAhead) {
				return errToken
			}
			s.deps.Log.ErrorContext(ctx, "following the journal ended", "error", err.Error())
			return fault.New(fault.Unavailable, "UNAVAILABLE", "events cannot be read now; come again with the resume token")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
