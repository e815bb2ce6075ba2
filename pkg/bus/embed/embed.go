// Package embed runs a NATS server with JetStream inside the process.
//
// It guarantees that the server listens on the address it was given and nowhere else, that its data is under one
// directory, and that it is down when Shutdown returns. With users given, nobody else gets in, and each user may
// publish and subscribe only to its own lists. It refuses to listen on another interface than loopback without
// users. It installs no signal handlers and writes no log files.
package embed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/renthook/renthook/pkg/secret"
)

const (
	// readyTimeout bounds the start, the recovery of the streams included.
	readyTimeout = 60 * time.Second
	// defaultMaxStore is far above any disk on purpose: the server counts the MaxBytes of every stream against
	// it, and would refuse to create them on a small disk long before it is full.
	defaultMaxStore = 1 << 44
	// maxMemory bounds what streams in memory may hold.
	maxMemory = 1 << 30
)

// User may connect with a name and a password.
type User struct {
	Name     string
	Password secret.String
	// Publish and Subscribe list the allowed subjects; nil allows every subject, an empty list none.
	Publish, Subscribe []string
	// AllowResponses lets the user answer requests it received, whatever their reply subject.
	AllowResponses bool
}

// Config of the server.
type Config struct {
	// Dir holds the data.
	Dir string
	// Host is 127.0.0.1 when empty.
	Host string
	// Port 0 takes a free one.
	Port int
	// SyncAlways writes every message to disk before it is acknowledged; otherwise up to two minutes of
	// acknowledged messages are lost with the power.
	SyncAlways bool
	// MaxStore bounds the disk that streams may reserve, in bytes; 16 TiB when 0, that is, unbounded: the
	// streams' own MaxBytes are what guards the disk.
	MaxStore int64
	// Users who may connect; without any, everybody on this host may.
	Users []User
	// Logger hears the server's warnings and errors; they are dropped when nil.
	Logger *slog.Logger
}

// Server is a running server.
type Server struct {
	server *server.Server
	host   string
	once   sync.Once
}

// Start runs a server and returns when it accepts connections and its streams are recovered.
func Start(cfg Config) (*Server, error) {
	if cfg.Host == "" {
		cfg.Host = "127.0.0.1"
	}
	if ip := net.ParseIP(cfg.Host); len(cfg.Users) == 0 && cfg.Host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("start nats-server: refusing to listen on %s without users", cfg.Host)
	}
	if cfg.Dir == "" {
		return nil, errors.New("start nats-server: no data directory")
	}
	opts := &server.Options{
		ServerName: "renthook", Host: cfg.Host, Port: cfg.Port, NoSigs: true,
		JetStream: true, StoreDir: filepath.Clean(cfg.Dir), SyncAlways: cfg.SyncAlways,
		JetStreamMaxStore: cfg.MaxStore, JetStreamMaxMemory: maxMemory,
	}
	if cfg.Port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	if opts.JetStreamMaxStore == 0 {
		opts.JetStreamMaxStore = defaultMaxStore
	}
	for _, u := range cfg.Users {
		if u.Name == "" || u.Password.Empty() {
			return nil, fmt.Errorf("start nats-server: user %q needs a name and a password", u.Name)
		}
		opts.Users = append(opts.Users, user(u))
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("start nats-server: %w", err)
	}
	log := &serverLog{to: cfg.Logger, fatal: make(chan string, 1)}
	s.SetLogger(log, false, false)
	go s.Start()
	if err := wait(s, log); err != nil {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, fmt.Errorf("start nats-server on %s: %w", net.JoinHostPort(cfg.Host, strconv.Itoa(cfg.Port)), err)
	}
	return &Server{server: s, host: cfg.Host}, nil
}

func wait(s *server.Server, log *serverLog) error {
	ready := make(chan bool, 1)
	go func() { ready <- s.ReadyForConnections(readyTimeout) }()
	select {
	case reason := <-log.fatal:
		return errors.New(reason)
	case ok := <-ready:
		if !ok {
			return fmt.Errorf("not ready after %s", readyTimeout)
		}
		return nil
	}
}

func user(u User) *server.User {
	out := &server.User{Username: u.Name, Password: u.Password.Reveal()}
	if u.Publish == nil && u.Subscribe == nil {
		return out
	}
	out.Permissions = &server.Permissions{Publish: permission(u.Publish), Subscribe: permission(u.Subscribe)}
	if u.AllowResponses {
		out.Permissions.Response = &server.ResponsePermission{MaxMsgs: 1, Expires: time.Minute}
	}
	return out
}

func permission(allow []string) *server.SubjectPermission {
	if allow == nil {
		return nil
	}
	if len(allow) == 0 {
		return &server.SubjectPermission{Deny: []string{">"}}
	}
	return &server.SubjectPermission{Allow: allow}
}

// Addr is the host and port the server listens on.
func (s *Server) Addr() string {
	port := s.server.Addr().(*net.TCPAddr).Port
	return net.JoinHostPort(s.host, strconv.Itoa(port))
}

// URL that clients connect to.
func (s *Server) URL() string { return "nats://" + s.Addr() }

// Shutdown stops the server and returns when it is down. It may be called twice.
func (s *Server) Shutdown() {
	s.once.Do(s.server.Shutdown)
	s.server.WaitForShutdown()
}

// serverLog passes on what somebody should read.
type serverLog struct {
	to    *slog.Logger
	fatal chan string
}

func (l *serverLog) log(level slog.Level, format string, args []any) {
	if l.to != nil {
		l.to.Log(context.Background(), level, "nats-server: "+fmt.Sprintf(format, args...))
	}
}

func (l *serverLog) Fatalf(format string, args ...any) {
	l.log(slog.LevelError, format, args)
	select {
	case l.fatal <- fmt.Sprintf(format, args...):
	default:
	}
}

func (l *serverLog) Errorf(format string, args ...any) { l.log(slog.LevelError, format, args) }

func (l *serverLog) Warnf(format string, args ...any) {
	if strings.HasPrefix(format, "Plaintext passwords") {
		return // they are in this process's memory, and in no file of the server's
	}
	l.log(slog.LevelWarn, format, args)
}

// Notices, debug and trace lines are of no use inside another process.
func (l *serverLog) Noticef(string, ...any) {}
func (l *serverLog) Debugf(string, ...any)  {}
func (l *serverLog) Tracef(string, ...any)  {}
