// Package wire makes a service from settings: its connection to the broker, and what is derived from the installation's
// key. It guarantees that a service alone and one among others in a process are made by the same lines, over the same
// subjects. It refuses to start without an installation's key, and links neither a broker nor a simulator: those who
// want them in the process start them first and name their addresses in the settings.
package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/govalues/decimal"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/cloreapi"
	"github.com/renthook/renthook/pkg/egress"
	"github.com/renthook/renthook/pkg/run"
	"github.com/renthook/renthook/pkg/seal"
	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/pkg/telemetry"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/ingress"
	"github.com/renthook/renthook/services/internal/auth"
	"github.com/renthook/renthook/services/internal/market"
	"github.com/renthook/renthook/services/internal/market/clore"
	"github.com/renthook/renthook/services/internal/marketview"
	"github.com/renthook/renthook/services/internal/money"
	"github.com/renthook/renthook/services/internal/settings"
	"github.com/renthook/renthook/services/internal/topology"
	"github.com/renthook/renthook/services/notifier"
	"github.com/renthook/renthook/services/order"
	"github.com/renthook/renthook/services/pricewatch"
)

// Service is the shape all services share.
type Service interface {
	Start(ctx context.Context) error
	Addr() string
	Stop(ctx context.Context) error
	Ready() error
}

// Names of the services, as their NATS users, inboxes and log lines have them.
const (
	Ingress    = "ingress"
	Order      = "order"
	Pricewatch = "pricewatch"
	Notifier   = "notifier"
)

// Kit is what one service needs from outside: its connection and what is derived from the installation's key.
type Kit struct {
	settings  settings.Settings
	version   string
	telemetry *telemetry.Telemetry
	log       *slog.Logger
	bus       *bus.Conn
	box       *seal.Box
	auth      auth.Authenticate
	internal  secret.String
	egress    *egress.Client
	closers   run.Stack
}

// Open connects one service as a user of the broker. Closing it undoes everything opened here.
func Open(ctx context.Context, name string, s settings.Settings, version, user string, password secret.String, tel *telemetry.Telemetry) (*Kit, error) {
	if s.Installation.Key.Empty() {
		return nil, errors.New("installation.key is not set: give every service the same key of at least 32 bytes, for instance by RENTHOOK_INSTALLATION_KEY_FILE")
	}
	box, err := seal.New(s.Installation.Key)
	if err != nil {
		return nil, fmt.Errorf("installation.key: %w", err)
	}
	clients, err := auth.New(s.Clients)
	if err != nil {
		return nil, err
	}
	k := &Kit{settings: s, version: version, telemetry: tel, log: tel.Logger().With("component", name), box: box}
	k.internal = auth.InternalToken(box)
	k.auth = clients.OrOnBehalf(k.internal)
	k.egress = egress.New(egress.Config{AllowNetworks: callable(s), AllowHTTP: true, UserAgent: "renthook/" + version})
	k.bus, err = bus.Connect(ctx, bus.Config{
		URL: s.NATS.URL, User: user, Password: password, Name: "renthook " + name, InboxPrefix: "_INBOX_" + name, Logger: k.log,
	})
	if err != nil {
		return nil, err
	}
	k.closers.Push("connection to the broker", func(context.Context) error { k.bus.Close(); return nil })
	return k, nil
}

// callable are networks a callback may go to although they are not public: loopback in mode sim, and what the operator allows.
func callable(s settings.Settings) []netip.Prefix {
	allowed := s.Egress.AllowNetworks
	if s.Mode == settings.Sim {
		allowed = append([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}, allowed...)
	}
	return allowed
}

// Close undoes Open and what Make opened. The service is stopped before.
func (k *Kit) Close(ctx context.Context) error { return k.closers.Stop(ctx) }

// observed is an account that can be read only: mode observe has no client type that writes.
type observed struct{ *clore.Reader }

func (observed) Create(context.Context, market.CreateRequest) market.Outcome {
	return market.Outcome{Verdict: market.Refused, Reason: "not-sent: mode observe only reads the market"}
}

