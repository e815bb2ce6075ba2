package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/order/internal/engine"
	"github.com/renthook/renthook/services/order/internal/rental"
	"github.com/renthook/renthook/services/order/internal/world"
)

// Scenes are single rules of the engine, each over a market that tells the truth in all but one thing.

// stage is such a market. It notes what it was asked, and when.
type stage struct {
	*liar

	notes   sync.Mutex
	creates []asked
	cancels []time.Time
	lists   []time.Time

	// onCreate answers in place of the market, nil leaves it to the market; onCancel says that a cancel is not applied;
	// onList spoils an answer. Once the scene plays they are changed by set.
	onCreate func(n int, r market.CreateRequest) *market.Outcome
	onCancel func(n int, id int64) (lost bool)
	onList   func(*market.Rentals) error
	stale    bool
}

// set changes the market while the scene plays.
func (m *stage) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notes.Lock()
	defer m.notes.Unlock()
	change()
}

// noted is what was asked so far.
func (m *stage) noted() (creates []asked, cancels, lists []time.Time) {
	m.notes.Lock()
	defer m.notes.Unlock()
	return slices.Clone(m.creates), slices.Clone(m.cancels), slices.Clone(m.lists)
}

// asked are the creates so far.
func (m *stage) asked() []asked { creates, _, _ := m.noted(); return creates }

// spaced holds that no cancel went out before the last could show effect.
func (m *stage) spaced(t *testing.T) {
	t.Helper()
	_, cancels, _ := m.noted()
	for n, at := range cancels[1:] {
		if gap := at.Sub(cancels[n]); gap < 8*time.Second {
			t.Errorf("cancel %d came %s after the last", n+2, gap)
		}
	}
}

// bills says whether the n-th rental of the market's ledger does.
func (m *stage) bills(n int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return n < len(m.lots) && m.lots[n].live()
}

type asked struct {
	at, ended time.Time
	request   market.CreateRequest
}

// scene plays in an installation of its own, with servers 1 to 5 at 0.30, 0.31, … USD per hour on demand. The first
// process is not booted.
func scene(t *testing.T, play func(t *testing.T, r *rig, m *stage)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := quiet(t)
		m := &stage{liar: r.market}
		r.account, r.books = m, m
		m.offers = m.offers[:5]
		for n := range m.offers {
			o := &m.offers[n]
			q := o.OnDemand[0]
			q.USDPerHour = dec(fmt.Sprintf("0.3%d", n))
			q.PerDay, _ = q.USDPerHour.Mul(dec("24"))
			o.OnDemand, o.Spot = []market.Quote{q}, nil
		}
		defer func() {
			r.over()
			for _, v := range m.violations {
				t.Errorf("rate rules: %s", v)
			}
		}()
		play(t, r, m)
	})
}

func (m *stage) Create(ctx context.Context, r market.CreateRequest) market.Outcome {
	m.notes.Lock()
	n := len(m.creates)
	m.creates = append(m.creates, asked{at: time.Now(), request: r})
	answer := m.onCreate
	m.notes.Unlock()
	defer func() {
		m.notes.Lock()
		defer m.notes.Unlock()
		m.creates[n].ended = time.Now()
	}()
	if answer != nil {
		if out := answer(n+1, r); out != nil {
			m.begin(true)
			defer m.end()
			_ = m.latency(ctx)
			return *out
		}
	}
	return m.liar.Create(ctx, r)
}

func (m *stage) Cancel(ctx context.Context, id int64, issue string) market.Outcome {
	m.notes.Lock()
	m.cancels = append(m.cancels, time.Now())
	n, lose := len(m.cancels), m.onCancel
	m.notes.Unlock()
	if lose != nil && lose(n, id) {
		m.begin(false)
		defer m.end()
		_ = m.latency(ctx)
		return market.Outcome{Verdict: market.Done, Reason: "code-0", Sent: true}
	}
	return m.liar.Cancel(ctx, id, issue)
}

func (m *stage) Rentals(ctx context.Context, withEnded bool) (market.Rentals, error) {
	m.notes.Lock()
	m.lists = append(m.lists, time.Now())
	spoil := m.onList
	m.notes.Unlock()
	r, err := m.liar.Rentals(ctx, withEnded)
	if err == nil && spoil != nil {
		err = spoil(&r)
	}
	return r, err
}

// Book never says that a server is rented: its flag lags for ever.
func (m *stage) Book(string) []market.Offer { return slices.Clone(m.offers) }

func (m *stage) Fresh(time.Time) bool {
	m.notes.Lock()
	defer m.notes.Unlock()
	return !m.stale
}

