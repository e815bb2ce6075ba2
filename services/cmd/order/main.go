// Command order runs the service order as a process of its own.
package main

import (
	"os"

	"github.com/renthook/renthook/services/cmd/internal/alone"
)

func main() { os.Exit(alone.Main("order", "Rents, watches and ends rentals; serves gRPC.")) }