func (observed) Cancel(context.Context, int64, string) market.Outcome {
	return market.Outcome{Verdict: market.Refused, Reason: "not-sent: mode observe only reads the market"}
}

func (k *Kit) account() market.Account {
	if k.settings.Mode == settings.Sim {
		return clore.NewAccount(cloreapi.New(clore.API(k.settings, k.version)))
	}
	return observed{clore.NewReader(cloreapi.NewReader(clore.API(k.settings, k.version)))}
}

// view follows the market as pricewatch publishes it.
func (k *Kit) view(ctx context.Context) *marketview.View {
	v := marketview.Open(context.WithoutCancel(ctx), k.bus.JetStream(), k.log)
	k.closers.Push("view of the market", func(context.Context) error { v.Close(); return nil })
	return v
}

func (k *Kit) judge(ctx context.Context, url string) error { return k.egress.Check(ctx, url) }

// order makes the service that rents.
func (k *Kit) order(ctx context.Context) (Service, error) {
	return order.New(order.Config{Settings: k.settings}, order.Deps{
		Log: k.log, Bus: k.bus, Box: k.box, Auth: k.auth, Market: k.account(), Books: k.view(ctx), Judge: k.judge,
		Meter: k.telemetry.Meter("github.com/renthook/renthook/services/order"),
	})
}

// pricewatch makes the service that reads the market.
func (k *Kit) pricewatch(context.Context) (Service, error) {
	rates := map[string]decimal.Decimal{}
	for coin, text := range k.settings.Market.Rates {
		rate, err := money.Positive(text)
		if err != nil {
			return nil, fmt.Errorf("market.rates: %s: %w", coin, err)
		}
		rates[coin] = rate
	}
	offers := clore.NewOffers(clore.OffersConfig{Rates: rates}, cloreapi.NewPublic(clore.API(k.settings, k.version)), nil)
	sizes := topology.DefaultSizes()
	sizes.Replicas = max(k.settings.NATS.Replicas, 1)
	return pricewatch.New(pricewatch.Config{
		GRPCAddress: k.settings.Pricewatch.GRPCAddress, Interval: k.settings.Market.PollInterval, Sizes: sizes,
	}, pricewatch.Deps{Conn: k.bus, Offers: offers, Authenticate: k.auth, Logger: k.log})
}

// notifier makes the service that tells.
func (k *Kit) notifier(context.Context) (Service, error) {
	return notifier.New(notifier.FromSettings(k.settings, k.version), notifier.Deps{
		Bus: k.bus, Egress: k.egress, Seal: k.box, Logger: k.log, Meter: k.telemetry.Meter("github.com/renthook/renthook/services/notifier"),
	})
}

// ingress makes the service at the doors.
func (k *Kit) ingress(ctx context.Context) (Service, error) {
	if err := k.settings.NeedSecret(); err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(k.settings.Order.GRPCAddress, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("order.grpc_address: %w", err)
	}
	k.closers.Push("connection to order", func(context.Context) error { return conn.Close() })
	name := "github.com/renthook/renthook/services/ingress"
	return ingress.New(ingress.FromSettings(k.settings), ingress.Deps{
		Bus: k.bus, Seal: k.box, Orders: orderv1.NewOrderServiceClient(conn), Callbacks: k.egress, Market: k.view(ctx),
		Logger: k.log, Tracer: k.telemetry.Tracer(name), Meter: k.telemetry.Meter(name),
	})
}

// Make makes a service by its name: Ingress, Order, Pricewatch or Notifier.
func (k *Kit) Make(ctx context.Context, name string) (Service, error) {
	switch name {
	case Ingress:
		return k.ingress(ctx)
	case Order:
		return k.order(ctx)
	case Pricewatch:
		return k.pricewatch(ctx)
	case Notifier:
		return k.notifier(ctx)
	default:
		return nil, fmt.Errorf("no service %q: want ingress, order, pricewatch or notifier", name)
	}
}
