package cloreapi

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/govalues/decimal"
)

// Server is one row of the marketplace. Prices are of the whole server per DAY, in each coin, before fees.
type Server struct {
	ID    int64 `json:"id"`
	Owner int64 `json:"owner"`
	// MRL is the longest rental the host allows, in HOURS (an order's mrl is in seconds).
	MRL   Int   `json:"mrl"` // fact:mrl-is-a-maximum-in-hours
	Price Price `json:"price"`
	// Rented is true for on-demand rentals; a server held by a spot bid still shows false.
	Rented bool  `json:"rented"`
	Specs  Specs `json:"specs"`
	// Reliability is 0..1.
	Reliability Number `json:"reliability"`
	// AllowedCoins are the coins create_order takes. A coin may have a price and not stand here.
	AllowedCoins []string `json:"allowed_coins"`
	Rating       Rating   `json:"rating"`
	// GPUArray has one name per GPU, with a leading space (" RTX 3090"); absent in older answers.
	GPUArray    []string `json:"gpu_array"`
	CUDAVersion string   `json:"cuda_version"`
}

// Price holds the prices of a server, per DAY and whole server, by coin. Any coin, and any of the maps, may be
// missing.
type Price struct {
	OnDemand map[string]Number `json:"on_demand"` // fact:price-per-day
	// Spot is the least bid.
	Spot map[string]Number `json:"spot"`
	// USD are equivalents of the on-demand prices, nil in older answers.
	USD *PriceUSD `json:"usd"`
}

// PriceUSD is what the market says the on-demand prices are in USD per DAY. Its spot member was 0 in every
// recording and is left out on purpose.
type PriceUSD struct {
	OnDemandBTC   Number `json:"on_demand_btc"`
	OnDemandCLORE Number `json:"on_demand_clore"`
	OnDemandUSD   Number `json:"on_demand_usd"`
}

// Specs is the hardware of a server.
type Specs struct {
	CPU string `json:"cpu"`
	// CPUs is cores/threads: "44/88".
	CPUs string `json:"cpus"`
	// RAM in GB.
	RAM Number `json:"ram"`
	// Disk is a model (x20 for spaces) and its free size: "SPCCx20Solidx20Statex 96.8613GB".
	Disk string `json:"disk"`
	// GPU is "<n>x <name>": "1x NVIDIA GeForce RTX 4090", "6x Mixed GPUs".
	GPU string `json:"gpu"`
	// GPURAM is the usable memory of one GPU in GB, often a little below the nominal one.
	GPURAM    Number `json:"gpuram"`
	Net       Net    `json:"net"`
	PCIeRev   Number `json:"pcie_rev"`
	PCIeWidth Number `json:"pcie_width"`
}

// Net is measured bandwidth in Mbit/s, and the country.
type Net struct {
	Up   Number `json:"up"`
	Down Number `json:"down"`
	CC   string `json:"cc"`
}

// Rating is what renters gave; Avg is 0 when Cnt is 0.
type Rating struct {
	Avg Number `json:"avg"`
	Cnt Int    `json:"cnt"`
}

// Wallet is one balance, in the coin's own unit.
type Wallet struct {
	Name    string `json:"name"`
	Balance Number `json:"balance"`
}

// Orders is the answer of my_orders.
type Orders struct {
	Orders []Order
	// Limit is how many orders the account may hold; zero when the market did not say.
	Limit int
}

// Order is one order of the account.
type Order struct {
	ID int64 `json:"id"`
	// SI is the server's id.
	SI int64 `json:"si"`
	// Price is per DAY, whole server, in Currency, without fees.
	Price    Number `json:"price"`
	Currency string `json:"currency"`
	// Spend so far in Currency, without fees and creation fee.
	Spend Number `json:"spend"`
	// CreationFee in Currency.
	CreationFee Number `json:"creation_fee"`
	// CT is when it was created, unix seconds.
	CT Int `json:"ct"`
	// MRL is the longest it may run, in SECONDS.
	MRL Int `json:"mrl"`
	// OrderEnd is when it ended, unix seconds; zero while it has not.
	OrderEnd Int `json:"order_end"`
	// Expired is true on ended orders and absent on live ones.
	Expired bool `json:"expired"`
	// Spot is true on spot orders and absent on others.
	Spot bool `json:"spot"`
	// Online says that the host is online, not that the container runs nor that the order lives: it is true on
	// ended orders too.
	Online bool `json:"online"`
	// MonContainer is 0 while deploying and 2 when the container runs.
	MonContainer Int `json:"mon_container"`
	// PubCluster are the hosts where TCPPorts are reached; the first is used. Absent on ended orders.
	PubCluster []string `json:"pub_cluster"`
	// TCPPorts are "<container port>:<public port>"; empty before they are assigned and after the end.
	TCPPorts []string `json:"tcp_ports"`
	// HTTPPort is the one container port published as http, HTTPPub its public name.
	HTTPPort    Number   `json:"http_port"`
	HTTPPub     string   `json:"http_pub"`
	Image       string   `json:"image"`
	Specs       Specs    `json:"specs"`
	GPUArray    []string `json:"gpu_array"`
	CUDAVersion string   `json:"cuda_version"`
	Reliability Number   `json:"reliability"`
	Owner       int64    `json:"owner"`
}

