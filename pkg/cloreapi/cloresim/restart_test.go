package cloresim

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// childDir names the directory over which the test binary becomes a market, to be killed by a test.
const childDir = "CLORESIM_TEST_CHILD"

func TestMain(m *testing.M) {
	dir := os.Getenv(childDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	c := plain
	c.Dir, c.Servers = dir, 60
	sim, err := New(c)
	if err == nil {
		err = sim.Start("127.0.0.1:0")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(sim.Addr())
	// It is killed; should that not happen, it ends with the test that reads its output.
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	os.Exit(0)
}

// child starts a market as a process of its own; kill is kill -9.
func child(t *testing.T, dir string) (r *rig, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = in.Close()
	}
	t.Cleanup(kill)
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the market did not start: %v", err)
	}
	return &rig{t: t, url: "http://" + strings.TrimSpace(addr)}, kill
}

func (r *rig) state() State {
	r.t.Helper()
	var st State
	if err := json.Unmarshal([]byte(r.do("GET", "/sim/v1/state", "", "").body), &st); err != nil {
		r.t.Fatal(err)
	}
	return st
}

func TestRestart_KilledMarketGoesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r, kill := child(t, dir)
	// The reply is lost after applying: whoever was answered or not, what was done is on disk.
	r.script(`{"create_order":[{},{"drop":"after"},{"status":502}],"my_orders":[{},{"empty":true,"repeat":2}]}`)
	r.post("/v1/create_order", order(TrapRight, nil))
	_, _ = r.try("POST", "/v1/create_order", "k", order(TrapAbove, nil))
	r.get("/v1/my_orders")
	if a := r.do("PATCH", fmt.Sprintf("/sim/v1/servers/%d", TrapLaptop), "", `{"on_demand_usd_per_day":99}`); a.status != 200 {
		t.Fatal(a)
	}
	if a := r.do("POST", "/sim/v1/servers", "", `{"gpu":"2x NVIDIA GeForce RTX 5090","on_demand_usd_per_day":30}`); a.status != 201 {
		t.Fatal(a)
	}
	var row string
	eventually(t, "the ssh server answers", func() bool {
		row = r.do("GET", "/v1/my_orders", "k", "").body
		return loginPassword(row, TrapRight, "Abc123") == nil
	})
	r.script(`{"create_order":[{"status":502}],"my_orders":[{"empty":true,"repeat":2}]}`)
	r.get("/v1/my_orders")
	before := r.state()
	kill()

	r, kill = child(t, dir)
	after := r.state()
	for i, got := range after.Rentals {
		// Spend goes on while nobody looks.
		want := before.Rentals[i]
		got.Spend, want.Spend = "", ""
		if a, b := text(t, got), text(t, want); a != b {
			t.Errorf("rental %d was %s and is %s", i, b, a)
		}
	}
	if len(after.Rentals) != 2 || text(t, after.Servers) != text(t, before.Servers) || text(t, after.Calls) != text(t, before.Calls) {
		t.Error("the killed market came back with other rentals, servers or calls")
	}
	if text(t, after.GapsMS) != text(t, before.GapsMS) {
		t.Errorf("the gaps were %s and are %s", text(t, before.GapsMS), text(t, after.GapsMS))
	}
	if got := r.orders(false); len(got) != 0 {
		t.Errorf("the scripted empty list was forgotten: %v", got)
	}
	eventually(t, "the ssh server is back on its port", func() bool {
		return loginPassword(row, TrapRight, "Abc123") == nil
	})
	if a := r.post("/v1/create_order", order(TrapD, nil)); a.status != 502 {
		t.Errorf("the scripted 502 was forgotten: %d %s", a.status, a.body)
	}
	kill()

	r, _ = child(t, dir)
	ids := map[int64]bool{}
	for _, got := range r.state().Rentals {
		ids[got.ID] = true
	}
	if len(ids) != 3 {
		t.Errorf("after two kills there are the rentals %v", ids)
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestRestart_KilledWhileACallIsInWork(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		step    string
		applied bool
	}{{`{"delay_ms":600000}`, true}, {`{"apply":false,"delay_ms":600000}`, false}} {
		dir := t.TempDir()
		r, kill := child(t, dir)
		r.script(`{"create_order":[` + c.step + `]}`)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = r.try("POST", "/v1/create_order", "k", order(TrapRight, nil))
		}()
		eventually(t, "the call is in work", func() bool {
			calls := r.state().Calls
			return len(calls) == 1 && calls[0].Endpoint == "create_order" && calls[0].EndedAt == nil
		})
		kill()
		<-done
		r, _ = child(t, dir)
		st := r.state()
		if got := len(st.Rentals) == 1; got != c.applied {
			t.Errorf("%s: after the kill there are %d rentals", c.step, len(st.Rentals))
		}
		if len(st.Calls) != 1 || st.Calls[0].EndedAt != nil || st.Calls[0].Applied != c.applied {
			t.Errorf("%s: the ledger says %s", c.step, text(t, st.Calls))
		}
	}
}

func TestRestart_LateCallAppliesAfterTheKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r, kill := child(t, dir)
	r.script(`{"create_order":[{"drop":"before","apply_after_ms":400}]}`)
	_, _ = r.try("POST", "/v1/create_order", "k", order(TrapRight, nil))
	kill()
	r, _ = child(t, dir)
	eventually(t, "the late call applies", func() bool { return len(r.state().Rentals) == 1 })
}

func TestRestart_TornLineIsDropped(t *testing.T) {
	t.Parallel()
	c := plain
	c.Dir = t.TempDir()
	r := newRig(t, c)
	r.post("/v1/create_order", order(TrapRight, nil))
	if err := r.sim.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.Dir, logName)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(raw, []byte("\n"))
	if len(lines) < 3 {
		t.Fatalf("the log has %d lines", len(lines))
	}
	last := lines[len(lines)-2]
	for cut := 1; cut < len(last); cut += 97 {
		torn := append(bytes.Join(lines[:len(lines)-2], nil), last[:cut]...)
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, logName), torn, 0o600); err != nil {
			t.Fatal(err)
		}
		c.Dir = dir
		if again := newRig(t, c); len(again.rentals()) != 0 {
			t.Fatalf("cut at %d, there are %d rentals", cut, len(again.rentals()))
		}
	}
	damaged := append([]byte(`{"settings":`), raw...)
	c.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(c.Dir, logName), damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(c); err == nil {
		t.Error("a damaged log was taken")
	}
}

func TestRestart_LogIsRewrittenWhenItHasGrown(t *testing.T) {
	t.Parallel()
	c := plain
	c.Dir = t.TempDir()
	r := newRig(t, c)
	r.post("/v1/create_order", order(TrapRight, nil))
	r.sim.mu.Lock()
	r.sim.store.compact = 1
	r.sim.mu.Unlock()
	r.get("/v1/wallets")
	r.get("/v1/wallets")
	before := text(t, r.sim.State(0, "").Calls)
	if err := r.sim.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(c.Dir, logName))
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(raw, []byte("\n")); n != 2 {
		t.Errorf("the log has %d lines, want the whole world and one call", n)
	}
	again := newRig(t, c)
	if got := again.sim.State(0, ""); text(t, got.Calls) != before || len(got.Rentals) != 1 {
		t.Error("the rewritten log lost something")
	}
}

func TestRestart_RefusesAnotherInventory(t *testing.T) {
	t.Parallel()
	inventory := filepath.Join(t.TempDir(), "market.json")
	if err := os.WriteFile(inventory, []byte(`{"servers":[{"id":7,"price":{}}],"code":0}`), 0o600); err != nil {
		t.Fatal(err)
	}
	c := plain
	c.Dir = t.TempDir()
	newRig(t, c)
	c.Inventory = inventory
	if sim, err := New(c); err == nil {
		_ = sim.Stop(context.Background())
		t.Error("a generated world went on over a recorded inventory")
	}
}

func TestStore_NothingIsAnsweredThatIsNotOnDisk(t *testing.T) {
	t.Parallel()
	c := plain
	c.Dir = t.TempDir()
	r := newRig(t, c)
	r.sim.mu.Lock()
	if err := r.sim.store.file.Close(); err != nil {
		t.Fatal(err)
	}
	r.sim.mu.Unlock()
	if a, err := r.try("POST", "/v1/create_order", "k", order(TrapRight, nil)); err == nil {
		t.Errorf("it was answered %d %s", a.status, a.body)
	}
	if a := r.do("POST", "/sim/v1/script", "", `{}`); a.status == 200 {
		t.Error("a control call was answered as done")
	}
	// Stopping says again that the file is closed; the rig would take that for a failure.
	r.sim.mu.Lock()
	r.sim.store = nil
	r.sim.mu.Unlock()
}
