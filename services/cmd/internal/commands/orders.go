package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/cmd/internal/cli"
)

// callTimeout bounds one question.
const callTimeout = 15 * time.Second

// OutputFlags choose tables for people or JSON for programs.
type OutputFlags struct {
	Output string `short:"o" enum:"table,json" default:"table" help:"table or json."`
}

// connect reaches the running renthook in the name of its client local.
func connect(ctx context.Context, f RunFlags) (context.Context, *grpc.ClientConn, error) {
	a, err := f.addresses()
	if err != nil {
		return nil, nil, err
	}
	token, err := os.ReadFile(a.TokenFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read the token: %w", err)
	}
	conn, err := grpc.NewClient(a.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+strings.TrimSpace(string(token))), conn, nil
}

func dial(ctx context.Context, f RunFlags) (context.Context, orderv1.OrderServiceClient, func(), error) {
	ctx, conn, err := connect(ctx, f)
	if err != nil {
		return nil, nil, nil, err
	}
	return ctx, orderv1.NewOrderServiceClient(conn), func() { _ = conn.Close() }, nil
}

// settled waits until an operation is; instead says what to do when the time is over before.
func settled(ctx context.Context, orders orderv1.OrderServiceClient, id, instead string) (*orderv1.Operation, error) {
	for {
		op, err := orders.GetOperation(ctx, &orderv1.GetOperationRequest{Id: id})
		if err != nil {
			return nil, exit(err)
		}
		if o := op.GetOperation(); o.GetDone() {
			if f := o.GetFailure(); f != nil {
				code := cli.ExitFailure
				if f.GetCode() == "NOT_FOUND" {
					code = cli.ExitNotFound
				}
				return nil, &cli.ExitError{Code: code, Err: errors.New(f.GetMessage())}
			}
			return o, nil
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.New(instead)
		}
	}
}

// exit gives an answer of the service its exit code.
func exit(err error) error {
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	switch st.Code() {
	case codes.NotFound:
		return &cli.ExitError{Code: cli.ExitNotFound, Err: errors.New(st.Message())}
	case codes.Unavailable:
		return &cli.ExitError{Code: cli.ExitUnreachable, Err: errors.New("no running renthook answers: " + st.Message())}
	default:
		return errors.New(st.Message())
	}
}

// printJSON prints one message on one line.
func printJSON(w io.Writer, m proto.Message) error {
	b, err := protojson.Marshal(m)
	if err != nil {
		return err
	}
	// protojson varies its spaces on purpose; programs and tests want the same bytes.
	var v json.RawMessage = b
	if b, err = json.Marshal(v); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}

// Ls lists orders.
type Ls struct {
	RunFlags
	OutputFlags
	Filter string `help:"live, or \"state = RUNNING\", several joined by OR." placeholder:"FILTER"`
}

