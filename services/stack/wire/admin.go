package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Admin serves metrics and health.
type Admin struct {
	listener net.Listener
	server   *http.Server
	done     chan struct{}
}

// ServeAdmin listens and serves until Close.
func ServeAdmin(address string, h http.Handler) (*Admin, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on telemetry.address: %w", err)
	}
	a := &Admin{listener: l, server: &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		_ = a.server.Serve(l) // ends with close
	}()
	return a, nil
}

// Addr is host:port.
func (a *Admin) Addr() string { return a.listener.Addr().String() }

// Close lets requests in hand end for a second, then cuts them off.
func (a *Admin) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := a.server.Shutdown(ctx); errors.Is(err, context.DeadlineExceeded) {
		_ = a.server.Close()
	}
	<-a.done
}
