package rental_test

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/renthook/renthook/services/order/internal/rental"
)

var update = flag.Bool("update", false, "write STATES.md anew")

// What a pair of state and event may lead to, beside the name of the next state (recorded, perhaps the same state).
const (
	// acts: something is done again, nothing is recorded.
	acts = "acts"
	// learns: what the market shows is kept, nothing is recorded.
	learns = "learns"
	// refuses: ErrIllegal.
	refuses = "illegal"
)

// edges is the whole machine: everything that each event may do in each state. Late and repeated events do nothing and
// are not listed.
var edges = map[rental.State]map[string]string{
	rental.New: {
		"Asked":    "PENDING REJECTED FAILED CANCELLED illegal",
		"EndAsked": "illegal", "Planned": "illegal", "ExtendAsked": "illegal",
	},
	rental.Pending: {
		"Planned":     "PLACING illegal",
		"NoOffer":     "WAITING FAILED",
		"Barred":      "WAITING REJECTED",
		"EndAsked":    "CANCELLED",
		"ExtendAsked": "PENDING",
		"Tick":        "FAILED",
	},
	rental.AwaitingApproval: {
		"ExtendAsked": "AWAITING_APPROVAL",
		"Planned":     "illegal",
		"EndAsked":    "CANCELLED",
		"Tick":        "FAILED",
	},
	rental.Waiting: {
		"Planned":     "PLACING illegal",
		"NoOffer":     "FAILED",
		"Barred":      "REJECTED FAILED",
		"ExtendAsked": "WAITING",
		"EndAsked":    "CANCELLED",
		"Tick":        "FAILED",
	},
	rental.Placing: {
		"Planned":     "PLACING illegal",
		"NoOffer":     "WAITING FAILED",
		"Barred":      "WAITING FAILED",
		"ExtendAsked": "PLACING",
		"Called":      "PLACING UNCONFIRMED CANCELLED FAILED",
		"Recovered":   "UNCONFIRMED",
		"Seen":        "PROVISIONING CANCELLING",
		"Gone":        "PLACING CANCELLED FAILED",
		"EndAsked":    "PLACING CANCELLED",
		"Tick":        "PLACING FAILED",
	},
	rental.Unconfirmed: {
		"ExtendAsked": "UNCONFIRMED",
		"Planned":     "illegal",
		"Seen":        "PROVISIONING CANCELLING",
		"Absent":      "PLACING CANCELLED FAILED",
		"Gone":        "PLACING CANCELLED FAILED",
		"EndAsked":    "UNCONFIRMED",
		"Tick":        "UNCONFIRMED",
	},
	rental.Provisioning: {
		"ExtendAsked": "PROVISIONING",
		"Planned":     "illegal",
		"Seen":        "RUNNING CANCELLING learns acts",
		"Probed":      "RUNNING",
		"Gone":        "PLACING INTERRUPTED FAILED",
		"EndAsked":    "CANCELLING",
		"Tick":        "RUNNING CANCELLING acts",
	},
	rental.Running: {
		"ExtendAsked": "RUNNING",
		"Planned":     "illegal",
		"Seen":        "CANCELLING learns",
		"Gone":        "ENDED INTERRUPTED",
		"EndAsked":    "CANCELLING",
		"Tick":        "CANCELLING RUNNING",
	},
	rental.Cancelling: {
		"ExtendAsked": "CANCELLING",
		"Planned":     "illegal",
		"Seen":        "learns",
		"Gone":        "PLACING CANCELLED ENDED FAILED INTERRUPTED",
		"EndAsked":    "CANCELLING",
		"Tick":        "acts",
	},
	rental.Cancelled:   {"Planned": "illegal", "EndAsked": "CANCELLED", "ExtendAsked": "CANCELLED"},
	rental.Ended:       {"Planned": "illegal", "EndAsked": "ENDED", "ExtendAsked": "ENDED"},
	rental.Interrupted: {"Planned": "illegal", "EndAsked": "INTERRUPTED", "ExtendAsked": "INTERRUPTED"},
	rental.Failed:      {"Planned": "illegal", "EndAsked": "FAILED", "ExtendAsked": "FAILED"},
	rental.Rejected:    {"Planned": "illegal", "EndAsked": "REJECTED", "ExtendAsked": "REJECTED"},
}

