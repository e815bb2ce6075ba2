package world_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/renthook/renthook/pkg/journal"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/order/internal/world"
)

// A halt is in the journal, so it outlives the process; a resume lifts the halt that it names, and no other.
func TestHaltsAreFolded(t *testing.T) {
	t.Parallel()
	w := world.New("main")
	var seq uint64
	fold := func(in world.Internal) {
		t.Helper()
		seq++
		data, err := json.Marshal(map[string]any{"time": time.Now(), "internal": in})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Apply(journal.Record{Seq: seq, Subject: topology.OrderEvent("main", "ops", "-", "halted"), Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(what string, ci, local bool) {
		t.Helper()
		if got := w.Halted("ci") != nil; got != ci {
			t.Errorf("%s: ci is halted: %v", what, got)
		}
		if got := w.Halted("local") != nil; got != local {
			t.Errorf("%s: local is halted: %v", what, got)
		}
	}
	holds("at first", false, false)
	fold(world.Internal{Halt: &world.Halt{Client: "ci", By: "ops"}})
	holds("one client", true, false)
	fold(world.Internal{Halt: &world.Halt{By: "ops", Close: true}})
	holds("everybody", true, true)
	fold(world.Internal{Resume: &world.Resume{}})
	holds("everybody resumed", true, false)
	fold(world.Internal{Resume: &world.Resume{Client: "ci"}})
	holds("one resumed", false, false)
}
