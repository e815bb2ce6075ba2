package channel

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/govalues/decimal"

	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/gpu"
	"github.com/renthook/renthook/services/internal/money"
)

// NoticeOptions say what a notice may show.
type NoticeOptions struct {
	// SSHInChannel allows the line to log in with; never a password.
	SSHInChannel bool
}

// Notice tells an event to people, one fact a line: what happened, then price, server, end, access and names.
// Every price carries unit, currency, scope and whether fees are in it. The lines are plain text: channels escape.
func Notice(ev *orderv1.OrderEvent, opt NoticeOptions) []string {
	o := ev.GetOrder()
	if o == nil {
		return appendIf([]string{brakes(ev)}, ev.GetCause().GetReason())
	}
	lines := []string{headline(ev)}
	if f := o.GetFailure(); f.GetMessage() != "" {
		lines = append(lines, f.GetMessage())
	}
	lines = appendIf(lines, price(o))
	lines = appendIf(lines, server(o.GetServer()))
	if live(o) {
		lines = appendIf(lines, end(o))
		lines = appendIf(lines, ssh(o, opt))
	} else {
		lines = appendIf(lines, spent(o.GetCost()))
	}
	return appendIf(lines, names(o))
}

func appendIf(lines []string, line string) []string {
	if line == "" {
		return lines
	}
	return append(lines, line)
}

// live says that there is a rental to log in to and to end.
func live(o *orderv1.Order) bool {
	return o.GetState() == orderv1.Order_PROVISIONING || o.GetState() == orderv1.Order_RUNNING
}

// brakes tells what is about the account and no order.
func brakes(ev *orderv1.OrderEvent) string {
	switch by := ev.GetCause().GetBy(); ev.GetType() {
	case "order.alarm":
		return "renthook needs a look: " + by
	case "order.halted":
		return "renting was halted by " + by
	case "order.resumed":
		return "renting goes on, by " + by
	case "order.closed":
		return "everything is ended, as asked by " + by
	default:
		return strings.TrimPrefix(ev.GetType(), "order.")
	}
}

var told = map[string]string{
	"order.placed":        "placed, starting",
	"order.running":       "running",
	"order.failed":        "failed",
	"order.cancelled":     "cancelled",
	"order.rejected":      "rejected",
	"order.interrupted":   "ended by the market",
	"order.ended":         "ended as planned",
	"order.expiring":      "ending soon",
	"order.extended":      "extended",
	"order.extend_failed": "not extended",
}

func headline(ev *orderv1.OrderEvent) string {
	what, ok := told[ev.GetType()]
	if !ok {
		what = strings.ReplaceAll(strings.TrimPrefix(ev.GetType(), "order."), "_", " ")
	}
	h := model(ev.GetOrder()) + ": " + what
	if ev.GetOrder().GetPaper() {
		h += " (paper: nothing was rented)"
	}
	return h
}

// model is "RTX 4090 ×1"; without a server it is what was asked.
func model(o *orderv1.Order) string {
	if s := o.GetServer(); s.GetGpuName() != "" {
		name := gpu.Parse(s.GetGpuName()).Name
		if name == "" {
			name = s.GetGpuName()
		}
		return name + " ×" + strconv.Itoa(max(int(s.GetGpuCount()), 1))
	}
	asked := o.GetSpec().GetGpu()
	if asked == "" {
		asked = "GPU"
	}
	if n := o.GetSpec().GetCount(); n > 0 {
		asked += " ×" + strconv.Itoa(int(n))
	}
	return asked
}

