package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// memoryGoal bounds what renthook up has resident.
	memoryGoal = 100.0
	// after is how long renthook has polled its market when it is looked at.
	after = time.Minute
	// startWithin bounds its start.
	startWithin = time.Minute
)

// resident is one renthook that is looked at.
type resident struct {
	what      string
	args      []string
	servers   int
	rss, peak float64 // MiB
	err       error
}

// memory looks at renthook up with all its parts in one process, polling 3,500 servers every 3 seconds.
func memory(t *table, recording string) error {
	fmt.Fprintf(os.Stderr, "bench: looking at renthook up for %s\n", after)
	tmp, err := os.MkdirTemp("", "renthook-bench-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	program := filepath.Join(tmp, "renthook")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", program, "./services/cmd/renthook")
	build.Dir, build.Stderr, build.Env = root, os.Stderr, append(os.Environ(), "GOWORK=")
	if err := build.Run(); err != nil {
		return fmt.Errorf("build renthook: %w", err)
	}
	looks := []*resident{{what: "generated, prices move"}}
	if recording == "" {
		t.skip("renthook up, recorded servers", "no recording in RENTHOOK_RECORDINGS")
	} else {
		looks = append(looks, &resident{what: "recorded, prices stand", args: []string{
			"--market-inventory", recording, "--market-rates", "bitcoin=70000,CLORE-Blockchain=0.12,USD-Blockchain=1",
		}})
	}
	var wg sync.WaitGroup
	for i, l := range looks {
		wg.Go(func() { l.err = l.look(program, filepath.Join(tmp, fmt.Sprint(i))) })
	}
	wg.Wait()
	for _, l := range looks {
		if l.err != nil {
			return fmt.Errorf("renthook up with %s: %w", l.what, l.err)
		}
		t.judged(fmt.Sprintf("renthook up, %d servers (%s)", l.servers, l.what), fmt.Sprintf("%.1f MiB resident", l.rss),
			fmt.Sprintf("%.2f of the goal (most ever: %.1f MiB)", l.rss/memoryGoal, l.peak), "below 100 MiB", l.rss < memoryGoal)
	}
	return nil
}

// look starts renthook, waits, and reads what it has resident before anything is asked of it.
func (l *resident) look(program, dir string) (err error) {
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	cmd := exec.Command(program, append([]string{
		"up", "--data", data, "--http=127.0.0.1:0", "--grpc=127.0.0.1:0", "--admin=127.0.0.1:0", "--market=127.0.0.1:0",
		"--nats=127.0.0.1:0", "--set=market.poll_interval=3s",
	}, l.args...)...)
	// Nothing of whoever runs this: no .env, no setting, no limit of memory.
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if end := <-ended; end != nil || err != nil {
			err = errors.Join(err, end, errors.New(said.String()))
		}
	}()
	addresses := struct{ Market string }{}
	for deadline := time.Now().Add(startWithin); ; time.Sleep(100 * time.Millisecond) {
		// The file is written when everything is ready.
		b, err := os.ReadFile(filepath.Join(data, "run.json"))
		if err == nil && json.Unmarshal(b, &addresses) == nil {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready after %s", startWithin)
		}
	}
	time.Sleep(after)
	if l.rss, err = status(cmd.Process.Pid, "VmRSS:"); err != nil {
		return err
	}
	if l.peak, err = status(cmd.Process.Pid, "VmHWM:"); err != nil {
		return err
	}
	resp, err := http.Get("http://" + addresses.Market + "/v1/marketplace")
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var listed struct{ Servers []struct{} }
	err = json.NewDecoder(resp.Body).Decode(&listed)
	l.servers = len(listed.Servers)
	return err
}

// status reads one line of /proc/<pid>/status, in MiB.
func status(pid int, name string) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		var kib float64
		if rest, ok := strings.CutPrefix(line, name); ok {
			_, err := fmt.Sscanf(rest, "%g kB", &kib)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("no %s of process %d", name, pid)
}
