package view_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/govalues/decimal"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/order/internal/ledger"
	"github.com/renthook/renthook/services/order/internal/rental"
	"github.com/renthook/renthook/services/order/internal/view"
)

var update = flag.Bool("update", false, "write testdata anew")

var t0 = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func dec(s string) decimal.Decimal { return decimal.MustParse(s) }

var fees = ledger.Fees{OnDemand: dec("0.05"), Spot: dec("0.0125"), Creation: dec("0.10")}

// Values that must never get out of the machine.
const (
	sealedEnv = "s1.SEALED"
	seedText  = "the seed's own text"
	traceOf   = "00-trace"
)

// full is an order with everything asked that can be asked.
func full() rental.Order {
	return rental.Order{
		ID: "ord_1", Client: "local", Account: "main", Created: t0, Updated: t0, CommandSeq: 7, Trace: traceOf,
		Create: rental.Operation{ID: "op_order-create_k", Command: "order.create", Seq: 7, Callback: &rental.Callback{URL: "https://a.example/CALLBACK", Seed: true}},
		Ask: rental.Ask{
			GPU: "rtx-4090", Count: 2, Ceiling: dec("0.50"), CeilingGiven: true, CeilingAsked: dec("0.5"), MarketType: "any", Currency: "auto", Image: "img",
			Ports: map[int]string{22: "tcp", 8888: "http"}, Sealed: sealedEnv, SSHKey: "ssh-ed25519 AAAA", Duration: 24 * time.Hour,
			Requirements: rental.Requirements{MinVRAMGB: 24, Countries: []string{"US"}, MinCUDA: "12.4"}, Labels: map[string]string{"job": "7"},
		},
		Policy:  rental.Policy{MaxCandidates: 3, BootDeadline: 10 * time.Minute, FailedBootUSD: dec("1"), ProbeSSH: true},
		PlaceBy: t0.Add(30 * time.Minute),
	}
}

func play(t *testing.T, o rental.Order, events ...rental.Event) rental.Order {
	t.Helper()
	at := o.Updated
	for _, e := range events {
		at = at.Add(time.Second)
		next, _, err := rental.Decide(o, e, at)
		if err != nil {
			t.Fatalf("%T: %v", e, err)
		}
		o = next
	}
	return o
}

// Events that bring an order on its way.
var (
	accept = rental.Asked{}
	plan   = rental.Planned{Intent: rental.Intent{
		Server: rental.Server{ID: 88028, GPU: "rtx-4090", FullName: "NVIDIA GeForce RTX 4090", GPUCount: 2, VRAMGB: 24, Country: "US", Reliability: 0.99},
		Type:   "spot", Currency: "CLORE-Blockchain", PerDay: dec("960.50"), USDRate: dec("0.0120"), USDPerHour: dec("0.48025"), Markers: []int{31337, 44444},
		Image: "img", Baseline: 100, Reserved: dec("11.7661250"), CallBy: t0.Add(time.Hour), Epoch: 3,
	}}
	called = rental.Called{Number: 1, Reason: "code-0"}
	seen   = rental.Seen{Number: 1, Sighting: rental.Sighting{
		RentalID: 1939941, Currency: "CLORE-Blockchain", PerDay: dec("960.25"), Started: t0, GPUs: []string{"NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 4090"}, Spend: dec("0.70"),
		Access: rental.Access{Host: "n1.us.clorecloud.net", HTTPHost: "2q81.us.clorecloud.net", TCPPorts: map[int]int{22: 1972, 31337: 1973, 44444: 1974}},
	}}
	up = func() rental.Seen {
		e := seen
		e.Up = true
		return e
	}()
	answers = rental.Probed{Number: 1, OK: true}
	end     = rental.EndAsked{Operation: rental.Operation{ID: "op_order-cancel_c", Command: "order.cancel", Seq: 8}, By: "local"}
	gone    = rental.Gone{Number: 1, Spend: dec("1.40"), Proof: "the market lists rental 1939941 as finished"}
	turned  = &rental.Failure{Code: "RATE_LIMITED", Message: "limits.orders_per_hour: try again later.", Retryable: true, Seed: seedText}
)

