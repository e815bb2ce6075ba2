package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/renthook/renthook/pkg/webhook"
)

// contract is where the pages are, from this package's directory.
const contract = "../../docs/contract"

// Every example of docs/contract is played, each page from top to bottom against a renthook of its own: what
// one page rents is not gone from the market of another.
func TestContract_ExamplesHold(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob(filepath.Join(contract, "*.md"))
	if err != nil || len(pages) < 6 {
		t.Fatalf("%d pages (%v)", len(pages), err)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) {
			t.Parallel()
			r := up(t, t.TempDir(), nil, "--set", "limits.orders_per_hour=1000", "--set", "limits.requests_per_minute=6000")
			p := &player{r: r, mail: openMailbox(t), bus: openWire(t, r), said: newBook(), page: filepath.Base(page)}
			for _, b := range blocks(t, string(text)) {
				p.play(t, b)
				if t.Failed() {
					t.Fatalf("%s, line %d: stopped at this example; those after it lean on it", p.page, b.line)
				}
			}
			p.mail.once(t)
		})
	}
}

// player goes through one page.
type player struct {
	r    *renthook
	mail *mailbox
	bus  *wire
	said *book
	page string
	// answer is what the last request, command or program was answered.
	answer answered
}

type answered struct {
	status int
	header http.Header
	body   []byte
}

// kinds of blocks, by what stands after the backquotes. A bare "text" is no example.
func (p *player) play(t *testing.T, b block) {
	t.Helper()
	switch kind, rest, _ := strings.Cut(b.info, " "); {
	case b.info == "text":
	case b.info == "text vector":
		p.vector(t, b)
	case b.info == "text record":
		p.record(t, b)
	case b.info == "http send":
		p.answer = p.send(t, b)
	case strings.HasPrefix(b.info, "http send until "):
		want := strings.TrimPrefix(b.info, "http send until ")
		eventually(t, want, func() bool { p.answer = p.send(t, b); return strings.Contains(string(p.answer.body), want) })
	case b.info == "http answer", b.info == "http answer partial":
		p.compare(t, b, message(t, b.text), p.answer)
	case b.info == "http callback", b.info == "http callback partial":
		p.callback(t, b)
	case b.info == "json answer":
		p.compareJSON(t, b, []byte(b.text), p.answer.body)
	case kind == "json" && strings.HasPrefix(rest, "golden="):
		p.golden(t, b, strings.TrimPrefix(rest, "golden="))
	case b.info == "sh nats":
		p.answer = p.request(t, b)
	case kind == "sh" && (rest == "run" || strings.HasPrefix(rest, "run exit=")):
		p.answer = p.run(t, b, strings.TrimPrefix(rest, "run exit="))
	case b.info == "yaml settings":
		p.settings(t, b)
	default:
		t.Fatalf("%s, line %d: %q is no example that can be checked, and only \"text\" is none", p.page, b.line, b.info)
	}
}

// parsed is an HTTP message as it is written down.
type parsed struct {
	first  string
	header [][2]string
	body   string
}

func message(t *testing.T, text string) parsed {
	t.Helper()
	head, body, _ := strings.Cut(text, "\n\n")
	lines := strings.Split(strings.TrimRight(head, "\n"), "\n")
	m := parsed{first: lines[0], body: strings.TrimRight(body, "\n")}
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ": ")
		if !ok {
			t.Fatalf("%q is no header", line)
		}
		m.header = append(m.header, [2]string{name, value})
	}
	return m
}

// example is the address of receivers in the pages.
const example = "https://you.example"

// real puts what the example's stand-ins stand for in their place.
func (p *player) real(text string) string {
	return p.said.real(strings.ReplaceAll(text, example, p.mail.URL+"/"+p.page))
}

