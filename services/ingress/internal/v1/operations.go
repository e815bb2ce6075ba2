package v1

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/renthook/renthook/pkg/fault"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/ingress/internal/answer"
	"github.com/renthook/renthook/services/internal/ask"
	"github.com/renthook/renthook/services/internal/topology"
)

const (
	// mostWait is the longest a read waits for an operation to end.
	mostWait = time.Minute
	// pollSoon is how often it pays to ask about an operation.
	pollSoon = 2 * time.Second
	// look is how often a waiting read looks.
	look = 250 * time.Millisecond
	// writeMargin is what an answer may take to write after a wait.
	writeMargin = 10 * time.Second
)

func operationPath(id string) string { return Prefix + "operations/" + id }

var errNoOperation = fault.New(fault.NotFound, "NOT_FOUND", "there is no such operation")

func (d *Door) getOperation(w http.ResponseWriter, r *request) error {
	wait, err := waiting(r.URL.Query().Get("wait"))
	if err != nil {
		return err
	}
	cmd, err := topology.ParseOperation(r.caller.Client, r.id)
	if err != nil {
		return errNoOperation
	}
	if wait > 0 {
		// Without it the server's own time-out would cut the answer; one that cannot be moved ends the wait early.
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(wait + writeMargin)); err != nil {
			wait = 0
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	for {
		op, err := d.operation(r, cmd)
		if err != nil {
			return err
		}
		if op.GetDone() || ctx.Err() != nil {
			return writeOperation(w, op)
		}
		select {
		case <-time.After(look):
		case <-ctx.Done():
		case <-d.deps.Draining:
			cancel()
		}
	}
}

// operation is what the order service knows, else whether the command is stored.
func (d *Door) operation(r *request, cmd topology.Command) (*orderv1.Operation, error) {
	op, err := d.deps.Orders.Operation(r.Context(), r.caller.Client, r.id)
	if err == nil {
		return op, nil
	}
	f := fault.Public(err)
	if f.Kind != fault.NotFound && f.Kind != fault.Unavailable {
		return nil, err
	}
	at, stored, qerr := d.deps.Admit.Queued(r.Context(), cmd)
	switch {
	case qerr != nil && f.Kind == fault.NotFound:
		return nil, qerr
	case qerr != nil || !stored:
		// Older than what commands are kept for, it may still be known to the service that did not answer.
		return nil, err
	}
	return &orderv1.Operation{Id: r.id, Stage: "queued", CreateTime: timestamppb.New(at)}, nil
}

func writeOperation(w http.ResponseWriter, op *orderv1.Operation) error {
	order := op.GetOrder()
	op.Order = nil
	b, err := jsonOf(op)
	if err != nil {
		return err
	}
	raw := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	// A member that is false is there too: it is what a reader waits for.
	raw["done"] = json.RawMessage(strconv.FormatBool(op.GetDone()))
	if order != nil {
		if raw["order"], err = orderJSON(order); err != nil {
			return err
		}
	}
	if !op.GetDone() {
		answer.RetryAfter(w, pollSoon)
	}
	answer.JSON(w, http.StatusOK, contentType, raw)
	return nil
}

// waiting reads ?wait=: "30s", or seconds.
func waiting(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	if seconds, err := strconv.ParseUint(text, 10, 16); err == nil {
		text = strconv.FormatUint(seconds, 10) + "s"
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fault.New(fault.Invalid, ask.ReasonArgument, "wait is %q: want a duration such as \"30s\"", text)
	}
	return min(d, mostWait), nil
}
