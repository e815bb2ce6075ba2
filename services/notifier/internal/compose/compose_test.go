package compose

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	deliveryv1 "github.com/renthook/renthook/proto/gen/renthook/delivery/v1"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/topology"
)

var update = flag.Bool("update", false, "write what comes out as the new expectation; read it before it is kept")

func load(t *testing.T, path string) *orderv1.OrderEvent {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ev := &orderv1.OrderEvent{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, ev); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return ev
}

func callbacks(t *testing.T, ev *orderv1.OrderEvent) []*deliveryv1.Delivery {
	t.Helper()
	out, err := Callbacks(Event{ID: "ORDERS_MAIN-42", Client: "local", OrderEvent: ev})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// decode keeps numbers as they are written: 1 and 1.0 differ.
func decode(t *testing.T, b []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return v
}

// TestCallbacks_EveryRowOfTheSeedsTable holds the bodies of every outcome against testdata, JSON-equal.
func TestCallbacks_EveryRowOfTheSeedsTable(t *testing.T) {
	t.Parallel()
	events, err := filepath.Glob("testdata/*.event.json")
	if err != nil || len(events) < 17 {
		t.Fatalf("%d events: %v", len(events), err)
	}
	for _, path := range events {
		name := strings.TrimSuffix(filepath.Base(path), ".event.json")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			golden := strings.TrimSuffix(path, ".event.json") + ".callbacks.json"
			var bodies []json.RawMessage
			for _, d := range callbacks(t, load(t, path)) {
				bodies = append(bodies, d.GetBody())
			}
			if *update {
				b, err := json.MarshalIndent(bodies, "", " ")
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(golden, append(b, '\n'), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(bodies)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(decode(t, got), decode(t, want)) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// TestCallbacks_SeedMembers states the table of the seed's callbacks by hand: these members, and no other beside type,
// timestamp and data.
func TestCallbacks_SeedMembers(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"create-success": `{"type":"order.running","success":true,"order_id":38176,"server_id":6718,"status":"running",
			"ssh_connection":"ssh root@n1.example.clorecloud.net -p 10022",
			"gpu":["NVIDIA GeForce RTX 4090","NVIDIA GeForce RTX 4090"],"price_usd":0.49}`,
		"create-no-match":               `{"type":"order.failed","success":false,"error":"No RTX 4090 available under $0.5/hr"}`,
		"create-no-match-without-price": `{"type":"order.failed","success":false,"error":"No RTX 4090 available"}`,
		"create-never-ready":            `{"type":"order.failed","success":false,"error":"Order creation timed out"}`,
		"create-over-a-limit": `{"type":"order.rejected","success":false,
			"error":"limits.orders_per_hour: 10 orders were placed in the last hour; try again in 12 minutes"}`,
		"create-wallet-empty": `{"type":"order.failed","success":false,
			"error":"The market account has not enough CLORE-Blockchain. Top it up, or allow another currency."}`,
		"create-cancelled": `{"type":"order.cancelled","success":false,"error":"Order cancelled"}`,
		"create-outbid":    `{"type":"order.interrupted","success":false,"error":"Outbid before it was ready"}`,
		"cancel-success":   `{"type":"order.cancelled","success":true,"order_id":38176,"status":"cancelled"}`,
		"cancel-had-ended": `{"type":"order.cancelled","success":true,"order_id":"38176","status":"cancelled"}`,
		"cancel-unknown":   `{"type":"order.cancel_failed","success":false,"order_id":999999,"error":"order 999999 not found"}`,
		"status": `{"type":"order.reported","total_orders":4,"active":2,"creating":1,"orders":[
			{"order_id":38176,"status":"running","ssh":"ssh root@n1.example.clorecloud.net -p 10022","managed":true},
			{"order_id":38177,"status":"creating_order","ssh":null,"managed":true},
			{"order_id":38178,"status":"cancelling","ssh":"ssh root@n3.example.clorecloud.net -p 22","managed":true},
			{"order_id":38179,"status":"running","ssh":"ssh root@n4.example.clorecloud.net -p 10122","managed":false}]}`,
		"status-stale":          `{"type":"order.reported","total_orders":0,"active":0,"creating":0,"orders":[]}`,
		"native-create-success": `{"type":"order.running"}`,
		"native-cancel-unknown": `{"type":"order.cancel_failed"}`,
	} {
		got, _ := decode(t, callbacks(t, load(t, "testdata/"+name+".event.json"))[0].GetBody()).(map[string]any)
		if got["timestamp"] != "2026-11-23T14:31:07.412Z" || got["data"] == nil {
			t.Errorf("%s: timestamp %v, data %v", name, got["timestamp"], got["data"])
		}
		delete(got, "timestamp")
		delete(got, "data")
		if !reflect.DeepEqual(got, decode(t, []byte(want))) {
			t.Errorf("%s: got %v, want %s", name, got, want)
		}
	}
}

func TestCallbacks_Envelope(t *testing.T) {
	t.Parallel()
	all := callbacks(t, load(t, "testdata/create-cancelled.event.json"))
	if len(all) != 2 {
		t.Fatalf("%d callbacks, want one for each settled operation", len(all))
	}
	create, cancel := all[0], all[1]
	if create.GetId() != "ORDERS_MAIN-42-op_order-create_k1" || cancel.GetId() != "ORDERS_MAIN-42-op_order-cancel_k2" {
		t.Errorf("ids %q, %q", create.GetId(), cancel.GetId())
	}
	if !topology.ValidToken(create.GetId()) {
		t.Errorf("id %q cannot stand in a subject", create.GetId())
	}
	if create.GetEndpoint() != cancel.GetEndpoint() || !strings.HasPrefix(create.GetEndpoint(), LanePrefix) {
		t.Errorf("lanes %q, %q: one receiver has one lane", create.GetEndpoint(), cancel.GetEndpoint())
	}
	if create.GetRevealSshAttempt() != 0 {
		t.Error("a failed create reveals a password")
	}
}

func TestCallbacks_RevealOnlyWhatIsThere(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int32{
		"create-success": 2, "create-success-with-key": 0, "create-success-without-ssh": 0, "native-create-success": 2,
		"cancel-success": 0, "create-never-ready": 0, "status": 0,
	} {
		all := callbacks(t, load(t, "testdata/"+name+".event.json"))
		if got := all[0].GetRevealSshAttempt(); got != want {
			t.Errorf("%s: reveals the password of attempt %d, want %d", name, got, want)
		}
	}
}

func TestCallbacks_NoneWithoutAnAddress(t *testing.T) {
	t.Parallel()
	ev := load(t, "testdata/create-success.event.json")
	ev.Settled[0].Callback = nil
	if all := callbacks(t, ev); len(all) != 0 {
		t.Errorf("%d callbacks to nowhere", len(all))
	}
}

func TestCallbackID_AlwaysAToken(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.String().Draw(t, "a"), rapid.String().Draw(t, "b")
		ida, idb := callbackID("ORDERS_MAIN-1", a), callbackID("ORDERS_MAIN-1", b)
		if !topology.ValidToken(ida) {
			t.Fatalf("%q is no token", ida)
		}
		if (a == b) != (ida == idb) {
			t.Fatalf("%q and %q have ids %q and %q", a, b, ida, idb)
		}
	})
}

// TestBody_StaysBelowTheLimit: whatever an order holds, a callback weighs less than 20 kB and keeps what it is about.
func TestBody_StaysBelowTheLimit(t *testing.T) {
	t.Parallel()
	status := load(t, "testdata/status.event.json")
	create := load(t, "testdata/create-never-ready.event.json")
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, 3000, 12_000)
		ev := proto.CloneOf(rapid.SampledFrom([]*orderv1.OrderEvent{status, create}).Draw(t, "event"))
		for range rapid.IntRange(0, 400).Draw(t, "rentals") {
			if ev.Report != nil {
				ev.Report.Rentals = append(ev.Report.Rentals, ev.Report.Rentals[0])
			}
		}
		if ev.Order != nil {
			ev.Order.Spec.Labels = rapid.MapOf(text, text).Draw(t, "labels")
			ev.Order.Failure.Message = text.Draw(t, "message")
			ev.Settled[0].Failure.Message = text.Draw(t, "failure")
			ev.Settled[0].Callback.SeedError = text.Draw(t, "error")
			for range rapid.IntRange(0, 30).Draw(t, "attempts") {
				ev.Order.Attempts = append(ev.Order.Attempts, &orderv1.Attempt{Reason: text.Draw(t, "reason")})
			}
		}
		b, err := body(ev, ev.GetSettled()[0])
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > bodyLimit {
			t.Fatalf("%d bytes", len(b))
		}
		var top struct {
			Type  string `json:"type"`
			Total *int   `json:"total_orders"`
			Data  struct {
				Operation map[string]any `json:"operation"`
			} `json:"data"`
		}
		if err := json.Unmarshal(b, &top); err != nil {
			t.Fatal(err)
		}
		if top.Data.Operation["id"] != ev.GetSettled()[0].GetOperationId() {
			t.Fatalf("operation lost: %v", top.Data.Operation)
		}
		if ev.Report != nil && *top.Total != len(ev.GetReport().GetRentals()) {
			t.Fatalf("%d rentals in all, told %d", len(ev.GetReport().GetRentals()), *top.Total)
		}
	})
}

