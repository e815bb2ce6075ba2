package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/bus/embed"
	"github.com/renthook/renthook/pkg/secret"
)

func TestPublish_OneOfManyIsAdmittedForGood(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, bustest.SyncAlways())
	c := s.Connect(t)
	ensure(t, c, once("CMD", "cmd.>"))
	durable(t, c, "CMD")
	others := []*bus.Conn{c, s.Connect(t), s.Connect(t)}
	var admitted, refused atomic.Int64
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			_, err := others[i%3].Publish(context.Background(), &nats.Msg{Subject: "cmd.same", Data: []byte(fmt.Sprint(i))})
			switch {
			case err == nil:
				admitted.Add(1)
			case errors.Is(err, bus.ErrExists):
				refused.Add(1)
			default:
				t.Errorf("publish: %v", err)
			}
		})
	}
	wg.Wait()
	if admitted.Load() != 1 || refused.Load() != 63 {
		t.Fatalf("%d admitted, %d refused", admitted.Load(), refused.Load())
	}

	// It stays so after the message was worked on, and after a restart.
	handled := make(chan string, 1)
	stop := consume(t, c, "CMD", func(_ context.Context, m bus.Msg) error { handled <- string(m.Data); return nil }, bus.Options{})
	body := <-handled
	stop()
	s.Restart()
	bustest.Eventually(t, "the connection", func() bool { return c.Ready() == nil })
	if _, err := c.Publish(t.Context(), &nats.Msg{Subject: "cmd.same", Data: []byte("late")}); !errors.Is(err, bus.ErrExists) {
		t.Fatalf("after ack and restart: %v", err)
	}
	m, err := c.LastBySubject(t.Context(), "CMD", "cmd.same")
	if err != nil || string(m.Data) != body {
		t.Fatalf("the admitted message: %v %v", m, err)
	}
	if _, err := c.LastBySubject(t.Context(), "CMD", "cmd.other"); !errors.Is(err, bus.ErrNotFound) {
		t.Fatalf("a subject without message: %v", err)
	}
}

// row:20
func TestPublish_NamesWhatHappened(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	c := s.Connect(t)
	full := once("FULL", "full.>")
	full.MaxBytes = 1000
	small := once("SMALL", "small.>")
	small.MaxMsgSize = 100
	ids := once("IDS", "ids.>")
	ids.Duplicates = time.Hour
	ensure(t, c, once("CMD", "cmd.>"), full, small, ids)
	publish(t, c, "cmd.taken", "1")
	publish(t, c, "full.1", strings.Repeat("x", 800))
	if _, err := c.Publish(t.Context(), &nats.Msg{Subject: "ids.1", Header: nats.Header{jetstream.MsgIDHeader: {"id"}}}); err != nil {
		t.Fatal(err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name string
		ctx  context.Context
		msg  nats.Msg
		want error
	}{
		{"taken", t.Context(), nats.Msg{Subject: "cmd.taken"}, bus.ErrExists},
		{"full", t.Context(), nats.Msg{Subject: "full.2", Data: make([]byte, 800)}, bus.ErrFull},
		{"above the stream's limit", t.Context(), nats.Msg{Subject: "small.1", Data: make([]byte, 200)}, bus.ErrTooLarge},
		{"above the broker's limit", t.Context(), nats.Msg{Subject: "cmd.big", Data: make([]byte, 2<<20)}, bus.ErrTooLarge},
		{"no stream", t.Context(), nats.Msg{Subject: "nowhere"}, bus.ErrUnavailable},
		{"taken for another", t.Context(), nats.Msg{Subject: "ids.2", Header: nats.Header{jetstream.MsgIDHeader: {"id"}}}, bus.ErrDuplicate},
		{"canceled before", canceled, nats.Msg{Subject: "cmd.never"}, context.Canceled},
		{"no subject", t.Context(), nats.Msg{Subject: "a b"}, nats.ErrBadSubject},
	} {
		if _, err := c.Publish(test.ctx, &test.msg); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	s.Stop()
	bustest.Eventually(t, "the loss of the connection", func() bool { return errors.Is(c.Ready(), bus.ErrNotConnected) })
	if _, err := c.Publish(t.Context(), &nats.Msg{Subject: "cmd.away"}); !errors.Is(err, bus.ErrUnavailable) {
		t.Errorf("broker away: %v", err)
	}
	s.Resume()
	bustest.Eventually(t, "the connection", func() bool { return c.Ready() == nil })
	if _, err := c.LastBySubject(t.Context(), "CMD", "cmd.away"); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("what was not available was stored later: %v", err)
	}
}

func TestPublish_WithoutAnswerIsUnknownAndSettledByRepeating(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	ensure(t, s.Connect(t), once("CMD", "cmd.>"))
	for _, test := range []struct {
		name  string
		fault func(*bustest.Proxy)
		want  error
	}{
		{"applied", (*bustest.Proxy).Mute, bus.ErrExists},
		{"not-applied", (*bustest.Proxy).Deafen, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := s.Proxy(t)
			c := bustest.Connect(t, bus.Config{URL: p.URL()})
			// The first request opens the connection's reply inbox.
			publish(t, c, "cmd.first."+test.name, "")
			test.fault(p)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			m := &nats.Msg{Subject: "cmd." + test.name}
			if _, err := c.Publish(ctx, m); !errors.Is(err, bus.ErrUnknown) {
				t.Fatalf("without an answer: %v", err)
			}
			p.Heal()
			var err error
			bustest.Eventually(t, "an answer", func() bool {
				_, err = c.Publish(t.Context(), m)
				return !errors.Is(err, bus.ErrUnknown) && !errors.Is(err, bus.ErrUnavailable)
			})
			if !errors.Is(err, test.want) {
				t.Fatalf("again: %v, want %v", err, test.want)
			}
		})
	}
}

