// Package guard makes the watchdog from settings, without a broker and without any other service: what it is for is that
// they are down. It guarantees that the watchdog's hold on the market cannot rent. It refuses to start where nothing can
// be ended: without the installation's key, and in mode observe.
package guard

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/renthook/renthook/pkg/cloreapi"
	"github.com/renthook/renthook/pkg/seal"
	"github.com/renthook/renthook/services/internal/market/clore"
	"github.com/renthook/renthook/services/internal/settings"
	"github.com/renthook/renthook/services/watchdog"
)

// New makes the watchdog.
func New(s settings.Settings, version string, log *slog.Logger) (*watchdog.Watchdog, error) {
	if s.Mode == settings.Observe {
		return nil, errors.New("mode observe rents nothing, so there is nothing to end")
	}
	if s.Market.URL == "" {
		return nil, errors.New("market.url is not set: the simulator inside `renthook up` ends with it; name the market that goes on")
	}
	if s.Installation.Key.Empty() {
		return nil, errors.New("installation.key is not set: the list of ends is sealed with it")
	}
	box, err := seal.New(s.Installation.Key)
	if err != nil {
		return nil, fmt.Errorf("installation.key: %w", err)
	}
	return watchdog.New(watchdog.FromSettings(s), watchdog.Deps{Log: log, Box: box, Market: clore.NewEnder(cloreapi.NewEnder(clore.API(s, version)))})
}
