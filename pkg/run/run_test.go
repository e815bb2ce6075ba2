package run_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/renthook/renthook/pkg/run"
)

func TestStopUndoesInReverseOnceAndSaysWhatFailed(t *testing.T) {
	t.Parallel()
	var order []string
	var s run.Stack
	for _, name := range []string{"first", "second", "third"} {
		s.Push(name, func(context.Context) error {
			order = append(order, name)
			if name == "second" {
				return errors.New("stuck")
			}
			return nil
		})
	}
	err := s.Stop(t.Context())
	if err == nil || !strings.Contains(err.Error(), "stop second: stuck") {
		t.Errorf("got %v", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Errorf("a second stop: %v", err)
	}
	if want := []string{"third", "second", "first"}; !slices.Equal(order, want) {
		t.Errorf("stopped %v, want %v", order, want)
	}
}
