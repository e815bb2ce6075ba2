package stack

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/renthook/renthook/pkg/file"
	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/services/internal/settings"
)

// installation is a data directory: what was generated at the first start and is kept.
type installation struct {
	dir  string
	lock *os.File
}

// binding is what a data directory belongs to; another mode, market or key is refused.
type binding struct {
	Mode   string `json:"mode"`
	Market string `json:"market"`
	Key    string `json:"key_fingerprint"`
}

// openInstallation makes or opens a data directory and locks it against a second process.
func openInstallation(dir string) (*installation, error) {
	if err := os.MkdirAll(filepath.Join(dir, "secrets"), 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("data directory %s is in use by another renthook: stop it, or give this one another by --data", dir)
	}
	return &installation{dir: dir, lock: lock}, nil
}

func (i *installation) close() { _ = i.lock.Close() }

func (i *installation) path(parts ...string) string {
	return filepath.Join(append([]string{i.dir}, parts...)...)
}

// bind refuses a directory that belongs to another market, mode or key.
func (i *installation) bind(s settings.Settings, marketName string) error {
	b := binding{Mode: s.Mode, Market: marketName}
	if s.Mode != settings.Sim && !s.Market.Key.Empty() {
		b.Key = s.KeyFingerprint()
	}
	text, err := os.ReadFile(i.path("binding.json"))
	if errors.Is(err, os.ErrNotExist) {
		if text, err = json.MarshalIndent(b, "", "  "); err != nil {
			return err
		}
		return i.write("binding.json", append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("read what the data directory belongs to: %w", err)
	}
	var have binding
	if err := json.Unmarshal(text, &have); err != nil {
		return fmt.Errorf("read what the data directory belongs to: %w", err)
	}
	if have != b {
		return fmt.Errorf("data directory %s belongs to mode %s, market %s; this start is mode %s, market %s (or has another key): give it a directory of its own by --data",
			i.dir, have.Mode, have.Market, b.Mode, b.Market)
	}
	return nil
}

// write replaces a file of the installation.
func (i *installation) write(name string, b []byte) error { return file.Replace(i.path(name), b) }

// secret gives the secret kept under a name, generated at the first start.
func (i *installation) secret(name, prefix string) (secret.String, error) {
	file := filepath.Join("secrets", name)
	text, err := os.ReadFile(i.path(file))
	switch {
	case errors.Is(err, os.ErrNotExist):
		s := secret.Generate(prefix)
		return s, i.write(file, []byte(s.Reveal()+"\n"))
	case err != nil:
		return secret.String{}, fmt.Errorf("read %s: %w", file, err)
	}
	value := strings.TrimSpace(string(text))
	if value == "" {
		return secret.String{}, fmt.Errorf("%s is empty: delete it to have a new one made", file)
	}
	return secret.New(value), nil
}
