// Package leader reads single messages of a stream from its leader.
//
// It guarantees that a read sees every message the stream acknowledged before it: the jetstream package reads
// from whichever replica answers first where a stream allows direct gets. It refuses nothing and retries nothing.
package leader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrNotFound says that the stream has no such message.
var ErrNotFound = errors.New("no such message in the stream")

type request struct {
	Seq     uint64 `json:"seq,omitempty"`
	LastFor string `json:"last_by_subj,omitempty"`
}

type response struct {
	Error   *jetstream.APIError `json:"error"`
	Message *struct {
		Subject  string    `json:"subject"`
		Sequence uint64    `json:"seq"`
		Header   []byte    `json:"hdrs"`
		Data     []byte    `json:"data"`
		Time     time.Time `json:"time"`
	} `json:"message"`
}

// Get reads the message with sequence seq.
func Get(ctx context.Context, js jetstream.JetStream, stream string, seq uint64) (*jetstream.RawStreamMsg, error) {
	return get(ctx, js, stream, request{Seq: seq})
}

// LastFor reads the newest message of subject.
func LastFor(ctx context.Context, js jetstream.JetStream, stream, subject string) (*jetstream.RawStreamMsg, error) {
	return get(ctx, js, stream, request{LastFor: subject})
}

func get(ctx context.Context, js jetstream.JetStream, stream string, req request) (*jetstream.RawStreamMsg, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, js.Options().DefaultTimeout)
	defer cancel()
	answer, err := js.Conn().RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, body)
	if err != nil {
		return nil, fmt.Errorf("read from stream %s: %w", stream, err)
	}
	var r response
	if err := json.Unmarshal(answer.Data, &r); err != nil {
		return nil, fmt.Errorf("read from stream %s: decode the answer: %w", stream, err)
	}
	switch {
	case r.Error != nil && r.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return nil, fmt.Errorf("read from stream %s: %w", stream, ErrNotFound)
	case r.Error != nil:
		return nil, fmt.Errorf("read from stream %s: %w", stream, r.Error)
	case r.Message == nil:
		return nil, fmt.Errorf("read from stream %s: %w", stream, jetstream.ErrInvalidJetStreamResponse)
	}
	m := &jetstream.RawStreamMsg{Subject: r.Message.Subject, Sequence: r.Message.Sequence, Data: r.Message.Data, Time: r.Message.Time}
	if len(r.Message.Header) > 0 {
		if m.Header, err = nats.DecodeHeadersMsg(r.Message.Header); err != nil {
			return nil, fmt.Errorf("read from stream %s: decode the headers: %w", stream, err)
		}
	}
	return m, nil
}
