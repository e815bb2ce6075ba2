package cloresim

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// change is what one transaction changed, and one line of the log. The first line of a log is the whole world. A
// settings member means a reset: everything from before is gone, save that ids go on.
type change struct {
	Settings   *settings         `json:"settings,omitempty"`
	Rentals    []*rental         `json:"rentals,omitempty"`
	Accounts   []*account        `json:"accounts,omitempty"`
	Calls      []*call           `json:"calls,omitempty"`
	Scripts    map[string][]Step `json:"scripts,omitempty"`
	Pending    *[]*pending       `json:"pending,omitempty"`
	Listed     []json.RawMessage `json:"listed,omitempty"`
	Facts      map[int64][]facts `json:"facts,omitempty"`
	NextRental int64             `json:"next_rental,omitempty"`
	NextCall   int64             `json:"next_call,omitempty"`
	HostKey    []byte            `json:"host_key,omitempty"`
}

// changes collects what a transaction changed.
type changes struct {
	reset, next, pending bool
	rentals              map[*rental]struct{}
	accounts             map[*account]struct{}
	calls                map[*call]struct{}
	scripts              map[string]struct{}
	servers              map[*server]struct{}
	listed               []json.RawMessage
}

func mark[K comparable](set *map[K]struct{}, k K) {
	if *set == nil {
		*set = map[K]struct{}{}
	}
	(*set)[k] = struct{}{}
}

func (c *changes) rental(r *rental)   { mark(&c.rentals, r) }
func (c *changes) account(a *account) { mark(&c.accounts, a) }
func (c *changes) call(k *call)       { mark(&c.calls, k) }
func (c *changes) script(name string) { mark(&c.scripts, name) }
func (c *changes) server(s *server)   { mark(&c.servers, s) }

// take gives what changed since the last time, nil for nothing.
func (w *world) take() *change {
	d := w.changed
	w.changed = changes{}
	if d.reset {
		return w.whole()
	}
	c := &change{
		Rentals: byAge(d.rentals, func(r *rental) int64 { return r.ID }),
		Calls:   byAge(d.calls, func(k *call) int64 { return k.N }),
		Listed:  d.listed,
	}
	for a := range d.accounts {
		c.Accounts = append(c.Accounts, a)
	}
	for name := range d.scripts {
		if c.Scripts == nil {
			c.Scripts = map[string][]Step{}
		}
		c.Scripts[name] = w.scripts[name]
	}
	for s := range d.servers {
		if c.Facts == nil {
			c.Facts = map[int64][]facts{}
		}
		c.Facts[s.id] = s.history
	}
	if d.pending {
		c.Pending = &w.pending
	}
	if d.next {
		c.NextRental, c.NextCall = w.nextRental, w.nextCall
	}
	if d.next || d.pending || len(c.Rentals)+len(c.Accounts)+len(c.Calls)+len(c.Scripts)+len(c.Facts)+len(c.Listed) > 0 {
		return c
	}
	return nil
}

func byAge[T comparable](set map[T]struct{}, id func(T) int64) []T {
	return slices.SortedFunc(maps.Keys(set), func(a, b T) int { return int(id(a) - id(b)) })
}

// whole is everything, as one change.
func (w *world) whole() *change {
	c := &change{
		Settings: &w.settings, Rentals: w.rentals, Calls: w.calls, Scripts: w.scripts, Pending: &w.pending,
		Listed: w.added, Facts: map[int64][]facts{}, NextRental: w.nextRental, NextCall: w.nextCall, HostKey: w.hostKey,
	}
	for _, a := range w.accounts {
		c.Accounts = append(c.Accounts, a)
	}
	for id, s := range w.servers {
		if len(s.history) > 0 {
			c.Facts[id] = s.history
		}
	}
	return c
}

