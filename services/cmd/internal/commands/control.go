package commands

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	controlv1 "github.com/renthook/renthook/proto/gen/renthook/control/v1"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/cmd/internal/cli"
)

// Halt stops new rentals.
type Halt struct {
	RunFlags
	Close  bool          `help:"End what is rented, too, and wait until the market shows that nothing is left."`
	Client string        `help:"Only the orders of one client." placeholder:"NAME"`
	Reason string        `help:"Kept in the journal, and told to whoever asks meanwhile." placeholder:"TEXT"`
	Wait   time.Duration `help:"How long to wait for it." default:"5m"`
}

// Run asks, and waits until it holds.
func (c *Halt) Run(ctx context.Context, s *cli.Streams) error {
	ctx, conn, err := connect(ctx, c.RunFlags)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, callTimeout+c.Wait)
	defer cancel()
	res, err := controlv1.NewControlServiceClient(conn).Halt(ctx, &controlv1.HaltRequest{Halt: &controlv1.Halt{Client: c.Client, Close: c.Close, Reason: c.Reason}})
	if err != nil {
		return exit(err)
	}
	done := "halted: nothing new is rented until `renthook resume`"
	if c.Close {
		_, _ = fmt.Fprintln(s.Err, "asked; waiting until the market shows that nothing is left …")
		done = "halted, and the market shows that nothing of ours is left"
	}
	if _, err := settled(ctx, orderv1.NewOrderServiceClient(conn), res.GetOperationId(), "asked, and not proved yet: look again with `renthook ls --filter live` and `renthook account`"); err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.Out, done)
	return err
}

// Resume lifts a halt.
type Resume struct {
	RunFlags
	Client string `help:"Lift the halt of one client; without it the account's." placeholder:"NAME"`
	Reason string `help:"Kept in the journal." placeholder:"TEXT"`
}

// Run asks, and waits until it holds.
func (c *Resume) Run(ctx context.Context, s *cli.Streams) error {
	ctx, conn, err := connect(ctx, c.RunFlags)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := controlv1.NewControlServiceClient(conn).Resume(ctx, &controlv1.ResumeRequest{Resume: &controlv1.Resume{Client: c.Client, Reason: c.Reason}})
	if err != nil {
		return exit(err)
	}
	if _, err := settled(ctx, orderv1.NewOrderServiceClient(conn), res.GetOperationId(), "asked, and not answered yet: look again with `renthook account`"); err != nil {
		return err
	}
	a, err := controlv1.NewControlServiceClient(conn).GetAccount(ctx, &controlv1.GetAccountRequest{})
	if err != nil {
		return exit(err)
	}
	for _, h := range a.GetHalts() {
		_, _ = fmt.Fprintf(s.Out, "still halted: %s, by %s\n", orAll(h.GetClient()), h.GetBy())
	}
	if len(a.GetHalts()) == 0 {
		_, err = fmt.Fprintln(s.Out, "nothing is halted")
	}
	return err
}

// Disown says that a rental is not ours.
type Disown struct {
	RunFlags
	ID     int64  `arg:"" help:"The market's number of the rental."`
	Reason string `help:"Kept in the journal." placeholder:"TEXT"`
}

// Run asks, and waits until it holds.
func (c *Disown) Run(ctx context.Context, s *cli.Streams) error {
	ctx, conn, err := connect(ctx, c.RunFlags)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := controlv1.NewControlServiceClient(conn).Disown(ctx, &controlv1.DisownRequest{Disown: &controlv1.Disown{MarketOrderId: c.ID, Reason: c.Reason}})
	if err != nil {
		return exit(err)
	}
	if _, err := settled(ctx, orderv1.NewOrderServiceClient(conn), res.GetOperationId(), "asked, and not answered yet"); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.Out, "rental %d is not ours\n", c.ID)
	return err
}

// Account shows halts, limits, and what counts against them.
type Account struct {
	RunFlags
	OutputFlags
}

// Run prints how the account stands.
func (c *Account) Run(ctx context.Context, s *cli.Streams) error {
	ctx, conn, err := connect(ctx, c.RunFlags)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	a, err := controlv1.NewControlServiceClient(conn).GetAccount(ctx, &controlv1.GetAccountRequest{})
	if err != nil {
		return exit(err)
	}
	if c.Output == "json" {
		return printJSON(s.Out, a)
	}
	w := tabwriter.NewWriter(s.Out, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "account\t%s\nlive orders\t%d\n", a.GetAccount(), a.GetLiveOrders())
	for _, h := range a.GetHalts() {
		_, _ = fmt.Fprintf(w, "halted\t%s, by %s at %s\t%s\n", orAll(h.GetClient()), h.GetBy(), h.GetSince().AsTime().UTC().Format(time.RFC3339), h.GetReason())
	}
	for _, l := range a.GetLimits() {
		_, _ = fmt.Fprintf(w, "%s\t%s USD committed\t%s spent\tlimit %s\n", l.GetSetting(), l.GetCommitted(), dash(l.GetSpent()), dash(l.GetLimit()))
	}
	return w.Flush()
}

func orAll(client string) string {
	if client == "" {
		return "everybody"
	}
	return client
}
