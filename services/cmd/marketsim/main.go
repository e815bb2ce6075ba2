// Command marketsim serves the simulator of the market as a process of its own, and logs each call as it comes in and is
// answered. See package cloresim for what it simulates and for its control API.
package main

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/renthook/renthook/pkg/cloreapi/cloresim"
	"github.com/renthook/renthook/services/cmd/internal/cli"
)

type flags struct {
	Listen     string            `help:"Address to serve on." default:"127.0.0.1:8090"`
	Data       string            `help:"Directory for the state; none is kept without it." type:"path"`
	Inventory  string            `help:"A recorded answer of /v1/marketplace to list instead of a generated inventory." type:"existingfile"`
	Rates      map[string]string `help:"USD for one unit of each coin (bitcoin=70000,CLORE-Blockchain=0.12,USD-Blockchain=1)." aliases:"market-rates" mapsep:","`
	Seed       int64             `help:"Seed of the generated inventory." default:"1"`
	Servers    int               `help:"Servers in the generated inventory." default:"3500"`
	Boot       time.Duration     `help:"How long a container takes to start." default:"2s"`
	Visible    time.Duration     `help:"How long a change takes to show." default:"1500ms"`
	Drift      bool              `help:"Let listed prices move; never those of a recording." default:"true" negatable:""`
	RateLimit  bool              `help:"Limit calls as the market does." default:"true" negatable:""`
	Balance    string            `help:"Balance of each coin of each wallet, in USD." default:"1000"`
	RentalHost string            `help:"Where the ports of rentals are reached." default:"127.0.0.1"`
	Health     bool              `help:"Ask the simulator at --listen, already running, whether it is ready, and exit: 0 when it is."`
}

func main() {
	var f flags
	k := kong.Parse(&f, kong.Name("marketsim"), kong.Description("A simulator of the Clore.ai market."))
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	k.FatalIfErrorf(run(ctx, &f, slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))))
}

func run(ctx context.Context, f *flags, logger *slog.Logger) error {
	if f.Health {
		return cli.Health(ctx, f.Listen)
	}
	sim, err := cloresim.New(cloresim.Config{
		Dir: f.Data, Seed: f.Seed, Servers: f.Servers, Inventory: f.Inventory, Rates: f.Rates, Host: f.RentalHost, Drift: f.Drift, Logger: logger,
		Boot: cmp.Or(f.Boot, -1), Visible: cmp.Or(f.Visible, -1), NoRateLimit: !f.RateLimit, BalanceUSD: f.Balance,
	})
	if err != nil {
		return err
	}
	return sim.Run(ctx, f.Listen)
}