// without hides a server's rentals from every list.
func without(server int64) func(*market.Rentals) error {
	return func(r *market.Rentals) error {
		r.Rentals = slices.DeleteFunc(r.Rentals, func(x market.Rental) bool { return x.ServerID == server })
		return nil
	}
}

var unanswered = &market.Outcome{Verdict: market.Unknown, Reason: "no-answer", Sent: true}

// spoiled decides what becomes of appends from now on.
func (r *rig) spoiled(spoil func() int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spoil = spoil
}

// order asks for a server; more are further members of the command.
func (r *rig) order(key string, more ...string) {
	r.publish("create", key, `{"gpu":"RTX 4090"`+strings.Join(append([]string{""}, more...), ",")+`}`)
}

// orderOf asks on behalf of a client.
func (r *rig) orderFor(client, key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	subject := topology.Command{Client: client, Noun: "order", Verb: "create", Key: key}.Subject()
	r.commands = append(r.commands, engine.Command{Subject: subject, Body: []byte(`{"gpu":"RTX 4090"}`), Seq: uint64(len(r.commands)) + 1, Time: time.Now()})
}

// get is the order of a create by its key; empty when there is none.
func (r *rig) get(key string) *rental.Order { return r.getOf("local", key) }

func (r *rig) getOf(client, key string) *rental.Order {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.world.Find(client, "op_order-create_"+key); o != nil {
		return o
	}
	return &rental.Order{}
}

