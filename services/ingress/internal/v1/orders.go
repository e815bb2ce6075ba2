package v1

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/renthook/renthook/pkg/fault"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/ingress/internal/answer"
	"github.com/renthook/renthook/services/ingress/internal/caller"
	"github.com/renthook/renthook/services/internal/admit"
	"github.com/renthook/renthook/services/internal/ask"
	"github.com/renthook/renthook/services/internal/auth"
	"github.com/renthook/renthook/services/internal/topology"
)

const contentType = "application/json"

// jsonOf prints a message under the names of the contract.
func jsonOf(m proto.Message) (json.RawMessage, error) {
	return protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
}

func (d *Door) createOrder(w http.ResponseWriter, r *request) error {
	c, err := ask.V1Create(r.raw)
	if err != nil {
		return err
	}
	if err := d.callback(r, c.Command.Spec.CallbackUrl); err != nil {
		return err
	}
	if err := ask.Seal(d.deps.Seal, c.Command.Spec); err != nil {
		return err
	}
	return d.admit(w, r, "order", "create", c.RequestID, admit.Hash(r.raw), c.Rentals, c.Command)
}

func (d *Door) cancelOrder(w http.ResponseWriter, r *request) error {
	c, requestID, err := ask.V1Cancel(r.id, r.raw)
	if err != nil {
		return err
	}
	if err := d.callback(r, c.CallbackUrl); err != nil {
		return err
	}
	return d.admit(w, r, "order", "cancel", requestID, admit.Hash(r.raw, r.id), 1, c)
}

func (d *Door) explainOrder(w http.ResponseWriter, r *request) error {
	told, err := d.deps.Orders.Explain(r.Context(), r.caller.Client, r.id)
	if err != nil {
		return err
	}
	b, err := jsonOf(told)
	if err != nil {
		return err
	}
	answer.JSON(w, http.StatusOK, contentType, b)
	return nil
}

func (d *Door) extendOrder(w http.ResponseWriter, r *request) error {
	c, requestID, err := ask.V1Extend(r.id, r.raw)
	if err != nil {
		return err
	}
	if err := d.callback(r, c.CallbackUrl); err != nil {
		return err
	}
	return d.admit(w, r, "order", "extend", requestID, admit.Hash(r.raw, r.id), 1, c)
}

// openRelease takes the token that was put into the rental's environment.
func (d *Door) openRelease(w http.ResponseWriter, r *request) error {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return fault.New(fault.Unauthenticated, "CREDENTIALS_MISSING", "send the header Authorization: Bearer and the value of RENTHOOK_RELEASE_TOKEN")
	}
	client, ok := auth.Release(d.deps.Seal, strings.TrimSpace(token), r.id)
	if !ok {
		return fault.New(fault.Unauthenticated, "TOKEN_INVALID", "the token is not this order's")
	}
	r.caller.Client = client
	return within(w, d.deps.Limits.Client(r.Context(), client))
}

// releaseOrder ends an order because its own rental is done. Asked again it is the same command.
func (d *Door) releaseOrder(w http.ResponseWriter, r *request) error {
	c := &orderv1.CancelOrder{OrderId: r.id, Reason: "released by the workload", Origin: &orderv1.Origin{Door: ask.DoorV1}}
	return d.admit(w, r, "order", "cancel", "release-"+r.id, admit.Hash([]byte(r.id)), 1, c)
}

// control serves the brakes.
func (d *Door) control(verb string) func(http.ResponseWriter, *request) error {
	return func(w http.ResponseWriter, r *request) error {
		m, requestID, err := ask.V1Control(verb, r.raw)
		if err != nil {
			return err
		}
		return d.admit(w, r, "control", verb, requestID, admit.Hash(r.raw), 1, m)
	}
}

func (d *Door) callback(r *request, url string) error {
	if url == "" {
		return nil
	}
	if err := d.deps.Callback(r.Context(), url); err != nil {
		return fault.New(fault.Invalid, "CALLBACK_REFUSED", "callback_url refused: %s", err)
	}
	return nil
}