func TestNumber(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"0.49": "0.49", "0.4900": "0.49", "0.49000000001": "0.49", "1.00": "1.0", "2": "2.0", "0.35416666666667": "0.354167", "0": "0.0", "12.5": "12.5",
		"": "null", "free": "null", "-1": "null",
	} {
		b, err := json.Marshal(number(in))
		if err != nil || string(b) != want {
			t.Errorf("number(%q) = %s, %v; want %s", in, b, err, want)
		}
	}
}

func TestFilter(t *testing.T) {
	t.Parallel()
	event := func(typ string, state orderv1.Order_State) *orderv1.OrderEvent {
		return &orderv1.OrderEvent{Type: typ, Order: &orderv1.Order{
			State: state, Spec: &orderv1.OrderSpec{Labels: map[string]string{"team": "ml", "run": "7"}},
		}}
	}
	running := event("order.running", orderv1.Order_RUNNING)
	chat := []string{"placed", "running", "failed", "cancelled"}
	for _, c := range []struct {
		name   string
		filter Filter
		ev     *orderv1.OrderEvent
		want   bool
	}{
		{"named", Filter{Events: chat}, running, true},
		{"not named", Filter{Events: chat}, event("order.unconfirmed", orderv1.Order_UNCONFIRMED), false},
		{"nothing named", Filter{}, running, false},
		{"all", Filter{Events: []string{"*"}}, running, true},
		{"about no order", Filter{Events: []string{"*"}}, &orderv1.OrderEvent{Type: "order.reported"}, false},
		{"about the account", Filter{Events: []string{"alarm"}}, &orderv1.OrderEvent{Type: "order.alarm"}, true},
		{"about the account, all", Filter{Events: []string{"*"}}, &orderv1.OrderEvent{Type: "order.halted"}, true},
		{"about the account, not named", Filter{Events: chat}, &orderv1.OrderEvent{Type: "order.alarm"}, false},
		{"about the account, with labels", Filter{Events: []string{"*"}, Labels: map[string]string{"team": "ml"}}, &orderv1.OrderEvent{Type: "order.alarm"}, false},
		{"label", Filter{Events: chat, Labels: map[string]string{"team": "ml"}}, running, true},
		{"labels, all of them", Filter{Events: chat, Labels: map[string]string{"team": "ml", "run": "8"}}, running, false},
		{"label that is not there", Filter{Events: chat, Labels: map[string]string{"owner": ""}}, running, false},
		{"cancelled", Filter{Events: chat}, event("order.cancelled", orderv1.Order_CANCELLED), true},
		{"cancel of what had ended", Filter{Events: chat}, event("order.cancelled", orderv1.Order_ENDED), false},
	} {
		if got := c.filter.Matches(c.ev); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
