package wire

import (
	"testing"

	"github.com/renthook/renthook/pkg/cloreapi/cloresim"
)

// The name is written down twice so that a service alone does not link the simulator.
func TestSimulatedKeyIsTheSimulators(t *testing.T) {
	if simulatedKey != cloresim.DefaultKey {
		t.Fatalf("the services call as %q, the simulator's own account is %q", simulatedKey, cloresim.DefaultKey)
	}
}
