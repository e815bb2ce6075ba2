// Package seed is the door of senders written for the tutorial that renthook replaces: /webhook/…, /slack/command
// and /health, with their members, texts and status codes as they were. docs/contract holds them to the letter.
//
// It guarantees the order of checks (rate limit, signature, JSON, members) and that every answer is JSON. It refuses
// what is ambiguous, and never rents for a callback that could not be sent. Every other path answers 404 here.
package seed

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/renthook/renthook/pkg/fault"
	"github.com/renthook/renthook/pkg/throttle"
	"github.com/renthook/renthook/services/ingress/internal/answer"
	"github.com/renthook/renthook/services/ingress/internal/caller"
	"github.com/renthook/renthook/services/ingress/internal/limit"
	"github.com/renthook/renthook/services/ingress/internal/window"
	"github.com/renthook/renthook/services/internal/admit"
	"github.com/renthook/renthook/services/internal/ask"
	"github.com/renthook/renthook/services/internal/marketview"
	"github.com/renthook/renthook/services/internal/topology"
)

// Values of Config.Legacy.
const (
	LegacyAllow = "allow"
	LegacyWarn  = "warn"
	LegacyDeny  = "deny"
)

// sentTolerance is how far a sent_at may be from now.
const sentTolerance = 5 * time.Minute

// legacySince is when the scheme without a timestamp was declared old, for the Deprecation header.
const legacySince = "@1796083200" // 2026-12-01

// Config is how the door behaves.
type Config struct {
	// Legacy says what becomes of requests signed the seed's way: LegacyAllow (also ""), LegacyWarn, LegacyDeny.
	Legacy string
	// TrustedProxies are believed about whom they forward.
	TrustedProxies []netip.Prefix
}

// Deps are what the door works with.
type Deps struct {
	Callers *caller.Book
	Limits  *limit.Limiter
	Admit   *admit.Admitter
	Windows *window.Windows
	// Seal keeps env and command from being read on the bus.
	Seal ask.Sealer
	// Callback judges a callback_url; its error may be shown.
	Callback func(ctx context.Context, url string) error
	Market   Market
	Log      *slog.Logger
}

// Market is a *marketview.View.
type Market interface {
	Models() []marketview.Model
	Snapshot() (poll uint64, began time.Time, interval time.Duration)
}

// Door serves. It is safe for concurrent use.
type Door struct {
	cfg    Config
	deps   Deps
	routes map[string]route
}

type route struct {
	method string
	serve  http.HandlerFunc
}

// New makes the door.
func New(cfg Config, deps Deps) *Door {
	d := &Door{cfg: cfg, deps: deps}
	d.routes = map[string]route{
		"/webhook/create-order": {http.MethodPost, d.signed(false, d.create)},
		"/webhook/cancel-order": {http.MethodPost, d.signed(false, d.cancel)},
		"/webhook/price-alert":  {http.MethodPost, d.signed(false, d.alert)},
		"/webhook/status":       {http.MethodPost, d.signed(true, d.status)},
		"/webhook/marketplace":  {http.MethodGet, d.marketplace},
		"/slack/command":        {http.MethodPost, d.slack},
		"/health":               {http.MethodGet, d.health},
	}
	return d
}

// Route is the path itself when it is served, else empty.
func (d *Door) Route(path string) string {
	if _, ok := d.routes[path]; ok {
		return path
	}
	return ""
}

// ServeHTTP answers one request.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rt, ok := d.routes[r.URL.Path]
	switch {
	case !ok:
		say(w, http.StatusNotFound, "not found")
	case r.Method != rt.method && (r.Method != http.MethodHead || rt.method != http.MethodGet):
		allow := rt.method
		if allow == http.MethodGet {
			allow += ", " + http.MethodHead
		}
		w.Header().Set("Allow", allow)
		say(w, http.StatusMethodNotAllowed, "method not allowed")
	default:
		rt.serve(w, r)
	}
}

// request is a signed request, its body read.
type request struct {
	*http.Request
	raw    []byte
	body   *ask.Seed
	caller caller.Caller
	key    string
}

// signed does what stands before the members of a body are looked at.
func (d *Door) signed(emptyAllowed bool, next func(http.ResponseWriter, *request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, hr *http.Request) {
		ctx, cancel := context.WithTimeout(hr.Context(), answer.Patience)
		defer cancel()
		r := &request{Request: hr.WithContext(ctx)}
		err := d.open(w, r, emptyAllowed)
		if err == nil {
			err = next(w, r)
		}
		if err != nil {
			d.refuse(w, r, err)
		}
	}
}

func (d *Door) open(w http.ResponseWriter, r *request, emptyAllowed bool) error {
	ctx := r.Context()
	if err := d.within(d.deps.Limits.Address(ctx, limit.Addr(r.Request, d.cfg.TrustedProxies))); err != nil {
		return err
	}
	var err error
	if r.raw, err = answer.Body(w, r.Request); err != nil {
		return err
	}
	now := time.Now()
	if r.caller, err = d.deps.Callers.Seed(r.Header, r.raw, now); err != nil {
		return err
	}
	if r.caller.Legacy {
		switch d.cfg.Legacy {
		case LegacyDeny:
			return caller.ErrInvalid
		case LegacyWarn:
			w.Header().Set("Deprecation", legacySince)
			d.deps.Log.WarnContext(ctx, "signed without a timestamp: this sender should move to Standard Webhooks",
				"client", r.caller.Client, "route", r.URL.Path)
		}
	}
	if err := d.within(d.deps.Limits.Client(ctx, r.caller.Client)); err != nil {
		return err
	}
	if r.body, err = ask.ParseSeed(r.raw, emptyAllowed); err != nil {
		return err
	}
	if at, given, err := r.body.SentAt(); given && (err != nil || now.Sub(at).Abs() > sentTolerance) {
		return caller.ErrSkew
	}
	requestID, err := r.body.RequestID()
	if err != nil {
		return err
	}
	r.key, err = caller.Key(r.Header, r.caller, requestID)
	return err
}

