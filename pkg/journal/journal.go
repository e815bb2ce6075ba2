// Package journal is one stream with one writer at a time, fenced by the stream itself.
//
// It guarantees that an append is stored only if the stream's last sequence is what its writer believes it to be:
// a writer that another has followed fails with ErrFenced, whoever thinks to hold what lease. Several entries are
// stored together or not at all. An append whose answer got lost is settled by reading the journal, so that Append
// says what happened, not what may have. Every record carries its writer, the writer's epoch and an append id;
// reading refuses records that have none, that belong to an epoch already over, and gaps.
//
// It refuses to write before the writer has claimed the journal with a record of its own. It knows nothing of what
// the records mean, and it never deletes one.
package journal

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Headers of every record, beside its own.
const (
	HeaderWriter   = "Renthook-Writer"
	HeaderEpoch    = "Renthook-Epoch"
	HeaderAppendID = "Renthook-Append-Id"
)

// MaxBatch is how many entries one Append takes: the broker's limit for an atomic batch.
const MaxBatch = 1000

// What a caller branches on.
var (
	// ErrFenced: another writer has followed, or the journal is not the one this writer read. The writer is dead.
	ErrFenced = errors.New("another writer has followed")
	// ErrFull: the journal has no room. Nothing was stored; the writer lives.
	ErrFull = errors.New("the journal has no room")
	// ErrTooLarge: an entry is above the limit of the stream or the broker. Nothing was stored; the writer lives.
	ErrTooLarge = errors.New("an entry is too large")
	// ErrUnavailable: the broker could not be reached, and nothing was stored; the writer lives.
	ErrUnavailable = errors.New("the journal cannot be reached")
	// ErrUnsettled: the broker went away before it could be learnt whether the entries are stored. The writer is
	// dead; replay tells.
	ErrUnsettled = errors.New("it is not known whether the entries are stored")
	// ErrDead: the writer had ErrFenced or ErrUnsettled before.
	ErrDead = errors.New("this writer is dead")
	// ErrAlien: the journal holds a record that no writer of this kind wrote in its turn. Nothing may be built on it.
	ErrAlien = errors.New("a record in the journal is not of its writer")
	// ErrGap: records are missing from the journal.
	ErrGap = errors.New("records are missing from the journal")
	// ErrAhead: the reader is ahead of the journal, so the journal lost records or is another one.
	ErrAhead = errors.New("the journal ends before what was already read")
)

// Record is one entry as it stands in the journal.
type Record struct {
	// Seq is its place: 1, 2, 3, … without gaps.
	Seq uint64
	// Subject, Header and Data as appended; Header holds the journal's headers too.
	Subject string
	Header  nats.Header
	Data    []byte
	// Time the stream stored it.
	Time time.Time
	// Writer that appended it, and the writer's epoch: the sequence of its claim.
	Writer string
	Epoch  uint64
	// AppendID is shared by the records of one Append.
	AppendID string
}

// Entry is what a writer appends.
type Entry struct {
	Subject string
	// Header is copied; names that begin with "Nats-" are refused.
	Header nats.Header
	Data   []byte
}

// State of a journal as of a moment.
type State struct {
	// First and Last sequence; First is Last+1 when the journal is empty.
	First, Last uint64
	// Bytes it holds, and may hold at most; MaxBytes is zero without a bound.
	Bytes, MaxBytes uint64
	// Created is when the stream was made: another time is another journal.
	Created time.Time
}

// Journal reads a stream and lets one writer at a time claim it. It is safe for concurrent use.
type Journal struct {
	js     jetstream.JetStream
	stream string
	// attempt bounds one attempt to append.
	attempt time.Duration
}

// Open names the journal that is kept in stream; the stream must exist, refuse deletes and allow atomic batches.
func Open(js jetstream.JetStream, stream string) *Journal {
	return &Journal{js: js, stream: stream, attempt: attemptTimeout}
}

// State reads the journal's bounds from the stream's leader.
func (j *Journal) State(ctx context.Context) (State, error) {
	stream, err := j.js.Stream(ctx, j.stream)
	if err != nil {
		return State{}, fmt.Errorf("read the state of journal %s: %w", j.stream, err)
	}
	info := stream.CachedInfo()
	return State{
		First: max(info.State.FirstSeq, 1), Last: info.State.LastSeq, Created: info.Created,
		Bytes: info.State.Bytes, MaxBytes: uint64(max(info.Config.MaxBytes, 0)),
	}, nil
}

// record takes a stored message apart.
func record(subject string, seq uint64, at time.Time, h nats.Header, data []byte) (Record, error) {
	r := Record{
		Seq: seq, Subject: subject, Header: h, Data: data, Time: at,
		Writer: h.Get(HeaderWriter), AppendID: h.Get(HeaderAppendID),
	}
	epoch, err := strconv.ParseUint(h.Get(HeaderEpoch), 10, 64)
	if err != nil || epoch == 0 || epoch > seq || r.Writer == "" || r.AppendID == "" {
		return r, fmt.Errorf("%w: sequence %d on %s has writer %q, epoch %q, append id %q", ErrAlien, seq, subject,
			r.Writer, h.Get(HeaderEpoch), r.AppendID)
	}
	r.Epoch = epoch
	return r, nil
}

// turns follows who writes and refuses a record out of turn.
type turns struct {
	writer string
	epoch  uint64
}

func (t *turns) check(r Record) error {
	if r.Epoch == r.Seq {
		t.writer, t.epoch = r.Writer, r.Epoch
		return nil
	}
	if t.epoch == 0 {
		// The reader began in the middle of an epoch.
		t.writer, t.epoch = r.Writer, r.Epoch
	}
	if r.Writer != t.writer || r.Epoch != t.epoch {
		return fmt.Errorf("%w: sequence %d is of %s in epoch %d, in the turn of %s since epoch %d", ErrAlien, r.Seq,
			r.Writer, r.Epoch, t.writer, t.epoch)
	}
	return nil
}
