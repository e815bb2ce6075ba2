package deliver

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	deliveryv1 "github.com/renthook/renthook/proto/gen/renthook/delivery/v1"
	"github.com/renthook/renthook/services/notifier/internal/channel"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func of(seq int, order, address string) *deliveryv1.Delivery {
	return &deliveryv1.Delivery{Id: fmt.Sprintf("ORDERS_MAIN-%d", seq), OrderId: order, Url: address, Endpoint: "cb-00"}
}

// fail makes an attempt of d that is to be repeated at due.
func fail(t *testing.T, l *lane, d *deliveryv1.Delivery, r channel.Result, now, due time.Time) {
	t.Helper()
	turn := l.enter(d, now)
	if turn.verdict != attempt {
		t.Fatalf("%s at %s: verdict %d, want an attempt", d.GetId(), now, turn.verdict)
	}
	a := &deliveryv1.Attempt{DeliveryId: d.GetId(), OrderId: d.GetOrderId(), Number: int32(turn.number), Outcome: Retrying, NextTime: timestamppb.New(due)}
	l.sent(d, a, r, now)
	l.apply(a, now)
	l.leave(d.GetId())
}

func succeed(t *testing.T, l *lane, d *deliveryv1.Delivery, now time.Time) {
	t.Helper()
	turn := l.enter(d, now)
	if turn.verdict != attempt {
		t.Fatalf("%s at %s: verdict %d, want an attempt", d.GetId(), now, turn.verdict)
	}
	a := &deliveryv1.Attempt{DeliveryId: d.GetId(), OrderId: d.GetOrderId(), Number: int32(turn.number), Outcome: Delivered}
	l.sent(d, a, channel.Result{Verdict: channel.Delivered, Status: 200}, now)
	l.apply(a, now)
	l.leave(d.GetId())
}

func answered(status int) channel.Result {
	return channel.Result{Verdict: channel.Retry, Status: status}
}

func TestLane_FollowersWaitForTheHeadUncounted(t *testing.T) {
	t.Parallel()
	l := newLane("cb-00")
	head, next, other := of(1, "ord_a", "u"), of(2, "ord_a", "u"), of(3, "ord_b", "u")
	fail(t, l, head, answered(500), start, start.Add(time.Minute))
	for range 3 {
		if turn := l.enter(next, start.Add(time.Second)); turn.verdict != wait || turn.after != 59*time.Second {
			t.Fatalf("follower: %+v, want 59s", turn)
		}
	}
	succeed(t, l, other, start.Add(time.Second)) // another order is not held
	if turn := l.enter(head, start.Add(30*time.Second)); turn.verdict != wait || turn.after != 30*time.Second {
		t.Errorf("head before its time: %+v", turn)
	}
	if turn := l.enter(next, start.Add(time.Minute)); turn.verdict != wait || turn.after != pause {
		t.Errorf("follower when the head is due: %+v", turn)
	}
	due := start.Add(time.Minute)
	if turn := l.enter(head, due); turn.verdict != attempt || turn.number != 2 {
		t.Fatalf("head when due: %+v", turn)
	}
	l.leave(head.GetId())
	succeed(t, l, head, due)
	if turn := l.enter(next, due.Add(time.Second)); turn.verdict != attempt || turn.number != 1 {
		t.Errorf("follower after the head: %+v, want its first attempt", turn)
	}
	if turn := l.enter(head, due.Add(time.Second)); turn.verdict != done {
		t.Errorf("settled head again: %+v", turn)
	}
}

func TestLane_ReceiversOfOneOrderDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	l := newLane("cb-00")
	fail(t, l, of(1, "ord_a", "https://dead.example"), answered(500), start, start.Add(time.Hour))
	succeed(t, l, of(2, "ord_a", "https://good.example"), start)
}

func TestLane_RetryAfterHoldsTheAddress(t *testing.T) {
	t.Parallel()
	l := newLane("slack")
	limited := channel.Result{Verdict: channel.Retry, Status: 429, RetryAfter: 30 * time.Second}
	fail(t, l, of(1, "ord_a", ""), limited, start, start.Add(40*time.Second))
	if turn := l.enter(of(2, "ord_b", ""), start.Add(10*time.Second)); turn.verdict != wait || turn.after != 20*time.Second {
		t.Errorf("another order within Retry-After: %+v, want 20s", turn)
	}
	succeed(t, l, of(2, "ord_b", ""), start.Add(30*time.Second))
}