func (p *player) send(t *testing.T, b block) answered {
	t.Helper()
	m := message(t, b.text)
	parts := strings.Fields(m.first)
	if len(parts) != 3 {
		t.Fatalf("line %d: %q is no request", b.line, m.first)
	}
	body := p.real(m.body)
	req, err := http.NewRequestWithContext(t.Context(), parts[0], "http://"+p.r.HTTP+p.real(parts[1]), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	id := ""
	for _, h := range m.header {
		if h[0] == "webhook-id" {
			id = h[1]
		}
	}
	for _, h := range m.header {
		value := h[1]
		if strings.HasPrefix(strings.TrimPrefix(value, "Bearer "), "<") {
			switch strings.ToLower(h[0]) {
			case "x-webhook-signature":
				value = webhook.SignLegacy(p.r.secret, []byte(body))
			case "webhook-timestamp":
				value = strconv.FormatInt(now.Unix(), 10)
			case "webhook-signature":
				value = webhook.SignStandard(p.r.secret, id, now, []byte(body))
			case "authorization":
				value = "Bearer " + p.r.token
			default:
				t.Fatalf("line %d: nobody knows what to put in for %s", b.line, h[0])
			}
		}
		req.Header.Set(h[0], value)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	got := answered{status: res.StatusCode, header: res.Header}
	if got.body, err = io.ReadAll(io.LimitReader(res.Body, 1<<20)); err != nil {
		t.Fatal(err)
	}
	return got
}

// compare holds an answer against the example.
func (p *player) compare(t *testing.T, b block, want parsed, got answered) {
	t.Helper()
	if status := fmt.Sprintf("HTTP/1.1 %d %s", got.status, http.StatusText(got.status)); want.first != status {
		t.Errorf("%s, line %d: %s, want %s: %s", p.page, b.line, status, want.first, got.body)
	}
	p.compareHeader(t, b, want.header, got.header)
	p.compareJSON(t, b, []byte(want.body), got.body)
}

func (p *player) compareHeader(t *testing.T, b block, want [][2]string, got http.Header) {
	t.Helper()
	for _, h := range want {
		value := got.Get(h[0])
		if strings.HasPrefix(h[1], "<") && value != "" {
			continue
		}
		if !p.said.text(h[1], value) {
			t.Errorf("%s, line %d: %s is %q, want %q", p.page, b.line, h[0], value, h[1])
		}
	}
}

func (p *player) compareJSON(t *testing.T, b block, want, got []byte) {
	t.Helper()
	doc, err := decode(want)
	if err != nil {
		t.Fatalf("%s, line %d: the example is not JSON: %v", p.page, b.line, err)
	}
	value, err := decode(got)
	if err != nil {
		t.Fatalf("%s, line %d: %v: %s", p.page, b.line, err, got)
	}
	partial := strings.HasSuffix(b.info, " partial") || strings.HasPrefix(b.info, "json golden=")
	for _, difference := range p.said.compare("", "", doc, value, partial) {
		t.Errorf("%s, line %d: %s", p.page, b.line, difference)
	}
	if t.Failed() {
		t.Logf("it was: %s", got)
	}
}

// callback waits for what the example's path receives.
func (p *player) callback(t *testing.T, b block) {
	t.Helper()
	m := message(t, b.text)
	parts := strings.Fields(m.first)
	if len(parts) != 3 || parts[0] != http.MethodPost {
		t.Fatalf("line %d: %q is no callback", b.line, m.first)
	}
	got := p.mail.only(t, "/"+p.page+parts[1])
	if _, _, err := webhook.VerifyStandard(got.header, got.body, []string{p.r.secret}, time.Now()); err != nil {
		t.Errorf("%s, line %d: Standard Webhooks: %v", p.page, b.line, err)
	}
	legacy := slices.ContainsFunc(m.header, func(h [2]string) bool { return strings.EqualFold(h[0], webhook.HeaderLegacy) })
	if _, err := webhook.VerifyLegacy(got.header, got.body, []string{p.r.secret}); (err == nil) != legacy {
		t.Errorf("%s, line %d: legacy signature: %v", p.page, b.line, err)
	}
	p.compareHeader(t, b, m.header, got.header)
	p.compareJSON(t, b, []byte(m.body), got.body)
}

// golden compares with a callback that the notifier's own tests hold.
func (p *player) golden(t *testing.T, b block, name string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../notifier/internal/compose/testdata", name+".callbacks.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil || len(all) == 0 {
		t.Fatalf("%s: %v", name, err)
	}
	p.compareJSON(t, b, []byte(b.text), all[0])
}

var natsRequest = regexp.MustCompile(`^nats req (\S+) '([^']*)'\n$`)

// request does what `nats req` does: the answer to a command is the broker's.
func (p *player) request(t *testing.T, b block) answered {
	t.Helper()
	m := natsRequest.FindStringSubmatch(b.text)
	if m == nil {
		t.Fatalf("line %d: %q is no nats req", b.line, b.text)
	}
	reply, err := p.bus.Request(m[1], []byte(p.real(m[2])), patience)
	if err != nil {
		t.Fatalf("line %d: %v", b.line, err)
	}
	return answered{body: reply.Data}
}

// record finds what the client heard of the order that the example's operation made.
func (p *player) record(t *testing.T, b block) {
	t.Helper()
	m := message(t, b.text)
	event := m.first[strings.LastIndexByte(m.first, '.'):]
	var doc struct {
		Order struct {
			OperationID string `json:"operationId"`
		} `json:"order"`
	}
	if err := json.Unmarshal([]byte(m.body), &doc); err != nil {
		t.Fatalf("%s, line %d: %v", p.page, b.line, err)
	}
	operation := p.real(doc.Order.OperationID)
	var got *nats.Msg
	eventually(t, "the event "+event, func() bool {
		got = p.bus.find(func(m *nats.Msg) bool {
			return strings.HasSuffix(m.Subject, event) && bytes.Contains(m.Data, []byte(operation))
		})
		return got != nil
	})
	if !p.said.text(m.first, got.Subject) {
		t.Errorf("%s, line %d: subject %s, want %s", p.page, b.line, got.Subject, m.first)
	}
	header := http.Header{}
	for name, values := range got.Header { // NATS keeps the case of names
		header[http.CanonicalHeaderKey(name)] = values
	}
	p.compareHeader(t, b, m.header, header)
	p.compareJSON(t, b, []byte(m.body), got.Data)
}

// run runs renthook's own command line as it is written.
func (p *player) run(t *testing.T, b block, exit string) answered {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", b.text)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"PATH=" + programs + ":" + os.Getenv("PATH"), "RENTHOOK_RUN=" + filepath.Join(p.r.data, "run.json")}
	out, err := cmd.Output()
	code := 0
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		code = failed.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if exit == "run" {
		exit = "0"
	}
	if strconv.Itoa(code) != exit {
		t.Errorf("%s, line %d: exit code %d, want %s: %s%v", p.page, b.line, code, exit, out, err)
	}
	return answered{body: out}
}

// settings are taken as they stand.
func (p *player) settings(t *testing.T, b block) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "renthook.yaml")
	if err := os.WriteFile(file, []byte(b.text), 0o600); err != nil {
		t.Fatal(err)
	}
	p.run(t, block{line: b.line, text: "renthook config print --config " + file + " >/dev/null"}, "0")
}

