// Command notifier runs the service notifier as a process of its own.
package main

import (
	"os"

	"github.com/renthook/renthook/services/cmd/internal/alone"
)

func main() { os.Exit(alone.Main("notifier", "Tells outcomes by callback, Slack and Discord.")) }