func TestLane_SilentHostIsTriedByOneAtATime(t *testing.T) {
	t.Parallel()
	l := newLane("cb-00")
	fail(t, l, of(1, "ord_a", "https://dead.example/1"), answered(0), start, start.Add(time.Hour))
	prober := of(2, "ord_b", "https://dead.example/2")
	if turn := l.enter(prober, start); turn.verdict != attempt {
		t.Fatalf("first to try the silent host: %+v", turn)
	}
	if turn := l.enter(of(3, "ord_c", "https://dead.example/3"), start); turn.verdict != wait {
		t.Errorf("second to try the silent host at the same time: %+v", turn)
	}
	succeed(t, l, of(4, "ord_d", "https://good.example"), start)
	l.leave(prober.GetId())
	succeed(t, l, of(5, "ord_e", "https://dead.example/5"), start)
	for i := 6; i < 9; i++ { // it answered: all may come at once
		if turn := l.enter(of(i, fmt.Sprint("ord_", i), "https://dead.example"), start); turn.verdict != attempt {
			t.Errorf("after an answer: %+v", turn)
		}
	}
}

func TestLane_GoneReceiverGetsNothing(t *testing.T) {
	t.Parallel()
	l := newLane("cb-00")
	d := of(1, "ord_a", "https://gone.example")
	l.enter(d, start)
	a := &deliveryv1.Attempt{DeliveryId: d.GetId(), Number: 1, Outcome: Failed}
	l.sent(d, a, channel.Result{Verdict: channel.Gone, Status: 410}, start)
	l.apply(a, start)
	l.leave(d.GetId())
	if turn := l.enter(of(2, "ord_b", "https://gone.example"), start); turn.verdict != refuse || turn.number != 1 {
		t.Errorf("to a receiver that is gone: %+v", turn)
	}
	succeed(t, l, of(3, "ord_c", "https://there.example"), start)
}

func TestLane_SentButNotRecordedIsOnlyRecorded(t *testing.T) {
	t.Parallel()
	l := newLane("cb-00")
	d := of(1, "ord_a", "u")
	l.enter(d, start)
	a := &deliveryv1.Attempt{DeliveryId: d.GetId(), Number: 1, Outcome: Delivered}
	l.sent(d, a, channel.Result{Verdict: channel.Delivered, Status: 200}, start)
	l.leave(d.GetId()) // the record failed
	if turn := l.enter(d, start.Add(time.Second)); turn.verdict != record || turn.made != a {
		t.Fatalf("%+v, want the attempt that was made", turn)
	}
	l.apply(a, start)
	if turn := l.enter(d, start.Add(time.Second)); turn.verdict != done {
		t.Errorf("%+v after the record", turn)
	}
}

func TestLane_RecordsOfOthers(t *testing.T) {
	t.Parallel()
	l := newLane("cb-00")
	late := &deliveryv1.Attempt{DeliveryId: "ORDERS_MAIN-1", OrderId: "ord_a", Number: 3, Outcome: Retrying, NextTime: timestamppb.New(start.Add(time.Hour))}
	early := &deliveryv1.Attempt{DeliveryId: "ORDERS_MAIN-1", OrderId: "ord_a", Number: 2, Outcome: Retrying, NextTime: timestamppb.New(start.Add(time.Minute))}
	l.apply(late, start)
	l.apply(early, start)
	if turn := l.enter(of(2, "ord_a", "u"), start); turn.verdict != wait || turn.after != time.Hour {
		t.Errorf("follower of a head learnt from the records: %+v", turn)
	}
	if turn := l.enter(of(1, "ord_a", "u"), start.Add(time.Hour)); turn.verdict != attempt || turn.number != 4 {
		t.Errorf("head learnt from the records: %+v, want attempt 4", turn)
	}
	l.leave("ORDERS_MAIN-1")
	l.apply(&deliveryv1.Attempt{DeliveryId: "ORDERS_MAIN-1", Number: 4, Outcome: Delivered}, start)
	l.apply(late, start)
	if turn := l.enter(of(1, "ord_a", "u"), start.Add(2*time.Hour)); turn.verdict != done {
		t.Errorf("an old record came after the end: %+v", turn)
	}
}

func TestLane_HeadThatNeverComesBackLetsGo(t *testing.T) {
	t.Parallel()
	l := newLane("cb-00")
	l.resume(of(1, "ord_a", "u"), start)
	if turn := l.enter(of(2, "ord_a", "u"), start.Add(time.Second)); turn.verdict != wait {
		t.Errorf("behind what is still out: %+v", turn)
	}
	succeed(t, l, of(2, "ord_a", "u"), start.Add(lapse+time.Second))
	l.forget(start.Add(2 * retention))
	if len(l.open) != 0 {
		t.Errorf("%d entries kept of what the stream has let go", len(l.open))
	}
}