func TestPublish_PermissionsFailFast(t *testing.T) {
	t.Parallel()
	admin := embed.User{Name: "admin", Password: secret.New("admin-password")}
	local := embed.User{
		Name: "local", Password: secret.New("local-password"),
		Publish: []string{"cmd.local.>"}, Subscribe: []string{"_INBOX.>"},
	}
	s := bustest.Start(t, bustest.Users(admin, local))
	ensure(t, s.Connect(t, admin), once("CMD", "cmd.>"))
	c := s.Connect(t, local)
	publish(t, c, "cmd.local.1", "")
	// Without the broker's word on the side this would take until ctx ends.
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for _, subject := range []string{"cmd.other.1", "evt.anything", "$JS.API.STREAM.PURGE.CMD"} {
		if _, err := c.Publish(ctx, &nats.Msg{Subject: subject}); !errors.Is(err, bus.ErrDenied) {
			t.Errorf("%s: %v", subject, err)
		}
	}
	sub, err := c.NATS().SubscribeSync("cmd.>")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sub.NextMsg(time.Minute); !errors.Is(err, nats.ErrPermissionViolation) {
		t.Errorf("subscribe to others' commands: %v", err)
	}
	if _, err := bus.Connect(t.Context(), bus.Config{URL: s.URL(), User: "local", Password: secret.New("wrong")}); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("wrong password: %v", err)
	}
	if _, err := bus.Connect(t.Context(), bus.Config{URL: s.URL()}); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("no password: %v", err)
	}
}

func TestConnect_BrokerComesLater(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	url := s.URL()
	s.Stop()
	c := bustest.Connect(t, bus.Config{URL: url})
	if err := c.Ready(); !errors.Is(err, bus.ErrNotConnected) {
		t.Fatalf("Ready: %v", err)
	}
	if _, err := c.Publish(t.Context(), &nats.Msg{Subject: "cmd.1"}); !errors.Is(err, bus.ErrUnavailable) {
		t.Fatalf("publish: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Wait(ctx); !errors.Is(err, bus.ErrNotConnected) {
		t.Fatalf("Wait: %v", err)
	}
	ensured := make(chan error, 1)
	go func() { ensured <- c.EnsureStream(context.Background(), once("CMD", "cmd.>")) }()
	s.Resume()
	if err := <-ensured; err != nil {
		t.Fatalf("ensure once the broker is there: %v", err)
	}
	publish(t, c, "cmd.1", "")
}