// ignored says, per event, in which states it does nothing, ever: it is late, comes twice, or is not for that state.
var ignored = map[string]string{
	"Asked":       "PENDING AWAITING_APPROVAL WAITING PLACING UNCONFIRMED PROVISIONING RUNNING CANCELLING CANCELLED ENDED INTERRUPTED FAILED REJECTED",
	"Planned":     "",
	"NoOffer":     "NEW AWAITING_APPROVAL UNCONFIRMED PROVISIONING RUNNING CANCELLING CANCELLED ENDED INTERRUPTED FAILED REJECTED",
	"Barred":      "NEW AWAITING_APPROVAL UNCONFIRMED PROVISIONING RUNNING CANCELLING CANCELLED ENDED INTERRUPTED FAILED REJECTED",
	"ExtendAsked": "",
	"Called":      "NEW PENDING AWAITING_APPROVAL WAITING UNCONFIRMED PROVISIONING RUNNING CANCELLING CANCELLED ENDED INTERRUPTED FAILED REJECTED",
	"Recovered":   "NEW PENDING AWAITING_APPROVAL WAITING UNCONFIRMED PROVISIONING RUNNING CANCELLING CANCELLED ENDED INTERRUPTED FAILED REJECTED",
	"Seen":        "NEW PENDING AWAITING_APPROVAL WAITING CANCELLED ENDED INTERRUPTED FAILED REJECTED",
	"Probed":      "NEW PENDING AWAITING_APPROVAL WAITING PLACING UNCONFIRMED RUNNING CANCELLING CANCELLED ENDED INTERRUPTED FAILED REJECTED",
	"Absent":      "NEW PENDING AWAITING_APPROVAL WAITING PLACING PROVISIONING RUNNING CANCELLING CANCELLED ENDED INTERRUPTED FAILED REJECTED",
	"Gone":        "NEW PENDING AWAITING_APPROVAL WAITING CANCELLED ENDED INTERRUPTED FAILED REJECTED",
	"EndAsked":    "",
	"Tick":        "NEW CANCELLED ENDED INTERRUPTED FAILED REJECTED",
}

// kinds are the events in the order of a table.
var kinds = []string{"Asked", "Planned", "NoOffer", "Barred", "Called", "Recovered", "Seen", "Probed", "Absent", "Gone", "EndAsked", "ExtendAsked", "Tick"}

func kindOf(e rental.Event) string { return reflect.TypeOf(e).Name() }

