package wire

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/renthook/renthook/pkg/telemetry"
	"github.com/renthook/renthook/services/internal/settings"
)

// StopTimeout bounds the stop of one service: the call that is out is waited for.
const StopTimeout = 25 * time.Second

// Alone runs one service as a process of its own until ctx ends.
func Alone(ctx context.Context, name string, s settings.Settings, version string) error {
	tel, err := telemetry.New(ctx, telemetry.Config{
		Service: "renthook-" + name, Version: version, Output: os.Stderr, Level: s.Telemetry.LogLevel, Format: s.Telemetry.LogFormat,
	})
	if err != nil {
		return err
	}
	k, err := Open(ctx, name, s, version, s.NATS.User, s.NATS.Password, tel)
	if err != nil {
		return err
	}
	service, err := k.Make(ctx, name)
	if err != nil {
		return errors.Join(err, k.Close(ctx))
	}
	tel.AddCheck(name, service.Ready)
	admin, err := ServeAdmin(s.Telemetry.Address, tel.Handler())
	if err != nil {
		return errors.Join(err, k.Close(ctx))
	}
	defer admin.Close()
	if err := service.Start(ctx); err != nil {
		return errors.Join(err, k.Close(ctx))
	}
	k.log.InfoContext(ctx, "started", "addr", service.Addr(), "admin", admin.Addr())
	<-ctx.Done()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), StopTimeout)
	defer cancel()
	return errors.Join(service.Stop(end), k.Close(end), tel.Shutdown(end))
}