// apply takes over a change that was read back. stock gives the servers of the settings.
func (w *world) apply(c *change, stock func(*settings) ([]*listing, error)) error {
	if c.Settings != nil {
		listings, err := stock(c.Settings)
		if err != nil {
			return err
		}
		w.clear()
		w.settings = *c.Settings
		w.stock(listings)
	}
	for _, row := range c.Listed {
		l, err := readListing(row)
		if err != nil {
			return fmt.Errorf("read an added server: %w", err)
		}
		w.list(l).steady = true
		w.added = append(w.added, row)
	}
	for id, history := range c.Facts {
		if s := w.servers[id]; s != nil {
			s.history = history
		}
	}
	for _, r := range c.Rentals {
		if err := w.restore(r); err != nil {
			return err
		}
	}
	for _, a := range c.Accounts {
		w.accounts[a.Key] = a
	}
	for _, k := range c.Calls {
		w.enter(k)
	}
	maps.Copy(w.scripts, c.Scripts)
	if c.Pending != nil {
		w.pending = *c.Pending
	}
	w.nextRental, w.nextCall = max(w.nextRental, c.NextRental), max(w.nextCall, c.NextCall)
	if c.HostKey != nil {
		w.hostKey = c.HostKey
	}
	return nil
}

// restore puts a rental that was read back where it belongs, over an older state of it.
func (w *world) restore(r *rental) error {
	if old := w.byID[r.ID]; old != nil {
		*old = *r
		return nil
	}
	s := w.servers[r.Server]
	if s == nil {
		return fmt.Errorf("restore rental %d: server %d is not in the inventory", r.ID, r.Server)
	}
	w.rentals, w.byID[r.ID], s.rentals = append(w.rentals, r), r, append(s.rentals, r)
	return nil
}

// clear forgets everything but the next ids and the host key.
func (w *world) clear() {
	fresh := newWorld()
	fresh.rates, fresh.host, fresh.reserve = w.rates, w.host, w.reserve
	fresh.nextRental, fresh.nextCall, fresh.hostKey = w.nextRental, w.nextCall, w.hostKey
	*w = *fresh
}

const (
	logName = "market.log"
	// compactAt is the size at which a log is rewritten as one line, if it has doubled since the last time.
	compactAt = 16 << 20
)

// store is the log of a world on disk. A line is on disk when append returns.
type store struct {
	dir     string
	file    *os.File
	size    int64
	compact int64
}

// readLog hands each whole line to fn. A line without an end was being written when the process died, and was
// never answered.
func readLog(dir string, fn func([]byte) error) error {
	f, err := os.Open(filepath.Join(dir, logName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the market's log: %w", err)
	}
	defer func() { _ = f.Close() }()
	r := bufio.NewReaderSize(f, 1<<20)
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the market's log: %w", err)
		}
		if err := fn(bytes.TrimSpace(line)); err != nil {
			return err
		}
	}
}

// begin replaces the log by one line that holds everything.
func (s *store) begin(whole *change) error {
	raw, err := json.Marshal(whole)
	if err != nil {
		return fmt.Errorf("write the market's state: %w", err)
	}
	raw = append(raw, '\n')
	path := filepath.Join(s.dir, logName)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write the market's state: %w", err)
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync()); err == nil {
		err = errors.Join(os.Rename(path+".new", path), syncDir(s.dir))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write the market's state: %w", err), f.Close())
	}
	if s.file != nil {
		_ = s.file.Close()
	}
	s.file, s.size = f, int64(len(raw))
	s.compact = max(compactAt, 2*s.size)
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// append writes one line and waits until it is on disk.
func (s *store) append(c *change) error {
	raw, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("write the market's log: %w", err)
	}
	raw = append(raw, '\n')
	if _, err := s.file.Write(raw); err != nil {
		return fmt.Errorf("write the market's log: %w", err)
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("write the market's log: %w", err)
	}
	s.size += int64(len(raw))
	return nil
}

func (s *store) full() bool { return s.size > s.compact }

func (s *store) close() error { return s.file.Close() }
