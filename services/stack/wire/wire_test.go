package wire

import (
	"testing"

	"github.com/renthook/renthook/pkg/cloreapi/cloresim"
	"github.com/renthook/renthook/services/internal/settings"
)

// The name is written down twice so that a service alone does not link the simulator.
func TestSimulatedKeyIsTheSimulators(t *testing.T) {
	if settings.SimulatedKey != cloresim.DefaultKey {
		t.Fatalf("the services call as %q, the simulator's own account is %q", settings.SimulatedKey, cloresim.DefaultKey)
	}
}
