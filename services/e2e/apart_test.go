package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/renthook/renthook/services/stack"
)

// broker is a NATS server as it comes, built once.
var broker = sync.OnceValues(func() (string, error) {
	path := filepath.Join(programs, "nats-server")
	out, err := exec.Command("go", "build", "-o", path, "github.com/nats-io/nats-server/v2").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the broker: %w\n%s", err, out)
	}
	return path, nil
})

// unit is one program of several, which can be killed and started again.
type unit struct {
	program   string
	env, args []string
	*process
}

func (u *unit) start(t *testing.T) { u.process = start(t, u.program, u.env, u.args...) }

// healthy asks the program itself whether it is ready.
func (u *unit) healthy() bool {
	cmd := exec.Command(filepath.Join(programs, u.program), "--health")
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, u.env...)
	return cmd.Run() == nil
}

// apart is an installation whose services are processes of their own, over a NATS server and a simulator.
type apart struct {
	*renthook
	sim   *simulator
	units map[string]*unit
	// said is what init printed.
	said string
}

// startApart makes an installation by `renthook init`, starts everything over a simulator and waits until it is ready.
func startApart(t *testing.T, sim *simulator, sets ...string) *apart {
	t.Helper()
	if _, err := broker(); err != nil {
		t.Fatal(err)
	}
	data, at := t.TempDir(), freeAddresses(t, 5)
	a := &apart{sim: sim, units: map[string]*unit{}}
	install := start(t, "renthook", nil, "init", "--data", data, "--nats", at[0], "--http", at[1], "--grpc", at[2], "--pricewatch", at[3], "--admin", at[4], "--market-url", "http://"+a.sim.address)
	<-install.done
	if code := install.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("renthook init ended with %d:\n%s", code, install.log)
	}
	a.said = install.log.String()
	secrets := filepath.Join(data, "secrets")
	a.renthook = &renthook{data: data, secret: readSecret(t, filepath.Join(secrets, "webhook.secret")), token: readSecret(t, filepath.Join(secrets, "token"))}
	a.Addresses = stack.Addresses{NATS: at[0], HTTP: at[1], GRPC: at[2], Pricewatch: at[3], Market: a.sim.address}

	a.units["nats-server"] = &unit{program: "nats-server", args: []string{"-c", filepath.Join(data, "nats", "nats.conf")}}
	var args []string
	for _, set := range sets {
		args = append(args, "--set", set)
	}
	for _, service := range []string{"ingress", "order", "pricewatch", "notifier"} {
		text, err := os.ReadFile(filepath.Join(data, service+".env"))
		if err != nil {
			t.Fatal(err)
		}
		env := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(text)), "\n"), func(line string) bool { return strings.HasPrefix(line, "#") })
		a.units[service] = &unit{program: service, env: env, args: args}
	}
	for _, u := range a.units {
		u.start(t)
	}
	for _, service := range []string{"order", "pricewatch", "notifier", "ingress"} {
		eventually(t, service+" to be ready", a.units[service].healthy)
	}
	return a
}

// freeAddresses gives addresses that are free now, the three ports after the last one too. They are below the range from
// which the system hands out ports by itself, so that no connection takes one while its program is down.
func freeAddresses(t *testing.T, n int) (out []string) {
	t.Helper()
	const first, last, after = 20000, 32000, 3
	for port := first + os.Getpid()%1000*10; port < last; port++ {
		need := 1
		if len(out) == n-1 {
			need += after
		}
		if free(port, need) {
			if out = append(out, net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); len(out) == n {
				return out
			}
		}
	}
	t.Fatal("no free ports")
	return nil
}

// free says whether n ports from one on can be listened on.
func free(port, n int) bool {
	for p := port; p < port+n; p++ {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p)))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

// The services as processes of their own, from what `renthook init` wrote, do the main job and say whether they are ready.
func TestApart_RentsAndTells(t *testing.T) {
	t.Parallel()
	a := startApart(t, simulate(t))
	cb := listen(t)
	ask := a.hook(t, "create-order", fmt.Sprintf(`{"gpu_type":"RTX 4090","max_price":0.5,"callback_url":%q}`, cb.URL))
	if ask.code != http.StatusOK {
		t.Fatalf("got %+v", ask)
	}
	if op := a.settled(t, ask.TaskID); op.Stage != "succeeded" || op.Order.State != "RUNNING" {
		t.Errorf("the order: %+v", op)
	}
	if got := cb.wait(t, 1)[0]; got.value["type"] != "order.running" {
		t.Errorf("callback %s", got.body)
	}
	if l := market(t, a.Market); l.live() != 1 || l.Violations != 0 {
		t.Errorf("%d rentals, %d violations", l.live(), l.Violations)
	}

	// What init printed works when pasted.
	_, command, _ := strings.Cut(a.said, "\n  curl ")
	if out := bash(t, "curl "+command); !strings.Contains(out, `"status":"queued"`) {
		t.Errorf("curl %s\n%s", command, out)
	}

	alive := func(listen string) bool {
		return exec.Command(filepath.Join(programs, "marketsim"), "--health", "--listen", listen).Run() == nil
	}
	if !alive(a.Market) || alive(a.HTTP) {
		t.Errorf("the simulator is ready: %v; an address that is another's is: %v", alive(a.Market), alive(a.HTTP))
	}
	order := a.units["order"]
	order.stop()
	if order.healthy() {
		t.Error("a service that is gone says it is ready")
	}
}

// What the services would refuse is refused when they are installed, not by each of them for ever.
func TestApart_InitRefusesWhatServicesWould(t *testing.T) {
	t.Parallel()
	p := start(t, "renthook", []string{"WEBHOOK_SECRET=your-secret-key"}, "init", "--data", t.TempDir())
	<-p.done
	if code := p.cmd.ProcessState.ExitCode(); code != 2 || !strings.Contains(p.log.String(), "WEBHOOK_SECRET") || strings.Contains(p.log.String(), "curl") {
		t.Errorf("ended with %d:\n%s", code, p.log)
	}
}
