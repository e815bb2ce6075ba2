// Command notifier runs the service notifier as a process of its own.
package main

import (
	"os"

	"github.com/renthook/renthook/services/cmd/internal/cli"
)

func main() { os.Exit(cli.Alone("notifier", "Tells outcomes by callback, Slack and Discord.")) }
