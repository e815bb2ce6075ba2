package cloresim

import (
	"bufio"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// mostBody bounds a request.
const mostBody = 1 << 20

func (s *Sim) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/", s.serve)
	s.control(mux)
	return mux
}

// serve is one call of the market's API.
func (s *Sim) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostBody))
	if err != nil {
		return // the caller went away, or sent what no caller sends: there is nobody to answer
	}
	endpoint, key := strings.TrimPrefix(r.URL.Path, "/v1/"), r.Header.Get("auth")

	s.mu.Lock()
	now := time.Now()
	s.world.advance(now)
	c := s.world.arrive(now, endpoint, key, requestOf(r, body))
	log := s.logger.With("n", c.N, "endpoint", endpoint, "key", key)
	level := slog.LevelInfo
	if r.Method == http.MethodGet {
		level = slog.LevelDebug // reads come every few seconds, for ever
	}
	log.Log(r.Context(), level, "call came in")
	out := s.decide(c, now, r, body)
	applied := c.Applied
	if out.delay > 0 {
		s.commit()
		s.mu.Unlock()
		log.Log(r.Context(), level, "call waits", "applied", applied, "delay_ms", out.delay.Milliseconds())
		s.wait(r, out.delay)
		s.mu.Lock()
	}
	c.EndedAt = time.Now()
	s.world.changed.call(c)
	s.commit()
	broken := s.broken
	s.mu.Unlock()

	log.Log(r.Context(), level, "call answered", "status", out.status, "code", out.code, "error", out.err, "applied", applied, "dropped", out.drop)
	switch {
	case out.drop, broken != nil:
		panic(http.ErrAbortHandler) // closes the connection without an answer
	case out.html:
		w.Header().Set("Content-Type", "text/html; charset=UTF-8")
	default:
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
	}
	size := 0
	for _, piece := range out.body {
		size += len(piece)
	}
	w.Header().Set("Content-Length", strconv.Itoa(size))
	w.WriteHeader(out.status)
	b := bufio.NewWriterSize(w, min(size, 64<<10))
	for _, piece := range out.body {
		_, _ = b.Write(piece)
	}
	_ = b.Flush() // a caller that went away is its own business
}

// wait delays an answer, unless its caller has gone or the market stops.
func (s *Sim) wait(r *http.Request, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	case <-s.done:
	}
}

// requestOf is what the ledger keeps of a request: the body, or the query.
func requestOf(r *http.Request, body []byte) json.RawMessage {
	switch {
	case len(body) > 0 && json.Valid(body):
		return body
	case len(body) > 0:
		return appendText(nil, string(body))
	case r.URL.RawQuery != "":
		o := openObject()
		for name, values := range r.URL.Query() {
			o.raw(name, appendText(nil, values[0]))
		}
		return o.close()
	}
	return nil
}

// decide carries out a call and gives what to send. The lock is held.
func (s *Sim) decide(c *call, now time.Time, r *http.Request, body []byte) outgoing {
	out := s.judge(c, now, r, body)
	c.Status, c.Code, c.Error = out.status, out.code, out.err
	return out
}

func (s *Sim) judge(c *call, now time.Time, r *http.Request, body []byte) outgoing {
	writes, known := endpoints[c.Endpoint]
	method := http.MethodGet
	if writes {
		method = http.MethodPost
	}
	switch {
	case !known || r.Method != method:
		return codeOnly(4).render()
	case c.Key == "" && c.Endpoint != "marketplace":
		return codeOnly(3).render()
	case s.tooEarly(now, c, r):
		return codeOnly(5).render()
	}
	step := s.world.nextStep(c.Endpoint)
	if !writes {
		return step.answer(s.read(c, now, r, step))
	}
	at, never := step.when(now)
	honest := taken
	switch {
	case never:
	case at.After(now):
		s.world.pending = append(s.world.pending, &pending{c.N, c.Endpoint, c.Key, body, at, *step})
		s.world.changed.pending = true
	default:
		honest, c.Applied = s.world.perform(c.Endpoint, now, c.Key, body, step)
	}
	return step.answer(honest.render())
}

// read answers an endpoint that changes nothing.
func (s *Sim) read(c *call, now time.Time, r *http.Request, step *Step) outgoing {
	t := now
	if step != nil {
		t = now.Add(-millis(step.StaleMS))
	}
	switch c.Endpoint {
	case "marketplace":
		return outgoing{status: http.StatusOK, body: s.world.marketplace(t, step)}
	case "wallets":
		return s.world.wallets(s.world.account(c.Key), t, step).render()
	case "my_orders":
		return s.world.myOrders(c.Key, t, r.URL.Query().Get("return_completed") == "true", step).render()
	default:
		id, err := strconv.ParseInt(r.URL.Query().Get("market"), 10, 64)
		if err != nil {
			return codeOnly(2).render()
		}
		return s.world.spotMarket(c.Key, id, t).render()
	}
}

// mostAddresses bounds the memory of who called without a key.
const mostAddresses = 4096

// tooEarly applies the rate limits.
func (s *Sim) tooEarly(now time.Time, c *call, r *http.Request) bool {
	if c.Key != "" {
		return s.world.settings.RateLimit && s.world.early(now, c.Endpoint, s.world.account(c.Key))
	}
	if !s.world.settings.AddressLimit {
		return false
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	if last, ok := s.addresses[host]; ok && now.Sub(last) < callGap {
		return true
	}
	if len(s.addresses) >= mostAddresses {
		clear(s.addresses)
	}
	s.addresses[host] = now
	return false
}
