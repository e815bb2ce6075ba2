package cloreapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/pkg/secret"
)

// Config says where the market is and who asks.
type Config struct {
	// BaseURL is the host of the API, with or without /v1: "https://api.clore.ai". It has no default, so that
	// nothing reaches the real market by omission.
	BaseURL string
	// Key is the account's API key. Public needs none and sends none.
	Key secret.String
	// UserAgent is sent with every call; "renthook" when empty. The proxy in front of the market refuses some
	// libraries' own ones.
	UserAgent string
	// Timeout bounds one call whole, the body's reading included; 30 s when zero. A context may bound it further.
	Timeout time.Duration
	// MaxBody bounds an answer after decompression, in bytes; 16 MiB when zero.
	MaxBody int64
}

// Public reads the marketplace without a key.
type Public struct{ *caller }

// Reader reads the marketplace and an account, and can change nothing.
type Reader struct{ Public }

// Ender reads an account and ends its orders. It cannot make one.
type Ender struct{ Reader }

// Client reads an account and spends its money.
type Client struct{ Ender }

// NewPublic makes a client without a key. Whatever key is configured is not used.
func NewPublic(c Config) *Public {
	c.Key = secret.String{}
	return &Public{newCaller(c)}
}

// NewReader makes a client that reads.
func NewReader(c Config) *Reader { return &Reader{Public{newCaller(c)}} }

// NewEnder makes a client that reads and ends.
func NewEnder(c Config) *Ender { return &Ender{Reader{Public{newCaller(c)}}} }

// New makes a client that reads and writes.
func New(c Config) *Client { return &Client{Ender{Reader{Public{newCaller(c)}}}} }

// Close closes idle connections.
func (c *caller) Close() {
	c.http.CloseIdleConnections()
}

// Wallets lists the balances. A *Refusal or a *CallError says why there is no answer.
func (r *Reader) Wallets(ctx context.Context) ([]Wallet, error) {
	var body struct {
		Wallets []Wallet `json:"wallets"`
	}
	if err := r.get(ctx, "wallets", nil, &body); err != nil {
		return nil, err
	}
	if body.Wallets == nil {
		return nil, unreadable("wallets", errors.New("it has no wallets"))
	}
	return body.Wallets, nil
}

// MyOrders lists the account's orders, the ended ones too when withCompleted. A list with a row that cannot be
// read, or without id or server, is no answer at all: it could not prove the absence of an order.
func (r *Reader) MyOrders(ctx context.Context, withCompleted bool) (*Orders, error) {
	var body struct {
		Orders []Order `json:"orders"`
		Limit  Int     `json:"limit"`
	}
	q := url.Values{"return_completed": {strconv.FormatBool(withCompleted)}}
	if err := r.get(ctx, "my_orders", q, &body); err != nil {
		return nil, err
	}
	if body.Orders == nil {
		return nil, unreadable("my_orders", errors.New("it has no orders"))
	}
	for i := range body.Orders {
		if o := &body.Orders[i]; o.ID <= 0 || o.SI <= 0 {
			return nil, unreadable("my_orders", fmt.Errorf("row %d has no order id or no server id", i))
		}
	}
	return &Orders{Orders: body.Orders, Limit: int(body.Limit)}, nil
}

// SpotMarketplace shows the queue of bids for one server, and the market's rates.
func (r *Reader) SpotMarketplace(ctx context.Context, server int64) (*SpotMarket, error) {
	var body struct {
		Market struct {
			Rates  map[string]Number `json:"currency_rates_in_usd"`
			Offers []SpotOffer       `json:"offers"`
			Server struct {
				MinPricing map[string]Number `json:"min_pricing"`
				Online     bool              `json:"online"`
			} `json:"server"`
		} `json:"market"`
		Exists bool `json:"exists"`
	}
	q := url.Values{"market": {strconv.FormatInt(server, 10)}}
	if err := r.get(ctx, "spot_marketplace", q, &body); err != nil {
		return nil, err
	}
	m := body.Market
	return &SpotMarket{
		Rates: m.Rates, Offers: m.Offers, MinPrice: m.Server.MinPricing, Online: m.Server.Online, Exists: body.Exists,
	}, nil
}

// CreateOrder asks for one server: one request, never a second. An Answer means code 0, a *Refusal any other
// code, a *CallError that no readable answer came; none of the three proves alone whether an order exists, save a
// CallError whose Sent is false.
func (c *Client) CreateOrder(ctx context.Context, order CreateOrder) (Answer, error) {
	// fact:no-key-against-repeats
	return c.post(ctx, "create_order", order)
}

// CancelOrder asks to end an order. issue is for reporting a fault to the market's staff, at most 2048 characters,
// empty otherwise. The order may stay listed for seconds after code 0.
func (e *Ender) CancelOrder(ctx context.Context, id int64, issue string) (Answer, error) {
	return e.post(ctx, "cancel_order", struct {
		ID    int64  `json:"id"`
		Issue string `json:"issue,omitempty"`
	}{id, issue})
}

// SetSpotPrice changes the bid of a spot order, per DAY in the order's currency. Lowering is allowed once in 600 s
// and by a limited step; the Refusal says which it was.
func (c *Client) SetSpotPrice(ctx context.Context, id int64, perDay decimal.Decimal) (Answer, error) {
	return c.post(ctx, "set_spot_price", struct {
		ID    int64       `json:"order_id"`
		Price json.Number `json:"desired_price"`
	}{id, json.Number(perDay.Trim(0).String())})
}

func unreadable(endpoint string, err error) error {
	return &CallError{Endpoint: endpoint, Sent: true, Status: http.StatusOK, Err: fmt.Errorf("%w: %w", ErrNotJSON, err)}
}

func newCaller(c Config) *caller {
	// fact:our-user-agent-passes
	if c.UserAgent == "" {
		c.UserAgent = "renthook"
	}
	if c.Timeout <= 0 {
		c.Timeout = 30 * time.Second
	}
	if c.MaxBody <= 0 {
		c.MaxBody = 16 << 20
	}
	c.BaseURL = strings.TrimSuffix(strings.TrimRight(c.BaseURL, "/"), "/v1")
	noRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	transport.MaxResponseHeaderBytes = 64 << 10
	// net/http replays a request by itself when a kept connection dies under it, or an HTTP/2 server goes away: a
	// write would be made twice, and a read would come outside the pace that the market allows.
	// A fresh HTTP/1.1 connection for each call leaves it nothing to replay on.
	transport.DisableKeepAlives = true
	transport.ForceAttemptHTTP2 = false
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	return &caller{config: c, http: &http.Client{Transport: transport, CheckRedirect: noRedirect}}
}
