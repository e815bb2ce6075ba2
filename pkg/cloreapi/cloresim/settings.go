package cloresim

import (
	"fmt"
	"slices"
	"time"

	"github.com/govalues/decimal"
)

// Switches choose among behaviours of the real market that nobody has recorded, or that recordings disagree about.
// Empty members are the defaults.
type Switches struct {
	// OutbidEnding: "expired" (default) ends a spot order that loses its server: gone from the default list,
	// expired under return_completed. "queued" keeps it listed with frozen spend until it wins again.
	OutbidEnding string `json:"outbid_ending,omitempty"`
	// SpotDoubleBid: "refuse" (default) answers you_already_have_spot_order to a second bid of an account on one
	// server; "allow" takes it.
	SpotDoubleBid string `json:"spot_double_bid,omitempty"`
	// RequiredPrice: "higher" (default) refuses with code 1 when the price is above required_price, "any" when it
	// differs at all, "ignore" never.
	RequiredPrice string `json:"required_price,omitempty"`
	// UnknownCancel: "error" (default) answers order_dont_exist to an unknown id and order_not_active to an ended
	// one, "ok" answers code 0.
	UnknownCancel string `json:"unknown_cancel,omitempty"`
	// BalanceOut: "end" (default) ends an account's orders when its balance in their coin is used up, "run_on"
	// lets the balance go below zero.
	BalanceOut string `json:"balance_out,omitempty"`
}

var switchValues = map[string][]string{
	"outbid_ending":   {"expired", "queued"},
	"spot_double_bid": {"refuse", "allow"},
	"required_price":  {"higher", "any", "ignore"},
	"unknown_cancel":  {"error", "ok"},
	"balance_out":     {"end", "run_on"},
}

func (s *Switches) check() error {
	for name, value := range map[string]*string{
		"outbid_ending": &s.OutbidEnding, "spot_double_bid": &s.SpotDoubleBid, "required_price": &s.RequiredPrice,
		"unknown_cancel": &s.UnknownCancel, "balance_out": &s.BalanceOut,
	} {
		values := switchValues[name]
		if *value == "" {
			*value = values[0]
		}
		if !slices.Contains(values, *value) {
			return fmt.Errorf("%s is one of %q, not %q", name, values, *value)
		}
	}
	return nil
}

// settings are the terms of a world. They are kept with it; a reset changes them.
type settings struct {
	Seed    int64 `json:"seed"`
	Servers int   `json:"servers"`
	// Inventory is the digest of the recorded marketplace in use, empty for a generated one.
	Inventory string `json:"inventory,omitempty"`
	BootMS    int64  `json:"boot_ms"`
	VisibleMS int64  `json:"visible_ms"`
	// PortsMS is how long tcp_ports stays empty after the creation.
	PortsMS   int64 `json:"ports_ms"`
	RateLimit bool  `json:"rate_limit"`
	// AddressLimit limits calls without a key to one a second and address. Whether the real market does is unknown.
	AddressLimit bool            `json:"address_limit"`
	BalanceUSD   decimal.Decimal `json:"balance_usd"`
	Drift        bool            `json:"drift"`
	// OrderLimit is the limit that my_orders states.
	OrderLimit int `json:"order_limit"`
	Switches
}

func (s *settings) check() error {
	switch {
	case s.Servers < 1 || s.Servers > 100_000:
		return fmt.Errorf("servers is 1 to 100000, not %d", s.Servers)
	case s.VisibleMS < 0 || s.PortsMS < 0:
		return fmt.Errorf("visible_ms and ports_ms are 0 or more, not %d and %d", s.VisibleMS, s.PortsMS)
	case s.OrderLimit < 1:
		return fmt.Errorf("order_limit is 1 or more, not %d", s.OrderLimit)
	case s.BalanceUSD.IsNeg() || s.BalanceUSD.Cmp(most) > 0:
		return fmt.Errorf("balance_usd is 0 to %s, not %s", most, s.BalanceUSD)
	}
	return s.Switches.check()
}

// The limits of the market, per key: one call a second, and one create_order in five.
const (
	callGap   = time.Second
	createGap = 5 * time.Second
)

// renterFee is what the renter pays on top of the price; the creation fee is 0.10 USD.
var (
	onDemandFee    = decimal.MustNew(5, 2)
	spotFee        = decimal.MustNew(125, 4)
	creationFeeUSD = decimal.MustNew(1, 1)
)

// defaultRates are arbitrary: the recorded marketplaces state none.
var defaultRates = map[string]string{"bitcoin": "70000", "CLORE-Blockchain": "0.12", "USD-Blockchain": "1"}