// wait lets time pass until ok, at most for within.
func (r *rig) wait(what string, within time.Duration, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(within); !ok(); {
		if time.Now().After(end) {
			r.t.Fatalf("waited %s in vain for %s", within, what)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (r *rig) waitState(key string, s rental.State, within time.Duration) *rental.Order {
	r.t.Helper()
	r.wait(key+" to be "+s.String(), within, func() bool { return r.get(key).State == s })
	return r.get(key)
}

// failure waits until an operation failed, and gives its code.
func (r *rig) failure(operation string) string {
	r.t.Helper()
	code := ""
	r.wait(operation+" to settle", 5*time.Minute, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		op, ok := r.world.Operation("local", operation)
		if ok && op.Failure != nil {
			code = op.Failure.Code
		}
		return ok && op.Done
	})
	return code
}

// recorded finds the newest record of an event.
func (r *rig) recorded(event string) (at time.Time, data []byte) {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	for _, rec := range r.store.records {
		if strings.HasSuffix(rec.Subject, "."+event) {
			at, data = rec.Time, rec.Data
		}
	}
	return at, data
}

func TestIntent_IsInTheJournalBeforeItsCall(t *testing.T) {
	scene(t, func(t *testing.T, r *rig, m *stage) {
		m.onCreate = func(_ int, q market.CreateRequest) *market.Outcome {
			w := world.New("main")
			r.store.mu.Lock()
			for _, rec := range r.store.records {
				if err := w.Apply(rec); err != nil {
					t.Error(err)
				}
			}
			r.store.mu.Unlock()
			for _, o := range w.Orders() {
				if i := o.OpenIntent(); i != nil && i.Server.ID == q.ServerID && i.PerDay.Cmp(q.RequiredPrice) == 0 && len(i.Markers) == 2 && q.Ports[i.Markers[0]] == "tcp" && q.Ports[i.Markers[1]] == "tcp" {
					return nil
				}
			}
			t.Errorf("server %d was asked for, and no intent is in the journal with its price and markers", q.ServerID)
			return nil
		}
		r.boot()
		r.order("a")
		r.waitState("a", rental.Running, 5*time.Minute)
		r.spoiled(func() int { return 3 })
		r.order("b")
		time.Sleep(5 * time.Minute)
		if n := len(m.asked()); n != 1 {
			t.Errorf("%d creates, the second over a full journal", n)
		}
	})
}

// Every attempt is another server, another marker, another password.
func TestIntent_AttemptsShareNothing(t *testing.T) {
	scene(t, func(t *testing.T, r *rig, m *stage) {
		m.onCreate = func(n int, _ market.CreateRequest) *market.Outcome {
			if n == 1 {
				return &market.Outcome{Verdict: market.Refused, Reason: "server-offline", Sent: true}
			}
			return nil
		}
		r.rng.drawn = []uint64{5, 5, 5, 6}
		r.boot()
		r.order("a")
		o := r.waitState("a", rental.Running, 5*time.Minute)
		first, second := m.asked()[0].request, m.asked()[1].request
		if first.ServerID == second.ServerID {
			t.Errorf("server %d was asked for twice", first.ServerID)
		}
		if o.Intents[0].Markers[1] == o.Intents[1].Markers[1] {
			t.Errorf("marker %d was used twice", o.Intents[0].Markers[1])
		}
		if len(first.SSHPassword) != 24 || first.SSHPassword == second.SSHPassword || !first.AutoSSH {
			t.Errorf("passwords %q and %q, ssh %v", first.SSHPassword, second.SSHPassword, first.AutoSSH)
		}
	})
}

func TestIntent_AKeyNeedsNoPassword(t *testing.T) {
	scene(t, func(t *testing.T, r *rig, m *stage) {
		r.config.SSHKey = "ssh-ed25519 AAAA"
		r.boot()
		r.order("a")
		r.waitState("a", rental.Running, 5*time.Minute)
		if q := m.asked()[0].request; q.SSHPassword != "" || q.SSHKey != r.config.SSHKey {
			t.Errorf("password %q beside key %q", q.SSHPassword, q.SSHKey)
		}
	})
}

// Without markers only the baseline tells a rental of ours from one that was there before.
func TestIntent_WhatWasThereBeforeIsNotItsRental(t *testing.T) {
	scene(t, func(t *testing.T, r *rig, m *stage) {
		r.config.Markers = 0
		m.onCreate = func(int, market.CreateRequest) *market.Outcome { return unanswered }
		m.mu.Lock()
		human := m.add(1, r.config.Image, map[int]string{22: "tcp"}, dec("7"), market.OnDemand, true)
		human.gone = time.Now().Add(-10 * time.Second)
		m.mu.Unlock()
		r.boot()
		r.order("a")
		r.wait("the first attempt to close", 20*time.Minute, func() bool { o := r.get("a"); return len(o.Intents) > 0 && !o.Intents[0].Outcome.Live() })
		if i := r.get("a").Intents[0]; i.Outcome != rental.NotThere {
			t.Errorf("the attempt is %s with rental %d, the human's is %d", i.Outcome, i.RentalID, human.ID)
		}
	})
}

func TestQuiesce(t *testing.T) {
	for name, letGo := range map[string]bool{"after a holder that did not let go": false, "after one that let go": true} {
		t.Run(name, func(t *testing.T) {
			scene(t, func(t *testing.T, r *rig, m *stage) {
				r.boot()
				time.Sleep(time.Minute)
				if letGo {
					r.mu.Lock()
					r.stop()
					r.mu.Unlock()
					time.Sleep(time.Minute)
				} else {
					r.crash()
				}
				r.boot()
				booted, quiesce := time.Now(), 30*time.Second+simTimeout+simCreateGap
				r.order("a")
				r.wait("a create", 5*time.Minute, func() bool { return len(m.asked()) > 0 })
				if waited := m.asked()[0].at.Sub(booted); letGo != (waited < quiesce) {
					t.Errorf("the first create went out after %s; the last call of a holder is over after %s", waited, quiesce)
				}
			})
		})
	}
}

// A create goes out, or waits for what stands in its way.
func TestCreates_Wait(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(r *rig, m *stage)
		mend  func(r *rig, m *stage)
	}{
		"for a suspect": {
			func(r *rig, m *stage) {
				m.add(9, "another/image", map[int]string{r.config.Prove.InstallationPort: "tcp"}, dec("7"), market.OnDemand, true)
			},
			func(_ *rig, m *stage) { m.lots[len(m.lots)-1].gone = time.Now() },
		},
		"for a list that is not cut": {
			func(_ *rig, m *stage) {
				m.add(9, "another/image", map[int]string{22: "tcp"}, dec("7"), market.OnDemand, true)
				m.onList = func(r *market.Rentals) error { r.Limit = 1; return nil }
			},
			func(_ *rig, m *stage) { m.onList = nil },
		},
		"for a list that can be read": {
			func(_ *rig, m *stage) { m.onList = func(*market.Rentals) error { return errLie } },
			func(_ *rig, m *stage) { m.onList = nil },
		},
		"for room in the journal": {
			func(r *rig, _ *stage) { r.tight.Store(true) },
			func(r *rig, _ *stage) { r.tight.Store(false) },
		},
		"for a person's word on a suspect": {
			func(r *rig, m *stage) {
				m.add(9, "another/image", map[int]string{r.config.Prove.InstallationPort: "tcp"}, dec("7"), market.OnDemand, true)
			},
			func(r *rig, m *stage) {
				r.publishAs("control", "disown", "d", fmt.Sprintf(`{"market_order_id":%d}`, m.lots[0].ID))
			},
		},
		"for a poll of the market": {
			func(_ *rig, m *stage) { m.stale = true },
			func(_ *rig, m *stage) { m.stale = false },
		},
	} {
		t.Run(name, func(t *testing.T) {
			scene(t, func(t *testing.T, r *rig, m *stage) {
				r.boot()
				time.Sleep(50 * time.Second)
				m.set(func() { tt.spoil(r, m) })
				time.Sleep(46 * time.Second) // a sweep sees it
				r.order("a")
				time.Sleep(5 * time.Minute)
				if n := len(m.asked()); n != 0 {
					t.Errorf("%d creates", n)
				}
				m.set(func() { tt.mend(r, m) })
				r.waitState("a", rental.Running, 5*time.Minute)
			})
		})
	}
}

func TestDisown_NothingOfOurs(t *testing.T) {
	scene(t, func(t *testing.T, r *rig, _ *stage) {
		r.boot()
		r.order("a")
		held := r.waitState("a", rental.Running, 5*time.Minute).HeldIntent().RentalID
		r.publishAs("control", "disown", "d", fmt.Sprintf(`{"market_order_id":%d}`, held))
		if code := r.failure("op_control-disown_d"); code != "FAILED_PRECONDITION" {
			t.Errorf("disowned what the journal holds: %q", code)
		}
	})
}

// A rental that is missing from the lists may still bill: nothing is rented beside it until its end is proved.
func TestCreates_WaitForWhatIsMissing(t *testing.T) {
	scene(t, func(t *testing.T, r *rig, m *stage) {
		r.boot()
		r.order("a")
		r.waitState("a", rental.Running, 5*time.Minute)
		m.set(func() { m.onList = without(1) })
		missing := time.Now()
		time.Sleep(r.config.SweepInterval)
		r.order("b")
		r.waitState("b", rental.Running, 30*time.Minute)
		if waited := m.asked()[1].at.Sub(missing); waited < r.config.Prove.WindowBlind {
			t.Errorf("rented beside a missing rental after %s", waited)
		}
	})
}

// An intent stands on a list that was begun after the last adoption: its baseline must be above what was adopted.
func TestCreates_FollowAReadAfterTheLastAdoption(t *testing.T) {
	scene(t, func(t *testing.T, r *rig, m *stage) {
		r.boot()
		r.order("a")
		r.waitState("a", rental.Provisioning, time.Minute)
		adopted := time.Now()
		r.order("b")
		r.wait("a second create", 10*time.Minute, func() bool { return len(m.asked()) > 1 })
		second := m.asked()[1].at
		_, _, lists := m.noted()
		if !slices.ContainsFunc(lists, func(at time.Time) bool { return at.After(adopted) && at.Before(second) }) {
			t.Errorf("adopted at %s, asked again at %s, and no list was read between", adopted, second)
		}
	})
}

func TestCreates_LeaveServersAlone(t *testing.T) {
	for name, tt := range map[string]func(t *testing.T, r *rig, m *stage){
		"that a human rents": func(_ *testing.T, r *rig, m *stage) {
			m.add(1, r.config.Image, map[int]string{22: "tcp"}, dec("7"), market.OnDemand, true)
			r.boot()
		},
		"that another order may hold": func(_ *testing.T, r *rig, m *stage) {
			m.onList = without(1)
			r.boot()
			r.order("first")
			r.waitState("first", rental.Unconfirmed, time.Minute)
		},
		"that never booted": func(_ *testing.T, r *rig, m *stage) {
			m.onList = func(l *market.Rentals) error {
				for n := range l.Rentals {
					l.Rentals[n].Up = l.Rentals[n].Up && l.Rentals[n].ServerID != 1
				}
				return nil
			}
			r.boot()
			r.order("first")
			r.waitState("first", rental.Running, 20*time.Minute)
			r.publish("cancel", "c", `{"order_id":"op_order-create_first"}`)
			r.waitState("first", rental.Cancelled, 10*time.Minute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			scene(t, func(t *testing.T, r *rig, m *stage) {
				tt(t, r, m)
				n := len(m.asked())
				r.order("a")
				r.wait("a create", 10*time.Minute, func() bool { return len(m.asked()) > n })
				if id := m.asked()[n].request.ServerID; id == 1 {
					t.Errorf("server 1 was asked for")
				}
			})
		})
	}
}

// What was asked and not answered is looked for, also by the next process, and not asked again.
func TestUnknown_IsLookedFor(t *testing.T) {
	for name, tt := range map[string]struct {
		applied, crash bool
		want           int
	}{
		"applied":                          {applied: true, want: 1},
		"applied, by the next process":     {applied: true, crash: true, want: 1},
		"not applied":                      {want: 2},
		"not applied, by the next process": {crash: true, want: 2},
	} {
		t.Run(name, func(t *testing.T) {
			scene(t, func(t *testing.T, r *rig, m *stage) {
				hide := time.Now().Add(2 * time.Minute)
				m.onCreate = func(n int, q market.CreateRequest) *market.Outcome {
					if n > 1 {
						return nil
					}
					if tt.applied {
						m.apply(q)
					}
					return unanswered
				}
				m.onList = func(l *market.Rentals) error {
					if time.Now().Before(hide) {
						return without(1)(l)
					}
					return nil
				}
				r.boot()
				r.order("a")
				r.wait("the create", 5*time.Minute, func() bool { return len(m.asked()) > 0 })
				if tt.crash {
					r.crash()
					r.boot()
				}
				o := r.waitState("a", rental.Running, 20*time.Minute)
				if n := len(m.asked()); n != tt.want || len(o.Intents) != tt.want {
					t.Errorf("%d creates, %d intents, want %d", n, len(o.Intents), tt.want)
				}
			})
		})
	}
}

// What was asked shows in a moment where the market is honest, and is looked for then.
func TestUnknown_IsLookedForAtOnce(t *testing.T) {
	scene(t, func(_ *testing.T, r *rig, _ *stage) {
		r.boot()
		r.order("a")
		r.waitState("a", rental.Unconfirmed, time.Minute)
		r.waitState("a", rental.Provisioning, 5*time.Second)
	})
}

// A call that is applied long after its absence was proved is nobody's: it is found and ended, and nothing is said to be
// closed before.
func TestSweep_EndsWhatCameTooLate(t *testing.T) {
	scene(t, func(t *testing.T, r *rig, m *stage) {
		var late market.CreateRequest
		m.onCreate = func(n int, q market.CreateRequest) *market.Outcome {
			if n > 1 {
				return nil
			}
			late = q
			return unanswered
		}
		r.boot()
		r.order("a")
		held := r.waitState("a", rental.Running, 30*time.Minute).HeldIntent().RentalID
		m.apply(late)
		until := time.Now().Add(3 * time.Minute)
		m.set(func() { m.onCancel = func(_ int, id int64) bool { return id != held && time.Now().Before(until) } })
		r.publishAs("control", "halt", "h", `{"close":true}`)
		r.wait("the late rental to be gone", 5*time.Minute, func() bool { return !m.bills(1) })
		if code := r.failure("op_control-halt_h"); code != "" {
			t.Errorf("the close failed: %s", code)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		r.braked()
	})
}

func TestSweep_SeesThatAHostWentAway(t *testing.T) {
	scene(t, func(t *testing.T, r *rig, m *stage) {
		r.boot()
		r.order("a")
		r.waitState("a", rental.Running, 5*time.Minute)
		time.Sleep(10 * time.Minute)
		m.set(func() { m.lots[0].gone = time.Now() })
		r.waitState("a", rental.Interrupted, 2*r.config.SweepInterval)
	})
}

// Cancels are repeated until the end is proved, by the next process too, and not more often than they can show effect.
func TestCancels_AreRepeated(t *testing.T) {
	for name, crash := range map[string]bool{"by the same process": false, "by the next": true} {
		t.Run(name, func(t *testing.T) {
			scene(t, func(t *testing.T, r *rig, m *stage) {
				m.onCancel = func(n int, _ int64) bool { return n < 4 }
				r.boot()
				r.order("a")
				r.waitState("a", rental.Running, 5*time.Minute)
				r.publish("cancel", "c", `{"order_id":"op_order-create_a"}`)
				r.waitState("a", rental.Cancelling, time.Minute)
				if crash {
					r.wait("a cancel", time.Minute, func() bool { _, cancels, _ := m.noted(); return len(cancels) > 0 })
					r.crash()
					time.Sleep(10 * time.Second)
					r.boot()
				}
				r.waitState("a", rental.Cancelled, 10*time.Minute)
				m.spaced(t)
			})
		})
	}
}

// What can only stop spending needs no room in the journal.
func TestCancels_GoOutOverAFullJournal(t *testing.T) {
	scene(t, func(t *testing.T, r *rig, m *stage) {
		m.onCancel = func(n int, _ int64) bool { return n < 3 }
		r.boot()
		r.order("a")
		r.waitState("a", rental.Running, 5*time.Minute)
		r.spoiled(func() int { return 3 })
		r.publish("cancel", "c", `{"order_id":"op_order-create_a"}`)
		r.wait("the rental to be gone", 5*time.Minute, func() bool { return !m.bills(0) })
		r.spoiled(nil)
		r.waitState("a", rental.Cancelled, 5*time.Minute)
		m.spaced(t)
	})
}

func TestCancels_OfOthersNeedLeave(t *testing.T) {
	scene(t, func(t *testing.T, r *rig, m *stage) {
		human := m.add(1, r.config.Image, map[int]string{22: "tcp"}, dec("7"), market.OnDemand, true)
		r.boot()
		r.publish("cancel", "c", fmt.Sprintf(`{"order_id":"%d"}`, human.ID))
		code := r.failure("op_order-cancel_c")
		if _, cancels, _ := m.noted(); code != "NOT_FOUND" || len(cancels) > 0 {
			t.Errorf("%q, %d cancels", code, len(cancels))
		}
	})
}

func TestCommands_AreHandledOnce(t *testing.T) {
	scene(t, func(t *testing.T, r *rig, m *stage) {
		r.boot()
		r.order("a")
		before := r.waitState("a", rental.Running, 5*time.Minute)
		r.again()
		time.Sleep(5 * time.Minute)
		if after := r.get("a"); after.Revision != before.Revision || len(m.asked()) != 1 {
			t.Errorf("revision %d became %d; %d creates", before.Revision, after.Revision, len(m.asked()))
		}
	})
}

func TestCommands_ACancelMayComeFirst(t *testing.T) {
	scene(t, func(t *testing.T, r *rig, m *stage) {
		r.boot()
		r.publish("cancel", "c", `{"order_id":"op_order-create_a"}`)
		r.order("a")
		r.waitState("a", rental.Cancelled, time.Minute)
		if n := len(m.asked()); n != 0 {
			t.Errorf("%d creates", n)
		}
	})
}

// What an order may not be or cost is refused at once.
func TestOrders_AreTurnedAway(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*engine.Config)
		more   string
		age    time.Duration
		want   string
	}{
		"never, without a burn limit": {more: `,"max_duration":"never"`, want: "INVALID_ARGUMENT"},
		"without a port":              {change: func(c *engine.Config) { c.Ports = nil }, want: "INVALID_ARGUMENT"},
		"too late":                    {age: time.Hour, want: "TOO_LATE"},
		"without the scope": {change: func(c *engine.Config) {
			c.Clients["local"] = engine.Client{Cancel: true}
		}, want: "SCOPE_DENIED"},
	} {
		t.Run(name, func(t *testing.T) {
			scene(t, func(t *testing.T, r *rig, m *stage) {
				if tt.change != nil {
					tt.change(&r.config)
				}
				r.boot()
				r.publish("create", "a", `{"gpu":"RTX 4090"`+tt.more+`}`)
				r.mu.Lock()
				r.commands[0].Time = time.Now().Add(-tt.age)
				r.mu.Unlock()
				if code := r.failure("op_order-create_a"); code != tt.want {
					t.Errorf("got %q, want %q", code, tt.want)
				}
				if n := len(m.asked()); n != 0 {
					t.Errorf("%d creates", n)
				}
			})
		})
	}
}

