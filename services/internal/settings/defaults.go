package settings

import (
	"time"

	"github.com/govalues/decimal"

	"github.com/renthook/renthook/pkg/secret"
)

// realMarket is the API of the real market, used in mode observe.
const realMarket = "https://api.clore.ai"

// Defaults are the settings of mode sim with nothing stated. They pass every rule.
func Defaults() Settings { return defaultsOf(Sim) }

func defaultsOf(mode string) Settings {
	s := Settings{
		Mode: Sim,
		Market: Market{
			Address: "127.0.0.1:8090", CallGap: 1200 * time.Millisecond, CreateGap: 5500 * time.Millisecond,
		},
		Account: Account{Name: "main"},
		NATS:    NATS{URL: "nats://127.0.0.1:4222", Address: "127.0.0.1:4222", Replicas: 1},
		Ingress: Ingress{
			Address: "127.0.0.1:8080", LegacyDedupeWindow: time.Minute, LegacySignature: "allow",
		},
		Order: Order{
			GRPCAddress:   "127.0.0.1:9090",
			ConfirmWindow: 180 * time.Second, ConfirmWindowBlind: 600 * time.Second, CallTimeout: 15 * time.Second, LeaseTTL: 30 * time.Second,
			BootDeadline: 10 * time.Minute, PlaceDeadline: 30 * time.Minute, BootBudget: decimal.MustParse("0.50"),
			MaxCandidates: 5, SweepInterval: 45 * time.Second, MaxDuration: 24 * time.Hour,
			MinReliability: decimal.MustParse("0.8"), SpotHeadroom: decimal.MustParse("1.02"),
			MarkerPorts: 2, RequiredPrice: true, SSHProbe: true,
			Image: "nvidia/cuda:12.8.0-base-ubuntu22.04", Ports: map[string]string{"22": "tcp", "8888": "http"}, Currency: "auto",
		},
		Pricewatch: Service{GRPCAddress: "127.0.0.1:9091"},
		Notifier:   Service{GRPCAddress: "127.0.0.1:9092"},
		Limits: Limits{
			OrdersPerHour: 10, CreatesPerHour: 30, LiveRentals: 10, PricePerHour: decimal.MustParse("5"),
			AtSpendLimit: "stop", Timezone: "UTC", RequestsPerMinute: 60,
		},
		Fees: Fees{
			OnDemand: decimal.MustParse("0.05"), Spot: decimal.MustParse("0.0125"), Creation: decimal.MustParse("0.10"),
		},
		Watch:     Watch{DefaultExpiry: 30 * 24 * time.Hour},
		Watchdog:  Watchdog{Margin: 10 * time.Minute, Interval: 5 * time.Minute},
		Telemetry: Telemetry{Address: "127.0.0.1:8081", LogLevel: "info", LogFormat: "json"},
	}
	if mode == Sim {
		s.Market.Key = secret.New(SimulatedKey)
		s.Market.PollInterval = 3 * time.Second
		s.Market.Rates = map[string]string{"bitcoin": "70000", "CLORE-Blockchain": "0.12", "USD-Blockchain": "1"}
	} else {
		s.Market.URL = realMarket
	}
	return s
}
