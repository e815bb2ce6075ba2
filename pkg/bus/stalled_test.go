package bus

import (
	"context"
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// infoOnly is a consumer that can only be looked at.
type infoOnly struct {
	jetstream.Consumer
	info jetstream.ConsumerInfo
	err  error
}

func (c *infoOnly) Info(context.Context) (*jetstream.ConsumerInfo, error) { return &c.info, c.err }

// row:11
func TestPump_StalledOnlyWhenSomethingShouldHaveCome(t *testing.T) {
	t.Parallel()
	limited := jetstream.ConsumerConfig{MaxAckPending: 10}
	for _, test := range []struct {
		name    string
		info    jetstream.ConsumerInfo
		err     error
		stalled bool
	}{
		{"nothing pending", jetstream.ConsumerInfo{Config: limited}, nil, false},
		{"pending", jetstream.ConsumerInfo{Config: limited, NumPending: 1, NumAckPending: 9}, nil, true},
		{"pending behind unacknowledged ones", jetstream.ConsumerInfo{Config: limited, NumPending: 1, NumAckPending: 10}, nil, false},
		{"paused", jetstream.ConsumerInfo{Config: limited, NumPending: 1, Paused: true}, nil, false},
		{"cannot be looked at", jetstream.ConsumerInfo{}, errors.New("gone"), true},
	} {
		p := &pump{}
		if err := p.stalled(t.Context(), &infoOnly{info: test.info, err: test.err}); (err != nil) != test.stalled {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
