package notifier

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/renthook/renthook/pkg/bus/bustest"
	"github.com/renthook/renthook/pkg/webhook/webhooktest"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/notifier/internal/compose"
	"github.com/renthook/renthook/services/notifier/internal/deliver"
)

// count says how often each id arrived.
func count(all []webhooktest.Request) map[string]int {
	n := map[string]int{}
	for _, q := range all {
		n[q.ID]++
	}
	return n
}

func once(t *testing.T, hook *webhooktest.Receiver, want int) {
	t.Helper()
	arrived := count(hook.Requests())
	if len(arrived) != want {
		t.Errorf("%d callbacks arrived, want %d", len(arrived), want)
	}
	for id, n := range arrived {
		if n != 1 {
			t.Errorf("%s arrived %d times", id, n)
		}
	}
}

func TestRestart_AttemptsAreCountedOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hook := webhooktest.Start(t, key)
	hook.Answer(func(webhooktest.Request) webhooktest.Answer { return webhooktest.Answer{Status: 500} })
	cfg := config()
	// A step that outlasts the first notifier, then quick ones.
	cfg.Schedule = []time.Duration{0, 0, 2 * time.Second, 0, 0}
	first := r.start(cfg, guard())
	id := r.publish(event(t, "create-success", hook.URL(""))) + "-op_order-create_k1"
	bustest.Eventually(t, "two tries", func() bool { return len(r.attempts(id, "")) == 2 })
	r.stop(first)
	r.start(cfg, guard())
	equal(t, "attempts", outcomes(r.settled(id)), []string{"1 retrying", "2 retrying", "3 retrying", "4 retrying", "5 failed"})
	r.idle()
	all := hook.Requests()
	if len(all) != 5 {
		t.Fatalf("%d POSTs, want 5", len(all))
	}
	if gap := all[2].At.Sub(all[1].At); gap < 2*time.Second {
		t.Errorf("%s before the third try, the restart must not hasten it", gap)
	}
}

// row:22
func TestRestart_FollowersDoNotOvertake(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hook := webhooktest.Start(t)
	var up atomic.Bool
	hook.Answer(func(webhooktest.Request) webhooktest.Answer {
		if !up.Load() {
			return webhooktest.Answer{Status: 500}
		}
		return webhooktest.Answer{}
	})
	cfg := config(endpoint(hook, "ops", "slack"))
	cfg.Schedule = []time.Duration{0, 2 * time.Second, 0, 0, 0, 0}
	first := r.start(cfg, guard())
	placed := r.publish(step(t, 1, "placed", orderv1.Order_PROVISIONING))
	bustest.Eventually(t, "a try", func() bool { return len(r.attempts(placed, "")) == 1 })
	r.stop(first)
	up.Store(true)
	running := r.publish(step(t, 1, "running", orderv1.Order_RUNNING))
	r.start(cfg, guard())
	equal(t, "follower", outcomes(r.settled(running)), []string{"1 delivered"})
	equal(t, "head", outcomes(r.settled(placed)), []string{"1 retrying", "2 delivered"})
	var told []string
	for _, q := range hook.Requests() {
		told = append(told, map[bool]string{true: "placed", false: "running"}[strings.Contains(string(q.Body), "placed")])
	}
	equal(t, "POSTs", told, []string{"placed", "placed", "running"})
}

// TestRestart_WhatWasInTheAirIsNotOvertaken: a process died with a delivery in hand and nothing recorded.
func TestRestart_WhatWasInTheAirIsNotOvertaken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hook := webhooktest.Start(t)
	cfg := config(endpoint(hook, "ops", "slack"))
	first := r.start(cfg, guard())
	r.stop(first)
	placed := step(t, 1, "placed", orderv1.Order_PROVISIONING)
	id := r.publish(placed)
	deliveries, err := first.deliveries(compose.Event{ID: id, Client: client, OrderEvent: placed})
	if err != nil || len(deliveries) != 1 {
		t.Fatalf("%d deliveries: %v", len(deliveries), err)
	}
	if err := first.enqueue(t.Context(), deliveries[0]); err != nil {
		t.Fatal(err)
	}
	consumer, err := r.conn.JetStream().Consumer(t.Context(), topology.Deliveries, deliver.Consumer("ops"))
	if err != nil {
		t.Fatal(err)
	}
	// In the dead process's hands; its time is up in three seconds.
	taken, err := consumer.Next()
	if err != nil {
		t.Fatal(err)
	}
	if err := taken.NakWithDelay(3 * time.Second); err != nil {
		t.Fatal(err)
	}
	running := r.publish(step(t, 1, "running", orderv1.Order_RUNNING))
	r.start(cfg, guard())
	equal(t, "follower", outcomes(r.settled(running)), []string{"1 delivered"})
	equal(t, "what was in the air", outcomes(r.settled(id)), []string{"1 delivered"})
	all := hook.Requests()
	if len(all) != 2 || !strings.Contains(string(all[0].Body), "placed") {
		t.Errorf("%d POSTs, want placed and then running", len(all))
	}
}

func TestBrokerRestart_NothingIsLostOrTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hook := webhooktest.Start(t, key)
	s := r.start(config(), guard())
	const events = 20
	var ids []string
	for i := range events {
		if i == events/2 {
			r.Restart()
		}
		ids = append(ids, r.publish(about(event(t, "create-success", hook.URL("")), i))+"-op_order-create_k1")
	}
	for _, id := range ids {
		r.settled(id)
	}
	bustest.Eventually(t, "the notifier to be ready again", func() bool { return s.Ready() == nil })
	r.idle()
	once(t, hook, events)
}

