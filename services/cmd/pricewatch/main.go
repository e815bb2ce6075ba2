// Command pricewatch runs the service pricewatch as a process of its own.
package main

import (
	"os"

	"github.com/renthook/renthook/services/cmd/internal/alone"
)

func main() { os.Exit(alone.Main("pricewatch", "Reads the market for everybody; serves gRPC.")) }
