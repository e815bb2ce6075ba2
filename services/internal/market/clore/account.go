package clore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/renthook/renthook/pkg/cloreapi"
	"github.com/renthook/renthook/services/internal/gpu"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/money"
)

// Reader reads an account and can change nothing.
type Reader struct{ client *cloreapi.Reader }

// Ender reads an account and ends its rentals. It cannot rent.
type Ender struct {
	Reader
	client *cloreapi.Ender
}

// Account reads and changes an account.
type Account struct {
	Ender
	spender *cloreapi.Client
}

var (
	_ market.Reader  = (*Reader)(nil)
	_ market.Ender   = (*Ender)(nil)
	_ market.Account = (*Account)(nil)
)

// NewReader sees an account through a client that has no writing method.
func NewReader(client *cloreapi.Reader) *Reader { return &Reader{client} }

// NewEnder sees an account through a client that ends and cannot rent. It paces nothing: its one caller does.
func NewEnder(client *cloreapi.Ender) *Ender { return &Ender{Reader{&client.Reader}, client} }

// NewAccount sees an account through a client that spends. It paces nothing: its one caller does.
func NewAccount(client *cloreapi.Client) *Account {
	return &Account{*NewEnder(&client.Ender), client}
}

// Rentals reads my_orders. A row of unknown shape makes the whole answer an error: it could prove nothing. Errors may
// be a *market.ThrottledError or a *market.KeyError.
func (r *Reader) Rentals(ctx context.Context, withEnded bool) (market.Rentals, error) {
	const endpoint = "my_orders"
	out := market.Rentals{Began: time.Now(), WithEnded: withEnded}
	answer, err := r.client.MyOrders(ctx, withEnded)
	if err != nil {
		return market.Rentals{}, readError(endpoint, err)
	}
	out.Limit = answer.Limit
	out.Rentals = make([]market.Rental, len(answer.Orders))
	seen := make(map[int64]bool, len(answer.Orders))
	for i := range answer.Orders {
		o := &answer.Orders[i]
		if seen[o.ID] {
			return market.Rentals{}, fmt.Errorf("%s: order %d is listed twice", endpoint, o.ID)
		}
		seen[o.ID] = true
		if out.Rentals[i], err = rental(o); err != nil {
			return market.Rentals{}, fmt.Errorf("%s: order %d: %w", endpoint, o.ID, err)
		}
	}
	return out, nil
}

func rental(o *cloreapi.Order) (market.Rental, error) {
	// fact:first-host-of-the-cluster fact:container-2-is-up fact:expired-is-over fact:spend-without-fees
	if o.Currency == "" || o.CT <= 0 {
		return market.Rental{}, errors.New("no currency or no time of creation")
	}
	r := market.Rental{
		ID: o.ID, ServerID: o.SI, Type: market.OnDemand, Currency: o.Currency, Image: o.Image, Created: o.Created(),
		Up: o.MonContainer == 2, Expired: o.Expired, HTTPHost: o.HTTPPub, GPUs: gpus(o),
		Limit: time.Duration(min(max(o.MRL, 0), mostHours*3600)) * time.Second,
	}
	if o.Spot {
		r.Type = market.Spot
	}
	if o.OrderEnd > 0 {
		r.Ended = time.Unix(int64(o.OrderEnd), 0).UTC()
	}
	if len(o.PubCluster) > 0 {
		r.Host = o.PubCluster[0]
	}
	var err error
	if r.PerDay, err = money.Parse(string(o.Price)); err != nil {
		return market.Rental{}, fmt.Errorf("price: %w", err)
	}
	if o.Spend != "" {
		if r.Spend, err = money.Parse(string(o.Spend)); err != nil {
			return market.Rental{}, fmt.Errorf("spend: %w", err)
		}
	}
	if o.CreationFee != "" {
		if r.CreationFee, err = money.Parse(string(o.CreationFee)); err != nil {
			return market.Rental{}, fmt.Errorf("creation fee: %w", err)
		}
	}
	if r.TCPPorts, err = o.Ports(); err != nil {
		return market.Rental{}, err
	}
	if o.HTTPPort != "" {
		if r.HTTPPort, err = strconv.Atoi(string(o.HTTPPort)); err != nil {
			return market.Rental{}, fmt.Errorf("http_port %.40q is no port", string(o.HTTPPort))
		}
	}
	return r, nil
}

// gpus names each GPU of a rental; gpu_array counts them where the text does not.
func gpus(o *cloreapi.Order) []string {
	m := gpu.Parse(o.Specs.GPU)
	if m.Slug == "" || m.Slug == gpu.Mixed {
		out := make([]string, min(len(o.GPUArray), mostGPUs))
		for i := range out {
			out[i] = gpu.Parse(o.GPUArray[i]).Full
		}
		return out
	}
	return slices.Repeat([]string{m.Full}, min(max(m.Count, len(o.GPUArray)), mostGPUs))
}

