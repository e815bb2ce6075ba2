// Package topology is the bus as values: every subject, stream and consumer renthook uses, by name.
// It guarantees that a subject can be built and taken apart in one place only; it refuses tokens that
// would change the shape of a subject. It holds no connection and does no I/O.
package topology

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Stream names.
const (
	Commands    = "COMMANDS"
	Market      = "MARKET"
	Ticks       = "TICKS"
	Attempts    = "ATTEMPTS"
	Deliveries  = "DELIVERIES"
	DeadLetters = "DEADLETTERS"
)

// Buckets of the key-value store.
const (
	// Leases says who works: one key a job, in memory.
	Leases = "LEASES"
	// Limits holds the shared rate limits, in memory.
	Limits = "LIMITS"
	// Windows remembers a keyless ask of the seed's door for ingress.legacy_dedupe_window.
	Windows = "WINDOWS"
)

// BodyHash is the header that carries the SHA-256 of the sender's bytes, lower-case hex.
const BodyHash = "Renthook-Body-Hash"

// CommandRetention is how long a command's subject refuses a second: 30 days.
const CommandRetention = 30 * 24 * time.Hour

const root = "renthook.v1."

var token = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)

// ValidToken says whether s can stand as one token of a subject.
func ValidToken(s string) bool { return token.MatchString(s) }

// Command names one command; it is also the idempotency key.
type Command struct {
	// Client is who speaks: a fixed position, enforced by the broker.
	Client string
	// Noun and Verb: "order" "create".
	Noun, Verb string
	// Key is the sender's key, or a hash of it.
	Key string
}

// Subject is renthook.v1.cmd.<client>.<noun>.<verb>.<key>.
func (c Command) Subject() string {
	return root + "cmd." + c.Client + "." + c.Noun + "." + c.Verb + "." + c.Key
}

// Operation is the id by which the command can be asked about: op_<noun>-<verb>_<key>.
func (c Command) Operation() string { return "op_" + c.Noun + "-" + c.Verb + "_" + c.Key }

// ParseCommand takes a command's subject apart.
func ParseCommand(subject string) (Command, error) {
	t := strings.Split(subject, ".")
	if len(t) != 7 || t[0] != "renthook" || t[1] != "v1" || t[2] != "cmd" {
		return Command{}, fmt.Errorf("subject %q is no command: want renthook.v1.cmd.<client>.<noun>.<verb>.<key>", subject)
	}
	return Command{Client: t[3], Noun: t[4], Verb: t[5], Key: t[6]}, nil
}

// ParseOperation gives the command of an operation of client.
func ParseOperation(client, operation string) (Command, error) {
	rest, ok := strings.CutPrefix(operation, "op_")
	name, key, ok2 := strings.Cut(rest, "_")
	noun, verb, ok3 := strings.Cut(name, "-")
	if !ok || !ok2 || !ok3 || !ValidToken(noun) || !ValidToken(verb) || !ValidToken(key) || !ValidToken(client) {
		return Command{}, fmt.Errorf("%q is no operation: want op_<noun>-<verb>_<key>", operation)
	}
	return Command{Client: client, Noun: noun, Verb: verb, Key: key}, nil
}

// CommandsOf matches every command of a client.
func CommandsOf(client string) string { return root + "cmd." + client + ".>" }

// Orders is the name of an account's journal.
func Orders(account string) string {
	return "ORDERS_" + strings.ToUpper(strings.ReplaceAll(account, "-", "_"))
}

// OrderEvent is renthook.v1.evt.order.<account>.<client>.<id>.<event>. Facts of the account have client and id "-".
func OrderEvent(account, client, id, event string) string {
	return root + "evt.order." + account + "." + client + "." + id + "." + event
}

// OrderEvents matches the order events of a client on an account; "*" stands for any.
func OrderEvents(account, client string) string {
	return root + "evt.order." + account + "." + client + ".>"
}

// OrderEventParts are the variable tokens of an order event's subject.
type OrderEventParts struct{ Account, Client, ID, Event string }

