package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

type logger = *slog.Logger

// settleTimeout bounds telling the broker how a message ended.
const settleTimeout = 5 * time.Second

// handle works on one delivery to its end: acknowledged, given back, or buried.
func (p *pump) handle(ctx context.Context, raw jetstream.Msg) {
	meta, err := raw.Metadata()
	if err != nil {
		p.log.Error("a delivery without metadata", "subject", raw.Subject(), "error", err.Error())
		return
	}
	m := Msg{
		Subject: raw.Subject(), Header: raw.Headers(), Data: raw.Data(), Stream: meta.Stream, Consumer: meta.Consumer,
		Sequence: meta.Sequence.Stream, Delivered: meta.NumDelivered, Pending: meta.NumPending, Time: meta.Timestamp,
	}
	spanCtx, span := p.conn.startProcess(ctx, m)
	err = p.run(spanCtx, raw, m)
	endSpan(span, failure(err))

	// How the message ended must reach the broker also when ctx has just ended.
	settle, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	log := p.log.With("subject", m.Subject, "sequence", m.Sequence, "delivered", m.Delivered)
	var after *afterError
	var permanent *permanentError
	switch {
	case err == nil:
		p.forget(m)
		if err := raw.DoubleAck(settle); err != nil {
			log.Warn("the acknowledgement is not confirmed, the message will come again", "error", err.Error())
		}
	case errors.As(err, &permanent):
		p.bury(settle, raw, m, permanent, log)
	case errors.As(err, &after):
		p.nak(raw, after.after, log)
	case ctx.Err() != nil:
		p.nak(raw, 0, log)
	default:
		delay := p.backoff(m.Delivered)
		log.Warn("the handler failed, the message will come again", "error", err.Error(), "delay_ms", delay.Milliseconds())
		p.nak(raw, delay, log)
	}
}

// failure is the part of a verdict that is an error in a trace.
func failure(verdict error) error {
	var after *afterError
	if errors.As(verdict, &after) {
		return nil
	}
	return verdict
}

func (p *pump) nak(raw jetstream.Msg, delay time.Duration, log logger) {
	if err := raw.NakWithDelay(max(delay, 0)); err != nil {
		log.Warn("cannot give the message back, it will come again when its time is up", "error", err.Error())
	}
}

// run calls the handler, telling the broker meanwhile that the work goes on.
func (p *pump) run(ctx context.Context, raw jetstream.Msg, m Msg) error {
	if p.opts.MaxDeliver > 0 && m.Delivered > uint64(p.opts.MaxDeliver) {
		return Permanent(fmt.Errorf("delivered %d times without a result", m.Delivered-1))
	}
	// Detached first, so that the cause the handler sees says which of the two ended it.
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { cancel(ErrStopping) })
	done := make(chan struct{})
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		p.keep(raw, cancel, done)
	}()
	err := p.call(work, m)
	close(done)
	<-kept
	stop()
	cancel(nil)
	return err
}

// keep extends the broker's patience until done; when it cannot for a whole AckWait, it cancels the work.
func (p *pump) keep(raw jetstream.Msg, cancel context.CancelCauseFunc, done <-chan struct{}) {
	wait := p.cfg.AckWait
	if wait <= 0 {
		wait = 30 * time.Second
	}
	tick := time.NewTicker(wait / 2)
	defer tick.Stop()
	told := time.Now()
	for {
		select {
		case <-done:
			return
		case at := <-tick.C:
			if raw.InProgress() == nil {
				told = at
			} else if at.Sub(told) >= wait {
				cancel(errOverdue)
				return
			}
		}
	}
}

// call runs the handler and turns a panic into an error, a repeated one into a permanent error.
func (p *pump) call(ctx context.Context, m Msg) (err error) {
	defer func() {
		cause := recover()
		if cause == nil {
			return
		}
		err = fmt.Errorf("the handler panicked: %v", cause)
		p.mu.Lock()
		p.panics[m.Sequence]++
		count := p.panics[m.Sequence]
		p.mu.Unlock()
		p.log.Error("the handler panicked", "subject", m.Subject, "sequence", m.Sequence, "panics", count,
			"error", fmt.Sprint(cause), "stack", string(debug.Stack()))
		if count >= p.opts.MaxPanics {
			err = Permanent(err)
		}
	}()
	return p.handler(ctx, m)
}

// forget drops what is kept about a message that is done with.
func (p *pump) forget(m Msg) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.panics, m.Sequence)
}

// bury copies a refused message to the dead letters and only then gives it up.
func (p *pump) bury(ctx context.Context, raw jetstream.Msg, m Msg, reason error, log logger) {
	if err := p.conn.deadLetter(ctx, p.opts.DeadLetter, m, reason); err != nil {
		delay := p.backoff(m.Delivered)
		log.Error("cannot write the dead letter, the message will come again", "reason", reason.Error(),
			"error", err.Error(), "delay_ms", delay.Milliseconds())
		p.nak(raw, delay, log)
		return
	}
	p.forget(m)
	log.Error("a message is in the dead letters", "reason", reason.Error(), "dead_letter", p.opts.DeadLetter)
	// Like DoubleAck: the broker answers, so that the letter is not written twice for want of a lost word.
	term := &nats.Msg{Subject: raw.Reply(), Data: []byte("+TERM " + oneLine(reason.Error()))}
	if _, err := p.conn.nc.RequestMsgWithContext(ctx, term); err != nil {
		log.Warn("the end of the message is not confirmed, it may be written to the dead letters again", "error", err.Error())
	}
}