// Ports maps container ports to public ones. It errs on the first entry that is not "<port>:<port>".
func (o *Order) Ports() (map[int]int, error) {
	ports := make(map[int]int, len(o.TCPPorts))
	for _, entry := range o.TCPPorts {
		c, p, _ := strings.Cut(entry, ":")
		container, err := strconv.ParseUint(c, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("read tcp_ports entry %.40q of order %d: %w", entry, o.ID, err)
		}
		public, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("read tcp_ports entry %.40q of order %d: %w", entry, o.ID, err)
		}
		ports[int(container)] = int(public)
	}
	return ports, nil
}

// Created is CT as a time.
func (o *Order) Created() time.Time { return time.Unix(int64(o.CT), 0).UTC() }

// The two values of CreateOrder.Type.
const (
	TypeOnDemand = "on-demand"
	TypeSpot     = "spot"
)

// CreateOrder is the request of create_order. Prices are per DAY, whole server, in Currency.
type CreateOrder struct {
	RentingServer int64
	// Type is TypeOnDemand or TypeSpot.
	Type string
	// Currency must be one of the server's allowed coins.
	Currency string
	// Image is a Docker Hub short name; with a docker.io/ prefix orders were seen to hang.
	Image string
	// SpotPrice is the bid, sent for spot only.
	SpotPrice decimal.Decimal // fact:price-per-day
	// RequiredPrice asks to start only if the price is still this; sent when above zero.
	RequiredPrice decimal.Decimal
	// Ports maps container ports to "tcp" or "http".
	Ports map[int]string
	// Env must hold no '&' in a value: the market answers code 1 to it every time.
	Env     map[string]string
	Command string
	// SSHPassword has at most 32 characters, SSHKey at most 3072.
	SSHPassword, SSHKey string
	// AutoSSH wraps the image with an ssh server.
	AutoSSH bool
}

// MarshalJSON writes the market's names, and leaves out what is not set.
func (c CreateOrder) MarshalJSON() ([]byte, error) {
	w := struct {
		Currency      string            `json:"currency"`
		Image         string            `json:"image"`
		RentingServer int64             `json:"renting_server"`
		Type          string            `json:"type"`
		SpotPrice     json.Number       `json:"spotprice,omitempty"`
		RequiredPrice json.Number       `json:"required_price,omitempty"`
		Ports         map[string]string `json:"ports,omitempty"`
		Env           map[string]string `json:"env,omitempty"`
		Command       string            `json:"command,omitempty"`
		SSHPassword   string            `json:"ssh_password,omitempty"`
		SSHKey        string            `json:"ssh_key,omitempty"`
		AutoSSH       bool              `json:"autossh_entrypoint,omitempty"`
	}{
		Currency: c.Currency, Image: c.Image, RentingServer: c.RentingServer, Type: c.Type,
		Env: c.Env, Command: c.Command, SSHPassword: c.SSHPassword, SSHKey: c.SSHKey, AutoSSH: c.AutoSSH,
	}
	if c.Type == TypeSpot {
		w.SpotPrice = json.Number(c.SpotPrice.Trim(0).String())
	}
	if c.RequiredPrice.IsPos() {
		w.RequiredPrice = json.Number(c.RequiredPrice.Trim(0).String())
	}
	if len(c.Ports) > 0 {
		w.Ports = make(map[string]string, len(c.Ports))
		for port, kind := range c.Ports {
			w.Ports[strconv.Itoa(port)] = kind
		}
	}
	return json.Marshal(w)
}

// Answer is a readable answer with code 0 to a call that changes something. It is the market's word, not proof:
// only my_orders shows what came of it. create_order answers no order id.
type Answer struct {
	// Status is the HTTP status it came with.
	Status int
}

// SpotMarket is the queue of bids for one server.
type SpotMarket struct {
	// Rates are USD for one unit of each coin.
	Rates  map[string]Number
	Offers []SpotOffer
	// MinPrice is the least bid per DAY by coin.
	MinPrice map[string]Number
	Online   bool
	// Exists is false when the market knows no such server.
	Exists bool
}

// SpotOffer is one bid per DAY. The active one holds the server; bids in different coins compare by their rates.
type SpotOffer struct {
	OfferID  int64  `json:"offer_id"`
	Bid      Number `json:"bid"`
	Active   bool   `json:"active"`
	My       bool   `json:"my"`
	Currency string `json:"currency"`
}