// inEachState gives one order a state.
func inEachState(t *testing.T) map[rental.State]rental.Order {
	t.Helper()
	patient := full()
	patient.Ask.WaitUntil = t0.Add(time.Minute)
	approval := play(t, full(), accept)
	approval.State = rental.AwaitingApproval
	running := play(t, full(), accept, plan, called, seen, up, answers)
	late := running
	late.Updated = t0.Add(25 * time.Hour)
	return map[rental.State]rental.Order{
		rental.Pending:          play(t, full(), accept),
		rental.AwaitingApproval: approval,
		rental.Waiting:          play(t, patient, accept, rental.NoOffer{Reason: "1 listed: 1 rented"}),
		rental.Placing:          play(t, full(), accept, plan),
		rental.Unconfirmed:      play(t, full(), accept, plan, called),
		rental.Provisioning:     play(t, full(), accept, plan, called, seen),
		rental.Running:          running,
		rental.Cancelling:       play(t, running, end),
		rental.Cancelled:        play(t, running, end, gone),
		rental.Ended:            play(t, late, rental.Tick{}, gone),
		rental.Interrupted:      play(t, running, gone),
		rental.Failed:           play(t, full(), accept, rental.NoOffer{Reason: "1 listed: 1 rented"}),
		rental.Rejected:         play(t, full(), rental.Asked{Turned: turned, Rejected: true}),
	}
}

// TestOrderInEachState holds the public object, member by member.
func TestOrderInEachState(t *testing.T) {
	t.Parallel()
	all := inEachState(t)
	for _, s := range rental.States() {
		if s == rental.New {
			continue // never stored
		}
		o, ok := all[s]
		if !ok || o.State != s {
			t.Errorf("no order of the test is %s: %s", s, o.State)
			continue
		}
		p := view.Order(&o, fees)
		if p.GetState().String() != s.String() {
			t.Errorf("%s is shown as %s", s, p.GetState())
		}
		golden(t, strings.ToLower(s.String()), p)
	}
}

func golden(t *testing.T, name string, m proto.Message) {
	t.Helper()
	b, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := json.Indent(&got, b, "", "  "); err != nil {
		t.Fatal(err)
	}
	got.WriteByte('\n')
	file := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s is not what %s says:\n%s", name, file, got.String())
	}
	for _, secret := range []string{sealedEnv, "CALLBACK", seedText, traceOf, "31337", "44444", "baseline", "epoch"} {
		if strings.Contains(got.String(), secret) {
			t.Errorf("%s lets %q out", name, secret)
		}
	}
}

// TestCost: before the market shows the rental, what was sent; after, what is billed.
func TestCost(t *testing.T) {
	t.Parallel()
	o := play(t, full(), accept, plan)
	if c := view.Order(&o, fees).GetCost(); c.GetUsdPerHour() != "0.48025" || c.GetNativePerDay() != "960.5" || c.GetCurrency() != "CLORE-Blockchain" || c.GetFeesUsdPerHour() != "0.00600312" || c.GetWorstCaseUsd() != "11.7661" {
		t.Errorf("sent: %v", c)
	}
	o = play(t, o, called, seen)
	if c := view.Order(&o, fees).GetCost(); c.GetUsdPerHour() != "0.480125" || c.GetNativePerDay() != "960.25" || c.GetSpend() != "0.7" || c.GetCreationFeeUsd() != "0.1" {
		t.Errorf("billed: %v", c)
	}
	o.Intents[0].Type = "on-demand"
	if c := view.Order(&o, fees).GetCost(); c.GetFeesUsdPerHour() != "0.02400625" {
		t.Errorf("on demand: %v", c)
	}
}

