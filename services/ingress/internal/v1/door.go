// Package v1 is the native door: /v1/…, resources, operations and problems (RFC 9457).
//
// It guarantees that an ask is answered 202 only once its command is on disk, that the same Idempotency-Key gives the
// same operation, and that what is read is the caller's own. Asks need no other service: with the order service away
// they are still taken, and operations are still read, as queued. It refuses callers without a scope, members it does
// not know, and to show anything of an error but the fault it stands for.
package v1

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/renthook/renthook/pkg/fault"
	"github.com/renthook/renthook/pkg/throttle"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/ingress/internal/answer"
	"github.com/renthook/renthook/services/ingress/internal/caller"
	"github.com/renthook/renthook/services/ingress/internal/limit"
	"github.com/renthook/renthook/services/internal/admit"
	"github.com/renthook/renthook/services/internal/ask"
)

// Prefix of every route.
const Prefix = "/v1/"

// Config is how the door behaves.
type Config struct {
	// TrustedProxies are believed about whom they forward.
	TrustedProxies []netip.Prefix
	// KeyedAccess says that every rental has an SSH key put on it, so that no password was set.
	KeyedAccess bool
}

// Deps are what the door works with.
type Deps struct {
	Callers *caller.Book
	Limits  *limit.Limiter
	Admit   *admit.Admitter
	// Seal keeps env and command from being read on the bus, and derives passwords.
	Seal Sealer
	// Callback judges a callback_url; its error may be shown.
	Callback func(ctx context.Context, url string) error
	// Orders is asked in the name of the caller.
	Orders Orders
	// Draining is closed when the server shuts down: nobody waits then.
	Draining <-chan struct{}
	Log      *slog.Logger
}

// Sealer is a *seal.Box.
type Sealer interface {
	ask.Sealer
	Password(purpose string, parts ...string) string
}

// Orders reads what the order service knows, in the name of a client.
type Orders interface {
	Get(ctx context.Context, client, id string) (*orderv1.Order, error)
	List(ctx context.Context, client string, req *orderv1.ListOrdersRequest) (*orderv1.ListOrdersResponse, error)
	Operation(ctx context.Context, client, id string) (*orderv1.Operation, error)
	Explain(ctx context.Context, client, id string) (*orderv1.ExplainOrderResponse, error)
}

// Door serves. It is safe for concurrent use.
type Door struct {
	cfg    Config
	deps   Deps
	routes []route
}

// route is one operation of the API.
type route struct {
	method, pattern, scope string
	serve                  func(http.ResponseWriter, *request) error
}

// byItself is the scope of what a rental may do with the token it was given.
const byItself = "release"

// New makes the door.
func New(cfg Config, deps Deps) *Door {
	d := &Door{cfg: cfg, deps: deps}
	d.routes = []route{
		{http.MethodPost, "/v1/orders", caller.CreateOrders, d.createOrder},
		{http.MethodGet, "/v1/orders", caller.Read, d.listOrders},
		{http.MethodGet, "/v1/orders/{id}", caller.Read, d.getOrder},
		{http.MethodPost, "/v1/orders/{id}/cancel", caller.CancelOrders, d.cancelOrder},
		{http.MethodPost, "/v1/orders/{id}/release", byItself, d.releaseOrder},
		{http.MethodGet, "/v1/orders/{id}/explain", caller.Read, d.explainOrder},
		{http.MethodPost, "/v1/orders/{id}/extend", caller.CreateOrders, d.extendOrder},
		{http.MethodPost, "/v1/halt", caller.Control, d.control("halt")},
		{http.MethodPost, "/v1/resume", caller.Control, d.control("resume")},
		{http.MethodPost, "/v1/disown", caller.Control, d.control("disown")},
		{http.MethodGet, "/v1/operations/{id}", caller.Read, d.getOperation},
	}
	return d
}

// Route is the pattern that serves a path, empty when none does.
func (d *Door) Route(path string) string {
	for _, rt := range d.routes {
		if _, ok := match(rt.pattern, path); ok {
			return rt.pattern
		}
	}
	return ""
}

// request is a request whose body is read and whose caller is known.
type request struct {
	*http.Request
	id     string
	raw    []byte
	caller caller.Caller
}

// mostID bounds an id in a path: ours have less than 100 bytes.
const mostID = 256

// match gives the id in a path.
func match(pattern, path string) (id string, ok bool) {
	before, after, wild := strings.Cut(pattern, "{id}")
	if !wild {
		return "", path == pattern
	}
	rest, ok := strings.CutPrefix(path, before)
	if !ok {
		return "", false
	}
	id, ok = strings.CutSuffix(rest, after)
	return id, ok && id != "" && len(id) <= mostID && !strings.Contains(id, "/")
}

// ServeHTTP answers one request.
func (d *Door) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	r := &request{Request: hr}
	rt, err := d.route(w, r)
	if err == nil {
		err = d.open(w, r, rt.scope)
	}
	if err == nil {
		err = rt.serve(w, r)
	}
	if err != nil {
		d.refuse(w, r, err)
	}
}

func (d *Door) route(w http.ResponseWriter, r *request) (*route, error) {
	var allow []string
	for i := range d.routes {
		rt := &d.routes[i]
		id, ok := match(rt.pattern, r.URL.Path)
		if !ok {
			continue
		}
		if r.Method == rt.method || r.Method == http.MethodHead && rt.method == http.MethodGet {
			r.id = id
			return rt, nil
		}
		if allow = append(allow, rt.method); rt.method == http.MethodGet {
			allow = append(allow, http.MethodHead)
		}
	}
	if len(allow) == 0 {
		return nil, errNoRoute
	}
	slices.Sort(allow)
	w.Header().Set("Allow", strings.Join(allow, ", "))
	return nil, errMethod
}

func (d *Door) open(w http.ResponseWriter, r *request, scope string) error {
	ctx := r.Context()
	if err := within(w, d.deps.Limits.Address(ctx, limit.Addr(r.Request, d.cfg.TrustedProxies))); err != nil {
		return err
	}
	var err error
	if r.raw, err = answer.Body(w, r.Request); err != nil {
		return err
	}
	if scope == byItself {
		return d.openRelease(w, r)
	}
	if r.caller, err = d.deps.Callers.V1(r.Header, r.raw, time.Now()); err != nil {
		return err
	}
	if err := within(w, d.deps.Limits.Client(ctx, r.caller.Client)); err != nil {
		return err
	}
	if !r.caller.May(scope) {
		return fault.New(fault.Forbidden, "SCOPE_DENIED", "this client lacks the scope %q", scope)
	}
	return nil
}

// within tells where the limit stands, the client's last, and refuses when it is passed.
func within(w http.ResponseWriter, v throttle.Decision) error {
	if v.Limit > 0 {
		setLimit(w, v)
	}
	if v.Allowed {
		return nil
	}
	return fault.New(fault.Exhausted, reasonLimit, "more than %d requests a minute", v.Limit).After(v.RetryAfter)
}