// TestLane_OrderHolds: whatever fails and whenever deliveries come, those of one order to one receiver succeed in
// the order of their events, each exactly once, and none waits for ever.
// row:24
func TestLane_OrderHolds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		l := newLane("cb-00")
		type job struct {
			d  *deliveryv1.Delivery
			at time.Time
		}
		var queue []job
		for i := range rapid.IntRange(1, 12).Draw(rt, "deliveries") {
			d := of(i+1, fmt.Sprint("ord_", rapid.IntRange(0, 2).Draw(rt, "order")), fmt.Sprint("https://r", rapid.IntRange(0, 1).Draw(rt, "receiver"), ".example"))
			queue = append(queue, job{d, start})
		}
		total, last, now := len(queue), map[string]uint64{}, start
		first := true
		for steps := 0; len(queue) > 0; steps++ {
			if steps > 2000 {
				rt.Fatalf("%d deliveries still wait", len(queue))
			}
			// What is due comes in any order, but the first time in the stream's.
			pick := 0
			if steps >= total {
				first = false
			}
			if !first {
				pick = rapid.IntRange(0, len(queue)-1).Draw(rt, "pick")
				for i, j := range queue {
					if j.at.Before(queue[pick].at) {
						pick = i
					}
				}
			}
			j := queue[pick]
			queue = append(queue[:pick], queue[pick+1:]...)
			now = later(now, j.at)
			turn := l.enter(j.d, now)
			if turn.verdict == wait {
				queue = append(queue, job{j.d, now.Add(turn.after)})
				continue
			}
			if turn.verdict != attempt {
				rt.Fatalf("%s: verdict %d", j.d.GetId(), turn.verdict)
			}
			a := &deliveryv1.Attempt{DeliveryId: j.d.GetId(), OrderId: j.d.GetOrderId(), Number: int32(turn.number), Outcome: Delivered}
			r := channel.Result{Verdict: channel.Delivered, Status: 200}
			if turn.number < 5 && rapid.Bool().Draw(rt, "fails") {
				r = channel.Result{Verdict: channel.Retry, Status: rapid.SampledFrom([]int{0, 429, 500}).Draw(rt, "status")}
				if r.Status == 429 {
					r.RetryAfter = time.Duration(rapid.IntRange(1, 30).Draw(rt, "retry after")) * time.Second
				}
				due := now.Add(max(time.Duration(rapid.IntRange(0, 60).Draw(rt, "step"))*time.Second, r.RetryAfter))
				a.Outcome, a.NextTime = Retrying, timestamppb.New(due)
				queue = append(queue, job{j.d, due})
			} else {
				key := j.d.GetOrderId() + j.d.GetUrl()
				if seq := eventOf(j.d.GetId()); seq <= last[key] {
					rt.Fatalf("%s went through after %d", j.d.GetId(), last[key])
				} else {
					last[key] = seq
				}
			}
			l.sent(j.d, a, r, now)
			l.apply(a, now)
			l.leave(j.d.GetId())
		}
		if len(l.open) != 0 {
			rt.Fatalf("%d entries left open", len(l.open))
		}
	})
}

func TestEventOf(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]uint64{
		"ORDERS_MAIN-42": 42, "ORDERS_MAIN-42-op_order-create_k-7": 42, "ORDERS_A_B-7": 7, "": 0, "x": 0, "x-y": 0,
	} {
		if got := eventOf(id); got != want {
			t.Errorf("%q: %d, want %d", id, got, want)
		}
	}
}

func TestSchedule(t *testing.T) {
	t.Parallel()
	steps := DefaultSchedule()
	if err := checkSchedule(steps); err != nil {
		t.Fatal(err)
	}
	for n := 1; n < len(steps); n++ {
		got, more := next(steps, n)
		if !more || got < steps[n] || got > steps[n]+steps[n]/5 {
			t.Errorf("after try %d: %s, %v; want %s and a fifth more at most", n, got, more, steps[n])
		}
	}
	if _, more := next(steps, len(steps)); more {
		t.Error("there is a try after the last")
	}
	for name, bad := range map[string][]time.Duration{"none": {}, "negative": {0, -1}, "longer than kept": {0, 150 * time.Hour}} {
		if checkSchedule(bad) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRecent(t *testing.T) {
	t.Parallel()
	r := newRecent(100)
	for i := range 250 {
		r.add(fmt.Sprint(i))
		r.add(fmt.Sprint(i))
	}
	for i := range 250 {
		if got := r.has(fmt.Sprint(i)); got != (i >= 150) {
			t.Errorf("%d of 250 with room for 100: %v", i, got)
		}
	}
	if len(r.in) != 100 || len(r.ring) != 100 {
		t.Errorf("keeps %d and %d, want 100", len(r.in), len(r.ring))
	}
}
