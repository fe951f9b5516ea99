//go:build linux

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// statusBytes is a line of /proc/PID/status in bytes.
func statusBytes(t *testing.T, pid int, name string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatalf("no %s in %s", name, status)
	return 0
}

// TestProcessMemoryMlock: the memory is locked, the database's mapping is not; a
// process that may not lock as much as it needs says so and does not start.
func TestProcessMemoryMlock(t *testing.T) {
	if limit, ok := lockLimit(); !ok {
		refused(t, t.TempDir(), fmt.Sprintf("--memory-mlock: %d bytes may be locked", limit), "--memory-mlock")
		return
	}
	p := start(t, t.TempDir(), "--memory-mlock")
	// What is reserved counts as locked, too; the database is mapped with room for 10 GiB.
	if got := statusBytes(t, p.cmd.Process.Pid, "VmLck"); got < 8<<20 || got > 9<<30 {
		t.Errorf("%d bytes are locked", got)
	}
	p.stop(syscall.SIGTERM)
	plain := start(t, t.TempDir())
	if got := statusBytes(t, plain.cmd.Process.Pid, "VmLck"); got != 0 {
		t.Errorf("without the flag %d bytes are locked", got)
	}
	plain.stop(syscall.SIGTERM)
}
