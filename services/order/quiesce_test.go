package order_test

import (
	"testing"
	"time"

	"github.com/renthook/renthook/pkg/cloreapi/cloresim"
	"github.com/renthook/renthook/pkg/journal"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/order/internal/engine"
)

// The last holder's record has no release: its last call may still be under way, and the next one's first create waits.
func TestOrder_AHolderThatDidNotLetGoIsWaitedFor(t *testing.T) {
	t.Parallel()
	st := quick()
	st.Order.CallTimeout = time.Second
	r := newRig(t, st, cloresim.Config{})
	r.operation("local", r.create("k1", "RTX 4090", "2"), "the order to run", inState(orderv1.Order_RUNNING))
	r.stopService(r.service)

	j := journal.Open(r.bus.JetStream(), topology.Orders(st.Account.Name))
	state, err := j.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	entry, err := engine.Holding(st.Account.Name, "another", state.Last+1, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Claim(t.Context(), "another", state.Last, entry); err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	r.start()
	o := r.operation("local", r.create("k2", "RTX 4090", "2"), "the next order to run", inState(orderv1.Order_RUNNING)).GetOrder()
	if waited := o.GetAttempts()[0].GetTime().AsTime().Sub(began); waited < st.Order.LeaseTTL+st.Order.CallTimeout {
		t.Errorf("asked for a server after %s", waited)
	}
}