// ParseOrderEvent takes the subject of an order event apart.
func ParseOrderEvent(subject string) (OrderEventParts, error) {
	t := strings.Split(subject, ".")
	if len(t) != 8 || t[2] != "evt" || t[3] != "order" {
		return OrderEventParts{}, fmt.Errorf("subject %q is no order event", subject)
	}
	return OrderEventParts{Account: t[4], Client: t[5], ID: t[6], Event: t[7]}, nil
}

// EventID names an event: its stream and sequence.
func EventID(stream string, seq uint64) string { return stream + "-" + strconv.FormatUint(seq, 10) }

// Subjects of the market.
const (
	MarketSnapshot = root + "market.snapshot"
	MarketAll      = root + "market.>"
)

// MarketBook is the subject of one part of a model's book.
func MarketBook(gpu string, part int) string {
	return root + "market.book." + gpu + "." + strconv.Itoa(part)
}

// MarketBest is the subject of a model's best price; marketType is "spot" or "on-demand".
func MarketBest(gpu, marketType string) string { return root + "market.best." + gpu + "." + marketType }

// MarketTick is the subject of a model's price history.
func MarketTick(gpu string) string { return root + "market.tick." + gpu }

// Delivery is renthook.v1.out.<endpoint>.<id>.
func Delivery(endpoint, id string) string { return root + "out." + endpoint + "." + id }

// DeliveriesTo matches every delivery to an endpoint.
func DeliveriesTo(endpoint string) string { return root + "out." + endpoint + ".>" }

// DeliveryEvent is renthook.v1.evt.delivery.<client>.<endpoint>.<event>.
func DeliveryEvent(client, endpoint, event string) string {
	return root + "evt.delivery." + client + "." + endpoint + "." + event
}

// DeadLetter is renthook.v1.dlq.<stream>.<consumer>.
func DeadLetter(stream, consumer string) string { return root + "dlq." + stream + "." + consumer }

// Service is renthook.v1.svc.<service>.<verb>: request and reply, kept by no stream.
func Service(service, verb string) string { return root + "svc." + service + "." + verb }

// Slot is where pricewatch asks the account's holder for leave to call the market.
const Slot = root + "svc.order.slot"

// OrderConsumer is the durable by which an account's holder takes its clients' commands.
func OrderConsumer(account string) string { return "order-" + account }

// NotifierConsumer is the durable by which the notifier follows an account's journal.
func NotifierConsumer(account string) string { return "notifier-" + account }

// Sizes bounds what the streams may hold; values fit one box with some GB of disk.
type Sizes struct {
	// CommandsBytes is where asks are refused with 503.
	CommandsBytes int64
	// JournalBytes is where creates are refused; see DESIGN 3.
	JournalBytes int64
	// DeliveriesBytes and the rest.
	DeliveriesBytes, MarketBytes, TicksBytes, AttemptsBytes, DeadLettersBytes int64
	// Replicas of every stream: 1 or 3.
	Replicas int
}

// DefaultSizes suit one box.
func DefaultSizes() Sizes {
	return Sizes{
		CommandsBytes: 512 << 20, JournalBytes: 2 << 30, DeliveriesBytes: 512 << 20, MarketBytes: 24 << 20,
		TicksBytes: 1 << 30, AttemptsBytes: 256 << 20, DeadLettersBytes: 128 << 20, Replicas: 1,
	}
}

func stream(name, description string, subjects ...string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: name, Description: description, Subjects: subjects, Storage: jetstream.FileStorage,
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew, Replicas: 1, MaxMsgSize: 1 << 20,
		Duplicates: 100 * time.Millisecond,
		Metadata:   map[string]string{"owner": "renthook", "contract": "docs/contract/events.md"},
	}
}

// CommandsStream admits a command once per subject, by the broker, for 30 days.
func CommandsStream(s Sizes) jetstream.StreamConfig {
	c := stream(Commands, "Commands; one message per subject for 30 days: the subject is the idempotency key.", root+"cmd.>")
	c.MaxMsgsPerSubject, c.DiscardNewPerSubject = 1, true
	c.MaxAge, c.MaxBytes, c.Replicas = CommandRetention, s.CommandsBytes, s.Replicas
	c.DenyDelete, c.DenyPurge = true, true
	c.AllowAtomicPublish = true
	return c
}

