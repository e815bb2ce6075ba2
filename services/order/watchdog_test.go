package order_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/cloreapi/cloresim"
	"github.com/renthook/renthook/pkg/seal"
	"github.com/renthook/renthook/pkg/secret"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/ends"
)

// The watchdog's list has a rental before the market was asked for it, its later end by the time that is told, and nothing
// of it once it is over.
func TestOrder_KeepsTheListOfEnds(t *testing.T) {
	t.Parallel()
	box, err := seal.New(secret.New(strings.Repeat("installation", 4)))
	if err != nil {
		t.Fatal(err)
	}
	st := quick()
	st.Order.EndsFile = filepath.Join(t.TempDir(), "ends.sealed")
	r := newRig(t, st, cloresim.Config{})
	read := func() ends.List {
		t.Helper()
		l, err := ends.Read(st.Order.EndsFile, box)
		if err != nil {
			t.Fatal(err)
		}
		if l.Account != "main" || l.Key != st.KeyFingerprint() || time.Since(l.Exported) > 2*time.Minute {
			t.Fatalf("the list is of %+v", l)
		}
		return l
	}
	eventually := func(what string, ok func(l ends.List) bool) {
		t.Helper()
		bustest.Eventually(t, what, func() bool { return ok(read()) })
	}

	r.script(`{"create_order":[{"delay_ms":1500}]}`)
	op := r.create("a", "rtx-4090", "2")
	bustest.Eventually(t, "the market to be asked", func() bool { return r.state().calls("create_order") == 1 })
	l := read()
	if len(l.Ends) != 1 || len(l.Ends[0].Markers) != 2 || time.Until(l.Ends[0].End) < 23*time.Hour {
		t.Fatalf("while the create is out the list is %+v", l)
	}
	got := r.operation("local", op, "running", inState(orderv1.Order_RUNNING)).GetOrder()
	eventually("the rental's number", func(l ends.List) bool { return len(l.Ends) == 1 && l.Ends[0].RentalID == r.state().Rentals[0].ID })

	before := read().Ends[0].End
	r.operation("local", r.command("local", "extend", "e", &orderv1.ExtendOrder{OrderId: got.GetId(), By: "2h"}), "extended", settled)
	if after := read().Ends[0].End; after.Sub(before) != 2*time.Hour {
		t.Errorf("extended by 2h, the list says by %s", after.Sub(before))
	}

	r.script(`{"cancel_order":[{"apply":false,"code":0}]}`)
	cancel := r.command("local", "cancel", "c", &orderv1.CancelOrder{OrderId: got.GetId()})
	eventually("the end that is wanted", func(l ends.List) bool { return len(l.Ends) == 1 && time.Until(l.Ends[0].End) <= 0 })
	r.operation("local", cancel, "cancelled", settled)
	eventually("nothing to be left", func(l ends.List) bool { return len(l.Ends) == 0 })
}
