package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestProcessOnAnEdgeNode serves what a k3s server keeps, 30 MB of objects, with its clients: many connections with a watch each,
// relists and heartbeats. All of its memory, the program's own pages included, has to fit into 80 MB.
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
	p := start(t, dir, args...)
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
	}
	check("written")
	p.stop(syscall.SIGTERM)
	p = start(t, dir, args...)
	check("started again")
	p.stop(syscall.SIGTERM)
}
