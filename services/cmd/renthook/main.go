// Command renthook runs everything in one process (renthook up), speaks to a running one, and signs webhooks.
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
	"github.com/renthook/renthook/services/cmd/internal/commands"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c commands.Renthook
	parser, err := kong.New(&c, kong.Name("renthook"), kong.Description(commands.Description), kong.UsageOnError(), kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		fmt.Fprintln(os.Stderr, "renthook:", err)
		return cli.ExitFailure
	}
	k, err := parser.Parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "renthook:", err)
		return cli.ExitUsage
	}
	k.BindTo(ctx, (*context.Context)(nil))
	if err := k.Run(&cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Environ: os.Environ()}); err != nil {
		fmt.Fprintln(os.Stderr, "renthook:", err)
		var exit *cli.ExitError
		if errors.As(err, &exit) {
			return exit.Code
		}
		return cli.ExitFailure
	}
	return cli.ExitOK
}
