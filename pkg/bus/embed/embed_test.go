package embed_test

import (
	"bytes"
	"log/slog"
	"net"
	"strconv"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/renthook/renthook/pkg/bus/embed"
	"github.com/renthook/renthook/pkg/secret"
)

func TestStart_RefusesWhatIsNotSafe(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]embed.Config{
		"everybody on every interface": {Dir: t.TempDir(), Host: "0.0.0.0"},
		"everybody by host name":       {Dir: t.TempDir(), Host: "example.com"},
		"no directory":                 {},
		"no password":                  {Dir: t.TempDir(), Users: []embed.User{{Name: "a"}}},
		"no name":                      {Dir: t.TempDir(), Users: []embed.User{{Password: secret.New("p")}}},
	} {
		if s, err := embed.Start(cfg); err == nil {
			s.Shutdown()
			t.Errorf("%s: started", name)
		}
	}
}

func TestStart_SaysThatThePortIsTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	var log bytes.Buffer
	s, err := embed.Start(embed.Config{
		Dir: t.TempDir(), Port: taken.Addr().(*net.TCPAddr).Port, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err == nil {
		s.Shutdown()
		t.Fatal("started on a port that is taken")
	}
	if want := strconv.Itoa(taken.Addr().(*net.TCPAddr).Port); !bytes.Contains([]byte(err.Error()), []byte(want)) {
		t.Errorf("the error does not name the port: %v", err)
	}
}

func TestUsers_Permissions(t *testing.T) {
	t.Parallel()
	user := func(name string, publish, subscribe []string) embed.User {
		return embed.User{Name: name, Password: secret.New(name + "-password"), Publish: publish, Subscribe: subscribe}
	}
	s, err := embed.Start(embed.Config{Dir: t.TempDir(), Users: []embed.User{
		user("all", nil, nil), user("some", []string{"a.>"}, []string{"b.>"}), user("mute", []string{}, nil),
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	all := dial(t, s, "all")
	for _, test := range []struct {
		user, subject string
		may           bool
	}{
		{"all", "a.1", true}, {"all", "c.1", true},
		{"some", "a.1", true}, {"some", "b.1", false}, {"some", "c.1", false},
		{"mute", "a.1", false},
	} {
		sub, err := all.SubscribeSync(test.subject)
		if err != nil {
			t.Fatal(err)
		}
		if err := all.Flush(); err != nil {
			t.Fatal(err)
		}
		nc := dial(t, s, test.user)
		if err := nc.Publish(test.subject, []byte(test.user)); err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		// What arrived must arrive before this mark, which comes after it on the same subject.
		if err := all.Publish(test.subject, []byte("mark")); err != nil {
			t.Fatal(err)
		}
		m, err := sub.NextMsg(nats.DefaultTimeout * 15)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(m.Data) == test.user; got != test.may {
			t.Errorf("%s publishes %s: %t, want %t", test.user, test.subject, got, test.may)
		}
		_ = sub.Unsubscribe()
		nc.Close()
	}
}

func dial(t *testing.T, s *embed.Server, user string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.URL(), nats.UserInfo(user, user+"-password"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}
