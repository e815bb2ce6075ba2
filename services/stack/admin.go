package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// admin serves metrics and health.
type admin struct {
	listener net.Listener
	server   *http.Server
	done     chan struct{}
}

func serveAdmin(address string, h http.Handler) (*admin, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on telemetry.address: %w", err)
	}
	a := &admin{listener: l, server: &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		_ = a.server.Serve(l) // ends with close
	}()
	return a, nil
}

func (a *admin) addr() string { return a.listener.Addr().String() }

func (a *admin) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := a.server.Shutdown(ctx); errors.Is(err, context.DeadlineExceeded) {
		_ = a.server.Close()
	}
	<-a.done
}
