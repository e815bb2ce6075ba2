package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// recordingFile is what the market listed on one day of 2024.
const recordingFile = "marketplace-2024-05-21.full.json"

// recordedServer is what this test reads of a row by itself, to compare with what renthook says.
type recordedServer struct {
	ID     int64 `json:"id"`
	Rented bool  `json:"rented"`
	Specs  struct {
		GPU string `json:"gpu"`
	} `json:"specs"`
	Price struct {
		Spot map[string]float64 `json:"spot"`
	} `json:"price"`
}

// recording gives the path of the recorded marketplace and its servers.
func recording(t *testing.T) (string, []recordedServer) {
	t.Helper()
	dir := os.Getenv("RENTHOOK_RECORDINGS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data", "clore")
	}
	path, err := filepath.Abs(filepath.Join(dir, recordingFile))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Skipf("no recording of the market here (RENTHOOK_RECORDINGS): %v", err)
	}
	var answer struct {
		Servers []recordedServer `json:"servers"`
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		t.Fatal(err)
	}
	return path, answer.Servers
}

// any4090 is the model by any number, and none of its relatives.
var any4090 = regexp.MustCompile(`^\d+x NVIDIA GeForce RTX 4090$`)

// What the real market listed is grouped as it should be, and can be rented from.
func TestInventory_RecordedMarketplace(t *testing.T) {
	t.Parallel()
	path, servers := recording(t)
	// The recording states no rates: these are arbitrary.
	usd := map[string]float64{"bitcoin": 70000, "CLORE-Blockchain": 0.12, "USD-Blockchain": 1}
	total, free, models := 0, 0, map[int64]bool{}
	least := 0.0
	for _, s := range servers {
		if !any4090.MatchString(s.Specs.GPU) {
			continue
		}
		total++
		models[s.ID] = true
		if s.Rented {
			continue
		}
		free++
		for coin, perDay := range s.Price.Spot {
			if hour := perDay * usd[coin] / 24; hour > 0 && (least == 0 || hour < least) {
				least = hour
			}
		}
	}
	if total == 0 || free == 0 || least == 0 {
		t.Fatalf("the recording holds %d such servers, %d free, at least %v USD per hour", total, free, least)
	}

	r := up(t, t.TempDir(), nil, "--market-inventory", path, "--market-rates", "bitcoin=70000,CLORE-Blockchain=0.12,USD-Blockchain=1")
	var shown struct {
		Status  string `json:"status"`
		Summary map[string]struct {
			Available int      `json:"available"`
			Total     int      `json:"total"`
			MinPrice  *float64 `json:"min_price"`
		} `json:"summary"`
	}
	eventually(t, "the marketplace to be read", func() bool { return r.read(t, "/webhook/marketplace", &shown) == http.StatusOK })
	row, ok := shown.Summary["RTX 4090"]
	if !ok || row.Total != total || row.Available != free {
		t.Errorf("RTX 4090: %+v (there: %v), the recording has %d, %d of them free", row, ok, total, free)
	}
	if row.MinPrice == nil || *row.MinPrice < least*0.999 || *row.MinPrice > least*1.5 {
		t.Errorf("least price %v USD per hour, the recording has %v", row.MinPrice, least)
	}

	a := r.hook(t, "create-order", `{"gpu_type":"RTX 4090","max_price":5}`)
	op := r.settled(t, a.TaskID)
	if op.Stage != "succeeded" || op.Order.State != "RUNNING" {
		t.Fatalf("the order: %+v", op)
	}
	l := market(t, r.Market)
	if l.live() != 1 || l.Violations != 0 {
		t.Fatalf("%d rentals, %d violations", l.live(), l.Violations)
	}
	for _, rental := range l.Rentals {
		if !models[rental.ServerID] || rental.USD > 5 || fmt.Sprint(rental.ID) != op.Order.MarketOrderID.String() {
			t.Errorf("rented %+v for %+v", rental, op)
		}
	}
}
