package notifier

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/egress"
	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/pkg/webhook/webhooktest"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/settings"
	"github.com/renthook/renthook/services/internal/topology"
)

func TestNew_RefusesAllAtOnce(t *testing.T) {
	t.Parallel()
	cfg := config(
		settings.Endpoint{Name: "cb-03", Channel: "slack"}, settings.Endpoint{Name: "a.b", Channel: "slack"}, settings.Endpoint{Name: "pager", Channel: "pager"},
	)
	_, err := New(cfg, Deps{})
	for _, want := range []string{`"cb-03"`, `"a.b"`, `unknown channel "pager"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s named", err, want)
		}
	}
	if _, err := New(config(settings.Endpoint{Name: "ops", Channel: "slack"}, settings.Endpoint{Name: "ops", Channel: "discord"}), Deps{}); err == nil {
		t.Error("two endpoints of one name: accepted")
	}
	cfg = config()
	cfg.Schedule = []time.Duration{0, 300 * time.Hour}
	if _, err := New(cfg, Deps{}); err == nil {
		t.Error("a schedule longer than deliveries are kept: accepted")
	}
}

func TestFromSettings(t *testing.T) {
	t.Parallel()
	s := settings.Defaults()
	s.Clients = []settings.Client{
		{Name: client, Secrets: []secret.String{secret.New("first"), secret.New("second")}}, {Name: "tokens-only"},
	}
	s.Notify = settings.Notify{SSHInChannel: true, Endpoints: []settings.Endpoint{{Name: "ops", Channel: "slack"}}}
	cfg := FromSettings(s, "1.2.3")
	if len(cfg.Accounts) != 1 || cfg.Accounts[0] != "main" || cfg.Version != "1.2.3" || !cfg.SSHInChannel || len(cfg.Endpoints) != 1 {
		t.Errorf("%+v", cfg)
	}
	if len(cfg.Secrets) != 1 || cfg.Secrets[client].Reveal() != "first" {
		t.Errorf("%d secrets; callbacks are signed with the first of a client", len(cfg.Secrets))
	}
}

func TestCallback_NotToWhereTheGuardForbids(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hook := webhooktest.Start(t, key)
	r.start(config(), egress.Config{})
	all := r.settled(r.publish(event(t, "create-success", hook.URL("/inside"))) + "-op_order-create_k1")
	equal(t, "attempts", outcomes(all), []string{"1 refused"})
	r.idle()
	if n := len(hook.Requests()); n != 0 {
		t.Errorf("%d POSTs to this machine", n)
	}
}

func TestRecord_TooOldCausesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.start(config(), guard())
	body, err := protojson.Marshal(event(t, "create-success", "http://127.0.0.1:1/"))
	if err != nil {
		t.Fatal(err)
	}
	m := bus.Msg{
		Stream: topology.Orders(account), Sequence: 7, Subject: topology.OrderEvent(account, client, "ord_1", "running"), Data: body,
		Time: time.Now().Add(-retention - time.Minute),
	}
	if err := s.record(t.Context(), m); err != nil {
		t.Error(err)
	}
	if n := len(r.messages(topology.Deliveries)); n != 0 {
		t.Errorf("%d deliveries of a record that may have been told before", n)
	}
	m.Time = time.Now()
	if err := s.record(t.Context(), m); err != nil {
		t.Error(err)
	}
	if n := len(r.messages(topology.Deliveries)); n != 1 {
		t.Errorf("%d deliveries of the same record when it is new, want 1", n)
	}
}

func TestCallback_SignedOnceWithThePassword(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hook := webhooktest.Start(t, key)
	r.start(config(), guard())
	ev := event(t, "create-success", hook.URL("/clore?token=canary-in-the-url"))
	id := r.publish(ev) + "-op_order-create_k1"

	equal(t, "attempts", outcomes(r.settled(id)), []string{"1 delivered"})
	r.idle()
	all := hook.Requests()
	if len(all) != 1 {
		t.Fatalf("%d callbacks, want one", len(all))
	}
	got := all[0]
	if got.Standard != nil || got.Legacy != nil {
		t.Errorf("signatures: %v, %v", got.Standard, got.Legacy)
	}
	if got.ID != id || got.Path != "/clore?token=canary-in-the-url" || got.Header.Get("User-Agent") != "renthook/1.2.3" {
		t.Errorf("id %q, path %q, agent %q", got.ID, got.Path, got.Header.Get("User-Agent"))
	}
	var body struct {
		Success bool
		OrderID int64 `json:"order_id"`
		Data    struct {
			SSH struct{ User, Host, Password string }
		}
	}
	if err := json.Unmarshal(got.Body, &body); err != nil {
		t.Fatal(err)
	}
	password := box(t).Password("ssh", ev.GetOrder().GetId(), "2")
	if !body.Success || body.OrderID != 38176 || body.Data.SSH.Password != password {
		t.Errorf("%s", got.Body)
	}
	for _, stream := range []string{topology.Deliveries, topology.Attempts} {
		for _, m := range r.messages(stream) {
			if strings.Contains(string(m.Data), password) {
				t.Errorf("the password is in %s", stream)
			}
		}
	}
	for _, leak := range []string{password, key, "canary-in-the-url", sealKey} {
		if strings.Contains(r.log.String(), leak) {
			t.Errorf("%q is in the log", leak)
		}
	}
}

func TestCallback_RetriedWithTheSameIDAndBody(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hook := webhooktest.Start(t, key)
	var n atomic.Int32
	hook.Answer(func(webhooktest.Request) webhooktest.Answer {
		switch n.Add(1) {
		case 1:
			return webhooktest.Answer{Status: 500}
		case 2:
			return webhooktest.Answer{Status: 302, Header: http.Header{"Location": {hook.URL("/elsewhere")}}}
		}
		return webhooktest.Answer{}
	})
	r.start(config(), guard())
	all := r.settled(r.publish(event(t, "create-success", hook.URL("/clore"))) + "-op_order-create_k1")
	equal(t, "attempts", outcomes(all), []string{"1 retrying", "2 retrying", "3 delivered"})
	if all[0].GetStatus() != 500 || all[0].GetNextTime() == nil || all[0].GetOrderId() == "" || all[0].GetEventType() != "order.running" {
		t.Errorf("first attempt: %v", all[0])
	}
	r.idle()
	posts := hook.Requests()
	if len(posts) != 3 {
		t.Fatalf("%d POSTs, want 3", len(posts))
	}
	for i, p := range posts {
		if p.Path != "/clore" || p.ID != posts[0].ID || string(p.Body) != string(posts[0].Body) {
			t.Errorf("POST %d differs: %s %s %s", i+1, p.Path, p.ID, p.Body)
		}
		if p.Standard != nil || p.Legacy != nil {
			t.Errorf("POST %d: %v, %v", i+1, p.Standard, p.Legacy)
		}
	}
}

func TestCallback_GivenUpAfterTheSchedule(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hook := webhooktest.Start(t, key)
	hook.Answer(func(webhooktest.Request) webhooktest.Answer { return webhooktest.Answer{Status: 503} })
	cfg := config()
	cfg.Schedule = fast[:3]
	r.start(cfg, guard())
	all := r.settled(r.publish(event(t, "create-no-match", hook.URL(""))) + "-op_order-create_k1")
	equal(t, "attempts", outcomes(all), []string{"1 retrying", "2 retrying", "3 failed"})
	r.idle()
	if n := len(hook.Requests()); n != 3 {
		t.Errorf("%d POSTs, want 3", n)
	}
}

func TestCallback_GoneReceiverIsLeftAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hook := webhooktest.Start(t, key)
	hook.Answer(func(q webhooktest.Request) webhooktest.Answer {
		if q.Path == "/gone" {
			return webhooktest.Answer{Status: 410}
		}
		return webhooktest.Answer{}
	})
	r.start(config(), guard())
	equal(t, "first", outcomes(r.settled(r.publish(about(event(t, "create-success", hook.URL("/gone")), 1))+"-op_order-create_k1")), []string{"1 failed"})
	equal(t, "second", outcomes(r.settled(r.publish(about(event(t, "create-success", hook.URL("/gone")), 2))+"-op_order-create_k1")), []string{"1 refused"})
	equal(t, "another", outcomes(r.settled(r.publish(about(event(t, "create-success", hook.URL("/there")), 3))+"-op_order-create_k1")), []string{"1 delivered"})
	if n := len(hook.Requests()); n != 2 {
		t.Errorf("%d POSTs, want one to each address", n)
	}
}

func TestCallback_OneForEverySettlement(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hook := webhooktest.Start(t, key)
	r.start(config(), guard())
	id := r.publish(event(t, "create-cancelled", hook.URL("")))
	r.settled(id + "-op_order-create_k1")
	r.settled(id + "-op_order-cancel_k2")
	r.settled(r.publish(event(t, "cancel-unknown", hook.URL(""))) + "-op_order-cancel_k2")
	r.settled(r.publish(event(t, "status", hook.URL(""))) + "-op_order-report_k3")
	r.idle()
	if n := len(hook.Requests()); n != 4 {
		t.Errorf("%d callbacks, want 4", n)
	}
}

func TestRecord_WhatCannotBeReadIsBuriedAndTheRestGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hook := webhooktest.Start(t, key)
	r.start(config(), guard())
	r.publishRaw(topology.OrderEvent(account, "-", "-", "holder"), []byte(`{"writer":"a"}`))
	r.publishRaw(topology.OrderEvent(account, client, "ord_1", "running"), []byte(`{"revision":{}}`))
	r.settled(r.publish(event(t, "create-success", hook.URL(""))) + "-op_order-create_k1")
	r.idle()
	dead := r.messages(topology.DeadLetters)
	if len(dead) != 1 || dead[0].Subject != topology.DeadLetter(topology.Orders(account), topology.NotifierConsumer(account)) {
		t.Errorf("dead letters: %v", dead)
	}
}

func TestDelivery_WhatCannotBeReadIsBuriedAndTheRestGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hook := webhooktest.Start(t)
	r.start(config(endpoint(hook, "ops", "slack")), guard())
	r.publishRaw(topology.Delivery("ops", "x-1"), []byte(`{"id":7}`))
	equal(t, "attempts", outcomes(r.settled(r.publish(step(t, 1, "placed", orderv1.Order_PROVISIONING)))), []string{"1 delivered"})
	r.idle()
	dead := r.messages(topology.DeadLetters)
	if len(dead) != 1 || dead[0].Subject != topology.DeadLetter(topology.Deliveries, "deliver-ops") {
		t.Errorf("dead letters: %v", dead)
	}
}

// canary is the part of an endpoint's URL that must not be seen.
const canary = "T000-canary-B000"

func endpoint(hook *webhooktest.Receiver, name, channel string) settings.Endpoint {
	return settings.Endpoint{
		Name: name, Channel: channel, URL: secret.New(hook.URL("/" + channel + "/" + canary)),
		Events: []string{"placed", "running", "failed", "cancelled"},
	}
}

// step is an event of an order's life that settles nothing.
func step(t *testing.T, n int, name string, state orderv1.Order_State) *orderv1.OrderEvent {
	t.Helper()
	ev := about(event(t, "create-success", ""), n)
	ev.Type, ev.Order.State, ev.Settled = "order."+name, state, nil
	return ev
}

func TestEndpoints_HearWhatTheyWant(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hook := webhooktest.Start(t)
	picky := endpoint(hook, "picky", "slack")
	picky.Events, picky.Labels, picky.URL = []string{"unconfirmed"}, map[string]string{"team": "ml"}, secret.New(hook.URL("/picky"))
	r.start(config(endpoint(hook, "ops", "slack"), endpoint(hook, "chat", "discord"), picky), guard())
	r.publish(step(t, 1, "unconfirmed", orderv1.Order_UNCONFIRMED))
	r.publish(step(t, 1, "placed", orderv1.Order_PROVISIONING))
	id := r.publish(step(t, 1, "running", orderv1.Order_RUNNING))
	bustest.Eventually(t, "five messages", func() bool { return len(hook.Requests()) >= 5 })
	r.idle()
	got := map[string][]string{}
	for _, q := range hook.Requests() {
		got[q.Path] = append(got[q.Path], string(q.Body))
		if strings.Contains(string(q.Body), "10022") {
			t.Errorf("the way to log in is in %s", q.Body)
		}
	}
	for path, want := range map[string][]string{
		"/slack/" + canary: {"placed", "running"}, "/discord/" + canary: {"placed", "running"}, "/picky": {"unconfirmed"},
	} {
		if len(got[path]) != len(want) {
			t.Errorf("%s: %d messages, want %d", path, len(got[path]), len(want))
			continue
		}
		for i, what := range want {
			if !strings.Contains(got[path][i], "RTX 4090 ×2: "+what) {
				t.Errorf("%s: message %d is %s, want %s", path, i+1, got[path][i], what)
			}
		}
	}
	if a := r.attempts(id, "ops"); len(a) != 1 || a[0].GetOutcome() != "delivered" {
		t.Errorf("attempts at ops: %v", a)
	}
	if strings.Contains(r.log.String(), canary) {
		t.Error("an endpoint's URL is in the log")
	}
}

func TestEndpoints_OrderHoldsThroughBackOff(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hook := webhooktest.Start(t)
	var n atomic.Int32
	hook.Answer(func(q webhooktest.Request) webhooktest.Answer {
		if strings.Contains(string(q.Body), "placed") && n.Add(1) <= 3 {
			return webhooktest.Answer{Status: 500}
		}
		return webhooktest.Answer{}
	})
	r.start(config(endpoint(hook, "ops", "slack")), guard())
	placed := r.publish(step(t, 1, "placed", orderv1.Order_PROVISIONING))
	running := r.publish(step(t, 1, "running", orderv1.Order_RUNNING))
	other := r.publish(step(t, 2, "running", orderv1.Order_RUNNING))
	equal(t, "head", outcomes(r.settled(placed)), []string{"1 retrying", "2 retrying", "3 retrying", "4 delivered"})
	equal(t, "follower", outcomes(r.settled(running)), []string{"1 delivered"})
	equal(t, "another order", outcomes(r.settled(other)), []string{"1 delivered"})
	var told []string
	for _, q := range hook.Requests() {
		if strings.Contains(string(q.Body), "00001") {
			told = append(told, map[bool]string{true: "placed", false: "running"}[strings.Contains(string(q.Body), "placed")])
		}
	}
	equal(t, "POSTs of the order", told, []string{"placed", "placed", "placed", "placed", "running"})
}

func TestEndpoints_RetryAfterIsObeyed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hook := webhooktest.Start(t)
	var n atomic.Int32
	hook.Answer(func(webhooktest.Request) webhooktest.Answer {
		if n.Add(1) == 1 {
			return webhooktest.Answer{Status: 429, Header: http.Header{"Retry-After": {"1"}}}
		}
		return webhooktest.Answer{}
	})
	r.start(config(endpoint(hook, "ops", "slack")), guard())
	first := r.publish(step(t, 1, "placed", orderv1.Order_PROVISIONING))
	second := r.publish(step(t, 2, "placed", orderv1.Order_PROVISIONING))
	tries := r.settled(first)
	equal(t, "first", outcomes(tries), []string{"1 retrying", "2 delivered"})
	if next := tries[0].GetNextTime().AsTime().Sub(tries[0].GetTime().AsTime()); next < time.Second {
		t.Errorf("next try recorded for %s later", next)
	}
	equal(t, "second", outcomes(r.settled(second)), []string{"1 delivered"})
	all := hook.Requests()
	if len(all) != 3 {
		t.Fatalf("%d POSTs, want 3", len(all))
	}
	if gap := all[1].At.Sub(all[0].At); gap < time.Second {
		t.Errorf("%s after a 429 that asked for one second", gap)
	}
}