// Wallets reads the balances. Errors may be a *market.ThrottledError or a *market.KeyError.
func (r *Reader) Wallets(ctx context.Context) ([]market.Wallet, error) {
	answer, err := r.client.Wallets(ctx)
	if err != nil {
		return nil, readError("wallets", err)
	}
	out := make([]market.Wallet, len(answer))
	for i, w := range answer {
		// A balance may be below zero: the market bills by the second.
		balance, err := w.Balance.Decimal()
		if err != nil {
			return nil, fmt.Errorf("wallets: balance in %s: %w", w.Name, err)
		}
		out[i] = market.Wallet{Currency: w.Name, Balance: balance}
	}
	return out, nil
}

// Create sends create_order once.
func (a *Account) Create(ctx context.Context, r market.CreateRequest) market.Outcome {
	// fact:one-look-decides fact:names-that-refuse
	answer, err := a.spender.CreateOrder(ctx, cloreapi.CreateOrder{
		RentingServer: r.ServerID, Type: string(r.Type), Currency: r.Currency, Image: r.Image, SpotPrice: r.Bid,
		RequiredPrice: r.RequiredPrice, Ports: r.Ports, Env: r.Env, Command: r.Command,
		SSHPassword: r.SSHPassword, SSHKey: r.SSHKey, AutoSSH: r.AutoSSH,
	})
	if err == nil {
		// Code 0 comes without an id, and has come without a rental: only a read shows it.
		return market.Outcome{Verdict: market.Unknown, Reason: "code-0", Sent: true, Status: answer.Status}
	}
	return outcome(err, func(name string) market.Verdict {
		switch name {
		case "server-dont-exist", "server-offline", "not_enough_balance", "too_low_price", "currency-not-allowed",
			"cant_rent_from_yourself", "machine-is-on-gigaspot":
			return market.Refused
		case "server-already-rented", "you_already_have_spot_order":
			return market.Look
		}
		return market.Unknown
	})
}

// Cancel sends cancel_order once.
func (e *Ender) Cancel(ctx context.Context, id int64, issue string) market.Outcome {
	answer, err := e.client.CancelOrder(ctx, id, issue)
	if err == nil {
		return market.Outcome{Verdict: market.Done, Reason: "code-0", Sent: true, Status: answer.Status}
	}
	return outcome(err, func(name string) market.Verdict {
		switch name {
		case "order_dont_exist", "order_not_active":
			return market.Refused
		}
		return market.Unknown
	})
}

// outcome says what an error proves. byName judges the error member of code 6.
func outcome(err error, byName func(string) market.Verdict) market.Outcome {
	// fact:codes-2-3-4-refuse fact:code-1-may-be-applied fact:code-5-may-be-applied fact:proxy-above-500
	var refusal *cloreapi.Refusal
	if errors.As(err, &refusal) {
		o := market.Outcome{Reason: "code-" + strconv.Itoa(refusal.Code), Sent: true, Code: refusal.Code, Status: refusal.Status}
		switch refusal.Code {
		case cloreapi.CodeInvalidInput, cloreapi.CodeInvalidToken, cloreapi.CodeInvalidEndpoint:
			o.Verdict = market.Refused
		case cloreapi.CodeTooManyRequests:
			o.Throttled = true
		case cloreapi.CodeError:
			o.Verdict = byName(refusal.Name)
			if refusal.Name != "" {
				o.Reason = clip(refusal.Name)
			}
		}
		if refusal.Status > http.StatusInternalServerError {
			// 500 is how the market refuses; above it a proxy speaks, whatever its body says.
			o.Verdict = market.Unknown
		}
		if least, err := money.Parse(string(refusal.MinPrice)); err == nil {
			o.MinPrice = least
		}
		return o
	}
	var call *cloreapi.CallError
	if errors.As(err, &call) {
		o := market.Outcome{Sent: call.Sent, Status: call.Status, Throttled: call.Status == http.StatusTooManyRequests}
		switch {
		case !call.Sent:
			o.Verdict, o.Reason = market.Refused, "not-sent"
		case call.Status != 0:
			o.Reason = "http-" + strconv.Itoa(call.Status)
		case errors.Is(err, context.DeadlineExceeded):
			o.Reason = "timeout"
		default:
			o.Reason = "no-answer"
		}
		return o
	}
	return market.Outcome{Reason: "no-answer", Sent: true}
}

// clip bounds a word of the market's: it is recorded and shown.
func clip(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), 80)], "")
}
