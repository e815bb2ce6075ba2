package commands

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/renthook/renthook/pkg/secret"
	"github.com/renthook/renthook/pkg/webhook"
	"github.com/renthook/renthook/services/cmd/internal/cli"
)

const (
	// sendTimeout bounds one send.
	sendTimeout = 15 * time.Second
	// mostBody and mostAnswer bound what is sent and shown.
	mostBody, mostAnswer = 1 << 20, 1 << 20
)

// Hook is the group of commands about webhooks.
type Hook struct {
	Send   HookSend   `cmd:"" help:"Sign a body and send it: renthook hook send create-order '{\"gpu_type\":\"RTX 4090\",\"max_price\":0.5}'"`
	Sign   HookSign   `cmd:"" help:"Print the signature headers of a body."`
	Secret HookSecret `cmd:"" help:"Print a new secret."`
}

// HookSecret makes a secret.
type HookSecret struct{}

// Run prints it.
func (HookSecret) Run(s *cli.Streams) error {
	_, err := fmt.Fprintln(s.Out, secret.Generate("whsec_").Reveal())
	return err
}

// signing is how a body is signed.
type signing struct {
	SecretFile string `help:"File with the secret; the running renthook's when not given." type:"existingfile" placeholder:"FILE"`
	Legacy     bool   `help:"Sign as existing senders do (X-Webhook-Signature) instead of by Standard Webhooks."`
}

// headers sign a body. The key, if any, names the ask: it is the webhook-id, or the Idempotency-Key beside the old
// signature, which has no id.
func (g signing) headers(f RunFlags, body []byte, key string) (http.Header, error) {
	file := g.SecretFile
	if file == "" {
		a, err := f.addresses()
		if err != nil {
			return nil, err
		}
		file = a.SecretFile
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the secret: %w", err)
	}
	signer := strings.TrimSpace(string(text))
	h := http.Header{"Content-Type": {"application/json"}}
	if g.Legacy {
		h.Set("X-Webhook-Signature", webhook.SignLegacy(signer, body))
		if key != "" {
			h.Set("Idempotency-Key", key)
		}
		return h, nil
	}
	if key == "" {
		var id [12]byte
		_, _ = rand.Read(id[:]) // never fails
		key = "msg_" + hex.EncodeToString(id[:])
	}
	now := time.Now()
	h.Set("webhook-id", key)
	h.Set("webhook-timestamp", fmt.Sprint(now.Unix()))
	h.Set("webhook-signature", webhook.SignStandard(signer, key, now, body))
	return h, nil
}

// body is the argument, or standard input for "-" and nothing.
func body(s *cli.Streams, arg string) ([]byte, error) {
	if arg != "" && arg != "-" {
		return []byte(arg), nil
	}
	b, err := io.ReadAll(io.LimitReader(s.In, mostBody))
	if err != nil {
		return nil, fmt.Errorf("read the body from standard input: %w", err)
	}
	return b, nil
}

// HookSign prints headers.
type HookSign struct {
	RunFlags
	signing
	Body string `arg:"" optional:"" help:"The exact bytes to sign; standard input when absent."`
}

// Run prints the headers, one a line, as curl's -H @- takes them.
func (c *HookSign) Run(s *cli.Streams) error {
	b, err := body(s, c.Body)
	if err != nil {
		return err
	}
	h, err := c.headers(c.RunFlags, b, "")
	if err != nil {
		return err
	}
	for _, name := range []string{"Content-Type", "X-Webhook-Signature", "Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"} {
		if v := h.Get(name); v != "" {
			if _, err := fmt.Fprintf(s.Out, "%s: %s\n", strings.ToLower(name), v); err != nil {
				return err
			}
		}
	}
	return nil
}

// HookSend sends a webhook.
type HookSend struct {
	RunFlags
	signing
	Route string `arg:"" help:"create-order, cancel-order or status."`
	Body  string `arg:"" optional:"" help:"JSON; standard input when absent."`
	Key   string `help:"Names the ask: the same key is one command for 30 days. Sent as webhook-id, with --legacy as Idempotency-Key." placeholder:"KEY"`
	URL   string `name:"url" help:"Where to, when it is not the running renthook." placeholder:"URL"`
}

// Run signs, sends and prints the answer.
func (c *HookSend) Run(ctx context.Context, s *cli.Streams) error {
	b, err := body(s, c.Body)
	if err != nil {
		return err
	}
	h, err := c.headers(c.RunFlags, b, c.Key)
	if err != nil {
		return err
	}
	url := c.URL
	if url == "" {
		a, err := c.addresses()
		if err != nil {
			return err
		}
		url = "http://" + a.HTTP
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(url, "/")+"/webhook/"+c.Route, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header = h
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return &cli.ExitError{Code: cli.ExitUnreachable, Err: err}
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, mostAnswer))
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(s.Out, strings.TrimSpace(string(answer)))
	if res.StatusCode >= 300 {
		return errors.New("the answer is " + res.Status)
	}
	return nil
}
