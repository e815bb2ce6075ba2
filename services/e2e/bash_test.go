package e2e

import (
	"os/exec"
	"testing"
)

// bash runs one command line, as somebody who pastes it would.
func bash(t *testing.T, command string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "bash", "-c", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}
