package stack

import "github.com/renthook/renthook/services/internal/topology"

// clientMayPublish is what the broker lets a client publish: its own commands, and nothing else.
func clientMayPublish(client string) []string { return []string{topology.CommandsOf(client)} }

// clientMaySubscribe is what the broker lets a client hear: its own events, the market, and answers to its requests.
// Services answer on inboxes of their own, so that nothing of theirs passes through a client's.
func clientMaySubscribe(client string) []string {
	return []string{
		topology.OrderEvents("*", client), "renthook.v1.evt.watch." + client + ".>", "renthook.v1.evt.delivery." + client + ".>",
		topology.MarketAll, "_INBOX.>",
	}
}