// callback judges a callback_url before anything is admitted.
func (d *Door) callback(ctx context.Context, url string) error {
	if url == "" {
		return nil
	}
	if err := d.deps.Callback(ctx, url); err != nil {
		return fault.New(fault.Invalid, ask.ReasonArgument, "callback_url refused: %s", err)
	}
	return nil
}

// admit stores n commands for one request and answers.
func (d *Door) admit(w http.ResponseWriter, r *request, verb, message string, n int, cmd proto.Message) error {
	ctx := r.Context()
	name := topology.Command{Client: r.caller.Client, Noun: "order", Verb: verb}
	var token string
	if r.key != "" {
		token = admit.Key(r.caller.Client, r.key)
	} else {
		var err error
		if token, err = d.deps.Windows.Token(ctx, name, r.caller.Secret, r.URL.Path, string(r.raw)); err != nil {
			return err
		}
	}
	hash := admit.Hash(r.raw)
	ids := make([]string, n)
	replayed := true
	for i := range n {
		name.Key = admit.Nth(token, i)
		receipt, err := d.deps.Admit.Admit(ctx, admit.Ask{Command: name, Body: cmd, Hash: hash})
		if err != nil {
			return err
		}
		ids[i] = receipt.Operation
		replayed = replayed && receipt.Replayed
	}
	out := map[string]any{"status": "queued", "task_id": ids[0]}
	if message != "" {
		out["message"] = message
	}
	if n > 1 {
		out["task_ids"] = ids
	}
	if replayed {
		w.Header().Set("Idempotent-Replayed", "true")
		out["duplicate"] = true
	}
	d.deps.Log.InfoContext(ctx, "ask admitted", "client", r.caller.Client, "operation", ids[0], "rentals", n,
		"route", r.URL.Path, "replayed", replayed)
	answer.JSON(w, http.StatusOK, contentType, out)
	return nil
}

func (d *Door) create(w http.ResponseWriter, r *request) error {
	c, err := r.body.Create()
	if err != nil {
		return err
	}
	spec := c.Command.Spec
	if err := d.callback(r.Context(), spec.CallbackUrl); err != nil {
		return err
	}
	if err := ask.Seal(d.deps.Seal, spec); err != nil {
		return err
	}
	return d.admit(w, r, "create", "Order creation queued for "+spec.Gpu, c.Rentals, c.Command)
}

func (d *Door) cancel(w http.ResponseWriter, r *request) error {
	c, err := r.body.Cancel()
	if err != nil {
		return err
	}
	if err := d.callback(r.Context(), c.CallbackUrl); err != nil {
		return err
	}
	return d.admit(w, r, "cancel", "Cancellation queued for order "+ask.Echo(c.Origin.OrderAsSent), 1, c)
}

func (d *Door) status(w http.ResponseWriter, r *request) error {
	c, err := r.body.Report()
	if err != nil {
		return err
	}
	if err := d.callback(r.Context(), c.CallbackUrl); err != nil {
		return err
	}
	return d.admit(w, r, "report", "", 1, c)
}

func (d *Door) alert(w http.ResponseWriter, r *request) error {
	url, err := r.body.Alert()
	if err != nil {
		return err
	}
	if err := d.callback(r.Context(), url); err != nil {
		return err
	}
	say(w, http.StatusNotImplemented, "price alerts are not available in this version: ask again with /webhook/create-order when the price is right")
	return nil
}

func (d *Door) slack(w http.ResponseWriter, _ *http.Request) {
	say(w, http.StatusNotImplemented, "Slack commands are not available in this version: use /webhook/create-order")
}

func (d *Door) health(w http.ResponseWriter, _ *http.Request) {
	answer.JSON(w, http.StatusOK, contentType, map[string]string{"status": "ok"})
}

const contentType = "application/json"

func say(w http.ResponseWriter, status int, text string) {
	answer.JSON(w, status, contentType, map[string]string{"error": text})
}

// errLimit is what the seed said; the fault of one request says when to try again.
var errLimit = fault.New(fault.Exhausted, "RATE_LIMITED", "Rate limit exceeded")

func (d *Door) within(v throttle.Decision) error {
	if v.Allowed {
		return nil
	}
	return errLimit.After(v.RetryAfter)
}

// refuse answers an error in the words of this door.
func (d *Door) refuse(w http.ResponseWriter, r *request, err error) {
	f := fault.Public(err)
	body := map[string]string{"error": f.Message}
	status := f.HTTPStatus()
	log := d.deps.Log.DebugContext
	switch f.Kind {
	case fault.Invalid:
		status = http.StatusBadRequest
		if f.Reason == ask.ReasonJSON {
			body = map[string]string{"error": "body must be a JSON object", "detail": f.Message}
		}
	case fault.Unavailable:
		body["error"] = admit.ErrUnavailable.Message
		f = f.After(max(f.RetryAfter, admit.ErrUnavailable.RetryAfter))
		log = d.deps.Log.WarnContext
	case fault.Internal:
		log = d.deps.Log.ErrorContext
	case fault.Unauthenticated:
		w.Header().Set("WWW-Authenticate", `Signature realm="webhook"`)
	}
	if f.RetryAfter > 0 {
		answer.RetryAfter(w, f.RetryAfter)
	}
	log(r.Context(), "ask refused", "client", r.caller.Client, "route", r.URL.Path, "status", status,
		"reason", f.Reason, "error", strings.ToValidUTF8(err.Error(), "�"))
	answer.JSON(w, status, contentType, body)
}