// vector is a signature that anybody can compute.
func (p *player) vector(t *testing.T, b block) {
	t.Helper()
	v := map[string]string{}
	for line := range strings.Lines(b.text) {
		name, value, _ := strings.Cut(strings.TrimRight(line, "\n"), ": ")
		v[name] = value
	}
	seconds, err := strconv.ParseInt(v["webhook-timestamp"], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if got := webhook.SignStandard(v["secret"], v["webhook-id"], time.Unix(seconds, 0), []byte(v["body"])); got != v["webhook-signature"] {
		t.Errorf("%s, line %d: Standard Webhooks gives %s", p.page, b.line, got)
	}
	if got := webhook.SignLegacy(v["secret"], []byte(v["body"])); got != v["x-webhook-signature"] {
		t.Errorf("%s, line %d: the legacy scheme gives %s", p.page, b.line, got)
	}
}

// mailbox keeps callbacks by the path they come to.
type mailbox struct {
	*httptest.Server
	mu  sync.Mutex
	got map[string][]received
}

func openMailbox(t *testing.T) *mailbox {
	t.Helper()
	m := &mailbox{got: map[string][]received{}}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if body, err := io.ReadAll(io.LimitReader(req.Body, 1<<20)); err == nil {
			m.mu.Lock()
			m.got[req.URL.Path] = append(m.got[req.URL.Path], received{header: req.Header, body: body})
			m.mu.Unlock()
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(m.Close)
	return m
}

// only waits for the callback to a path.
func (m *mailbox) only(t *testing.T, path string) received {
	t.Helper()
	var all []received
	eventually(t, "a callback to "+path, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		all = m.got[path]
		return len(all) > 0
	})
	return all[0]
}

// once says that nobody was told twice.
func (m *mailbox) once(t *testing.T) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for path, all := range m.got {
		if len(all) != 1 {
			t.Errorf("%d callbacks to %s, want one", len(all), path)
		}
	}
}

// wire keeps what a client of the bus hears of its orders.
type wire struct {
	*natsClient
	mu    sync.Mutex
	heard []*nats.Msg
}

func openWire(t *testing.T, r *renthook) *wire {
	t.Helper()
	w := &wire{natsClient: r.local(t)}
	_, err := w.Subscribe("renthook.v1.evt.order.*.local.>", func(m *nats.Msg) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.heard = append(w.heard, m)
	})
	if err := errors.Join(err, w.FlushTimeout(patience)); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *wire) find(ok func(*nats.Msg) bool) *nats.Msg {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := slices.IndexFunc(w.heard, ok); n >= 0 {
		return w.heard[n]
	}
	return nil
}