func TestOrders_HaveACeilingAndAnEnd(t *testing.T) {
	for name, tt := range map[string]struct {
		own, more, want string
	}{
		"none asked":             {want: "5"},
		"above the account's":    {more: `,"max_price":"9"`, want: "5"},
		"below":                  {more: `,"max_price":"0.4"`, want: "0.4"},
		"the client's is lower":  {own: "2", more: `,"max_price":"4"`, want: "2"},
		"none asked, a client's": {own: "2", want: "2"},
		"per GPU":                {more: `,"count":2,"max_price":{"amount":"0.2","currency":"USD","per":"hour","scope":"gpu"}`, want: "0.4"},
	} {
		t.Run(name, func(t *testing.T) {
			scene(t, func(t *testing.T, r *rig, _ *stage) {
				if tt.own != "" {
					c := r.config.Clients["local"]
					c.Ceiling = dec(tt.own)
					r.config.Clients["local"] = c
				}
				r.boot()
				r.publish("create", "a", `{"spec":{"gpu":"RTX 4090"`+tt.more+`}}`)
				r.wait("the order", time.Minute, func() bool { return r.get("a").ID != "" })
				o := r.get("a")
				if o.Ask.Ceiling.Cmp(dec(tt.want)) != 0 || o.EndsAt.Sub(o.Created) != r.config.MaxDuration {
					t.Errorf("ceiling %s, want %s; it ends %s after it was made (%v)", o.Ask.Ceiling, tt.want, o.EndsAt.Sub(o.Created), o.Failure)
				}
			})
		})
	}
}

