package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// inCgroup answers a program that runs another one in a memory cgroup of its own with that limit, and what the cgroup's file of a name says;
// nil without the right to make one. It is for version 1 and 2.
func inCgroup(t *testing.T, limit int64) (program []string, read func(name string) string) {
	t.Helper()
	root, file := "/sys/fs/cgroup", "memory.max"
	if _, err := os.Stat(root + "/memory"); err == nil {
		root, file = root+"/memory", "memory.limit_in_bytes"
	}
	dir, err := os.MkdirTemp(root, "shim-test")
	if err != nil {
		t.Logf("no cgroup: %v", err)
		return nil, nil
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil { // behind the end of what runs in it
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, file), fmt.Append(nil, limit), 0o600); err != nil {
		t.Logf("no memory limit of a cgroup: %v", err)
		return nil, nil
	}
	return []string{"sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, dir}, func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
}

// TestProcessOnAnEdgeNode serves what a k3s server keeps, 30 MB of objects, with its clients: many connections with a watch each,
// relists and heartbeats. All of its memory, the program's own pages included, has to fit into 80 MB, which is what its cgroup has, so that
// the kernel ends it if it needs more for a moment.
func TestProcessOnAnEdgeNode(t *testing.T) {
	const (
		keys, size  = 10_000, 3000
		connections = 40
		nodes       = 20
		beats       = 20
		most        = 80e6
	)
	dir := filepath.Join(t.TempDir(), "data")
	args := []string{"--memory-limit=44MiB", "--quota-backend-bytes=-1"}
	program, cgroup := inCgroup(t, most)
	begin := func() *process {
		p := launchBy(t, program, dir, args...)
		p.await()
		return p
	}
	p := begin()
	fill(t, p.dial(), keys, size)
	check := func(when string) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var watches []clientv3.WatchChan
		for range connections {
			watches = append(watches, p.dial().Watch(ctx, "/registry/leases/", clientv3.WithPrefix(), clientv3.WithPrevKV()))
		}
		cli := p.dial()
		for beat := range beats {
			for node := range nodes {
				if _, err := cli.Put(ctx, fmt.Sprintf("/registry/leases/node-%d", node), strings.Repeat(fmt.Sprint(beat%10), 400)); err != nil {
					t.Fatal(err)
				}
			}
			if beat%10 == 0 {
				listAll(t, cli, keys, size)
			}
		}
		for _, w := range watches {
			for seen := 0; seen < nodes*beats; {
				r := <-w
				if err := r.Err(); err != nil {
					t.Fatal(err)
				}
				seen += len(r.Events)
			}
		}
		pid := p.cmd.Process.Pid
		rss, peak := memoryBytes(t, pid, "VmRSS:"), memoryBytes(t, pid, "VmHWM:")
		t.Logf("%s: %.1f MB, %.1f at most, %.1f of it anonymous", when, float64(rss)/1e6, float64(peak)/1e6, float64(anonBytes(t, pid))/1e6)
		if rss > most {
			t.Errorf("%s: %d bytes of memory", when, rss)
		}
		if cgroup != nil {
			t.Logf("in a cgroup: %s bytes at most (%s times at the limit), %s", cgroup("memory.max_usage_in_bytes")+cgroup("memory.peak"),
				cgroup("memory.failcnt"), strings.ReplaceAll(cgroup("memory.oom_control")+cgroup("memory.events"), "\n", ", "))
		}
	}
	check("written")
	p.stop(syscall.SIGTERM)
	p = begin()
	check("started again")
	p.stop(syscall.SIGTERM)
}
