// Command pricewatch runs the service pricewatch as a process of its own.
package main

import (
	"os"

	"github.com/renthook/renthook/services/cmd/internal/cli"
)

func main() { os.Exit(cli.Alone("pricewatch", "Reads the market for everybody; serves gRPC.")) }
