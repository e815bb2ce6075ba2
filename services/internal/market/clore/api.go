package clore

import (
	"github.com/renthook/renthook/pkg/cloreapi"
	"github.com/renthook/renthook/services/internal/settings"
)

// API is the market as an installation may see it. In mode sim the environment's key is never sent anywhere.
func API(s settings.Settings, version string) cloreapi.Config {
	return cloreapi.Config{BaseURL: s.Market.URL, Key: s.CallKey(), UserAgent: "renthook/" + version, Timeout: s.Order.CallTimeout}
}