func TestReplicas_ShareTheWork(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hook := webhooktest.Start(t, key)
	first := r.start(config(), guard())
	r.start(config(), guard())
	const events = 40
	var ids []string
	for i := range events {
		ids = append(ids, r.publish(about(event(t, "create-success", hook.URL("")), i))+"-op_order-create_k1")
		if i == events/2 {
			r.stop(first)
		}
	}
	for _, id := range ids {
		r.settled(id)
	}
	r.idle()
	// The replica that stopped has finished the POSTs it had in the air.
	once(t, hook, events)
	var stored []string
	for _, m := range r.messages(topology.Deliveries) {
		stored = append(stored, m.Subject[strings.LastIndexByte(m.Subject, '.')+1:])
	}
	equal(t, "deliveries in the order of the journal, whoever stored them", stored, ids)
}

func TestReplicas_RespectEachOthersBackOff(t *testing.T) {
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
	cfg := config(endpoint(hook, "ops", "slack"))
	cfg.Schedule = []time.Duration{0, 300 * time.Millisecond, 300 * time.Millisecond, 300 * time.Millisecond, 300 * time.Millisecond}
	r.start(cfg, guard())
	r.start(cfg, guard())
	placed := r.publish(step(t, 1, "placed", orderv1.Order_PROVISIONING))
	bustest.Eventually(t, "a try", func() bool { return len(r.attempts(placed, "")) > 0 })
	running := r.publish(step(t, 1, "running", orderv1.Order_RUNNING))
	head, follower := r.settled(placed), r.settled(running)
	if head[len(head)-1].GetTime().AsTime().After(follower[0].GetTime().AsTime()) {
		t.Errorf("running was told before placed: %v, %v", head, follower)
	}
	if len(follower) != 1 {
		t.Errorf("the follower was tried %d times", len(follower))
	}
}

// row:23
func TestReplay_NothingIsSentTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hook := webhooktest.Start(t, key)
	first := r.start(config(endpoint(hook, "ops", "slack")), guard())
	const events = 10
	for i := range events {
		r.publish(about(event(t, "create-success", hook.URL("/callback")), i))
	}
	bustest.Eventually(t, "all to arrive", func() bool { return len(hook.Requests()) >= 2*events })
	r.idle()
	r.stop(first)
	// Every place in every stream is lost: all is read from the first message.
	js := r.conn.JetStream()
	if err := js.DeleteConsumer(t.Context(), topology.Orders(account), topology.NotifierConsumer(account)); err != nil {
		t.Fatal(err)
	}
	for _, lane := range append(compose.Lanes(), "ops") {
		if err := js.DeleteConsumer(t.Context(), topology.Deliveries, deliver.Consumer(lane)); err != nil {
			t.Fatal(err)
		}
	}
	r.start(config(endpoint(hook, "ops", "slack")), guard())
	last := r.publish(about(event(t, "create-success", hook.URL("/callback")), events))
	r.settled(last + "-op_order-create_k1")
	r.idle()
	if n := len(hook.Requests()); n != 2*(events+1) {
		t.Errorf("%d POSTs, want %d", n, 2*(events+1))
	}
	if n := len(r.messages(topology.Deliveries)); n != 2*(events+1) {
		t.Errorf("%d deliveries stored, want %d", n, 2*(events+1))
	}
}

// sameLane starts receivers until one shares a lane with hook.
func sameLane(t *testing.T, hook *webhooktest.Receiver) *webhooktest.Receiver {
	t.Helper()
	lane := func(h *webhooktest.Receiver) string {
		all, err := compose.Callbacks(compose.Event{ID: "E-1", Client: client, OrderEvent: event(t, "create-success", h.URL(""))})
		if err != nil {
			t.Fatal(err)
		}
		return all[0].GetEndpoint()
	}
	for range 500 {
		if other := webhooktest.Start(t, key); lane(other) == lane(hook) {
			return other
		}
	}
	t.Fatal("no port hashes to the same lane")
	return nil
}

// row:22
func TestDeadReceiver_DelaysOnlyItself(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dead := webhooktest.Start(t, key)
	hang := make(chan struct{})
	dead.Answer(func(webhooktest.Request) webhooktest.Answer {
		select {
		case <-hang:
			return webhooktest.Answer{}
		default:
			return webhooktest.Answer{Hang: true}
		}
	})
	good := sameLane(t, dead)
	g := guard()
	g.Timeout = 2 * time.Second
	cfg := config()
	cfg.Schedule = slices.Repeat([]time.Duration{time.Second}, 60)
	r.start(cfg, g)
	const each = 12
	var held, through []string
	for i := range each {
		held = append(held, r.publish(about(event(t, "create-success", dead.URL("/dead")), i))+"-op_order-create_k1")
	}
	for i := range each {
		through = append(through, r.publish(about(event(t, "create-success", good.URL("/good")), 100+i))+"-op_order-create_k1")
	}
	for _, id := range through {
		equal(t, "to the good receiver", outcomes(r.settled(id)), []string{"1 delivered"})
	}
	for _, id := range held {
		for _, a := range r.attempts(id, "") {
			if a.GetOutcome() != deliver.Retrying {
				t.Errorf("to the dead receiver: %v", a)
			}
		}
	}
	close(hang)
	for _, id := range held {
		all := r.settled(id)
		if all[len(all)-1].GetOutcome() != deliver.Delivered {
			t.Errorf("after the receiver came back: %v", outcomes(all))
		}
	}
	host := strings.TrimPrefix(dead.URL(""), "http://")
	for _, m := range r.messages(topology.Attempts) {
		if strings.Contains(string(m.Data), host) {
			t.Errorf("the address is in a recorded attempt: %s", m.Data)
		}
	}
}