// orders are orders in every state, with whatever else makes a difference.
func orders(t *testing.T) []rental.Order {
	t.Helper()
	changes := map[string]func(*rental.Order){
		"plain":     func(*rental.Order) {},
		"last":      func(o *rental.Order) { o.Policy.MaxCandidates = 1 },
		"no ssh":    func(o *rental.Order) { o.Ask.Ports = map[int]string{8888: "http"} },
		"no probe":  func(o *rental.Order) { o.Policy.ProbeSSH = false },
		"patient":   func(o *rental.Order) { o.Ask.WaitUntil = t0.Add(20 * time.Minute) },
		"short end": func(o *rental.Order) { o.Ask.Duration = 8 * time.Minute },
	}
	var all []rental.Order
	add := func(o rental.Order, steps ...step) rental.Order {
		next, _ := after(t, o, steps...)
		all = append(all, next)
		return next
	}
	for _, change := range changes {
		o := add(asked(change))
		add(o, step{0, rental.Asked{Turned: &rental.Failure{Code: "X"}, Rejected: true}})
		add(o, step{0, rental.Asked{Turned: &rental.Failure{Code: "X"}}})
		add(o, step{0, rental.Asked{Forestalled: true}})
		o = add(o, accept)
		approval := o
		approval.State = rental.AwaitingApproval // an approval is asked for by a later version of the shell
		all = append(all, approval)
		if !o.Ask.WaitUntil.IsZero() {
			add(o, noOffer)
		}
		for _, p := range []step{plan, planSpot} {
			placing := add(o, p)
			add(placing, cancelled)
			if next := add(placing, refused); !o.Ask.WaitUntil.IsZero() {
				add(next, step{3 * time.Second, noOffer.event})
			}
			for _, called := range []step{unknown, look} {
				unconfirmed := add(placing, called)
				add(unconfirmed, cancelled)
				add(unconfirmed, absent)
				provisioning := add(unconfirmed, seenDown)
				add(provisioning, gone)
				add(provisioning, seenUp)
				add(provisioning, cancelled)
				add(provisioning, step{12 * time.Minute, rental.Tick{}})
				running := add(provisioning, seenUp, answers)
				add(running, gone)
				if running.Current().Type == "spot" {
					add(running, step{time.Minute, rental.Seen{Number: 1, Sighting: sight(101, false)}}, step{3 * time.Minute, rental.Seen{Number: 1, Sighting: sight(101, false)}})
				}
				add(add(running, cancelled), gone)
				add(add(running, step{25 * time.Hour, rental.Tick{}}), step{26 * time.Hour, gone.event})
			}
		}
	}
	return all
}

// events are all events an order may meet, with whatever else makes a difference.
func events() []rental.Event {
	var all []rental.Event
	all = append(all, rental.Asked{}, rental.Asked{Forestalled: true}, rental.Asked{Turned: &rental.Failure{Code: "X"}}, rental.Asked{Turned: &rental.Failure{Code: "X"}, Rejected: true})
	all = append(all, rental.Planned{Intent: intent(2)}, rental.Planned{Intent: intent(2, func(i *rental.Intent) { i.PerDay = dec("12.01") })})
	all = append(all, rental.NoOffer{Reason: "r"}, rental.Barred{Failure: rental.Failure{Code: "SPEND_CAP_EXCEEDED", Message: "m"}}, rental.Recovered{}, rental.Tick{}, rental.Tick{ProbeProven: true})
	for number := range 3 {
		all = append(all,
			rental.Called{Number: number, Refused: true, Reason: "server-offline"}, rental.Called{Number: number, Refused: true, Reason: "not_enough_balance"},
			rental.Called{Number: number, Refused: true, Reason: "code-3"}, rental.Called{Number: number, Look: true}, rental.Called{Number: number},
			rental.Probed{Number: number, OK: true}, rental.Probed{Number: number},
			rental.Absent{Number: number}, rental.Gone{Number: number}, rental.Gone{Number: number, RentalID: 101, Spend: dec("3")},
			rental.Seen{Number: number, Sighting: sight(101, false)}, rental.Seen{Number: number, Sighting: sight(101, true)},
			rental.Seen{Number: number, Sighting: sight(102, true)},
			rental.Seen{Number: number, Sighting: sight(101, false, func(s *rental.Sighting) { s.PerDay = dec("13") })},
		)
	}
	all = append(all, rental.ExtendAsked{Operation: extendOp("x"), By: time.Hour}, rental.ExtendAsked{Operation: extendOp("x"), By: -time.Hour}, rental.ExtendAsked{Operation: extendOp("y"), By: time.Hour, Refused: &rental.Failure{Code: "X"}})
	return append(all, rental.EndAsked{Operation: cancelOp("x"), By: "local"}, rental.EndAsked{By: "local"}, rental.EndAsked{Operation: cancelOp("c")})
}

// outcome names what a decision did, in the words of edges; empty for nothing.
func outcome(before, next rental.Order, effects []rental.Effect, err error) string {
	switch {
	case err != nil:
		return refuses
	case record(effects) != nil:
		return next.State.String()
	case len(effects) > 0:
		return acts
	case !reflect.DeepEqual(before, next):
		return learns
	default:
		return ""
	}
}

