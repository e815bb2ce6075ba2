package rental_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/renthook/renthook/services/order/internal/rental"
)

// What is learnt of an earlier attempt says nothing of the one that is open now.
func TestEventsOfAnEarlierAttempt(t *testing.T) {
	t.Parallel()
	second := []step{
		accept, plan, refused, {3 * time.Second, rental.Planned{Intent: intent(2)}},
		{4 * time.Second, rental.Called{Number: 2, Reason: "code-0"}},
	}
	for _, ev := range []rental.Event{
		rental.Absent{Number: 1, Reason: "x"}, rental.Called{Number: 1, Refused: true, Reason: "x"}, rental.Seen{Number: 1, Sighting: sight(101, true)},
		rental.Gone{Number: 1, RentalID: 101, Proof: "x"}, rental.Probed{Number: 1, OK: true},
	} {
		before, _ := after(t, asked(), second...)
		got, effects := after(t, before, step{time.Minute, ev})
		if !reflect.DeepEqual(got, before) || len(effects) != 0 {
			t.Errorf("%T of the first attempt: %s, %v", ev, got.State, effects)
		}
	}
}
