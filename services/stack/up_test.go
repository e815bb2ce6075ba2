package stack_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/renthook/renthook/services/internal/settings"
	"github.com/renthook/renthook/services/stack"
)

// A market that is away when everything starts keeps nobody from asking, nor scripts from finding the doors.
func TestUp_StartsWhileTheMarketIsAway(t *testing.T) {
	t.Parallel()
	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()
	st := settings.Defaults()
	st.Market.URL = away.URL
	for _, address := range []*string{&st.Ingress.Address, &st.Order.GRPCAddress, &st.Pricewatch.GRPCAddress, &st.Telemetry.Address, &st.NATS.Address} {
		*address = "127.0.0.1:0"
	}
	data := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	up, err := stack.Up(ctx, stack.UpConfig{Settings: st, Data: data, Version: "test", Logs: io.Discard})
	if err != nil {
		t.Fatalf("it does not start: %v", err)
	}
	t.Cleanup(func() {
		if err := up.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	read(t, filepath.Join(data, "run.json"))
	for path, want := range map[string]int{"/health": http.StatusOK, "/webhook/marketplace": http.StatusServiceUnavailable} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+up.Addresses.HTTP+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s answers %s, want %d", path, resp.Status, want)
		}
	}
}