// admit stores n commands for one request and answers with the operation of the first.
func (d *Door) admit(w http.ResponseWriter, r *request, noun, verb, requestID, hash string, n int, cmd proto.Message) error {
	key, err := caller.Key(r.Header, r.caller, requestID)
	if err != nil {
		return err
	}
	token := admit.Fresh()
	if key != "" {
		token = admit.Key(r.caller.Client, key)
	}
	ctx, cancel := context.WithTimeout(r.Context(), answer.Patience)
	defer cancel()
	ids := make([]string, n)
	replayed := true
	for i := range n {
		receipt, err := d.deps.Admit.Admit(ctx, admit.Ask{
			Command: topology.Command{Client: r.caller.Client, Noun: noun, Verb: verb, Key: admit.Nth(token, i)},
			Body:    cmd, Hash: hash,
		})
		if err != nil {
			return err
		}
		ids[i] = receipt.Operation
		replayed = replayed && receipt.Replayed
	}
	d.deps.Log.InfoContext(r.Context(), "ask admitted", "client", r.caller.Client, "operation", ids[0], "rentals", n,
		"route", r.URL.Path, "replayed", replayed)
	if replayed {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	w.Header().Set("Location", operationPath(ids[0]))
	answer.RetryAfter(w, pollSoon)
	out := map[string]any{"id": ids[0], "done": false, "stage": "queued"}
	if n > 1 {
		out["operation_ids"] = ids
	}
	answer.JSON(w, http.StatusAccepted, contentType, out)
	return nil
}

func (d *Door) listOrders(w http.ResponseWriter, r *request) error {
	q := r.URL.Query()
	req := &orderv1.ListOrdersRequest{PageToken: q.Get("page_token"), Filter: q.Get("filter")}
	if text := q.Get("page_size"); text != "" {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 0 {
			return fault.New(fault.Invalid, ask.ReasonArgument, "page_size must be a whole number, 0 or more")
		}
		req.PageSize = int32(n)
	}
	list, err := d.deps.Orders.List(r.Context(), r.caller.Client, req)
	if err != nil {
		return err
	}
	orders := make([]json.RawMessage, len(list.GetOrders()))
	for i, o := range list.GetOrders() {
		if orders[i], err = orderJSON(o); err != nil {
			return err
		}
	}
	if next := list.GetNextPageToken(); next != "" {
		q.Set("page_token", next)
		w.Header().Set("Link", "</v1/orders?"+q.Encode()+`>; rel="next"`)
	}
	answer.JSON(w, http.StatusOK, contentType, map[string]any{"orders": orders, "next_page_token": list.GetNextPageToken()})
	return nil
}

func (d *Door) getOrder(w http.ResponseWriter, r *request) error {
	reveal := r.URL.Query().Get("reveal")
	if reveal != "" && reveal != "ssh" {
		return fault.New(fault.Invalid, ask.ReasonArgument, "reveal is %q: want \"ssh\"", reveal)
	}
	o, err := d.deps.Orders.Get(r.Context(), r.caller.Client, r.id)
	if err != nil {
		return err
	}
	b, err := orderJSON(o)
	if err != nil {
		return err
	}
	access := d.ssh(o)
	if reveal == "" || access == nil {
		answer.JSON(w, http.StatusOK, contentType, b)
		return nil
	}
	members := map[string]any{}
	raw := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	for name, v := range raw {
		members[name] = v
	}
	members["ssh"] = access
	answer.JSON(w, http.StatusOK, contentType, members)
	return nil
}

// orderJSON prints an order without what is sealed: it is of no use outside.
func orderJSON(o *orderv1.Order) (json.RawMessage, error) {
	if o.GetSpec().GetSealed() != "" {
		o = proto.CloneOf(o)
		o.Spec.Sealed = ""
	}
	return jsonOf(o)
}

// sshAccess is how the asker logs in. Password is empty when a public key was put on the rental.
type sshAccess struct {
	User     string `json:"user"`
	Host     string `json:"host"`
	Port     int32  `json:"port"`
	Command  string `json:"command"`
	Password string `json:"password,omitempty"`
}

// ssh is nil while there is nothing to log in to.
func (d *Door) ssh(o *orderv1.Order) *sshAccess {
	a := o.GetAccess()
	if a.GetHost() == "" || a.GetSshPort() == 0 {
		return nil
	}
	user := a.GetSshUser()
	if user == "" {
		user = "root"
	}
	out := &sshAccess{
		User: user, Host: a.GetHost(), Port: a.GetSshPort(),
		Command: "ssh " + user + "@" + a.GetHost() + " -p " + strconv.Itoa(int(a.GetSshPort())),
	}
	if n := len(o.GetAttempts()); n > 0 && o.GetSpec().GetSshKey() == "" && !d.cfg.KeyedAccess {
		out.Password = d.deps.Seal.Password("ssh", o.GetId(), strconv.Itoa(int(o.GetAttempts()[n-1].GetNumber())))
	}
	return out
}
