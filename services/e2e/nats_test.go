package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsClient is somebody with a NATS library and what run.json names.
type natsClient struct {
	*nats.Conn
	js jetstream.JetStream
	// denied is what the broker would not allow.
	denied chan error
}

func (r *renthook) nats(t *testing.T, user, passwordFile string) *natsClient {
	t.Helper()
	c := &natsClient{denied: make(chan error, 16)}
	var err error
	c.Conn, err = nats.Connect("nats://"+r.NATS, nats.UserInfo(user, readSecret(t, passwordFile)), nats.Timeout(patience),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { c.denied <- err }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if c.js, err = jetstream.New(c.Conn, jetstream.WithDefaultTimeout(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// local is the client that run.json has the credentials of.
func (r *renthook) local(t *testing.T) *natsClient { return r.nats(t, r.NATSUser, r.NATSPasswordFile) }

// exists is the broker's answer to a second message on a subject that keeps one.
const exists jetstream.ErrorCode = 10077

func isTwice(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == exists && strings.Contains(api.Description, "messages per subject")
}

// The subject is the key: the broker takes a command once, before and after a restart.
func TestNATS_OneCommandIsOneOrder(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	r := up(t, data, nil)
	subject, body := "renthook.v1.cmd.local.order.create.once", []byte(`{"gpu":"RTX 4090","max_price":{"amount":"2"}}`)
	c := r.local(t)
	if _, err := c.js.Publish(t.Context(), subject, body); err != nil {
		t.Fatal(err)
	}
	if _, err := c.js.Publish(t.Context(), subject, body); !isTwice(err) {
		t.Errorf("the second time: %v", err)
	}
	if op := r.settled(t, "op_order-create_once"); op.Stage != "succeeded" || op.Order.State != "RUNNING" {
		t.Errorf("the order: %+v", op)
	}
	r.stop()

	r = up(t, data, nil)
	c = r.local(t)
	if _, err := c.js.Publish(t.Context(), subject, body); !isTwice(err) {
		t.Errorf("after a restart: %v", err)
	}
	// A later command is handled after it: had there been another order, it would be there by then.
	if _, err := c.js.Publish(t.Context(), "renthook.v1.cmd.local.order.report.after", []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	r.settled(t, "op_order-report_after")
	var list struct {
		Orders []json.RawMessage `json:"orders"`
	}
	if status := r.read(t, "/v1/orders", &list); status != http.StatusOK || len(list.Orders) != 1 {
		t.Errorf("status %d, orders %s", status, list.Orders)
	}
	if l := market(t, r.Market); l.live() != 1 || l.calls("create_order") != 1 {
		t.Errorf("%d rentals, %d creates", l.live(), l.calls("create_order"))
	}
}

// What a client on NATS can do, cannot do and cannot lose.
func TestNATS_Clients(t *testing.T) {
	t.Parallel()
	r := up(t, t.TempDir(), nil)
	t.Run("the broker says who speaks", r.theBrokerSaysWhoSpeaks)
	t.Run("own events are heard", r.ownEventsAreHeard)
	t.Run("a shared message id loses nothing", r.aSharedMessageIDLosesNothing)
	t.Run("without the password nobody gets in", r.withoutThePasswordNobodyGetsIn)
}

// A client speaks and listens on its own subjects only, whatever it writes into a body.
func (r *renthook) theBrokerSaysWhoSpeaks(t *testing.T) {
	c := r.local(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, subject := range []string{
		"renthook.v1.cmd.other.order.create.k",
		"renthook.v1.evt.order.main.local.ord_1.running",
		"renthook.v1.evt.order.main.other.ord_1.running",
		"renthook.v1.market.snapshot",
		"renthook.v1.svc.order.slot",
		"$JS.API.STREAM.DELETE.COMMANDS",
		"$JS.API.STREAM.PURGE.ORDERS_MAIN",
		"$JS.API.STREAM.MSG.GET.COMMANDS",
		"_INBOX_order.x",
	} {
		if err := errors.Join(c.Publish(subject, []byte(`{"gpu":"RTX 4090"}`)), c.FlushWithContext(ctx)); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-c.denied:
			if !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), `"`+subject+`"`) {
				t.Errorf("%s: %v", subject, err)
			}
		case <-ctx.Done():
			t.Errorf("a publish to %s was let through", subject)
		}
	}

	for _, subject := range []string{"renthook.v1.evt.order.*.other.>", "renthook.v1.evt.order.>", "renthook.v1.cmd.local.>", "_INBOX_order.>", ">"} {
		sub, err := c.SubscribeSync(subject)
		if err == nil {
			err = c.FlushWithContext(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-c.denied:
			if !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), `"`+subject+`"`) {
				t.Errorf("%s: %v", subject, err)
			}
		case <-ctx.Done():
			t.Errorf("a subscription to %s was let through", subject)
		}
		_ = sub.Unsubscribe()
	}

	// Nothing of it was stored: seen with a service's own credentials.
	service := r.nats(t, "order", filepath.Join(filepath.Dir(r.NATSPasswordFile), "nats-order"))
	for stream, subject := range map[string]string{"COMMANDS": "renthook.v1.cmd.other.>", "ORDERS_MAIN": "renthook.v1.evt.order.main.*.ord_1.>"} {
		s, err := service.js.Stream(ctx, stream)
		if err != nil {
			t.Fatal(err)
		}
		info, err := s.Info(ctx, jetstream.WithSubjectFilter(subject))
		if err != nil || len(info.State.Subjects) != 0 {
			t.Errorf("%s holds %v (%v)", stream, info.State.Subjects, err)
		}
	}
}

// An id that deduplicates elsewhere does not swallow a command here: the subject alone is the key.
func (r *renthook) aSharedMessageIDLosesNothing(t *testing.T) {
	c := r.local(t)
	body := []byte(`{}`)
	first, err := c.js.Publish(t.Context(), "renthook.v1.cmd.local.order.report.first", body, jetstream.WithMsgID("the-same"))
	if err != nil {
		t.Fatal(err)
	}
	r.settled(t, "op_order-report_first")
	published := time.Now()
	eventually(t, "the broker to forget the id", func() bool { return time.Since(published) > time.Second })
	second, err := c.js.Publish(t.Context(), "renthook.v1.cmd.local.order.report.second", body, jetstream.WithMsgID("the-same"))
	if err != nil || second.Duplicate || second.Sequence <= first.Sequence {
		t.Fatalf("got %+v (%v), want a message after %d", second, err, first.Sequence)
	}
	if op := r.settled(t, "op_order-report_second"); op.Stage != "succeeded" {
		t.Errorf("the second: %+v", op)
	}
}

// A client follows its own orders as they are recorded.
func (r *renthook) ownEventsAreHeard(t *testing.T) {
	c := r.local(t)
	events, err := c.SubscribeSync("renthook.v1.evt.order.*.local.>")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.FlushWithContext(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.js.Publish(ctx, "renthook.v1.cmd.local.order.create.heard", []byte(`{"gpu_type":"RTX 4090","max_price":2}`)); err != nil {
		t.Fatal(err)
	}
	revision := 0
	for last := ""; last != "order.running"; {
		m, err := events.NextMsgWithContext(ctx)
		if err != nil {
			t.Fatalf("after %q: %v", last, err)
		}
		var e struct {
			Type     string      `json:"type"`
			Revision json.Number `json:"revision"`
			Order    struct {
				ID     string `json:"id"`
				Client string `json:"client"`
			} `json:"order"`
		}
		if err := json.Unmarshal(m.Data, &e); err != nil {
			t.Fatal(err)
		}
		n, err := e.Revision.Int64()
		if err != nil || int(n) != revision+1 || e.Order.Client != "local" || !strings.HasSuffix(m.Subject, "."+e.Order.ID+"."+strings.TrimPrefix(e.Type, "order.")) {
			t.Errorf("on %s after revision %d: %s", m.Subject, revision, m.Data)
		}
		revision, last = int(n), e.Type
	}
}

func (r *renthook) withoutThePasswordNobodyGetsIn(t *testing.T) {
	password := readSecret(t, r.NATSPasswordFile)
	for who, option := range map[string]nats.Option{
		"nobody": nats.Name("nobody"), "a wrong password": nats.UserInfo(r.NATSUser, "wrong"), "another's password": nats.UserInfo("order", password),
		"an unknown user": nats.UserInfo("other", password),
	} {
		if c, err := nats.Connect("nats://"+r.NATS, option); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("%s: %v", who, err)
			if err == nil {
				c.Close()
			}
		}
	}
	if info, err := os.Stat(r.NATSPasswordFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the password's file: %v (%v)", info.Mode(), err)
	}
}