// TestAttemptsOutlastTheirServer: between two servers the order shows none, and still every one it tried.
func TestAttemptsOutlastTheirServer(t *testing.T) {
	t.Parallel()
	o := play(t, full(), accept, plan, rental.Called{Number: 1, Refused: true, Reason: "server-offline"})
	p := view.Order(&o, fees)
	if p.GetServer() != nil || p.GetCost() != nil || p.GetMarketOrderId() != 0 || len(p.GetAttempts()) != 1 || p.GetAttempts()[0].GetOutcome() != "refused" || p.GetAttempts()[0].GetReason() != "server-offline" {
		t.Errorf("got %v", p)
	}
}

// TestNever: an order without a planned end says so.
func TestNever(t *testing.T) {
	t.Parallel()
	o := full()
	o.Ask.Duration, o.Ask.Requirements = 0, rental.Requirements{}
	p := view.Order(&o, fees)
	if p.GetSpec().GetMaxDuration() != "never" || p.GetEndsAt() != nil || p.GetSpec().GetRequirements() != nil {
		t.Errorf("got %v", p.GetSpec())
	}
}

func TestSettlement(t *testing.T) {
	t.Parallel()
	op := full().Create
	op.Callback.OrderAsSent = "5"
	done := view.Settlement(rental.Settlement{Operation: op})
	if !done.GetSucceeded() || done.GetFailure() != nil || done.GetOperationId() != op.ID || done.GetCommand() != "order.create" ||
		done.GetCallback().GetUrl() != op.Callback.URL || !done.GetCallback().GetSeed() || done.GetCallback().GetOrderAsSent() != "5" || done.GetCallback().GetSeedError() != "" {
		t.Errorf("done: %v", done)
	}
	failed := view.Settlement(rental.Settlement{Operation: op, Failure: turned})
	if failed.GetSucceeded() || failed.GetFailure().GetCode() != "RATE_LIMITED" || !failed.GetFailure().GetRetryable() || failed.GetCallback().GetSeedError() != seedText {
		t.Errorf("failed: %v", failed)
	}
	op.Callback = nil
	if quiet := view.Settlement(rental.Settlement{Operation: op, Failure: turned}); quiet.GetCallback() != nil {
		t.Errorf("nobody asked to be called back: %v", quiet)
	}
}

func TestChanged(t *testing.T) {
	t.Parallel()
	all := inEachState(t)
	shown := func(s rental.State) *orderv1.Order {
		o := all[s]
		return view.Order(&o, fees)
	}
	tests := []struct {
		from, to rental.State
		want     []string
	}{
		{rental.Pending, rental.Pending, nil},
		{rental.Pending, rental.Placing, []string{"state", "endsAt", "server", "marketType", "cost", "attempts"}},
		{rental.Placing, rental.Unconfirmed, []string{"state", "attempts"}},
		{rental.Unconfirmed, rental.Provisioning, []string{"state", "marketOrderId", "cost", "access", "attempts"}},
		{rental.Provisioning, rental.Running, []string{"state"}},
		{rental.Running, rental.Cancelling, []string{"state"}},
		{rental.Cancelling, rental.Cancelled, []string{"state", "cost", "access", "attempts"}},
		{rental.Pending, rental.Failed, []string{"state", "failure"}},
		{rental.Failed, rental.Pending, []string{"state", "failure"}},
	}
	for _, tt := range tests {
		a, b := shown(tt.from), shown(tt.to)
		b.Revision, b.UpdateTime = 99, nil // these change with every record and are not named
		before := proto.Clone(a)
		if got := view.Changed(a, b); !slices.Equal(got, tt.want) {
			t.Errorf("%s to %s: %q, want %q", tt.from, tt.to, got, tt.want)
		}
		if !proto.Equal(a, before) {
			t.Errorf("%s to %s: comparing changed an order", tt.from, tt.to)
		}
	}
}