// Run prints the newest orders.
func (c *Ls) Run(ctx context.Context, s *cli.Streams) error {
	ctx, orders, done, err := dial(ctx, c.RunFlags)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := orders.ListOrders(ctx, &orderv1.ListOrdersRequest{Filter: c.Filter, PageSize: 500})
	if err != nil {
		return exit(err)
	}
	if c.Output == "json" {
		for _, o := range res.GetOrders() {
			if err := printJSON(s.Out, o); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "ORDER\tSTATE\tGPU\tUSD/H (SERVER)\tMARKET\tSERVER\tRENTAL\tENDS")
	for _, o := range res.GetOrders() {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", o.GetId(), o.GetState(), o.GetSpec().GetGpu(), dash(o.GetCost().GetUsdPerHour()),
			dash(o.GetMarketType()), number(o.GetServer().GetId()), number(o.GetMarketOrderId()), ends(o))
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

func number(n int64) string {
	if n == 0 {
		return "–"
	}
	return fmt.Sprint(n)
}

func ends(o *orderv1.Order) string {
	if o.GetEndsAt() == nil {
		return "never"
	}
	return o.GetEndsAt().AsTime().UTC().Format("2006-01-02 15:04 UTC")
}

// Get shows one order.
type Get struct {
	RunFlags
	OutputFlags
	ID string `arg:"" help:"ord_…, op_… or the market's number."`
}

// Run prints it.
func (c *Get) Run(ctx context.Context, s *cli.Streams) error {
	ctx, orders, done, err := dial(ctx, c.RunFlags)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := orders.GetOrder(ctx, &orderv1.GetOrderRequest{Id: c.ID})
	if err != nil {
		return exit(err)
	}
	o := res.GetOrder()
	if c.Output == "json" {
		return printJSON(s.Out, o)
	}
	w := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
	row := func(name, value string) { _, _ = fmt.Fprintf(w, "%s\t%s\n", name, dash(value)) }
	row("order", o.GetId())
	row("state", o.GetState().String())
	if f := o.GetFailure(); f != nil {
		row("why", f.GetCode()+": "+f.GetMessage())
	}
	row("asked", fmt.Sprintf("%s, at most %s USD per hour and server, %s", o.GetSpec().GetGpu(), o.GetSpec().GetMaxPrice().GetAmount(), o.GetSpec().GetMarketType()))
	if v := o.GetServer(); v != nil {
		row("server", fmt.Sprintf("%d: %d× %s, %s, reliability %.3f", v.GetId(), v.GetGpuCount(), v.GetGpuName(), v.GetCountry(), v.GetReliability()))
		row("rental", number(o.GetMarketOrderId())+" "+o.GetMarketType())
		row("price", fmt.Sprintf("%s USD per hour and server, fees %s on top, %s %s per day as the market keeps it",
			o.GetCost().GetUsdPerHour(), o.GetCost().GetFeesUsdPerHour(), o.GetCost().GetNativePerDay(), o.GetCost().GetCurrency()))
	}
	if a := o.GetAccess(); a.GetSshPort() != 0 {
		row("ssh", fmt.Sprintf("ssh %s@%s -p %d", a.GetSshUser(), a.GetHost(), a.GetSshPort()))
	}
	row("ends", ends(o))
	for _, t := range o.GetAttempts() {
		row(fmt.Sprintf("attempt %d", t.GetNumber()), fmt.Sprintf("server %d at %s USD per hour: %s %s", t.GetServerId(), t.GetUsdPerHour(), t.GetOutcome(), t.GetReason()))
	}
	return w.Flush()
}

// Events follows events.
type Events struct {
	RunFlags
	OutputFlags
	ID    string `arg:"" optional:"" help:"One order; all when absent."`
	Since string `help:"Resume token of the last event seen; 0 for the journal's start." placeholder:"TOKEN"`
}

// Run prints events until it is stopped.
func (c *Events) Run(ctx context.Context, s *cli.Streams) error {
	ctx, orders, done, err := dial(ctx, c.RunFlags)
	if err != nil {
		return err
	}
	defer done()
	stream, err := orders.StreamOrderEvents(ctx, &orderv1.StreamOrderEventsRequest{OrderId: c.ID, ResumeToken: c.Since})
	if err != nil {
		return exit(err)
	}
	for {
		res, err := stream.Recv()
		switch {
		case ctx.Err() != nil, errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return exit(err)
		case res.GetEvent() == nil: // a heartbeat
			continue
		}
		if c.Output == "json" {
			if err := printJSON(s.Out, res); err != nil {
				return err
			}
			continue
		}
		e := res.GetEvent()
		if _, err := fmt.Fprintf(s.Out, "%s  %-6s  %-20s %s  %s\n", e.GetTime().AsTime().UTC().Format("15:04:05.000"), res.GetResumeToken(),
			e.GetType(), dash(res.GetOrder().GetId()), e.GetCause().GetReason()); err != nil {
			return err
		}
	}
}

// Cancel ends an order.
type Cancel struct {
	RunFlags
	OutputFlags
	ID     string        `arg:"" help:"ord_…, op_… or the market's number."`
	Reason string        `help:"Kept in the journal." placeholder:"TEXT"`
	Wait   time.Duration `help:"How long to wait for the market's proof that it is gone." default:"2m"`
}

// Run asks, and waits until the end is proved.
func (c *Cancel) Run(ctx context.Context, s *cli.Streams) error {
	ctx, orders, done, err := dial(ctx, c.RunFlags)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, callTimeout+c.Wait)
	defer cancel()
	res, err := orders.CancelOrder(ctx, &orderv1.CancelOrderRequest{Id: c.ID, Reason: c.Reason})
	if err != nil {
		return exit(err)
	}
	_, _ = fmt.Fprintln(s.Err, "asked; waiting for the market's proof …")
	op, err := settled(ctx, orders, res.GetOperationId(), fmt.Sprintf("still ending: ask again with `renthook get %s`", c.ID))
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return printJSON(s.Out, op)
	}
	_, err = fmt.Fprintln(s.Out, "gone")
	return err
}

// Explain tells every decision about an order.
type Explain struct {
	RunFlags
	OutputFlags
	ID string `arg:"" help:"ord_…, op_… or the market's number."`
}

// Run prints one decision a line.
func (c *Explain) Run(ctx context.Context, s *cli.Streams) error {
	ctx, orders, done, err := dial(ctx, c.RunFlags)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := orders.ExplainOrder(ctx, &orderv1.ExplainOrderRequest{Id: c.ID})
	if err != nil {
		return exit(err)
	}
	if c.Output == "json" {
		return printJSON(s.Out, res)
	}
	w := tabwriter.NewWriter(s.Out, 0, 4, 2, ' ', 0)
	for _, d := range res.GetDecisions() {
		cause := d.GetCause()
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", d.GetTime().AsTime().UTC().Format("2006-01-02 15:04:05.000"), d.GetState(), join(cause.GetKind(), cause.GetBy()), dash(cause.GetReason()))
	}
	return w.Flush()
}

func join(kind, by string) string {
	if by == "" {
		return kind
	}
	return kind + " " + by
}

// Extend moves an order's end.
type Extend struct {
	RunFlags
	OutputFlags
	ID string `arg:"" help:"ord_…, op_… or the market's number."`
	By string `arg:"" help:"How much longer: 2h, 90m, 1d."`
}

// Run asks, and says when the order ends now.
func (c *Extend) Run(ctx context.Context, s *cli.Streams) error {
	ctx, orders, done, err := dial(ctx, c.RunFlags)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := orders.ExtendOrder(ctx, &orderv1.ExtendOrderRequest{Id: c.ID, By: c.By})
	if err != nil {
		return exit(err)
	}
	op, err := settled(ctx, orders, res.GetOperationId(), "not answered yet: ask again with `renthook get "+c.ID+"`")
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return printJSON(s.Out, op)
	}
	_, err = fmt.Fprintln(s.Out, "ends at", op.GetOrder().GetEndsAt().AsTime().UTC().Format(time.RFC3339))
	return err
}