// price is "$0.49/h · $11.76/day · whole server · excl. fees", then how it is rented and paid.
func price(o *orderv1.Order) string {
	c := o.GetCost()
	hour, err := money.Parse(c.GetUsdPerHour())
	if err != nil {
		return ""
	}
	day, err := money.Times(hour, money.HoursPerDay)
	if err != nil {
		return ""
	}
	line := fmt.Sprintf("$%s/h · $%s/day · whole server · excl. fees", money.Cents(hour), day.Round(2).Pad(2))
	line = join(line, o.GetMarketType())
	if native, err := money.Parse(c.GetNativePerDay()); err == nil && c.GetCurrency() != "" {
		line = join(line, "paid as "+money.Text(native)+" "+c.GetCurrency()+"/day")
	}
	if fees, err := money.Parse(c.GetFeesUsdPerHour()); err == nil && fees.IsPos() {
		line = join(line, "fees $"+money.Cents(fees)+"/h")
	}
	return line
}

func join(parts ...string) string {
	var kept []string
	for _, p := range parts {
		if p != "" {
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, " · ")
}

func server(s *orderv1.Server) string {
	if s.GetId() == 0 {
		return ""
	}
	country, reliability, vram := "", "", ""
	if s.GetCountry() != "" {
		country = s.GetCountry()
	}
	if r := s.GetReliability(); r > 0 {
		reliability = strconv.FormatFloat(r*100, 'f', 1, 64) + " % reliable"
	}
	if v := s.GetVramGb(); v > 0 {
		vram = strconv.FormatFloat(v, 'f', -1, 64) + " GB per GPU"
	}
	return join("Server "+strconv.FormatInt(s.GetId(), 10), vram, country, reliability)
}

func end(o *orderv1.Order) string {
	if o.GetEndsAt() == nil {
		return "No planned end"
	}
	line := "Ends " + o.GetEndsAt().AsTime().UTC().Format("2006-01-02 15:04 UTC")
	if worst, err := money.Parse(o.GetCost().GetWorstCaseUsd()); err == nil && worst.IsPos() {
		line = join(line, "at most $"+money.Cents(worst)+" until then, fees included")
	}
	return line
}

// ssh says how to log in. The line itself is for those the operator allows it to.
func ssh(o *orderv1.Order, opt NoticeOptions) string {
	a := o.GetAccess()
	if a.GetSshPort() == 0 || o.GetState() != orderv1.Order_RUNNING {
		return ""
	}
	if opt.SSHInChannel {
		return "SSH: " + SSHLine(a)
	}
	return "SSH: for the asker only, GET /v1/orders/" + o.GetId() + "?reveal=ssh"
}

// SSHLine is "ssh root@HOST -p PORT", empty when there is no port 22.
func SSHLine(a *orderv1.Access) string {
	if a.GetSshPort() == 0 || a.GetHost() == "" {
		return ""
	}
	return fmt.Sprintf("ssh %s@%s -p %d", SSHUser(a), a.GetHost(), a.GetSshPort())
}

// SSHUser is the login name; root unless the market says otherwise.
func SSHUser(a *orderv1.Access) string {
	if a.GetSshUser() == "" {
		return "root"
	}
	return a.GetSshUser()
}

func spent(c *orderv1.Cost) string {
	s, err := money.Parse(c.GetSpend())
	if err != nil || !s.IsPos() || c.GetCurrency() == "" {
		return ""
	}
	line := "Charged " + money.Text(s) + " " + c.GetCurrency()
	if usd, ok := inUSD(s, c.GetUsdRate()); ok {
		line += " (about $" + money.Cents(usd) + ")"
	}
	return line + ", excl. fees"
}

func inUSD(amount decimal.Decimal, rate string) (decimal.Decimal, bool) {
	r, err := money.Positive(rate)
	if err != nil {
		return decimal.Zero, false
	}
	usd, err := money.Times(amount, r)
	return usd, err == nil
}

func names(o *orderv1.Order) string {
	rental := ""
	if id := o.GetMarketOrderId(); id != 0 {
		rental = "rental " + strconv.FormatInt(id, 10)
	}
	asked := ""
	if o.GetClient() != "" {
		asked = "asked by " + o.GetClient()
	}
	return join(o.GetId(), rental, asked)
}
