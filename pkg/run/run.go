// Package run undoes what was started, in reverse order.
//
// It guarantees that every pushed stop is called once, the last one first, also when one of them fails, and that an
// error says which. It starts nothing, knows no signals, and refuses nothing: what must not be undone is not pushed.
package run

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Stack is what has been started so far. The zero value is empty and ready; it is safe for concurrent use.
type Stack struct {
	mu    sync.Mutex
	stops []stop
}

type stop struct {
	name string
	fn   func(context.Context) error
}

// Push adds what undoes the latest start. name says what is stopped, for the error.
func (s *Stack) Push(name string, fn func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stops = append(s.stops, stop{name, fn})
}

// Stop undoes everything, the latest first, each within what ctx leaves, and empties the stack. The error joins all.
func (s *Stack) Stop(ctx context.Context) error {
	s.mu.Lock()
	stops := s.stops
	s.stops = nil
	s.mu.Unlock()
	var problems []error
	for n := len(stops) - 1; n >= 0; n-- {
		if err := stops[n].fn(ctx); err != nil {
			problems = append(problems, fmt.Errorf("stop %s: %w", stops[n].name, err))
		}
	}
	return errors.Join(problems...)
}
