package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/renthook/renthook/pkg/webhook"
)

// The main job: a signed webhook rents the right GPU, once, and says so by one signed callback with which one can log in.
func TestUp_SignedWebhookRentsOneGPUAndSaysSo(t *testing.T) {
	t.Parallel()
	r := up(t, t.TempDir(), nil)
	cb := listen(t)
	a := r.hook(t, "create-order", fmt.Sprintf(`{"gpu_type":"RTX 4090","max_price":0.50,"callback_url":%q}`, cb.URL))
	if a.code != http.StatusOK || a.Status != "queued" || a.Message != "Order creation queued for RTX 4090" {
		t.Fatalf("got %+v", a)
	}
	got := cb.wait(t, 1)[0]
	if got.value["success"] != true || got.value["status"] != "running" || got.value["type"] != "order.running" {
		t.Fatalf("callback %s", got.body)
	}
	if _, _, err := webhook.VerifyStandard(got.header, got.body, []string{r.secret}, time.Now()); err != nil {
		t.Errorf("Standard Webhooks: %v", err)
	}
	if _, err := webhook.VerifyLegacy(got.header, got.body, []string{r.secret}); err != nil {
		t.Errorf("legacy signature: %v", err)
	}

	l := market(t, r.Market)
	if l.live() != 1 || l.calls("create_order") != 1 || l.Violations != 0 {
		t.Fatalf("%d live rentals, %d creates, %d violations", l.live(), l.calls("create_order"), l.Violations)
	}
	rented := l.Rentals[len(l.Rentals)-1]
	if rented.USD > 0.50 || float64(rented.ServerID) != got.value["server_id"] {
		t.Errorf("rented server %d at %v USD per hour; callback %s", rented.ServerID, rented.USD, got.body)
	}
	markers := slices.DeleteFunc(slices.Clone(rented.Ports), func(p int) bool { return p < 20000 || p > 64999 })
	if len(markers) != 2 {
		t.Errorf("ports %v hold %d markers, want 2", rented.Ports, len(markers))
	}

	data, _ := got.value["data"].(map[string]any)
	access, _ := data["ssh"].(map[string]any)
	host, _ := access["host"].(string)
	port, _ := access["port"].(float64)
	password, _ := access["password"].(string)
	if out, err := login(host, int(port), password); err != nil {
		t.Errorf("ssh with what the callback held: %v", err)
	} else if strings.TrimSpace(out) == "" {
		t.Error("ssh answers nothing")
	}

	// It is ended on request, once proved, and nothing more is told about the create.
	number := int64(got.value["order_id"].(float64))
	r.hook(t, "cancel-order", fmt.Sprintf(`{"order_id":%d,"callback_url":%q}`, number, cb.URL))
	second := cb.wait(t, 2)[1]
	if second.value["success"] != true || second.value["status"] != "cancelled" || second.value["order_id"] != float64(number) {
		t.Errorf("callback of the cancel %s", second.body)
	}
	if n := market(t, r.Market).live(); n != 0 {
		t.Errorf("%d live rentals after the cancel", n)
	}
	r.stop()
	if n := len(cb.all()); n != 2 {
		t.Errorf("%d callbacks, want exactly one a task", n)
	}
}

func TestUp_OneKeyFiftyTimesAtOnceIsOneOrder(t *testing.T) {
	t.Parallel()
	r := up(t, t.TempDir(), nil, "--set", "limits.requests_per_minute=10000")
	body := `{"gpu_type":"RTX 4090","max_price":2}`
	var mu sync.Mutex
	tasks := map[string]int{}
	var senders sync.WaitGroup
	for range 50 {
		senders.Go(func() {
			a, err := r.tryHook(t.Context(), "create-order", body, "Idempotency-Key", "the-same")
			mu.Lock()
			defer mu.Unlock()
			if err != nil || a.code != http.StatusOK {
				t.Errorf("%v %+v", err, a)
			}
			tasks[a.TaskID]++
		})
	}
	senders.Wait()
	if len(tasks) != 1 {
		t.Errorf("tasks %v", tasks)
	}
	if a := r.hook(t, "create-order", `{"gpu_type":"RTX 4090","max_price":3}`, "Idempotency-Key", "the-same"); a.code != http.StatusUnprocessableEntity || a.Error != "this key was used with another body" {
		t.Errorf("another body: %+v", a)
	}
	eventually(t, "one rental", func() bool { return market(t, r.Market).live() == 1 })
	if n := market(t, r.Market).calls("create_order"); n != 1 {
		t.Errorf("%d creates", n)
	}
}

// A key of the real market in the environment never leaves the machine: without a mode the simulator is used.
func TestUp_AKeyAloneNeverLeaves(t *testing.T) {
	t.Parallel()
	trap := listen(t)
	r := up(t, t.TempDir(), []string{"CLORE_API_KEY=a-real-key", "CLORE_API_URL=" + trap.URL})
	r.hook(t, "create-order", `{"gpu_type":"RTX 4090","max_price":2}`)
	eventually(t, "a rental in the simulator", func() bool { return market(t, r.Market).live() == 1 })
	if n := len(trap.all()); n != 0 {
		t.Errorf("%d requests left for the address in the environment", n)
	}
	if strings.Contains(r.log.String(), "a-real-key") {
		t.Error("the key is in the log")
	}
	if !strings.Contains(r.log.String(), "CLORE_API_KEY") {
		t.Error("nothing says that the key is ignored")
	}
}

// The printed request works when pasted.
func TestUp_PrintsARequestThatWorks(t *testing.T) {
	t.Parallel()
	r := up(t, t.TempDir(), nil)
	var command string
	eventually(t, "the printed request", func() bool {
		_, after, ok := strings.Cut(r.log.String(), "\n  curl ")
		command, _, _ = strings.Cut("curl "+after, "\n\n")
		return ok && strings.Contains(after, "\n\n")
	})
	out := bash(t, command)
	var a answer
	if err := json.Unmarshal([]byte(out), &a); err != nil || a.Status != "queued" {
		t.Fatalf("%s\n%s", command, out)
	}
}
