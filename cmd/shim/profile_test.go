package main

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// TestProfileEdge: what it sets, what explicit settings keep, and that the page
// about it names all of it.
func TestProfileEdge(t *testing.T) {
	c, _, err := parse([]string{"--profile=edge", "--election-timeout=7000", "--max-request-bytes=10485760"}, []string{"ETCD_HISTORY_BYTES=64MiB"})
	if err != nil {
		t.Fatal(err)
	}
	if c.ElectionMs != 7000 || c.HistoryBytes != 64<<20 {
		t.Errorf("explicit settings became %d ms, %d bytes", c.ElectionMs, c.HistoryBytes)
	}
	if c.TickMs != 500 || c.QuotaBackendBytes != 128<<20 || c.WarningUnaryRequestDuration != time.Second {
		t.Errorf("the profile left %d ms, a quota of %d, %v", c.TickMs, c.QuotaBackendBytes, c.WarningUnaryRequestDuration)
	}
	if n := c.segmentBytes(); n < 4*10485760 || n%4096 != 0 {
		t.Errorf("a segment of %d bytes", n)
	}
	if c.checkpoints().BurstBytes != 4<<20 {
		t.Errorf("checkpoints: %+v", c.checkpoints())
	}
	file := DefaultConfig()
	if err := file.loadYAML([]byte("profile: edge\nheartbeat-interval: 200\n")); err != nil {
		t.Fatal(err)
	}
	if err := file.applyProfile(fstest.MapFS{}); err != nil || file.TickMs != 200 || file.ElectionMs != 5000 {
		t.Errorf("from a file: %d ms, %d ms, %v", file.TickMs, file.ElectionMs, err)
	}
	page, err := os.ReadFile("../../docs/edge.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range edgeFlags {
		if !strings.Contains(string(page), "`--"+f.name+"="+f.value+"`") {
			t.Errorf("docs/edge.md does not say --%s=%s", f.name, f.value)
		}
	}
}

// TestProfileEdgeInACgroup: a limit that is smaller is heeded.
func TestProfileEdgeInACgroup(t *testing.T) {
	for limit, want := range map[string]int64{"max": edgeMemoryBytes, "134217728": edgeMemoryBytes, "67108864": 67108864 / 4 * 3, "1000": 32 << 20} {
		c := DefaultConfig()
		c.Profile = profileEdge
		root := fstest.MapFS{"proc/self/cgroup": {Data: []byte("0::/x\n")}, "sys/fs/cgroup/x/memory.max": {Data: []byte(limit + "\n")}}
		if err := c.applyProfile(root); err != nil || c.MemoryLimit != want {
			t.Errorf("in a cgroup of %s: %d, %v", limit, c.MemoryLimit, err)
		}
	}
}
