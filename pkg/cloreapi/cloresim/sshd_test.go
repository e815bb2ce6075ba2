package cloresim

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// sshAddress finds where the rental on a server is reached, in an answer of my_orders.
func sshAddress(orders string, server int64) (string, error) {
	var body struct {
		Orders []struct {
			SI    int64    `json:"si"`
			Hosts []string `json:"pub_cluster"`
			Ports []string `json:"tcp_ports"`
		} `json:"orders"`
	}
	if err := json.Unmarshal([]byte(orders), &body); err != nil {
		return "", err
	}
	for _, o := range body.Orders {
		for _, p := range o.Ports {
			if public, ok := strings.CutPrefix(p, "22:"); ok && o.SI == server && len(o.Hosts) == 1 {
				return net.JoinHostPort(o.Hosts[0], public), nil
			}
		}
	}
	return "", errors.New("my_orders shows no ssh port")
}

func dial(address, user string, auth ssh.AuthMethod) (*ssh.Client, error) {
	return ssh.Dial("tcp", address, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{auth}, Timeout: 20 * time.Second,
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
}

// loginPassword logs in and asks for the host's name.
func loginPassword(orders string, server int64, password string) error {
	address, err := sshAddress(orders, server)
	if err != nil {
		return err
	}
	c, err := dial(address, "root", ssh.Password(password))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	out, err := run(c, "hostname")
	if err == nil && out != fmt.Sprintf("clore-%d\n", server) {
		err = fmt.Errorf("hostname is %q", out)
	}
	return err
}

func run(c *ssh.Client, command string) (string, error) {
	s, err := c.NewSession()
	if err != nil {
		return "", err
	}
	defer func() { _ = s.Close() }()
	out, err := s.CombinedOutput(command)
	return string(out), err
}

func TestSSH_PasswordOpensARunningRental(t *testing.T) {
	t.Parallel()
	r := newRig(t, plain)
	r.post("/v1/create_order", order(TrapRight, map[string]any{"env": map[string]string{"B": "2", "A": "1"}}))
	id := r.rentals()[0].ID
	address, err := sshAddress(r.get("/v1/my_orders").body, TrapRight)
	if err != nil {
		t.Fatal(err)
	}
	c, err := dial(address, "root", ssh.Password("Abc123"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for command, want := range map[string]string{
		"true": "", "hostname": "clore-110001\n", "whoami": "root\n", "env": "A=1\nB=2\n", "echo a  b": "a b\n",
		"nvidia-smi -L": fmt.Sprintf("GPU 0: NVIDIA GeForce RTX 4090 (UUID: GPU-%08x-0000)\n", id),
		"make coffee":   fmt.Sprintf("rental %d on server 110001: make coffee\n", id),
	} {
		if got, err := run(c, command); err != nil || got != want {
			t.Errorf("%s: %q, %v", command, got, err)
		}
	}
	var exit *ssh.ExitError
	if _, err := run(c, "false"); !errors.As(err, &exit) || exit.ExitStatus() != 1 {
		t.Errorf("false: %v", err)
	}
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	s.Stdin = strings.NewReader("hostname\nexit\n")
	if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
		t.Error(err)
	}
	var out strings.Builder
	s.Stdout = &out
	if err := errors.Join(s.Shell(), s.Wait()); err != nil || !strings.Contains(out.String(), "clore-110001") {
		t.Errorf("the shell says %q, %v", out.String(), err)
	}
	for user, password := range map[string]string{"root": "abc123", "admin": "Abc123"} {
		if c, err := dial(address, user, ssh.Password(password)); err == nil {
			_ = c.Close()
			t.Errorf("%s got in with %s", user, password)
		}
	}

	r.want(r.post("/v1/cancel_order", fmt.Sprintf(`{"id":%d}`, id)), 200, `{"code":0}`)
	if _, err := run(c, "true"); err == nil {
		t.Error("the session outlived the rental")
	}
	if c, err := dial(address, "root", ssh.Password("Abc123")); err == nil {
		_ = c.Close()
		t.Error("the port outlived the rental")
	}
}

func TestSSH_KeyOpensARunningRental(t *testing.T) {
	t.Parallel()
	signer := func() ssh.Signer {
		_, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		s, err := ssh.NewSignerFromKey(private)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	right, wrong := signer(), signer()
	r := newRig(t, plain)
	line := string(ssh.MarshalAuthorizedKey(right.PublicKey())) + " me@here"
	r.post("/v1/create_order", order(TrapRight, map[string]any{"ssh_key": line, "ssh_password": nil}))
	address, err := sshAddress(r.get("/v1/my_orders").body, TrapRight)
	if err != nil {
		t.Fatal(err)
	}
	c, err := dial(address, "root", ssh.PublicKeys(right))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	for name, auth := range map[string]ssh.AuthMethod{"another key": ssh.PublicKeys(wrong), "an empty password": ssh.Password("")} {
		if c, err := dial(address, "root", auth); err == nil {
			_ = c.Close()
			t.Errorf("%s got in", name)
		}
	}
}

func TestSSH_ClosedWhileTheContainerDoesNotRun(t *testing.T) {
	t.Parallel()
	c := plain
	c.Boot = time.Hour
	r := newRig(t, c)
	r.post("/v1/create_order", order(TrapRight, nil))
	body := r.get("/v1/my_orders").body
	if err := loginPassword(body, TrapRight, "Abc123"); err == nil {
		t.Error("a container that does not run let somebody in")
	}
	r = newRig(t, plain)
	if a := r.do("PATCH", fmt.Sprintf("/sim/v1/servers/%d", TrapRight), "", `{"ssh":false}`); a.status != 200 {
		t.Fatal(a)
	}
	r.post("/v1/create_order", order(TrapRight, nil))
	if err := loginPassword(r.get("/v1/my_orders").body, TrapRight, "Abc123"); err == nil {
		t.Error("a host without ssh let somebody in")
	}
}