// OrdersStream is the journal of an account. Nothing in it ages; every append is fenced by the last sequence.
func OrdersStream(account string, s Sizes) jetstream.StreamConfig {
	c := stream(Orders(account), "Order journal of account "+account+": one writer, every record an event.", root+"evt.order."+account+".>")
	c.MaxBytes, c.Replicas = s.JournalBytes, s.Replicas
	c.DenyDelete, c.DenyPurge = true, true
	c.AllowAtomicPublish = true
	return c
}

// MarketStream keeps the last book, price and snapshot per subject.
func MarketStream(s Sizes) jetstream.StreamConfig {
	c := stream(Market, "Newest offers and best prices per GPU model.", root+"market.snapshot", root+"market.book.>", root+"market.best.>")
	c.MaxMsgsPerSubject, c.Discard = 1, jetstream.DiscardOld
	c.MaxBytes, c.Replicas = s.MarketBytes, s.Replicas
	c.PersistMode = jetstream.AsyncPersistMode
	c.AllowDirect = true
	return c
}

// TicksStream keeps 90 days of price history.
func TicksStream(s Sizes) jetstream.StreamConfig {
	c := stream(Ticks, "Price history per GPU model, 90 days.", root+"market.tick.>")
	c.MaxAge, c.Discard = 90*24*time.Hour, jetstream.DiscardOld
	c.MaxBytes, c.Replicas = s.TicksBytes, s.Replicas
	c.PersistMode = jetstream.AsyncPersistMode
	c.AllowDirect = true
	return c
}

// DeliveriesStream holds what is still to be sent, at most 7 days.
func DeliveriesStream(s Sizes) jetstream.StreamConfig {
	c := stream(Deliveries, "Deliveries to make to callbacks and channels.", root+"out.>")
	c.MaxMsgsPerSubject, c.DiscardNewPerSubject = 1, true
	c.MaxAge, c.MaxBytes, c.Replicas = 7*24*time.Hour, s.DeliveriesBytes, s.Replicas
	return c
}

// AttemptsStream keeps every attempt at a delivery.
func AttemptsStream(s Sizes) jetstream.StreamConfig {
	c := stream(Attempts, "Every attempt at a delivery, 30 days.", root+"evt.delivery.>")
	c.MaxAge, c.Discard = 30*24*time.Hour, jetstream.DiscardOld
	c.MaxBytes, c.Replicas = s.AttemptsBytes, s.Replicas
	c.PersistMode = jetstream.AsyncPersistMode
	c.AllowDirect = true
	return c
}

// DeadLettersStream keeps what no handler could take, with its reason.
func DeadLettersStream(s Sizes) jetstream.StreamConfig {
	c := stream(DeadLetters, "Messages no handler could take; they can be driven again.", root+"dlq.>")
	c.MaxBytes, c.Replicas = s.DeadLettersBytes, s.Replicas
	return c
}

// LeasesBucket is in memory and keeps one revision: a lapsed older one must not come back.
func LeasesBucket(replicas int) jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket: Leases, Description: "Who works on what; liveness only.", History: 1, Storage: jetstream.MemoryStorage,
		LimitMarkerTTL: 10 * time.Second, MaxBytes: 1 << 20, Replicas: replicas,
	}
}

// LimitsBucket is in memory: a lost limit starts afresh.
func LimitsBucket(replicas int) jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket: Limits, Description: "Rate limits shared by all replicas.", History: 1, Storage: jetstream.MemoryStorage,
		TTL: time.Hour, MaxBytes: 64 << 20, Replicas: replicas,
	}
}

// WindowsBucket is kept in memory: an ask would else be written to disk twice, and what is forgotten is found in the
// commands. Its keys live as long as the window.
func WindowsBucket(replicas int) jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket: Windows, Description: "Keyless asks of the seed's door, for the length of the window.", History: 1,
		Storage: jetstream.MemoryStorage, TTL: time.Hour, LimitMarkerTTL: 10 * time.Second, MaxBytes: 64 << 20, Replicas: replicas,
	}
}
