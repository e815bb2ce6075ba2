// Command watchdog ends what renthook rented and did not end, when everything of renthook is down. It needs the market, its
// key, and the sealed list of ends that the order service keeps; nothing else.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/renthook/renthook/services/cmd/internal/cli"
	"github.com/renthook/renthook/services/cmd/internal/lookout"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c lookout.Watchdog
	kong.Parse(&c, kong.Name("watchdog"), kong.Description("Ends rentals that are overdue, when renthook is down."), kong.UsageOnError())
	err := c.Run(ctx, &cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Environ: os.Environ()})
	if err == nil {
		return cli.ExitOK
	}
	fmt.Fprintln(os.Stderr, "watchdog:", err)
	var exit *cli.ExitError
	if errors.As(err, &exit) {
		return exit.Code
	}
	return cli.ExitFailure
}
