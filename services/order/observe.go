package order

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	noopmetric "go.opentelemetry.io/otel/metric/noop"

	"github.com/renthook/renthook/services/order/internal/ledger"
)

// observe registers what an operator watches: live orders by state, what burns, what is committed, and why creates wait.
// Amounts are USD, fees included.
func (s *Service) observe(meter metric.Meter) error {
	if meter == nil {
		meter = noopmetric.NewMeterProvider().Meter("")
	}
	orders, err := meter.Int64ObservableGauge("renthook.orders", metric.WithDescription("Orders that have not ended, by state."))
	if err != nil {
		return fmt.Errorf("make the gauge of orders: %w", err)
	}
	burn, err := meter.Float64ObservableGauge("renthook.spend_rate", metric.WithUnit("{USD}/h"), metric.WithDescription("What live rentals cost an hour, USD, fees included."))
	if err != nil {
		return fmt.Errorf("make the gauge of what burns: %w", err)
	}
	committed, err := meter.Float64ObservableGauge("renthook.spend_committed", metric.WithUnit("{USD}"), metric.WithDescription("What has been spent and what rentals reserve in the day and in the month, USD, fees included."))
	if err != nil {
		return fmt.Errorf("make the gauge of what is committed: %w", err)
	}
	waiting, err := meter.Int64ObservableGauge("renthook.creates_waiting", metric.WithDescription("1 while no create may go out of this process, by reason."))
	if err != nil {
		return fmt.Errorf("make the gauge of waiting creates: %w", err)
	}
	halts, err := meter.Int64ObservableGauge("renthook.halts", metric.WithDescription("Halts that stand."))
	if err != nil {
		return fmt.Errorf("make the gauge of halts: %w", err)
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		byState := map[string]int64{}
		for _, live := range s.world.Live() {
			byState[live.State.String()]++
		}
		for state, n := range byState {
			o.ObserveInt64(orders, n, metric.WithAttributes(attribute.String("state", state)))
		}
		o.ObserveInt64(halts, int64(len(s.world.Halts())))
		s.mu.Lock()
		waits := s.waits
		s.mu.Unlock()
		if waits != "" {
			o.ObserveInt64(waiting, 1, metric.WithAttributes(attribute.String("reason", waits)))
		}
		now := time.Now().In(s.engine.Zone)
		known := s.world.Since(ledger.Month(now).From)
		if sum, err := ledger.Burn(known, s.engine.Fees); err == nil {
			usd, _ := sum.Float64()
			o.ObserveFloat64(burn, usd)
		}
		uses, err := s.engine.Limits.Uses(known, s.engine.Fees, now)
		if err != nil {
			return fmt.Errorf("reckon what is committed: %w", err)
		}
		for _, u := range uses {
			usd, _ := u.Committed.Float64()
			o.ObserveFloat64(committed, usd, metric.WithAttributes(attribute.String("limit", u.Setting)))
		}
		return nil
	}, orders, burn, committed, waiting, halts)
	if err != nil {
		return fmt.Errorf("register the gauges: %w", err)
	}
	return nil
}
