package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/renthook/renthook/pkg/webhook"
	"github.com/renthook/renthook/services/stack"
)

// patience bounds every wait; generous, since machines are shared and noisy.
const patience = 3 * time.Minute

// programs holds the binaries under test, built once.
var programs string

// atOnce is how many tests run at once: they wait more than they work.
const atOnce = "4"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", atOnce); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := func() int {
		dir, err := os.MkdirTemp("", "renthook-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		build := exec.Command("go", "build", "-o", dir+"/", "../cmd/...")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the programs: %v\n%s", err, out)
			return 1
		}
		programs = dir
		return m.Run()
	}()
	os.Exit(code)
}

// process is a program under test.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	log  *output
	done chan struct{}
}

// output keeps what a process says and lets tests wait for a line.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// start runs a program; it is killed at the test's end if it still runs.
func start(t *testing.T, name string, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, cmd: exec.Command(filepath.Join(programs, name), args...), log: &output{}, done: make(chan struct{})}
	p.cmd.Dir = t.TempDir()
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.cmd.Dir}, env...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			text := p.log.String()
			t.Logf("%s said (the end of it):\n%s", name, text[max(len(text)-6000, 0):])
		}
	})
	return p
}

// kill is kill -9, and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.done
}

// stop asks it to end, and waits.
func (p *process) stop() {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		p.t.Fatalf("%s does not end", p.name)
	}
}

// eventually waits for an outcome.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain for %s", patience, what)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatalf("the test ended while waiting for %s", what)
		}
	}
}

// renthook is one `renthook up`.
type renthook struct {
	*process
	stack.Addresses
	data   string
	secret string
	token  string
}

// up starts everything in one process on free ports and waits until it is ready.
func up(t *testing.T, data string, env []string, args ...string) *renthook {
	t.Helper()
	_ = os.Remove(filepath.Join(data, "run.json"))
	all := append([]string{"up", "--data", data, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--market", "127.0.0.1:0", "--nats", "127.0.0.1:0"}, args...)
	r := &renthook{process: start(t, "renthook", env, all...), data: data}
	eventually(t, "renthook to be up", func() bool {
		select {
		case <-r.done:
			t.Fatalf("renthook ended:\n%s", r.log)
		default:
		}
		b, err := os.ReadFile(filepath.Join(data, "run.json"))
		return err == nil && json.Unmarshal(b, &r.Addresses) == nil
	})
	r.secret, r.token = readSecret(t, r.SecretFile), readSecret(t, r.TokenFile)
	return r
}

func readSecret(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// answer is what the seed's door says.
type answer struct {
	Status  string `json:"status"`
	TaskID  string `json:"task_id"`
	Message string `json:"message"`
	Error   string `json:"error"`
	code    int
	header  http.Header
}

// hook signs a body as existing senders do and posts it.
func (r *renthook) hook(t *testing.T, route, body string, header ...string) answer {
	t.Helper()
	a, err := r.tryHook(t.Context(), route, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (r *renthook) tryHook(ctx context.Context, route, body string, header ...string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.HTTP+"/webhook/"+route, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("X-Webhook-Signature", webhook.SignLegacy(r.secret, []byte(body)))
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	a := answer{code: res.StatusCode, header: res.Header}
	return a, json.NewDecoder(res.Body).Decode(&a)
}

// read asks the native door, and says with what status it answered.
func (r *renthook) read(t *testing.T, path string, into any) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.HTTP+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusOK {
		if err := json.NewDecoder(res.Body).Decode(into); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	return res.StatusCode
}

// operation is what became of one command.
type operation struct {
	Done    bool   `json:"done"`
	Stage   string `json:"stage"`
	OrderID string `json:"order_id"`
	Failure struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"failure"`
	Order struct {
		State         string      `json:"state"`
		MarketOrderID json.Number `json:"market_order_id"`
	} `json:"order"`
}

// settled waits until a command is.
func (r *renthook) settled(t *testing.T, id string) (op operation) {
	t.Helper()
	eventually(t, id+" to be settled", func() bool { return r.read(t, "/v1/operations/"+id+"?wait=20s", &op) == http.StatusOK && op.Done })
	return op
}

// receiver collects callbacks.
type receiver struct {
	*httptest.Server
	mu  sync.Mutex
	got []received
}

type received struct {
	path   string
	header http.Header
	body   []byte
	value  map[string]any
}

func listen(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b, err := io.ReadAll(io.LimitReader(req.Body, 1<<20))
		got := received{path: req.URL.Path, header: req.Header, body: b}
		if err == nil && json.Unmarshal(b, &got.value) == nil {
			r.mu.Lock()
			r.got = append(r.got, got)
			r.mu.Unlock()
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]received(nil), r.got...)
}

func (r *receiver) wait(t *testing.T, n int) []received {
	t.Helper()
	eventually(t, fmt.Sprintf("%d callbacks", n), func() bool { return len(r.all()) >= n })
	return r.all()
}

// ledger is what the simulator itself says happened.
type ledger struct {
	Rentals []struct {
		ID       int64   `json:"id"`
		ServerID int64   `json:"server_id"`
		USD      float64 `json:"usd_per_hour"`
		Ports    []int   `json:"ports"`
		EndedAt  *string `json:"ended_at"`
		Foreign  bool    `json:"foreign"`
	} `json:"rentals"`
	Calls []call `json:"calls"`
	// Overlaps are requests that were carried out twice.
	Overlaps   []json.RawMessage `json:"overlaps"`
	Violations int               `json:"violations"`
}

// call is one call as the simulator saw it.
type call struct {
	N        int             `json:"n"`
	At       time.Time       `json:"at"`
	Endpoint string          `json:"endpoint"`
	Request  json.RawMessage `json:"request"`
	Applied  bool            `json:"applied"`
	Code     int             `json:"code"`
}

func market(t *testing.T, address string) ledger {
	t.Helper()
	var l ledger
	res, err := http.Get("http://" + strings.TrimPrefix(address, "http://") + "/sim/v1/state")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(&l); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l ledger) live() (n int) {
	for _, r := range l.Rentals {
		if r.EndedAt == nil && !r.Foreign {
			n++
		}
	}
	return n
}

func (l ledger) calls(endpoint string) (n int) {
	for _, c := range l.Calls {
		if c.Endpoint == endpoint {
			n++
		}
	}
	return n
}

func control(t *testing.T, address, path, body string) {
	t.Helper()
	res, err := http.Post("http://"+strings.TrimPrefix(address, "http://")+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode >= 300 {
		text, _ := io.ReadAll(res.Body)
		t.Fatalf("%s: %s %s", path, res.Status, text)
	}
}

// login opens a session on a rental with what its callback held.
func login(host string, port int, password string) (string, error) {
	conn, err := ssh.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(port)), &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.Password(password)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 10 * time.Second,
	})
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	session, err := conn.NewSession()
	if err != nil {
		return "", err
	}
	out, err := session.Output("hostname")
	return string(out), errors.Join(err)
}
