package topology_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"pgregory.net/rapid"

	"github.com/renthook/renthook/services/internal/topology"
)

func TestTokens(t *testing.T) {
	t.Parallel()
	for token, ok := range map[string]bool{"rtx-4090": true, "ord_1": true, "-": true, strings.Repeat("a", 128): true, "": false, "a.b": false, "a*": false, ">": false, "a b": false, "ü": false, strings.Repeat("a", 129): false} {
		if topology.ValidToken(token) != ok {
			t.Errorf("%q: %v, want %v", token, !ok, ok)
		}
	}
}

// TestNamesComeApart: what is put together is taken apart again.
func TestNamesComeApart(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		token := rapid.StringMatching(`[A-Za-z0-9-][A-Za-z0-9_-]{0,40}`)
		c := topology.Command{Client: token.Draw(t, "client"), Noun: "order", Verb: rapid.SampledFrom([]string{"create", "cancel", "report"}).Draw(t, "verb"), Key: token.Draw(t, "key")}
		if back, err := topology.ParseCommand(c.Subject()); err != nil || back != c {
			t.Fatalf("%q is %+v (%v)", c.Subject(), back, err)
		}
		if back, err := topology.ParseOperation(c.Client, c.Operation()); err != nil || back != c {
			t.Fatalf("%q is %+v (%v)", c.Operation(), back, err)
		}
		e := topology.OrderEventParts{Account: "main", Client: c.Client, ID: token.Draw(t, "id"), Event: "running"}
		if back, err := topology.ParseOrderEvent(topology.OrderEvent(e.Account, e.Client, e.ID, e.Event)); err != nil || back != e {
			t.Fatalf("%+v is %+v (%v)", e, back, err)
		}
	})
}

func TestForeignNamesAreRefused(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "renthook.v1.cmd.local.order.create", "renthook.v1.cmd.local.order.create.k.x", "renthook.v2.cmd.local.order.create.k", "renthook.v1.evt.local.order.create.k"} {
		if c, err := topology.ParseCommand(s); err == nil {
			t.Errorf("%q is %+v", s, c)
		}
	}
	for _, s := range []string{"", "op_", "op_order-create", "op_order_create", "op_order-create_", "op_order-create_a.b", "ord_order-create_k", "op_-create_k", "op_order-_k", "op_order-create_>"} {
		if c, err := topology.ParseOperation("local", s); err == nil {
			t.Errorf("%q is %+v", s, c)
		}
	}
	if c, err := topology.ParseOperation("a.b", "op_order-create_k"); err == nil {
		t.Errorf("a client of two tokens is %+v", c)
	}
	for _, s := range []string{"", "renthook.v1.evt.order.main.local.ord_1", "renthook.v1.evt.watch.main.local.w.fired", "renthook.v1.cmd.order.main.local.ord_1.running"} {
		if p, err := topology.ParseOrderEvent(s); err == nil {
			t.Errorf("%q is %+v", s, p)
		}
	}
}

// TestStreams holds what correctness leans on: the key that is admitted once, the journals that lose nothing.
func TestStreams(t *testing.T) {
	t.Parallel()
	s := topology.DefaultSizes()
	commands := topology.CommandsStream(s)
	if commands.MaxMsgsPerSubject != 1 || !commands.DiscardNewPerSubject || commands.Discard != jetstream.DiscardNew || commands.MaxAge != 30*24*time.Hour ||
		commands.Retention != jetstream.LimitsPolicy || !commands.DenyDelete || !commands.DenyPurge || commands.AllowMsgTTL || commands.Duplicates != 100*time.Millisecond {
		t.Errorf("a command is not admitted exactly once in 30 days: %+v", commands)
	}
	orders := topology.OrdersStream("main", s)
	if orders.Name != "ORDERS_MAIN" || orders.MaxAge != 0 || orders.MaxMsgs != 0 || orders.MaxMsgsPerSubject != 0 || orders.Discard != jetstream.DiscardNew || orders.Retention != jetstream.LimitsPolicy ||
		!orders.DenyDelete || !orders.DenyPurge || orders.AllowDirect || !orders.AllowAtomicPublish || orders.Storage != jetstream.FileStorage {
		t.Errorf("the journal may lose a record: %+v", orders)
	}
	all := []jetstream.StreamConfig{commands, orders, topology.MarketStream(s), topology.TicksStream(s), topology.DeliveriesStream(s), topology.AttemptsStream(s), topology.DeadLettersStream(s)}
	for _, c := range all {
		if c.MaxBytes <= 0 || c.Description == "" || len(c.Metadata) == 0 || c.Replicas != 1 {
			t.Errorf("%s has no bound, no description or other replicas than asked: %+v", c.Name, c)
		}
		for _, subject := range c.Subjects {
			if strings.HasPrefix(topology.Service("order", "slot"), strings.TrimSuffix(subject, ">")) {
				t.Errorf("%s keeps requests for a reply", c.Name)
			}
		}
	}
	if topology.Orders("a-b") == topology.Orders("ab") || topology.EventID("ORDERS_MAIN", 7) != "ORDERS_MAIN-7" {
		t.Error("names of journals or events are not their own")
	}
	for _, kv := range []jetstream.KeyValueConfig{topology.LeasesBucket(1), topology.LimitsBucket(1)} {
		if kv.History != 1 || kv.Storage != jetstream.MemoryStorage {
			t.Errorf("%s: an older value may come back, or it is on disk: %+v", kv.Bucket, kv)
		}
	}
}
