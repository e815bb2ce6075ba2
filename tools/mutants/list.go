package main

const (
	rental   = "services/order/internal/rental/decide.go"
	state    = "services/order/internal/rental/state.go"
	choosing = "services/order/internal/choose/choose.go"
	proving  = "services/order/internal/prove/prove.go"
	money    = "services/order/internal/ledger/ledger.go"
	pacing   = "services/order/internal/pace/pace.go"
	worlds   = "services/order/internal/world/world.go"
	viewing  = "services/order/internal/view/view.go"
	calls    = "services/order/internal/engine/calls.go"
	holder   = "services/order/internal/engine/holder.go"
	plan     = "services/order/internal/engine/plan.go"
	records  = "services/order/internal/engine/record.go"
	commands = "services/order/internal/engine/commands.go"
	braking  = "services/order/internal/engine/control.go"
	errands  = "services/order/internal/engine/errands.go"
	alarms   = "services/order/internal/engine/alarms.go"
	hold     = "services/order/hold.go"
	account  = "services/internal/market/clore/account.go"
	wire     = "pkg/cloreapi/call.go"
	writing  = "pkg/journal/write.go"
	sealing  = "pkg/seal/seal.go"
)

// scenes leaves the storms out of the engine's tests: the rest is faster, and names what is wrong.
const scenes = "^(TestSim|TestFlood)$"

