// Command ingress runs the service ingress as a process of its own.
package main

import (
	"os"

	"github.com/renthook/renthook/services/cmd/internal/alone"
)

func main() { os.Exit(alone.Main("ingress", "Serves the HTTP doors.")) }
