package cloreapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
)

// caller sends requests and reads answers.
type caller struct {
	config Config
	http   *http.Client
}

// get reads an endpoint into body, whose members stand beside code.
func (c *caller) get(ctx context.Context, endpoint string, query url.Values, body any) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	res, err := c.send(ctx, http.MethodGet, endpoint, query, nil)
	if err != nil {
		return err
	}
	defer res.close()
	raw, err := io.ReadAll(res.body)
	if err != nil {
		return res.fail(err)
	}
	if err := res.judge(raw); err != nil {
		return err
	}
	if res.status != http.StatusOK {
		return res.fail(errors.New("code 0 with an error status"))
	}
	if err := json.Unmarshal(raw, body); err != nil {
		return res.fail(fmt.Errorf("%w: %w", ErrNotJSON, err))
	}
	return nil
}

// post sends one request that changes something, and never a second.
func (c *caller) post(ctx context.Context, endpoint string, body any) (Answer, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return Answer{}, &CallError{Endpoint: endpoint, Err: fmt.Errorf("write the request: %w", err)}
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	res, err := c.send(ctx, http.MethodPost, endpoint, nil, raw)
	if err != nil {
		return Answer{}, err
	}
	defer res.close()
	answer, err := io.ReadAll(res.body)
	if err != nil {
		return Answer{}, res.fail(err)
	}
	if err := res.judge(answer); err != nil {
		return Answer{}, err
	}
	return Answer{Status: res.status}, nil
}

// response is an answer whose body has not been read.
type response struct {
	endpoint string
	status   int
	body     io.Reader
	close    func()
}

func (r *response) fail(err error) error {
	return &CallError{Endpoint: r.endpoint, Sent: true, Status: r.status, Err: err}
}

// judge reads the code, whatever the HTTP status.
func (r *response) judge(raw []byte) error {
	var v verdict
	if err := json.Unmarshal(raw, &v); err != nil {
		return r.fail(fmt.Errorf("%w: %w", ErrNotJSON, err))
	}
	return v.judge(r)
}

// verdict is what every answer holds beside its own members.
type verdict struct {
	Code              *Int            `json:"code"`
	Error             json.RawMessage `json:"error"`
	MinPrice          Number          `json:"min_price"`
	MaxStep           Number          `json:"max_step"`
	SecondsToLowering Number          `json:"time_to_lowering"`
}

func (v *verdict) judge(r *response) error {
	if v.Code == nil {
		return r.fail(fmt.Errorf("%w: it has no code", ErrNotJSON))
	}
	if *v.Code == CodeOK {
		return nil
	}
	refusal := &Refusal{
		Endpoint: r.endpoint, Code: int(*v.Code), Status: r.status,
		MinPrice: v.MinPrice, MaxStep: v.MaxStep, SecondsToLowering: v.SecondsToLowering,
	}
	// An error member that is no string says nothing that a caller could branch on, and must not hide the code.
	_ = json.Unmarshal(v.Error, &refusal.Name)
	return refusal
}

// send makes one request. The response's close must be called.
func (c *caller) send(
	ctx context.Context, method, endpoint string, query url.Values, body []byte,
) (*response, error) {
	target := c.config.BaseURL + "/v1/" + endpoint
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	// A connection in hand is the last moment at which no byte has left. It is written by the transport's own
	// goroutines, which may outlive the call.
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }})
	req, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return nil, &CallError{Endpoint: endpoint, Err: fmt.Errorf("make the request: %w", err)}
	}
	if body != nil {
		// Set by hand: http.NewRequest would set GetBody too, with which net/http may send the body again.
		req.Body = io.NopCloser(bytes.NewReader(body))
		req.ContentLength = int64(len(body))
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", c.config.UserAgent)
	if !c.config.Key.Empty() {
		req.Header.Set("auth", c.config.Key.Reveal())
	}
	res, err := c.http.Do(req) //nolint:bodyclose // closed by the response's close
	if err != nil {
		return nil, &CallError{Endpoint: endpoint, Sent: sent.Load(), Err: withoutURL(err)}
	}
	return &response{
		endpoint: endpoint, status: res.StatusCode,
		body:  &bounded{from: res.Body, left: c.config.MaxBody},
		close: func() { _ = res.Body.Close() },
	}, nil
}

// withoutURL unwraps what net/http puts around an error: method and URL are known, and a URL may hold userinfo.
func withoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// bounded errs where a limit is passed, instead of pretending that the body ended there.
type bounded struct {
	from io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.from.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		return n, ErrTooLarge
	}
	return n, err
}
