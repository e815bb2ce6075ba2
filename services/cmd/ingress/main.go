// Command ingress runs the service ingress as a process of its own.
package main

import (
	"os"

	"github.com/renthook/renthook/services/cmd/internal/cli"
)

func main() { os.Exit(cli.Alone("ingress", "Serves the HTTP doors.")) }
