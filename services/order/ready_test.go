package order

import (
	"errors"
	"testing"

	"google.golang.org/grpc/health"

	"github.com/renthook/renthook/pkg/journal"
	"github.com/renthook/renthook/services/order/internal/engine"
)

// What creates wait for comes and goes: only a full journal makes the service unready, and its end hides no other failure.
func TestWaiting_HidesNoOtherFailure(t *testing.T) {
	t.Parallel()
	s := &Service{health: health.NewServer()}
	s.waiting("the market has not been read lately", true)
	if s.failure != nil {
		t.Errorf("a market that was read late: %v", s.failure)
	}
	s.waiting(engine.WhyFull, true)
	if !errors.Is(s.failure, journal.ErrFull) {
		t.Errorf("a full journal: %v", s.failure)
	}
	s.waiting("", false)
	if !errors.Is(s.failure, journal.ErrFull) {
		t.Errorf("a full journal that is not claimed: %v", s.failure)
	}
	s.waiting("", true)
	if s.failure != nil {
		t.Errorf("room again: %v", s.failure)
	}
	damaged := errors.New("the journal cannot be followed")
	s.setFailure(damaged)
	s.waiting("the market has not been read lately", true)
	s.waiting("", true)
	if !errors.Is(s.failure, damaged) {
		t.Errorf("a damaged journal was forgotten: %v", s.failure)
	}
}