// Of five orders in a row, three of one client and two of another, limits let through as many as they hold. One costs
// 0.315 to 0.357 USD per hour with fees, for two hours, and 0.10 USD for the create.
func TestLimits(t *testing.T) {
	own := func(change func(*engine.Client)) func(*engine.Config) {
		return func(c *engine.Config) {
			cl := c.Clients["local"]
			change(&cl)
			c.Clients["local"] = cl
		}
	}
	for name, tt := range map[string]struct {
		change       func(*engine.Config)
		local, other int
	}{
		"none":             {func(*engine.Config) {}, 3, 2},
		"burn":             {func(c *engine.Config) { c.Limits.BurnPerHour = dec("1") }, 3, 0},
		"a day":            {func(c *engine.Config) { c.Limits.SpendPerDay = dec("1.6") }, 2, 0},
		"orders per hour":  {func(c *engine.Config) { c.OrdersPerHour = 4 }, 3, 1},
		"live rentals":     {func(c *engine.Config) { c.LiveRentals = 4 }, 3, 1},
		"creates per hour": {func(c *engine.Config) { c.CreatesPerHour = 4 }, 3, 1},
		"burn of a client": {own(func(c *engine.Client) { c.Limits.BurnPerHour = dec("0.7") }), 2, 2},
		"burn of the other client": {func(c *engine.Config) {
			other := c.Clients["other"]
			other.Limits.BurnPerHour = dec("0.71")
			c.Clients["other"] = other
		}, 3, 2},
		"orders per hour of a client": {own(func(c *engine.Client) { c.OrdersPerHour = 2 }), 2, 2},
		"live rentals of a client":    {own(func(c *engine.Client) { c.LiveRentals = 1 }), 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			scene(t, func(t *testing.T, r *rig, m *stage) {
				r.config.Clients["other"] = engine.Client{Create: true}
				tt.change(&r.config)
				r.boot()
				for n, client := range []string{"local", "local", "local", "other", "other"} {
					r.orderFor(client, fmt.Sprint("k", n))
				}
				time.Sleep(20 * time.Minute)
				got := map[string]int{}
				for n, client := range []string{"local", "local", "local", "other", "other"} {
					if r.getOf(client, fmt.Sprint("k", n)).State == rental.Running {
						got[client]++
					}
				}
				if got["local"] != tt.local || got["other"] != tt.other {
					t.Errorf("%v run, want %d and %d", got, tt.local, tt.other)
				}
			})
		})
	}
}

