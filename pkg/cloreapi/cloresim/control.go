package cloresim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// strict reads JSON and refuses unknown members: a misspelt step would pass a test for the wrong reason.
func strict(raw []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("read the request: something follows the JSON value")
	}
	return nil
}

// control routes the control API.
func (s *Sim) control(mux *http.ServeMux) {
	mux.HandleFunc("GET /readyz", s.serveReady)
	mux.HandleFunc("GET /sim/v1/state", s.serveState)
	handle(mux, "POST /sim/v1/script", http.StatusOK, func(_ int64, raw []byte) (any, error) {
		var queues map[string][]Step
		if err := strict(raw, &queues); err != nil {
			return nil, err
		}
		return map[string]bool{"ok": true}, s.Script(queues)
	})
	handle(mux, "POST /sim/v1/servers", http.StatusCreated, func(_ int64, raw []byte) (any, error) {
		var n NewServer
		if members, err := readObject(raw); err == nil && find(members, "price") != nil && find(members, "specs") != nil {
			n.Row = raw
		} else if err := strict(raw, &n); err != nil {
			return nil, err
		}
		id, err := s.AddServer(n)
		return map[string]int64{"id": id}, err
	})
	handle(mux, "PATCH /sim/v1/servers/{id}", http.StatusOK, func(id int64, raw []byte) (any, error) {
		var p ServerPatch
		if err := strict(raw, &p); err != nil {
			return nil, err
		}
		return s.PatchServer(id, p)
	})
	handle(mux, "DELETE /sim/v1/servers/{id}", http.StatusOK, func(id int64, _ []byte) (any, error) {
		return map[string]int64{"id": id}, s.RemoveServer(id)
	})
	handle(mux, "POST /sim/v1/rentals", http.StatusCreated, func(_ int64, raw []byte) (any, error) {
		var h HandRental
		if err := strict(raw, &h); err != nil {
			return nil, err
		}
		id, err := s.Rent(h)
		return map[string]int64{"id": id}, err
	})
	handle(mux, "POST /sim/v1/rentals/{id}/end", http.StatusOK, func(id int64, raw []byte) (any, error) {
		var end struct{ Reason string }
		if err := strict(raw, &end); err != nil {
			return nil, err
		}
		return map[string]int64{"id": id}, s.EndRental(id, end.Reason)
	})
	handle(mux, "POST /sim/v1/reset", http.StatusOK, func(_ int64, raw []byte) (any, error) {
		if len(bytes.TrimSpace(raw)) == 0 {
			raw = []byte("{}")
		}
		return map[string]bool{"ok": true}, s.Reset(raw)
	})
}

// serveReady says whether calls are answered.
func (s *Sim) serveReady(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	broken := s.broken
	s.mu.Unlock()
	if broken != nil {
		write(w, http.StatusServiceUnavailable, map[string]string{"error": broken.Error()})
		return
	}
	write(w, http.StatusOK, map[string]bool{"ok": true})
}

func (s *Sim) serveState(w http.ResponseWriter, r *http.Request) {
	after := int64(0)
	if v := r.URL.Query().Get("calls_after"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			write(w, http.StatusBadRequest, map[string]string{"error": "calls_after is a number"})
			return
		}
		after = n
	}
	write(w, http.StatusOK, s.State(after, r.URL.Query().Get("key")))
}

// handle routes a control call: do gets the id of the path, zero where there is none, and the body.
func handle(mux *http.ServeMux, pattern string, status int, do func(id int64, raw []byte) (any, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		var id int64
		raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostBody))
		if v := r.PathValue("id"); v != "" && err == nil {
			id, err = strconv.ParseInt(v, 10, 64)
		}
		var answer any
		if err == nil {
			answer, err = do(id, raw)
		}
		switch {
		case err == nil:
			write(w, status, answer)
		case errors.Is(err, ErrNotFound):
			write(w, http.StatusNotFound, map[string]string{"error": err.Error()})
		case errors.Is(err, ErrConflict):
			write(w, http.StatusConflict, map[string]string{"error": err.Error()})
		default:
			write(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		}
	})
}

func write(w http.ResponseWriter, status int, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(raw)
}
