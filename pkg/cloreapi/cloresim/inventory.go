package cloresim

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/govalues/decimal"
)

var errNotObject = errors.New("not a JSON object")

// inventory is a recorded answer of /v1/marketplace.
type inventory struct {
	digest   string
	listings []*listing
}

// readInventory loads a recording. Its rows are listed verbatim, by id
// descending as the market lists them.
func readInventory(path string) (*inventory, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the inventory: %w", err)
	}
	members, err := readObject(raw)
	if err != nil {
		return nil, fmt.Errorf("read the inventory %s: %w", path, err)
	}
	var rows []json.RawMessage
	if err := json.Unmarshal(find(members, "servers"), &rows); err != nil {
		return nil, fmt.Errorf("read the inventory %s: it has no list of servers: %w", path, err)
	}
	inv := &inventory{listings: make([]*listing, 0, len(rows))}
	seen := make(map[int64]bool, len(rows))
	for i, row := range rows {
		var compact bytes.Buffer
		if err := json.Compact(&compact, row); err != nil {
			return nil, fmt.Errorf("read the inventory %s: server %d: %w", path, i, err)
		}
		l, err := readListing(compact.Bytes())
		if err != nil {
			return nil, fmt.Errorf("read the inventory %s: server %d: %w", path, i, err)
		}
		if seen[l.id] {
			return nil, fmt.Errorf("read the inventory %s: server %d is listed twice", path, l.id)
		}
		seen[l.id] = true
		inv.listings = append(inv.listings, l)
	}
	slices.SortStableFunc(inv.listings, func(a, b *listing) int { return int(b.id - a.id) })
	digest := sha256.Sum256(raw)
	inv.digest = hex.EncodeToString(digest[:])
	return inv, nil
}

// readRates reads rates given as text: USD for one unit of each coin. Coins that are not named keep the default.
func readRates(given map[string]string) (map[string]decimal.Decimal, error) {
	rates := make(map[string]decimal.Decimal, len(defaultRates))
	for _, from := range []map[string]string{defaultRates, given} {
		for coin, text := range from {
			rate, ok := readAmount(json.RawMessage(text))
			if !ok || !rate.IsPos() {
				return nil, fmt.Errorf("rate %q of %s is not an amount above zero", text, coin)
			}
			rates[coin] = rate
		}
	}
	return rates, nil
}