// TestEveryStateMeetsEveryEvent walks all pairs. What is listed must happen and nothing else may.
func TestEveryStateMeetsEveryEvent(t *testing.T) {
	t.Parallel()
	got := map[rental.State]map[string]map[string]bool{}
	times := []time.Duration{0, time.Minute, 11 * time.Minute, 21 * time.Minute, 31 * time.Minute, 23*time.Hour + 30*time.Minute, 25 * time.Hour}
	unfit := asked(func(o *rental.Order) { o.Create.ID = "" })
	for _, o := range append(orders(t), unfit) {
		if got[o.State] == nil {
			got[o.State] = map[string]map[string]bool{}
		}
		for _, e := range events() {
			cell := got[o.State][kindOf(e)]
			if cell == nil {
				cell = map[string]bool{}
				got[o.State][kindOf(e)] = cell
			}
			for _, at := range times {
				if o.Updated.After(t0.Add(at)) {
					continue
				}
				next, effects, err := rental.Decide(o, e, t0.Add(at))
				if err != nil && !illegal(err) {
					t.Errorf("%s, %s: %v is not ErrIllegal", o.State, kindOf(e), err)
				}
				cell[outcome(o, next, effects, err)] = true
			}
		}
	}
	for _, s := range rental.States() {
		if got[s] == nil {
			t.Errorf("no order of the walk is %s", s)
			continue
		}
		for _, k := range kinds {
			want := words(edges[s][k])
			silent := slices.Contains(words(ignored[k]), s.String())
			if silent == (len(want) > 0) {
				t.Errorf("%s in %s must be in exactly one of the tables", k, s)
			}
			var saw []string
			for word := range got[s][k] {
				if word != "" {
					saw = append(saw, word)
				}
			}
			slices.Sort(saw)
			slices.Sort(want)
			if !slices.Equal(saw, want) {
				t.Errorf("%s in %s: may lead to %q, the table says %q", k, s, saw, want)
			}
		}
	}
}

func words(s string) []string { return strings.Fields(s) }

// TestDiagram holds the page to the table that the walk above proves.
func TestDiagram(t *testing.T) {
	t.Parallel()
	want := diagram()
	if *update {
		if err := os.WriteFile("STATES.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile("STATES.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != want {
		t.Error("STATES.md is not what the table says: run go test ./services/order/internal/rental -run TestDiagram -update")
	}
}

func diagram() string {
	var b strings.Builder
	b.WriteString("# The states of an order\n\nWritten by `go test ./services/order/internal/rental -run TestDiagram -update` from the table that the\n")
	b.WriteString("completeness test walks. An edge is recorded in the journal before anything is done about it.\n\n```mermaid\nstateDiagram-v2\n")
	for _, from := range rental.States() {
		labels := map[string][]string{}
		var order []string
		for _, k := range kinds {
			for _, to := range words(edges[from][k]) {
				if to == acts || to == learns || to == refuses {
					continue
				}
				if labels[to] == nil {
					order = append(order, to)
				}
				labels[to] = append(labels[to], k)
			}
		}
		for _, to := range order {
			start := from.String()
			if from == rental.New {
				start = "[*]"
			}
			fmt.Fprintf(&b, "    %s --> %s: %s\n", start, to, strings.Join(labels[to], ", "))
		}
	}
	b.WriteString("```\n\nWhat each event may do. A dash: nothing, it is late, comes twice or is not for that state. \"acts\": something is done\n")
	b.WriteString("again and nothing recorded; \"learns\": what the market shows is kept and not recorded; \"illegal\": a defect of the caller.\n\n")
	b.WriteString("| state | " + strings.Join(kinds, " | ") + " |\n|---" + strings.Repeat("|---", len(kinds)) + "|\n")
	for _, s := range rental.States() {
		b.WriteString("| " + s.String())
		for _, k := range kinds {
			cell := strings.Join(words(edges[s][k]), ", ")
			if cell == "" {
				cell = "–"
			}
			b.WriteString(" | " + cell)
		}
		b.WriteString(" |\n")
	}
	return b.String()
}
