package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"

	"github.com/renthook/renthook/pkg/secret"
)

const (
	// connectTimeout bounds one attempt to connect.
	connectTimeout = 5 * time.Second
	// requestTimeout bounds a JetStream request whose context has no deadline.
	requestTimeout = 5 * time.Second
	// closeTimeout bounds the last flush of a connection.
	closeTimeout = 2 * time.Second
)

// Config says where the broker is and who connects.
type Config struct {
	// URL of the broker: nats://host:port, several separated by commas.
	URL string
	// User and Password are the credentials; empty where the broker asks for none.
	User     string
	Password secret.String
	// Name of this client, as the broker's monitoring shows it.
	Name string
	// InboxPrefix of the replies, for brokers whose permissions tell inboxes apart; "_INBOX" when empty.
	InboxPrefix string
	// Template turns a subject into the low-cardinality name of its spans; without it spans carry no subject.
	Template func(subject string) string
	// Logger; slog.Default when nil.
	Logger *slog.Logger
	// Tracer of the spans; the global provider's when nil.
	Tracer trace.Tracer
}

// Conn is one connection to the broker. It reconnects for ever and is safe for concurrent use.
type Conn struct {
	cfg    Config
	log    *slog.Logger
	tracer trace.Tracer
	nc     *nats.Conn
	js     jetstream.JetStream
	denied denials

	mu sync.Mutex
	// cause is why there is no connection now; nil while there is one.
	cause error
}

// ErrNotConnected says that there is no connection to the broker now; the connection keeps trying.
var ErrNotConnected = errors.New("not connected to the broker")

// Connect opens a connection. A broker that is away is no error: the connection is returned and keeps trying
// (see Wait and Ready). Wrong credentials and a malformed URL are errors at once.
func Connect(ctx context.Context, cfg Config) (*Conn, error) {
	c := &Conn{cfg: cfg, log: cfg.Logger, tracer: cfg.Tracer}
	if c.log == nil {
		c.log = slog.Default()
	}
	if c.tracer == nil {
		c.tracer = otel.Tracer("github.com/renthook/renthook/pkg/bus")
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("connect to the broker: %w", err)
	}

	nc, err := nats.Connect(cfg.URL, c.options(false)...)
	if err != nil && !wrongCredentials(err) {
		c.cause = err
		c.log.WarnContext(ctx, "the broker is away, trying on", "error", err.Error())
		nc, err = nats.Connect(cfg.URL, c.options(true)...)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the broker: %w", err)
	}
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(requestTimeout))
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	c.nc, c.js = nc, js
	return c, nil
}

func wrongCredentials(err error) bool {
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrAuthRevoked)
}

func (c *Conn) options(retry bool) []nats.Option {
	opts := []nats.Option{
		nats.Name(c.cfg.Name),
		nats.Timeout(connectTimeout),
		nats.RetryOnFailedConnect(retry),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond),
		// Credentials may be rotated under a running service: wrong ones are logged and tried again.
		nats.IgnoreAuthErrorAbort(),
		// Nothing is kept back for later while the broker is away: a publish that fails at once is known not to
		// be stored, one sent by surprise a minute later is not.
		nats.ReconnectBufSize(-1),
		// A half-open connection is noticed within half a minute, not within the default of minutes.
		nats.PingInterval(10 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.PermissionErrOnSubscribe(true),
		nats.ErrorHandler(c.onError),
		nats.ConnectHandler(func(*nats.Conn) { c.setCause(nil) }),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			if nc.IsClosed() {
				return
			}
			if err == nil {
				err = ErrNotConnected
			}
			c.setCause(err)
			c.log.Warn("lost the broker, reconnecting", "error", err.Error())
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			c.setCause(nil)
			c.log.Info("connected to the broker again", "url", nc.ConnectedUrlRedacted())
		}),
	}
	if c.cfg.User != "" {
		opts = append(opts, nats.UserInfo(c.cfg.User, c.cfg.Password.Reveal()))
	}
	if c.cfg.InboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(c.cfg.InboxPrefix))
	}
	return opts
}

func (c *Conn) onError(_ *nats.Conn, sub *nats.Subscription, err error) {
	// Publishers that wait on the subject report it themselves.
	if errors.Is(err, nats.ErrPermissionViolation) && c.denied.resolve(err) {
		return
	}
	if wrongCredentials(err) {
		c.setCause(err)
	}
	attrs := []any{"error", err.Error()}
	if sub != nil {
		attrs = append(attrs, "subject", sub.Subject)
	}
	c.log.Error("the broker reports an error", attrs...)
}

func (c *Conn) setCause(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cause = err
}

// JetStream gives the JetStream API on this connection, with a default time-out of 5 seconds.
func (c *Conn) JetStream() jetstream.JetStream { return c.js }

// NATS gives the plain connection, for requests and services that no stream captures.
func (c *Conn) NATS() *nats.Conn { return c.nc }

// Ready is nil while there is a connection to the broker; otherwise it wraps ErrNotConnected and says why.
func (c *Conn) Ready() error {
	if c.nc.IsConnected() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil || errors.Is(c.cause, ErrNotConnected) {
		return ErrNotConnected
	}
	return fmt.Errorf("%w: %w", ErrNotConnected, c.cause)
}

// Wait returns once there is a connection, or when ctx ends, then with the reason there is none.
func (c *Conn) Wait(ctx context.Context) error {
	changed := c.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer c.nc.RemoveStatusListener(changed)
	for {
		if c.nc.IsConnected() {
			return nil
		}
		if c.nc.IsClosed() {
			return fmt.Errorf("wait for the broker: %w", nats.ErrConnectionClosed)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the broker: %w: %w", c.Ready(), ctx.Err())
		}
	}
}

// Close sends what is still buffered and closes the connection. Consumers must have ended before.
func (c *Conn) Close() {
	if c.nc.IsConnected() {
		// What matters was confirmed before; this is for last acknowledgements of a consumer that stopped.
		_ = c.nc.FlushTimeout(closeTimeout)
	}
	c.nc.Close()
}
