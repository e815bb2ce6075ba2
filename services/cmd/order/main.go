// Command order runs the service order as a process of its own.
package main

import (
	"os"

	"github.com/renthook/renthook/services/cmd/internal/cli"
)

func main() { os.Exit(cli.Alone("order", "Rents, watches and ends rentals; serves gRPC.")) }
