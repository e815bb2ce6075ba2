package cloresim

import (
	"testing"
	"time"
)

func BenchmarkGenerate(b *testing.B) {
	rates, err := readRates(nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := generate(1, 3500, rates); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMarketplace(b *testing.B) {
	w := newWorld()
	var err error
	if w.rates, err = readRates(nil); err != nil {
		b.Fatal(err)
	}
	ls, err := generate(1, 3500, w.rates)
	if err != nil {
		b.Fatal(err)
	}
	w.settings.Drift = true
	w.stock(ls)
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(3 * time.Second)
		w.marketplace(now, nil)
	}
}