func TestLimits_HoldForExtensions(t *testing.T) {
	scene(t, func(t *testing.T, r *rig, _ *stage) {
		r.config.Limits.SpendPerMonth = dec("2")
		r.boot()
		r.order("a")
		ends := r.waitState("a", rental.Running, 5*time.Minute).EndsAt
		r.publish("extend", "e", `{"order_id":"op_order-create_a","by":"10h"}`)
		if code := r.failure("op_order-extend_e"); code != "SPEND_CAP_EXCEEDED" || !r.get("a").EndsAt.Equal(ends) {
			t.Errorf("%q; it ends at %s, before at %s", code, r.get("a").EndsAt, ends)
		}
		r.publish("extend", "f", `{"order_id":"op_order-create_a","by":"1h"}`)
		if code := r.failure("op_order-extend_f"); code != "" {
			t.Errorf("one hour more: %q", code)
		}
	})
}

// A limit that is lowered under what is spent already ends everything where the settings say so; one that is only
// committed ends nothing.
func TestLimits_CloseWhatIsSpent(t *testing.T) {
	for name, tt := range map[string]struct {
		limit string
		ends  bool
	}{"spent": {"0.2", true}, "committed": {"0.6", false}} {
		t.Run(name, func(t *testing.T) {
			scene(t, func(t *testing.T, r *rig, _ *stage) {
				r.config.CloseAtLimit = true
				r.boot()
				r.order("a")
				r.waitState("a", rental.Running, 5*time.Minute)
				time.Sleep(30 * time.Minute)
				r.config.Limits.SpendPerMonth = dec(tt.limit)
				r.crash()
				r.boot()
				time.Sleep(10 * time.Minute)
				if s := r.get("a").State; s.Terminal() != tt.ends {
					t.Errorf("it is %s", s)
				}
			})
		})
	}
}