// mutants, in the order of the rules they break.
var mutants = []mutant{
	// One writer: the fence, the lease, the last line before the wire, the quiesce.
	{name: "fence-no-expected-sequence", rule: "an append expects the journal to end where its writer believes", file: writing,
		old: `h.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatUint(a.writer.last, 10))`, new: `_ = strconv.FormatUint(a.writer.last, 10)`, run: `TestWriter_`},
	{name: "fence-not-fatal", rule: "a fenced writer is dead", file: writing,
		old: `if errors.Is(err, ErrFenced) || errors.Is(err, ErrUnsettled) {`, new: `if errors.Is(err, ErrUnsettled) {`, run: `TestWriter_|TestAppend_Overtaken`},
	{name: "guard-epoch", rule: "a create goes out only for an intent of this writer's epoch", file: calls, skip: scenes,
		old: `	case epoch != h.log.Epoch():
		return "the intent is another writer's"
`, new: ``},
	{name: "guard-deadline", rule: "a create goes out only while its whole time-out fits before the call deadline", file: calls, skip: scenes,
		old: `time.Now().Add(h.config.CallTimeout).After(callBy)`, new: `time.Now().After(callBy)`},
	{name: "guard-lease", rule: "a create goes out only when the lease outlasts the call", file: calls, skip: scenes,
		old: `	case h.deps.Remaining() < h.config.CallTimeout+leaseMargin:
		return "the lease does not outlast the call"
`, new: ``},
	{name: "guard-lease-margin", rule: "the lease outlasts the call by a margin", file: calls, skip: scenes,
		old: `h.config.CallTimeout+leaseMargin`, new: `h.config.CallTimeout`},
	{name: "guard-wanted-end", rule: "a create that is being prepared is stopped by a wanted end", file: calls, skip: scenes,
		old: `	case stop.Load():
		return "an end is wanted"
`, new: ``},
	{name: "guard-abort-not-told", rule: "a wanted end reaches the create that is being prepared", file: holder, skip: scenes,
		old: `		h.abortCreate.Store(true)
`, new: ``},
	{name: "guard-halt", rule: "a halt is looked at in the last line before the wire", file: calls, skip: scenes,
		old: `	case h.deps.World.Halted(client) != nil:
		return "renting was halted"
`, new: ``},
	{name: "guard-stopping", rule: "a process that stops sends no create", file: calls, skip: scenes,
		old: `	case ctx.Err() != nil:
		return "this process is stopping"
`, new: ``},
	{name: "quiesce-dropped", rule: "after a holder that did not let go creates wait", file: holder, skip: scenes,
		old: `		h.createsFrom = now.Add(c.Quiesce())
`, new: ``},
	{name: "quiesce-without-the-call", rule: "the wait covers lease, last call and the silence before a create", file: "services/order/internal/engine/engine.go", skip: scenes,
		old: `return c.LeaseTTL + c.CallTimeout + c.Pace.CreateGap`, new: `return c.LeaseTTL`},
	{name: "quiesce-always", rule: "after a holder that let go creates go out at once", file: holder, skip: scenes,
		old: `	if waitCreates {
		h.createsFrom`, new: `	if waitCreates || true {
		h.createsFrom`},
	{name: "quiesce-service", rule: "the service asks for the wait when the last holder did not let go", file: hold, run: `TestOrder_AHolderThatDidNotLetGo`,
		old: `wait := !released && before != s.engine.Holder`, new: `wait := false && !released && before != s.engine.Holder`},
	{name: "release-not-read", rule: "a holder's record undoes an earlier release", file: worlds,
		old: `w.holder, w.released = in.Holder, false`, new: `w.holder = in.Holder`},

	// Choose.
	{name: "choose-rented", rule: "a rented server is not chosen", file: choosing,
		old: `	case o.Rented:
		return "rented"
`, new: ``},
	{name: "choose-held", rule: "a server that another order holds is not chosen", file: plan, skip: scenes,
		old: `			case i.Outcome.Live():
				t.Leave[i.Server.ID] = "held by another order"
`, new: ``},
	{name: "choose-tried-again", rule: "a server tried before is not chosen again", file: plan, skip: scenes,
		old: `			case other.ID == o.ID && !i.NotSent:
				t.Leave[i.Server.ID] = "tried before"
`, new: ``},
	{name: "choose-failed-host", rule: "a server whose rental never became usable is left alone", file: plan, skip: scenes,
		old: `			case i.FailedBoot && now.Sub(i.EndedAt) < hostMemory:
				t.Leave[i.Server.ID] = "never became usable lately"
`, new: ``},
	{name: "choose-humans-server", rule: "a server that the account rents is not chosen, whoever rented it", file: plan, skip: scenes,
		old: `			t.Leave[r.ServerID] = "rented by this account"
`, new: ``},
	{name: "choose-reliability", rule: "reliability is at least order.min_reliability", file: choosing,
		old: `		least = c.terms.MinReliability
`, new: ``},
	{name: "choose-ceiling", rule: "nothing above the ceiling is chosen", file: choosing,
		old: `	if usd.Cmp(c.ask.Ceiling) > 0 {
		c.noteCheapest(usd)`, new: `	if usd.Cmp(c.ask.Ceiling) > 0 && false {
		c.noteCheapest(usd)`},
	{name: "choose-without-fees", rule: "ranked by what is paid, fees included", file: choosing,
		old: `			a.Paid.Cmp(b.Paid),
`, new: `			a.USDPerHour.Cmp(b.USDPerHour),
`},
	{name: "choose-shorter-first", rule: "a host that lends for less is taken only when no other fits", file: choosing,
		old: `			cmpBool(a.Shortened != 0, b.Shortened != 0), // a shorter rental only when nothing else fits
`, new: ``},
	{name: "choose-spot-not-worth", rule: "spot is taken only where its floor is 5 % below on demand", file: choosing,
		old: `o.Spot[spot].PerDay.IsPos() && o.Spot[spot].PerDay.Cmp(worth) <= 0`, new: `worth.IsPos() && o.Spot[spot].PerDay.IsPos()`},
	{name: "choose-wallet", rule: "a coin without enough balance is not chosen", file: choosing,
		old: `c.terms.Balances != nil && !c.pays(q, out.Reserved)`, new: `false && !c.pays(q, out.Reserved)`},
	{name: "choose-unpriced-coin", rule: "a coin without a price is not chosen", file: choosing,
		old: `return "", q.Allowed && q.Priced && q.USDRate.IsPos()`, new: `return "", q.Allowed && q.USDRate.IsPos()`},
	{name: "bid-above-ceiling", rule: "a bid is at most the ceiling", file: choosing,
		old: `	bid = bid.Min(ceiling)
`, new: ``},
	{name: "bid-near-on-demand", rule: "a bid is at most 0.95 × the on-demand price", file: choosing,
		old: `		bid = bid.Min(most)
`, new: `		_ = most
`},
	{name: "bid-below-floor", rule: "a bid below the floor is not sent", file: choosing,
		old: `	if bid.Cmp(floor.PerDay) < 0 {
`, new: `	if bid.Cmp(floor.PerDay) < 0 && false {
`},

	// Intend, then call, once.
	{name: "call-before-intent", rule: "the intent is in the journal before its call", file: plan, skip: scenes,
		old: `	if err := h.decide(ctx, o, rental.Planned{Intent: intent, Why: choice.Why}, world.Internal{}); err != nil {
		return now, err
	}
	recorded := h.deps.World.Order(o.ID)
	if recorded.OpenIntent() == nil {
		// The machine refused the plan: the rules of choosing and of recording disagree. Nothing is sent.
		return now, h.decide(ctx, recorded, rental.NoOffer{Reason: "the plan was refused"}, world.Internal{})
	}
	h.callCreate(ctx, recorded, recorded.OpenIntent(), request)
	return time.Time{}, nil
`, new: `	intent.Number = len(o.Intents) + 1
	h.callCreate(ctx, o, &intent, request)
	time.Sleep(time.Millisecond)
	return time.Time{}, h.decide(ctx, o, rental.Planned{Intent: intent, Why: choice.Why}, world.Internal{})
`},
	{name: "plan-above-ceiling", rule: "the machine refuses an intent above the ceiling", file: rental,
		old: `	case over:
		return fmt.Errorf("%w: intent`, new: `	case over && false:
		return fmt.Errorf("%w: intent`},
	{name: "plan-after-wanted-end", rule: "a wanted end bars every further candidate", file: state,
		old: `return o.Wanted == nil && o.State != AwaitingApproval && o.idle()`, new: `return o.State != AwaitingApproval && o.idle()`},
	{name: "plan-too-many", rule: "at most max_candidates servers are tried", file: rental,
		old: `	case d.o.tried() >= d.o.Policy.MaxCandidates:
		return fmt.Errorf(`, new: `	case d.o.tried() > d.o.Policy.MaxCandidates:
		return fmt.Errorf(`},
	{name: "plan-on-a-stale-list", rule: "an intent stands on a list that can be believed", file: calls, skip: scenes,
		old: `return l.good && h.readsFailed == 0 &&`, new: `return h.readsFailed == 0 &&`},
	// That the list is no older than two sweeps cannot be broken alone: a sweep reads it anew, or its failure stops creates.
	{name: "plan-without-a-new-read", rule: "an intent's baseline comes from a list begun after the last adoption", file: calls, skip: scenes,
		old: ` && l.rentals.Began.After(h.lastAdoption)`, new: ``},
	{name: "plan-after-failed-reads", rule: "no create after a read that failed, before one that did not", file: calls, skip: scenes,
		old: `return l.good && h.readsFailed == 0 &&`, new: `return l.good &&`},
	{name: "baseline-none", rule: "a rental older than the intent is not taken for its rental", file: plan, skip: scenes,
		old: `Baseline: max(h.list.maxID, h.deps.World.MaxRental())`, new: `Baseline: 0`},
	{name: "marker-reused", rule: "a marker port is not used again within a day", file: plan, skip: scenes,
		old: `					used[m] = true
`, new: `					_ = m
`},
	{name: "marker-not-sent", rule: "markers are sent as ports", file: plan, skip: scenes,
		old: `		r.Ports[port] = "tcp"
`, new: `		_ = port
`},
	{name: "required-price-not-sent", rule: "the market is told the price that was agreed", file: plan, skip: scenes,
		old: `		r.RequiredPrice = i.PerDay
`, new: ``},
	// GetBody alone changes nothing: net/http sends again only over a connection that was kept.
	{name: "wire-repeats", rule: "one HTTP request: no connection is kept, on which net/http could send again", file: "pkg/cloreapi/client.go", run: `TestWrites_|TestCalls_`,
		old: `	transport.DisableKeepAlives = true
`, new: ``},
	{name: "wire-follows-redirects", rule: "no redirect is followed", file: "pkg/cloreapi/client.go", run: `TestWrites_|TestCalls_`,
		old: `return http.ErrUseLastResponse`, new: `return nil`},

	// Three outcomes.
	{name: "500-is-refused", rule: "HTTP 500 without a known refusal proves nothing", file: account,
		old: `			o.Reason = "http-" + strconv.Itoa(call.Status)
`, new: `			o.Verdict, o.Reason = market.Refused, "http-"+strconv.Itoa(call.Status)
`},
	{name: "502-is-refused", rule: "a proxy's answer proves nothing, whatever its body says", file: account,
		old: `refusal.Status > http.StatusInternalServerError`, new: `refusal.Status > 599`},
	{name: "code-5-is-refused", rule: "code 5 may have been applied", file: account,
		old: `			o.Throttled = true
		case cloreapi.CodeError:`, new: `			o.Throttled, o.Verdict = true, market.Refused
		case cloreapi.CodeError:`},
	{name: "code-0-is-done", rule: "code 0 is not a rental until it is seen", file: account,
		old: `market.Outcome{Verdict: market.Unknown, Reason: "code-0", Sent: true, Status: answer.Status}`, new: `market.Outcome{Verdict: market.Done, Reason: "code-0", Sent: true, Status: answer.Status}`},
	{name: "unknown-name-is-refused", rule: "code 6 with a name that is not on the list proves nothing", file: account,
		old: `		case "server-already-rented", "you_already_have_spot_order":
			return market.Look
		}
		return market.Unknown
`, new: `		case "server-already-rented", "you_already_have_spot_order":
			return market.Look
		}
		return market.Refused
`},
	{name: "already-rented-is-refused", rule: "server-already-rented may be ours: one good read decides", file: account,
		old: `			return market.Look
`, new: `			return market.Refused
`},
	{name: "sent-is-not-sent", rule: "a call that broke off after its first byte proves nothing", file: account,
		old: `		case !call.Sent:
`, new: `		case !call.Sent || call.Status == 0:
`},
	{name: "unknown-is-refused", rule: "an answer that proves nothing leaves the intent open", file: calls, skip: scenes,
		old: `Refused: out.Verdict == market.Refused, NotSent`, new: `Refused: out.Verdict != market.Look, NotSent`},
	{name: "recovered-not-unconfirmed", rule: "an intent found without an outcome is unknown, and looked for", file: holder, skip: scenes,
		old: `		if err := h.decide(ctx, o, rental.Recovered{}, world.Internal{}); err != nil {
			return err
		}
`, new: ``},
	{name: "recovered-is-refused", rule: "an intent found without an outcome is never asked for again", file: rental,
		old: `		i.Reason = "the writer that asked is gone; the answer is unknown"
		i.Called = true
		d.o.State = Unconfirmed
		d.record("unconfirmed", "writer", "", i.Reason)
`, new: `		d.close(i, Refused, "the writer that asked is gone")
`},

	// Resolve.
	{name: "ours-by-any-marker", rule: "ours shows every marker of the intent", file: proving,
		old: `		if _, ok := row.TCPPorts[m]; !ok {
			return false
		}
	}
	return len(markers) > 0
`, new: `		if _, ok := row.TCPPorts[m]; ok {
			return true
		}
	}
	return false
`},
	{name: "ours-without-ports", rule: "without ports a rental is held back, not adopted at once", file: proving,
		old: `	case len(row.TCPPorts) == 0 && fits:
		return perhaps
`, new: `	case len(row.TCPPorts) == 0 && fits:
		return ours
`},
	{name: "held-back-never-adopted", rule: "a whole window without ports adopts", file: proving,
		old: `	if v.list.Began.Sub(i.CallBy) >= v.config.Window && v.list.Began.Sub(e.holdSince) >= v.config.Window {
`, new: `	if false {
`},
	{name: "others-forgotten", rule: "what showed another's ports is not taken as ours later", file: proving,
		old: `				v.others[row.ID] = true
`, new: ``},
	{name: "ours-whatever-image", rule: "ours has the intent's image", file: proving,
		old: `row.ServerID == i.Server.ID && row.Image == i.Image && `, new: `row.ServerID == i.Server.ID && `},
	{name: "ours-however-old", rule: "ours is not older than the intent", file: proving,
		old: ` && !row.Created.Before(i.At.Truncate(time.Second).Add(-ClockSkew))`, new: ``},
	{name: "canary-dropped", rule: "a list that lacks a rental known live proves nothing", file: proving,
		old: `v.result.Good = v.complete() && v.mustShow == 0`, new: `v.result.Good = v.complete()`},
	{name: "cut-list-is-good", rule: "a list that may have been cut proves nothing", file: proving,
		old: `v.result.Good = v.complete() && v.mustShow == 0`, new: `v.result.Good = v.mustShow == 0`},
	{name: "absent-by-any-list", rule: "absence needs good lists", file: proving,
		old: `	if !v.result.Good || !v.list.Began.After(i.CallBy)`, new: `	if !v.list.Began.After(i.CallBy)`},
	{name: "absent-without-finished", rule: "absence needs lists with finished rentals", file: proving,
		old: ` || !i.Called || !v.list.WithEnded {`, new: ` || !i.Called {`},
	{name: "absent-before-deadline", rule: "a read begun before the call was over proves no absence", file: proving,
		old: `	if !v.result.Good || !v.list.Began.After(i.CallBy) || !i.Called`, new: `	if !v.result.Good || !i.Called`},
	{name: "absent-after-two-reads", rule: "absence needs three good reads", file: proving,
		old: `	return t.n >= GoodReads && t.last.Sub`, new: `	return t.n >= GoodReads-1 && t.last.Sub`},
	{name: "absent-without-window", rule: "absence needs reads over a whole window", file: proving,
		old: ` && t.last.Sub(t.first) >= window`, new: ` && window > 0`},
	{name: "blind-as-fresh", rule: "with nothing of ours in the list the blind window counts", file: proving,
		old: `	e := v.of(k)
	e.any.add(v.list.Began)
	if v.shown > 0 {
		e.fresh.add(v.list.Began)
	}
	if e.fresh.over`, new: `	e := v.of(k)
	e.any.add(v.list.Began)
	e.fresh.add(v.list.Began)
	if e.fresh.over`},
	{name: "finished-row-ignored", rule: "a finished rental never seen alive is the intent's", file: proving,
		old: `		if _, taken := v.owner[row.ID]; !taken && row.Expired && !v.others`, new: `		if _, taken := v.owner[row.ID]; false && !taken && row.Expired && !v.others`},
	// Without the demand below the ladder the sweep looks just as often: it must be the ladder that is missing.
	{name: "looked-for-late", rule: "the outcome of a call is looked for at once", file: calls, skip: scenes,
		old: `	if out.Verdict != market.Refused {
		h.ladder.start(now, h.config)
	}
`, new: ``},
	{name: "next-while-unconfirmed", rule: "the next server only after Refused or Absent", file: state,
		old: `	case Placing:
		return o.OpenIntent() == nil
`, new: `	case Placing, Unconfirmed:
		return o.State == Unconfirmed || o.OpenIntent() == nil
`},
	{name: "absent-while-placing", rule: "absence is concluded only of what was called", file: rental,
		old: `	if i == nil || i.Number != ev.Number || d.o.State != Unconfirmed {
		return
	}
	out := NotThere`, new: `	if i == nil || i.Number != ev.Number {
		return
	}
	out := NotThere`},
	{name: "absent-of-another-intent", rule: "a proof is of the intent it names", file: rental,
		old: `	if i == nil || i.Number != ev.Number || d.o.State != Unconfirmed {
		return
	}
	out := NotThere`, new: `	if i == nil || d.o.State != Unconfirmed {
		return
	}
	out := NotThere`},

	// Sweep, orphans, suspects.
	{name: "sweep-never", rule: "the list is read every sweep, whatever else there is to do", file: calls, skip: scenes,
		old: `d := pace.Demand{Watch: h.sweepAt}`, new: `d := pace.Demand{}`},
	{name: "orphans-left", rule: "a rental of ours that nothing wants is ended", file: calls, skip: scenes,
		old: `		want[o.RentalID] = true
		h.deps.Log.Warn`, new: `		h.deps.Log.Warn`},
	{name: "orphan-of-an-open-intent", rule: "a rental is an orphan only when its intent is closed or its end wanted", file: proving,
		old: `shows(i.Markers, row) && (!i.Outcome.Live() || c.order.Wanted != nil || v.heldShows(i))`, new: `shows(i.Markers, row)`},
	{name: "orphan-beside-the-held", rule: "a second rental with the markers of a held one is ended", file: proving,
		old: ` || c.order.Wanted != nil || v.heldShows(i)):`, new: ` || c.order.Wanted != nil):`},
	{name: "orphan-by-its-server", rule: "nothing is ended that does not show our markers", file: proving,
		old: `		case shows(i.Markers, row), len(i.Markers) == 0 && fits:
			suspect = true
`, new: `		case shows(i.Markers, row), len(i.Markers) == 0 && fits:
			return &Orphan{RentalID: row.ID, OrderID: c.order.ID, Number: i.Number}, false
`},
	{name: "suspect-by-port", rule: "a rental with this installation's port and no intent is suspect", file: proving,
		old: `	if _, ok := row.TCPPorts[v.config.InstallationPort]; ok && v.config.InstallationPort != 0 {
		suspect = true
	}
`, new: ``},
	{name: "suspects-do-not-stop", rule: "no create while there is a suspect", file: plan, skip: scenes,
		old: `	case h.list.suspects > 0:
		return whySuspects
`, new: ``},
	{name: "empty-journal-trusts", rule: "over an empty journal rentals with two ports in the range are suspect", file: proving,
		old: `, len(intents) == 0 && markerPorts(row) >= 2:`, new: `:`},
	{name: "disown-ignored", rule: "what a person says is not ours stops nothing", file: calls, skip: scenes,
		old: `	res.Suspects = slices.DeleteFunc(res.Suspects, func(s market.Rental) bool { return h.deps.World.Disowned(s.ID) })
`, new: ``},
	{name: "disown-ours", rule: "what the journal holds as ours is not disowned", file: braking, skip: scenes,
		old: `	if o := h.deps.World.OwnerOf(id); o != nil {
`, new: `	if o := h.deps.World.OwnerOf(id); o != nil && false {
`},
	{name: "unaccounted-do-not-stop", rule: "no create while a rental is missing and not accounted for", file: plan, skip: scenes,
		old: `	case h.list.unaccounted > 0:
		return whyUnaccounted
`, new: ``},
	{name: "sweep-of-commands", rule: "a command that the consumer skipped is driven", file: hold, run: `TestOrder_TheSweepDrives`,
		old: `		if !s.world.Handled(m.Sequence) {
`, new: `		if false {
`},
	{name: "foreign-cancelled", rule: "only a client with leave ends rentals that are not its own", file: errands, skip: scenes,
		old: `	case !h.config.Clients[e.Client].CancelAny, row == nil && !e.Called:
`, new: `	case row == nil && !e.Called:
`},

	// Ends.
	{name: "end-by-one-read", rule: "an end needs three good reads without the rental", file: proving,
		old: `if e.fresh.n >= GoodReads || e.any.over`, new: `if e.fresh.n >= 1 || e.any.over`},
	{name: "end-by-bad-reads", rule: "only good reads prove an end", file: proving,
		old: `		if v.result.Good {
			e.any.add(v.list.Began)
`, new: `		{
			e.any.add(v.list.Began)
`},
	{name: "end-blind", rule: "with nothing of ours to show freshness an end needs the blind window", file: proving,
		old: `			if v.shown > 0 {
				e.fresh.add(v.list.Began)
			}
`, new: `			e.fresh.add(v.list.Began)
`},
	{name: "cancel-is-the-end", rule: "an order that is ending waits for the proof", file: rental,
		old: `	if i := d.o.HeldIntent(); i != nil {
		d.o.State = Cancelling
		d.record("cancelling", cause, by, reason)
		d.act(Cancel{RentalID: i.RentalID, Issue: ""})
		return
	}
	// The call`, new: `	if i := d.o.HeldIntent(); i != nil {
		d.act(Cancel{RentalID: i.RentalID, Issue: ""})
		d.close(i, Over, reason)
		return
	}
	// The call`},
	{name: "cancel-once", rule: "a cancel is repeated until the end is proved", file: calls, skip: scenes,
		old: `	a.due = now.Add(min(cancelAgain<<min(a.n-1, 4), cancelAtMost))
`, new: `	a.due = now.Add(1000 * time.Hour)
`},
	{name: "cancel-forgotten-by-a-list", rule: "a cancel waits for the list to show its effect, also over reads", file: calls, skip: scenes,
		old: `		if i := o.HeldIntent(); i != nil && o.State == rental.Cancelling {
			want[i.RentalID] = true
		}
`, new: `		_ = o
`},
	{name: "cancel-at-first-sight", rule: "a rental seen after its end was wanted is ended", file: rental,
		old: `	case d.o.Wanted != nil:
		d.o.State = Cancelling
		d.record("cancelling", "market", d.o.Wanted.By`, new: `	case d.o.Wanted != nil && false:
		d.o.State = Cancelling
		d.record("cancelling", "market", d.o.Wanted.By`},
	{name: "boot-deadline", rule: "a rental that does not boot in time is ended", file: rental,
		old: `	case !d.at.Before(i.BootBy):
`, new: `	case !d.at.Before(i.BootBy) && false:
`},
	{name: "boot-budget", rule: "failed boots have a budget", file: rental,
		old: `	case d.failedBootsCost().Cmp(d.o.Policy.FailedBootUSD) >= 0 && i.FailedBoot:
`, new: `	case d.failedBootsCost().Cmp(d.o.Policy.FailedBootUSD) >= 0 && false:
`},
	{name: "place-deadline", rule: "no candidate after the place deadline", file: rental,
		old: `	case !d.at.Before(d.o.PlaceBy):
		d.finish(Failed, "failed", cause`, new: `	case !d.at.Before(d.o.PlaceBy) && false:
		d.finish(Failed, "failed", cause`},
	{name: "max-duration", rule: "every order ends", file: rental,
		old: `	case planned:
		d.o.Wanted`, new: `	case planned && false:
		d.o.Wanted`},
	{name: "max-duration-default", rule: "an order that asks for no duration gets order.max_duration", file: commands, skip: scenes,
		old: `Ceiling: most, Duration: c.MaxDuration,`, new: `Ceiling: most,`},
	{name: "never-without-burn-limit", rule: "max_duration never needs a burn limit", file: commands, skip: scenes,
		old: `		if never && !c.Limits.BurnPerHour.IsPos() {
`, new: `		if never && false {
`},
	{name: "unprobed-cancelled", rule: "until a probe has succeeded here a silent ssh port ends nothing", file: rental,
		old: `&& i.Up && i.reachable() && d.o.Ask.WantsSSH() && !ev.ProbeProven:`, new: `&& i.Up && i.reachable() && d.o.Ask.WantsSSH() && false:`},
	{name: "running-without-ssh", rule: "RUNNING means that ssh answers where it was asked for", file: rental,
		old: `	if d.o.Ask.WantsSSH() && d.o.Policy.ProbeSSH {
`, new: `	if false {
`},
	{name: "outbid-left", rule: "the bid of an outbid rental that is still listed is withdrawn", file: rental,
		old: `	return d.at.Sub(i.FrozenSince) >= d.o.Policy.OutbidAfter
`, new: `	return false
`},
	{name: "outbid-while-billed", rule: "a spot rental that is billed was not outbid", file: rental,
		old: ` || s.Up || s.Spend.Cmp(i.Spend) != 0 {`, new: ` || s.Up {`},
	{name: "outbid-tries-another", rule: "a spot rental that ends by itself is interrupted", file: rental,
		old: `	case was == Provisioning && spot:
`, new: `	case was == Provisioning && spot && false:
`},
	{name: "end-not-warned", rule: "the end is told before it comes", file: rental,
		old: `			d.warn(i)
`, new: `			_ = i
`},
	{name: "extend-past-the-host", rule: "an end is not moved past what the host lends", file: rental,
		old: `	case i != nil && i.Outcome.Live() && i.MaxLength > 0 &&`, new: `	case false && i != nil && i.Outcome.Live() && i.MaxLength > 0 &&`},

	// Access.
	{name: "password-per-order", rule: "every attempt has a password of its own", file: plan, skip: scenes,
		old: `h.deps.Box.Password("ssh", o.ID, fmt.Sprint(number))`, new: `h.deps.Box.Password("ssh", o.ID, fmt.Sprint(1))`},
	{name: "password-beside-a-key", rule: "with a key there is no password", file: plan, skip: scenes,
		old: `	if o.Ask.WantsSSH() && r.SSHKey == "" {
`, new: `	if o.Ask.WantsSSH() {
`},
	{name: "password-of-anybody", rule: "passwords follow from the installation's key", file: sealing,
		old: `hkdf.Expand(sha256.New, b.key, `, new: `hkdf.Expand(sha256.New, []byte("the key of nobody, 32 bytes long"), `},
	{name: "no-port", rule: "an order that nobody could reach is refused", file: commands, skip: scenes,
		old: `	if len(a.Ports) == 0 {
		return &rental.Failure{`, new: `	if false {
		return &rental.Failure{`},
	{name: "another-clients-order", rule: "an order is found by its own client only", file: worlds,
		old: `	if o := w.orders[id]; o != nil && o.Client == client {
`, new: `	if o := w.orders[id]; o != nil {
`},
	{name: "markers-shown", rule: "markers are internal", file: viewing,
		old: `			continue // markers are internal
`, new: ``},

	// Pacing.
	{name: "pace-gap", rule: "a gap lies between two calls", file: pacing,
		old: `gap := p.lastEnd.Add(time.Duration(p.factor) * p.config.CallGap)`, new: `gap := p.lastEnd`},
	{name: "pace-silence", rule: "a silence lies before a create", file: pacing,
		old: `quiet := p.lastEnd.Add(time.Duration(p.factor) * p.config.CreateGap)`, new: `quiet := gap`},
	{name: "pace-cancel-first", rule: "only a cancel breaks the silence before a create, and it does", file: pacing,
		old: `	if due(d.Cancel) {
		return at(Cancel, now, gap)
	}
`, new: `	if due(d.Cancel) && !p.silent {
		return at(Cancel, now, gap)
	}
`},
	{name: "pace-resolve-first", rule: "no silence is begun while a resolve read is due", file: pacing,
		old: `	if due(d.Create) && (p.silent || !due(d.Resolve)) {
`, new: `	if due(d.Create) {
`},
	{name: "pace-throttled", rule: "code 5 doubles the spacing", file: pacing,
		old: `p.factor, p.calls = min(p.factor*2, maxFactor), 0`, new: `p.calls = 0`},
	{name: "pace-throttle-not-told", rule: "the pacer is told of code 5", file: calls, skip: scenes,
		old: `h.pacer.Ended(now, r.outcome.Throttled || errors.As(r.err, &throttled))`, new: `h.pacer.Ended(now, errors.As(r.err, &throttled))`},
	{name: "pace-two-at-once", rule: "one call at a time", file: calls, skip: scenes,
		old: `	if h.busy != pace.None {
		return time.Time{}, nil
	}
`, new: ``},
	{name: "slot-while-busy", rule: "another process gets a slot only when no call is out", file: holder, skip: scenes,
		old: `	if h.busy != pace.None {
		return h.config.Pace.CallGap / 2
	}
`, new: ``},

	// Money.
	{name: "ceiling-not-capped", rule: "limits.price_per_hour caps any ceiling that is asked", file: commands, skip: scenes,
		old: `	a.Ceiling = d.Min(most)
`, new: `	a.Ceiling = d
`},
	{name: "ceiling-of-the-client", rule: "a client's own ceiling caps too", file: commands, skip: scenes,
		old: `		most = most.Min(own)
`, new: ``},
	{name: "price-per-gpu", rule: "a price per GPU is multiplied, never taken as the server's", file: commands, skip: scenes,
		old: `		if d, err = money.Times(d, n); err != nil {
`, new: `		if _, err = money.Times(d, n); err != nil {
`},
	{name: "price-mismatch", rule: "a rental billed above what was sent is ended", file: rental,
		old: `err != nil || s.PerDay.Cmp(most) > 0 {`, new: `err != nil || most.IsNeg() {`},
	{name: "price-above-ceiling", rule: "a rental billed above the ceiling is ended", file: rental,
		old: `	if over, err := above(s.PerDay, i.USDRate, d.o.Ask.Ceiling); err != nil || over {
`, new: `	if _, err := above(s.PerDay, i.USDRate, d.o.Ask.Ceiling); err != nil {
`},
	{name: "price-later", rule: "the billed price is looked at in every list, not only the first", file: rental,
		old: `	if why := d.mismatch(i, ev.Sighting); why != "" {
		i.RealPerDay`, new: `	if why := d.mismatch(i, ev.Sighting); why != "" && false {
		i.RealPerDay`},
	{name: "limits-not-asked", rule: "an intent that would pass a spending limit is not recorded", file: plan, skip: scenes,
		old: `	if f := h.overLimit(o, intent, ends, now); f != nil {
		h.evaluated`, new: `	if f := h.overLimit(o, intent, ends, now); f != nil && false {
		h.evaluated`},
	{name: "limits-of-the-client", rule: "a client's own spending limits hold", file: plan, skip: scenes,
		old: `, {limitsOf(o.Client), c.Clients[o.Client].Limits, o.Client}} {`, new: `} {`},
	{name: "limits-of-others", rule: "a client's limits count its own orders only", file: plan, skip: scenes,
		old: `return l.client != "" && x.Client != l.client`, new: `return false`},
	{name: "limits-at-extend", rule: "an extension is held against the spending limits", file: commands, skip: scenes,
		old: `		ev.Refused = h.overLimit(o, *i, o.EndsAt.Add(by), now)
`, new: `		_ = now
`},
	{name: "burn", rule: "burn_per_hour holds", file: money,
		old: `err != nil || sum.Cmp(l.BurnPerHour) > 0 {`, new: `err != nil {`},
	{name: "spend", rule: "spend_per_day and spend_per_month hold", file: money,
		old: `err != nil || sum.Cmp(c.limit) > 0 {`, new: `err != nil {`},
	{name: "month-as-day", rule: "the month's limit counts the month", file: money,
		old: `{"spend_per_month", l.SpendPerMonth, Month(now)}`, new: `{"spend_per_month", l.SpendPerMonth, Day(now)}`},
	{name: "reserve-placed-only", rule: "what is unconfirmed reserves", file: money,
		old: `	if i.Outcome != rental.Over && !i.Outcome.Live() {
`, new: `	if i.Outcome != rental.Over && i.Outcome != rental.Placed {
`},
	{name: "burn-placed-only", rule: "what is unconfirmed burns", file: money,
		old: `			if !i.Outcome.Live() {
				continue
			}
			perHour`, new: `			if i.Outcome != rental.Placed {
				continue
			}
			perHour`},
	{name: "reserve-released-early", rule: "a reservation is released only by a proved end", file: money,
		old: `	case o.EndsAt.Before(now):
		return now
`, new: ``},
	{name: "reserve-without-creation-fee", rule: "the creation fee counts", file: money,
		old: `		return money.Add(cost, f.Creation)
	}
	return cost, nil
`, new: `		return cost, nil
	}
	return cost, nil
`},
	{name: "spend-unknown", rule: "what cannot be reckoned is over the limit", file: money,
		old: `		if err != nil || sum.Cmp(c.limit) > 0 {
`, new: `		if err == nil && sum.Cmp(c.limit) > 0 {
`},
	{name: "orders-per-hour", rule: "orders_per_hour holds", file: commands, skip: scenes,
		old: `	if len(recent) >= perHour {
`, new: `	if len(recent) > perHour {
`},
	{name: "live-rentals", rule: "live_rentals holds", file: commands, skip: scenes,
		old: `	if live >= most {
`, new: `	if live > most {
`},
	{name: "counts-of-the-client", rule: "a client's own counts hold", file: commands, skip: scenes,
		old: `return tooMany(limitsOf(client), only(orders, client), orMost(cl.OrdersPerHour), orMost(cl.LiveRentals), now)`, new: `return nil`},
	{name: "creates-per-hour", rule: "creates_per_hour holds", file: plan, skip: scenes,
		old: `	return n >= h.config.CreatesPerHour
`, new: `	return false
`},
	{name: "close-at-limit", rule: "limits.close_at_limit ends everything once a limit is spent", file: alarms, skip: scenes,
		old: `		if !h.config.CloseAtLimit || u.Spent.Cmp(u.Limit) < 0 {
`, new: `		if true {
`},
	{name: "close-at-committed", rule: "what is only committed ends nothing", file: alarms, skip: scenes,
		old: ` || u.Spent.Cmp(u.Limit) < 0 {`, new: ` || u.Committed.Cmp(u.Limit) < 0 {`},

	// Halt, close, full journal, commands.
	{name: "halt-takes-orders", rule: "under a halt no order is accepted", file: commands, skip: scenes,
		old: `	if why := h.halted(client); why != "" {
		return &rental.Failure{Code: "HALTED", Message: "Nothing was rented`, new: `	if why := h.halted(client); why != "" && false {
		return &rental.Failure{Code: "HALTED", Message: "Nothing was rented`},
	{name: "halt-goes-on", rule: "under a halt no server is asked for", file: plan, skip: scenes,
		old: ` && h.evaluated[o.ID].some && h.deps.World.Halted(o.Client) == nil {`, new: ` && h.evaluated[o.ID].some {`},
	{name: "halt-forgotten", rule: "a halt outlives a restart", file: worlds,
		old: `		w.halts[in.Halt.Client] = *in.Halt
`, new: ``},
	{name: "close-unproved-open", rule: "zero is said only when nothing is open", file: braking, skip: scenes,
		old: `meant(o) && (o.OpenIntent() != nil || o.HeldIntent() != nil)`, new: `meant(o) && o.HeldIntent() != nil`},
	{name: "close-unproved-held", rule: "zero is said only when nothing is held", file: braking, skip: scenes,
		old: `meant(o) && (o.OpenIntent() != nil || o.HeldIntent() != nil)`, new: `meant(o) && o.OpenIntent() != nil`},
	{name: "close-unproved-orphans", rule: "zero is said only when the market lists none that may be ours", file: braking, skip: scenes,
		old: `	if h.list.orphans > 0 || h.list.suspects > 0 {
		return nil
	}
`, new: ``},
	{name: "close-by-an-old-list", rule: "zero is said only by a list begun after the close was asked", file: errands, skip: scenes,
		old: `return h.list.good && h.list.rentals.Began.After(e.Accepted)`, new: `return h.list.good`},
	{name: "close-of-another-client", rule: "a client's close ends that client's orders only", file: braking, skip: scenes,
		old: `		if whose != "" && o.Client != whose || o.Wanted`, new: `		if o.Wanted`},
	{name: "room-not-asked", rule: "nothing is rented once the journal is nearly full", file: plan, skip: scenes,
		old: `	case !h.deps.Room():
		return whyRoom
`, new: ``},
	// The bar on creates while the journal is full saves attempts; what holds is that nothing unrecorded is done.
	{name: "full-is-recorded", rule: "what the journal had no room for is not recorded: its create does not go out", file: records, skip: scenes,
		old: `			return h.unrecorded(ctx, &next, effects, extra, err)
`, new: `			h.deps.World.Keep(&next)
			return nil
`},
	// An act alone, or the list of what is being stopped alone, is made good by the other, and by the next decision.
	{name: "full-stops-cancels", rule: "a full journal does not stop cancels", file: records, skip: scenes,
		old: `ok && !h.seenGone(c.RentalID) {`, new: `ok && false {`},
	{name: "full-forgets-cancels", rule: "cancels that could not be recorded are repeated no sooner than others", file: calls, skip: scenes,
		old: `	h.keepStopping(want)
`, new: ``},
	{name: "command-twice", rule: "a command that has its record does nothing again", file: commands, skip: scenes,
		old: `	if h.deps.World.Handled(c.Seq) {
		return nil
	}
`, new: ``},
	{name: "cancel-before-create", rule: "a cancel may come before its create", file: commands, skip: scenes,
		old: `			extra.Forestall = ref
`, new: ``},
	{name: "too-late", rule: "a command that waited past the place deadline rents nothing", file: commands, skip: scenes,
		old: `	if now.Sub(admitted) > c.PlaceDeadline {
`, new: `	if false {
`},
	{name: "scope-create", rule: "a client without the scope rents nothing", file: commands, skip: scenes,
		old: `	if !c.Clients[client].Create {
`, new: `	if false {
`},
	{name: "settled-twice", rule: "an operation is settled once", file: rental,
		old: `	if d.o.CreateSettled {
		return nil
	}
`, new: ``},
}
