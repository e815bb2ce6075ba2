package bus_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/renthook/renthook/pkg/bus"
	"github.com/renthook/renthook/pkg/bus/bustest"
)

// drifted gives the settings a DriftError names.
func drifted(t testing.TB, err error) []string {
	t.Helper()
	var drift *bus.DriftError
	if err != nil && !errors.As(err, &drift) {
		t.Fatalf("not a drift: %v", err)
	}
	var settings []string
	if drift != nil {
		for _, d := range drift.Differences {
			settings = append(settings, d.Setting)
		}
	}
	return settings
}

func TestEnsureStream_CreatesVerifiesAndNeverChanges(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t)
	c := s.Connect(t)
	base := once("CMD", "cmd.>")
	base.Description, base.Metadata = "commands", map[string]string{"owner": "test"}
	var together sync.WaitGroup
	for range 8 {
		together.Go(func() {
			if err := c.EnsureStream(t.Context(), base); err != nil {
				t.Errorf("ensure at the same time: %v", err)
			}
		})
	}
	together.Wait()
	stream, err := c.JetStream().Stream(t.Context(), "CMD")
	if err != nil {
		t.Fatal(err)
	}
	before := stream.CachedInfo().Config
	for _, test := range []struct {
		name   string
		change func(*jetstream.StreamConfig)
		want   []string
	}{
		{"nothing", func(*jetstream.StreamConfig) {}, nil},
		{"words", func(c *jetstream.StreamConfig) { c.Description, c.Metadata = "other", nil }, nil},
		{"broker's defaults", func(c *jetstream.StreamConfig) { c.Duplicates, c.Replicas = 0, 0 }, nil},
		{"explicit no limits", func(c *jetstream.StreamConfig) { c.MaxMsgs, c.MaxConsumers, c.Replicas = -1, -1, 1 }, nil},
		{"age", func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }, []string{"max_age"}},
		{"more room", func(c *jetstream.StreamConfig) { c.MaxBytes = 1 << 19 }, nil},
		{"less room", func(c *jetstream.StreamConfig) { c.MaxBytes = 1 << 21 }, []string{"max_bytes"}},
		{"lifted limit", func(c *jetstream.StreamConfig) { c.MaxBytes = 0 }, []string{"max_bytes"}},
		{"bool", func(c *jetstream.StreamConfig) { c.AllowDirect = true }, []string{"allow_direct"}},
		{"bool off", func(c *jetstream.StreamConfig) { c.DenyPurge = false }, []string{"deny_purge"}},
		{"enumeration", func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }, []string{"storage"}},
		{"subjects", func(c *jetstream.StreamConfig) { c.Subjects = []string{"cmd.>", "more"} }, []string{"subjects"}},
		{"two", func(c *jetstream.StreamConfig) { c.Discard, c.DiscardNewPerSubject = jetstream.DiscardOld, false }, []string{"discard", "discard_new_per_subject"}},
	} {
		cfg := base
		test.change(&cfg)
		if got := drifted(t, c.EnsureStream(t.Context(), cfg)); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
	if stream, err = c.JetStream().Stream(t.Context(), "CMD"); err != nil {
		t.Fatal(err)
	}
	if after := stream.CachedInfo().Config; after.MaxBytes != before.MaxBytes || after.Description != "commands" || after.AllowDirect {
		t.Errorf("the stream was changed: %+v", after)
	}
}

func TestEnsureConsumer_CreatesVerifiesAndNeverChanges(t *testing.T) {
	t.Parallel()
	c := bustest.Start(t).Connect(t)
	ensure(t, c, once("CMD", "cmd.>"))
	base := jetstream.ConsumerConfig{
		Durable: "worker", AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: -1, FilterSubjects: []string{"cmd.b.>", "cmd.a.>"},
	}
	if _, err := c.EnsureConsumer(t.Context(), "CMD", base); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change func(*jetstream.ConsumerConfig)
		want   []string
	}{
		{"nothing", func(*jetstream.ConsumerConfig) {}, nil},
		{"order of filters", func(c *jetstream.ConsumerConfig) { c.FilterSubjects = []string{"cmd.a.>", "cmd.b.>"} }, nil},
		{"one filter", func(c *jetstream.ConsumerConfig) { c.FilterSubjects, c.FilterSubject = nil, "cmd.a.>" }, []string{"filter_subjects"}},
		{"no filter", func(c *jetstream.ConsumerConfig) { c.FilterSubjects = nil }, []string{"filter_subjects"}},
		{"patience", func(c *jetstream.ConsumerConfig) { c.AckWait = time.Hour }, []string{"ack_wait"}},
		{"deliveries", func(c *jetstream.ConsumerConfig) { c.MaxDeliver = 5 }, []string{"max_deliver"}},
		{"acknowledgements", func(c *jetstream.ConsumerConfig) { c.AckPolicy = jetstream.AckNonePolicy }, []string{"ack_policy"}},
	} {
		cfg := base
		test.change(&cfg)
		_, err := c.EnsureConsumer(t.Context(), "CMD", cfg)
		if got := drifted(t, err); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
	if _, err := c.EnsureConsumer(t.Context(), "NONE", base); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("no stream: %v", err)
	}
}

func TestEnsureBucket_CreatesVerifiesAndNeverChanges(t *testing.T) {
	t.Parallel()
	c := bustest.Start(t).Connect(t)
	base := jetstream.KeyValueConfig{
		Bucket: "B", History: 1, Storage: jetstream.MemoryStorage, LimitMarkerTTL: time.Minute, MaxBytes: 1 << 20,
	}
	if _, err := c.EnsureBucket(t.Context(), base); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change func(*jetstream.KeyValueConfig)
		want   []string
	}{
		{"nothing", func(*jetstream.KeyValueConfig) {}, nil},
		{"broker's defaults", func(c *jetstream.KeyValueConfig) { c.History, c.Replicas = 0, 1 }, nil},
		{"history", func(c *jetstream.KeyValueConfig) { c.History = 2 }, []string{"history"}},
		{"age", func(c *jetstream.KeyValueConfig) { c.TTL = time.Hour }, []string{"ttl"}},
		{"marker", func(c *jetstream.KeyValueConfig) { c.LimitMarkerTTL = time.Hour }, []string{"limit_marker_ttl"}},
	} {
		cfg := base
		test.change(&cfg)
		_, err := c.EnsureBucket(t.Context(), cfg)
		if got := drifted(t, err); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