func TestHalt_StopsWhatWaits(t *testing.T) {
	scene(t, func(t *testing.T, r *rig, m *stage) {
		m.stale = true
		r.boot()
		r.order("a")
		r.waitState("a", rental.Pending, time.Minute)
		r.publishAs("control", "halt", "h", `{}`)
		r.failure("op_control-halt_h")
		m.set(func() { m.stale = false })
		r.order("b")
		if code := r.failure("op_order-create_b"); code != "HALTED" {
			t.Errorf("an order under a halt: %q", code)
		}
		r.crash()
		r.boot()
		time.Sleep(5 * time.Minute)
		m.mu.Lock()
		r.braked()
		m.mu.Unlock()
		r.publishAs("control", "resume", "r", `{}`)
		r.waitState("a", rental.Running, 5*time.Minute)
	})
}

// Nothing is said to be closed while a rental may bill.
func TestHalt_ClosesByProof(t *testing.T) {
	for name, tt := range map[string]struct {
		before func(r *rig, m *stage)
		least  time.Duration
	}{
		"of what runs": {before: func(r *rig, m *stage) {
			m.set(func() { m.onCancel = func(n int, _ int64) bool { return n < 3 } })
			r.waitState("a", rental.Running, 5*time.Minute)
		}},
		"of what is missing from the lists": {before: func(r *rig, m *stage) {
			r.waitState("a", rental.Running, 5*time.Minute)
			until := time.Now().Add(8 * time.Minute)
			m.set(func() {
				m.onList = without(1)
				m.onCancel = func(int, int64) bool { return time.Now().Before(until) }
			})
		}, least: 9 * time.Minute},
		"of what is unconfirmed": {before: func(r *rig, m *stage) {
			hide := time.Now().Add(2 * time.Minute)
			m.set(func() {
				m.onList = func(l *market.Rentals) error {
					if time.Now().Before(hide) {
						return without(1)(l)
					}
					return nil
				}
			})
			r.waitState("a", rental.Unconfirmed, time.Minute)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			scene(t, func(t *testing.T, r *rig, m *stage) {
				r.boot()
				r.order("a")
				tt.before(r, m)
				r.publishAs("control", "halt", "h", `{"close":true}`)
				halted := time.Now()
				r.wait("the close to be settled", 20*time.Minute, func() bool { at, _ := r.recorded("closed"); return !at.IsZero() })
				if at, _ := r.recorded("closed"); at.Sub(halted) < tt.least {
					t.Errorf("closed after %s", at.Sub(halted))
				}
				m.mu.Lock()
				defer m.mu.Unlock()
				if tt.least == 0 {
					r.braked()
				}
			})
		})
	}
}

