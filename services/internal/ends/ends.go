// Package ends is the list by which rentals can be ended when everything else is down: what an account is billed for or
// may be, how each rental is told from another's, and when it is to end. The order service writes it to a file, the
// watchdog reads it.
//
// It guarantees that a file is read whole, as it was written, by the same installation, or not at all. It refuses a list
// without what tells a rental from another's, and one of a later version. It does not say how old a list may be.
package ends

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/renthook/renthook/pkg/file"
	"github.com/renthook/renthook/pkg/seal"
)

// File is what the list is called in a data directory.
const File = "ends.sealed"

// Version of the format. A change that an older reader would misunderstand counts it up.
const Version = 1

// sealedFor keeps a list apart from all else that is sealed with the installation's key.
const sealedFor = "ends"

// most bounds what is read: a sealed list has at most 1 MiB before it is sealed.
const most = 2 << 20

// List is what may bill, as of a moment.
type List struct {
	Version int `json:"version"`
	// Account is ours for the account on the market; Key is the fingerprint of its key there.
	Account string `json:"account"`
	Key     string `json:"key"`
	// By is the process that exported it.
	By       string    `json:"by"`
	Exported time.Time `json:"exported"`
	Ends     []End     `json:"ends"`
}

// End is one rental, or an ask that may have become one.
type End struct {
	Order   string `json:"order"`
	Attempt int    `json:"attempt"`
	// RentalID is the market's number, zero while it is not known.
	RentalID int64  `json:"rental_id,omitempty"`
	ServerID int64  `json:"server_id"`
	Image    string `json:"image"`
	// Markers are container ports that were asked for and that no other rental of this server, image and time has.
	Markers []int `json:"markers,omitempty"`
	// Asked is when the market was asked, or a little before.
	Asked time.Time `json:"asked"`
	// End is when it is to be over; zero for never.
	End time.Time `json:"end,omitzero"`
}

// Write replaces the file at path by the list, sealed.
func Write(path string, box *seal.Box, l List) error {
	l.Version = Version
	plain, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("write the list of ends: %w", err)
	}
	sealed, err := box.Seal(plain, sealedFor)
	if err != nil {
		return fmt.Errorf("write the list of ends: %w", err)
	}
	if err := file.Replace(path, []byte(sealed+"\n")); err != nil {
		return fmt.Errorf("write the list of ends: %w", err)
	}
	return nil
}

// Read opens the file at path. Any doubt about it is an error.
func Read(path string, box *seal.Box) (List, error) {
	var l List
	f, err := os.Open(path)
	if err != nil {
		return l, fmt.Errorf("read the list of ends: %w", err)
	}
	defer func() { _ = f.Close() }()
	sealed, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return l, fmt.Errorf("read the list of ends: %w", err)
	}
	plain, err := box.Open(strings.TrimSuffix(string(sealed), "\n"), sealedFor)
	if err != nil {
		return l, fmt.Errorf("read the list of ends: %s: %w", path, err)
	}
	if err := json.Unmarshal(plain, &l); err != nil {
		return List{}, fmt.Errorf("read the list of ends: %w", err)
	}
	if err := l.check(); err != nil {
		return List{}, fmt.Errorf("read the list of ends: %w", err)
	}
	return l, nil
}

func (l List) check() error {
	if l.Version != Version {
		return fmt.Errorf("it is of version %d, this program reads %d: use the same version of renthook for both", l.Version, Version)
	}
	if l.Account == "" || l.Key == "" || l.Exported.IsZero() {
		return errors.New("it does not say of which account it is, or of when")
	}
	for _, e := range l.Ends {
		if e.ServerID <= 0 || e.Image == "" || e.Asked.IsZero() || e.RentalID < 0 {
			return fmt.Errorf("attempt %d of %s lacks what tells its rental from another's", e.Attempt, e.Order)
		}
	}
	return nil
}
