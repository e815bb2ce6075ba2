package cloresim

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Step is one scripted answer of one endpoint. Absent members are honest.
type Step struct {
	// Apply false does nothing and answers as if it had.
	Apply *bool `json:"apply,omitempty"`
	// Status and Code replace the honest answer: 200 and 0 where only the other is given. A Status from 400 up
	// alone is answered with a page of the proxy, as the real market's are.
	Status *int `json:"status,omitempty"`
	Code   *int `json:"code,omitempty"`
	// Error replaces the answer too; alone it is code 6.
	Error string `json:"error,omitempty"`
	// Body is sent verbatim.
	Body *string `json:"body,omitempty"`
	// DelayMS is how long the answer waits after the call took effect.
	DelayMS int64 `json:"delay_ms,omitempty"`
	// Drop closes the connection unanswered: "before" the call took effect, or "after".
	Drop string `json:"drop,omitempty"`
	// ApplyAfterMS lets the call take effect that long after it came; it is answered as if it had.
	ApplyAfterMS *int64 `json:"apply_after_ms,omitempty"`
	// VisibleAfterMS is how long my_orders does not show the rental made by this call.
	VisibleAfterMS *int64 `json:"visible_after_ms,omitempty"`
	// Empty answers a list with nothing in it, StaleMS one of that long ago, Truncate one cut to that many rows.
	Empty    bool  `json:"empty,omitempty"`
	StaleMS  int64 `json:"stale_ms,omitempty"`
	Truncate *int  `json:"truncate,omitempty"`
	// PriceFactor multiplies the prices that marketplace lists, or the price of the rental that create_order makes.
	PriceFactor json.Number `json:"price_factor,omitempty"`
	// Repeat is how many calls the step serves; 1 when absent.
	Repeat int `json:"repeat,omitempty"`
}

// endpoints are the calls that can be scripted, and whether they change something.
var endpoints = map[string]bool{
	"wallets": false, "marketplace": false, "my_orders": false, "spot_marketplace": false,
	"create_order": true, "cancel_order": true, "set_spot_price": true,
}

func (s *Step) check() error {
	switch {
	case s.Drop != "" && s.Drop != "before" && s.Drop != "after":
		return fmt.Errorf(`drop is "before" or "after", not %q`, s.Drop)
	case s.Status != nil && (*s.Status < 200 || *s.Status > 599):
		return fmt.Errorf("status is 200 to 599, not %d", *s.Status)
	case s.DelayMS < 0 || s.StaleMS < 0 || s.Repeat < 0 ||
		s.ApplyAfterMS != nil && *s.ApplyAfterMS < 0 ||
		s.VisibleAfterMS != nil && *s.VisibleAfterMS < 0 || s.Truncate != nil && *s.Truncate < 0:
		return fmt.Errorf("times, truncate and repeat are 0 or more")
	}
	if _, ok := readAmount(json.RawMessage(s.PriceFactor)); !ok && s.PriceFactor != "" {
		return fmt.Errorf("price_factor %q is not a factor", s.PriceFactor)
	}
	return nil
}

// script replaces the queues it names.
func (w *world) script(queues map[string][]Step) error {
	for name, steps := range queues {
		if _, ok := endpoints[name]; !ok {
			return fmt.Errorf("%q cannot be scripted: the endpoints are %s", name,
				strings.Join(slices.Sorted(maps.Keys(endpoints)), ", "))
		}
		for i := range steps {
			if err := steps[i].check(); err != nil {
				return fmt.Errorf("step %d of %s: %w", i+1, name, err)
			}
		}
	}
	for name, steps := range queues {
		w.scripts[name] = slices.Clone(steps)
		w.changed.script(name)
	}
	return nil
}

// nextStep takes what is scripted for a call, nil for honest.
func (w *world) nextStep(endpoint string) *Step {
	queue := w.scripts[endpoint]
	if len(queue) == 0 {
		return nil
	}
	step := queue[0]
	if queue[0].Repeat > 1 {
		queue[0].Repeat--
	} else {
		queue = queue[1:]
	}
	w.scripts[endpoint] = queue
	w.changed.script(endpoint)
	return &step
}

// when says when a call takes effect: now, later or, with never, not at all.
func (s *Step) when(now time.Time) (at time.Time, never bool) {
	switch {
	case s == nil:
		return now, false
	case s.Apply != nil && !*s.Apply:
		return now, true
	case s.ApplyAfterMS != nil:
		return now.Add(millis(*s.ApplyAfterMS)), false
	default:
		return now, s.Drop == "before"
	}
}

// outgoing is an answer ready to be sent.
type outgoing struct {
	status int
	code   int
	err    string
	// body is sent piece by piece.
	body  [][]byte
	html  bool
	delay time.Duration
	drop  bool
}

func pieces(b []byte) [][]byte { return [][]byte{b} }

// answer gives what is sent for an honest reply, whose body is rendered.
func (s *Step) answer(honest outgoing) outgoing {
	if s == nil {
		return honest
	}
	out := honest
	switch {
	case s.Body != nil:
		out = outgoing{status: http.StatusOK, body: pieces([]byte(*s.Body))}
		out.html = !strings.HasPrefix(strings.TrimSpace(*s.Body), "{")
		if s.Status != nil {
			out.status = *s.Status
		}
		if s.Code != nil {
			out.code = *s.Code
		}
	case s.Status != nil && *s.Status >= 400 && s.Code == nil && s.Error == "":
		out = outgoing{status: *s.Status, html: true, body: pieces(proxyPage(*s.Status))}
	case s.Status != nil || s.Code != nil || s.Error != "":
		out = s.replaced(honest)
	}
	out.delay, out.drop = millis(s.DelayMS), s.Drop != ""
	if out.drop {
		out.status, out.code, out.err = 0, 0, ""
	}
	return out
}

// replaced is an answer with the step's status, code and error.
func (s *Step) replaced(honest outgoing) outgoing {
	out := outgoing{status: http.StatusOK, err: s.Error}
	if s.Status != nil {
		out.status = *s.Status
	}
	switch {
	case s.Code != nil:
		out.code = *s.Code
	case s.Error != "":
		out.code = 6
	}
	if out.code == 0 && out.err == "" && honest.code == 0 {
		out.body = honest.body
		return out
	}
	o := openObject()
	if out.err != "" {
		o.raw("error", appendText(nil, out.err))
	}
	out.body = pieces(closeWithCode(o, out.code))
	return out
}

// proxyPage is what stands in front of the market says when it has no answer.
func proxyPage(status int) []byte {
	return fmt.Appendf(nil, "<!DOCTYPE html>\n<html><head><title>api.clore.ai | %d: %s</title></head>"+
		"<body><h1>Error %d</h1><p>cloudflare</p></body></html>\n", status, http.StatusText(status), status)
}

// applyPending lets a late call take effect.
func (w *world) applyPending(p *pending, at time.Time) {
	w.pending = slices.DeleteFunc(w.pending, func(q *pending) bool { return q == p })
	w.changed.pending = true
	_, applied := w.perform(p.Endpoint, at, p.Key, p.Body, &p.Step)
	if i, ok := w.findCall(p.Call); ok && applied {
		w.calls[i].Applied = true
		w.changed.call(w.calls[i])
	}
}

// perform carries out a call that changes something.
func (w *world) perform(endpoint string, at time.Time, key string, body []byte, step *Step) (reply, bool) {
	switch endpoint {
	case "create_order":
		return w.create(at, key, body, step)
	case "cancel_order":
		return w.cancel(at, key, body)
	default:
		return w.setSpotPrice(at, key, body)
	}
}