func TestHalt_OfAClientLeavesOthers(t *testing.T) {
	scene(t, func(t *testing.T, r *rig, _ *stage) {
		r.config.Clients["other"] = engine.Client{Create: true}
		r.boot()
		r.order("a")
		r.orderFor("other", "b")
		r.waitState("a", rental.Running, 5*time.Minute)
		r.wait("b to run", 5*time.Minute, func() bool { return r.getOf("other", "b").State == rental.Running })
		r.publishAs("control", "halt", "h", `{"client":"local","close":true}`)
		r.waitState("a", rental.Cancelled, 5*time.Minute)
		if s := r.getOf("other", "b").State; s != rental.Running {
			t.Errorf("the other client's order is %s", s)
		}
	})
}

// A report tells a list that was begun after it was asked for.
func TestReport_IsFresh(t *testing.T) {
	scene(t, func(t *testing.T, r *rig, m *stage) {
		r.boot()
		time.Sleep(50 * time.Second)
		m.set(func() { m.onList = func(*market.Rentals) error { time.Sleep(5 * time.Second); return nil } })
		r.publish("report", "r", `{}`)
		accepted := time.Now()
		r.failure("op_order-report_r")
		_, data := r.recorded("reported")
		var rec struct {
			Report struct {
				ReadTime time.Time
				Stale    bool
			}
		}
		if err := json.Unmarshal(data, &rec); err != nil || rec.Report.Stale || rec.Report.ReadTime.Before(accepted) {
			t.Errorf("asked at %s: %+v %v", accepted, rec.Report, err)
		}
	})
}

// Another process gets its slot when no call of ours is out.
func TestSlot(t *testing.T) {
	scene(t, func(t *testing.T, r *rig, m *stage) {
		out := false
		m.onList = func(*market.Rentals) error {
			m.notes.Lock()
			out = true
			m.notes.Unlock()
			time.Sleep(10 * time.Second)
			m.notes.Lock()
			defer m.notes.Unlock()
			out = false
			return errors.New("slow")
		}
		r.boot()
		for range 100 {
			time.Sleep(time.Second)
			wait, err := r.holder.Slot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			m.notes.Lock()
			if wait == 0 && out {
				t.Error("a slot was granted while a call was out")
			}
			m.notes.Unlock()
		}
	})
}

// "Too many requests" as the answer to a create doubles the gap to the next call.
func TestPace_IsToldOfThrottling(t *testing.T) {
	scene(t, func(t *testing.T, r *rig, m *stage) {
		m.onCreate = func(int, market.CreateRequest) *market.Outcome {
			return &market.Outcome{Verdict: market.Unknown, Reason: "code-5", Sent: true, Throttled: true}
		}
		r.boot()
		r.order("a")
		r.waitState("a", rental.Unconfirmed, time.Minute)
		time.Sleep(time.Minute)
		creates, _, lists := m.noted()
		ended := creates[0].ended
		n := slices.IndexFunc(lists, func(at time.Time) bool { return at.After(ended) })
		if gap := lists[n].Sub(ended); gap < 2*simCallGap {
			t.Errorf("the next call came %s after code 5", gap)
		}
	})
}
