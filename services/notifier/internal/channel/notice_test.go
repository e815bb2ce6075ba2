package channel_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/notifier/internal/channel"
	"github.com/renthook/renthook/services/notifier/internal/channel/channeltest"
)

func TestNotice(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*orderv1.OrderEvent)
		want   []string
	}{
		{"running", func(*orderv1.OrderEvent) {}, []string{
			"RTX 4090 ×1: running",
			"$0.49/h · $11.76/day · whole server · excl. fees · spot · paid as 98 CLORE-Blockchain/day · fees $0.0245/h",
			"Server 6718 · 24 GB per GPU · DE · 99.3 % reliable",
			"Ends 2026-11-23 20:31 UTC · at most $12.45 until then, fees included",
			"SSH: for the asker only, GET /v1/orders/ord_0123456789abcdef0123456789abcdef?reveal=ssh",
			"ord_0123456789abcdef0123456789abcdef · rental 38176 · asked by local",
		}},
		{"placed, not yet to be logged in to", func(ev *orderv1.OrderEvent) {
			ev.Type, ev.Order.State, ev.Order.EndsAt = "order.placed", orderv1.Order_PROVISIONING, nil
			ev.Order.Cost = &orderv1.Cost{UsdPerHour: "0.03125"}
			ev.Order.Server = &orderv1.Server{Id: 7, GpuName: "Tesla Future 9", GpuCount: 8}
		}, []string{
			"Future 9 ×8: placed, starting",
			"$0.0312/h · $0.75/day · whole server · excl. fees · spot",
			"Server 7",
			"No planned end",
			"ord_0123456789abcdef0123456789abcdef · rental 38176 · asked by local",
		}},
		{"failed before there was a server", func(ev *orderv1.OrderEvent) {
			ev.Type = "order.failed"
			ev.Order = &orderv1.Order{
				Id: "ord_1", Client: "local", State: orderv1.Order_FAILED, Spec: &orderv1.OrderSpec{Gpu: "rtx-4090", Count: 2},
				Failure: &orderv1.Failure{Message: "No RTX 4090 available under $0.5/hr."},
			}
		}, []string{"rtx-4090 ×2: failed", "No RTX 4090 available under $0.5/hr.", "ord_1 · asked by local"}},
		{"cancelled, with what it cost", func(ev *orderv1.OrderEvent) {
			ev.Type, ev.Order.State, ev.Order.Cost.Spend, ev.Order.Paper = "order.cancelled", orderv1.Order_CANCELLED, "4.5", true
		}, []string{
			"RTX 4090 ×1: cancelled (paper: nothing was rented)",
			"$0.49/h · $11.76/day · whole server · excl. fees · spot · paid as 98 CLORE-Blockchain/day · fees $0.0245/h",
			"Server 6718 · 24 GB per GPU · DE · 99.3 % reliable",
			"Charged 4.5 CLORE-Blockchain (about $0.54), excl. fees",
			"ord_0123456789abcdef0123456789abcdef · rental 38176 · asked by local",
		}},
		{"an alarm", func(ev *orderv1.OrderEvent) {
			ev.Type, ev.Order, ev.Cause = "order.alarm", nil, &orderv1.Cause{By: "suspects", Reason: "a rental may be ours"}
		}, []string{"renthook needs a look: suspects", "a rental may be ours"}},
		{"a halt without a reason", func(ev *orderv1.OrderEvent) {
			ev.Type, ev.Order, ev.Cause = "order.halted", nil, &orderv1.Cause{By: "local"}
		}, []string{"renting was halted by local"}},
		{"an event without words of its own", func(ev *orderv1.OrderEvent) {
			ev.Type, ev.Order = "order.price_mismatch", &orderv1.Order{Id: "ord_1"}
		}, []string{"GPU: price mismatch", "ord_1"}},
	} {
		ev := proto.CloneOf(channeltest.Event())
		c.change(ev)
		if got := channel.Notice(ev, channel.NoticeOptions{}); !slices.Equal(got, c.want) {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
}

// bare is an amount of dollars that says neither per hour nor per day nor what it is.
var bare = regexp.MustCompile(`\$[0-9.]+($|[^0-9./])`)

func TestNotice_EveryPriceHasItsUnit(t *testing.T) {
	t.Parallel()
	for _, line := range channel.Notice(channeltest.Event(), channel.NoticeOptions{}) {
		if m := bare.FindString(line); m != "" && !strings.Contains(line, "fees included") {
			t.Errorf("%q in %q", m, line)
		}
	}
}

func TestTruncate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"äöüß", 4, "äöüß"}, {"äöüßx", 4, "äöü…"}, {"", 1, ""}} {
		if got := channel.Truncate(c.in, c.limit); got != c.want {
			t.Errorf("Truncate(%q, %d) = %q, want %q", c.in, c.limit, got, c.want)
		}
	}
}
