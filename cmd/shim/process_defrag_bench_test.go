package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// BenchmarkProcessBesideDefrag fills shim with SHIM_TEST_DATA_BYTES of objects of 12 kB, 600 MB if that is not set, under SHIM_TEST_MEMORY_BYTES
// as its memory limit, deletes every second one, compacts, and has a client defragment while another writes a heartbeat every 2 ms. The
// figures are the sizes of the file, the time it took, and how long the heartbeats took beside it and until three seconds later, and
// before it (quiet-), in ms.
func BenchmarkProcessBesideDefrag(b *testing.B) {
	const size = 12_000
	data, limit := envBytes(b, "SHIM_TEST_DATA_BYTES", 600e6), envBytes(b, "SHIM_TEST_MEMORY_BYTES", 1<<30)
	keys := int(data / size)
	p := start(b, filepath.Join(b.TempDir(), "data"), "--memory-limit="+strconv.FormatInt(limit, 10), "--quota-backend-bytes=-1", "--auto-defrag=false")
	ctx, cli, beating := b.Context(), p.dial(), p.dial()
	fill(b, cli, keys, size)
	var r *clientv3.TxnResponse
	for i := 0; i < keys; {
		var ops []clientv3.Op
		for ; i < keys && len(ops) < 100; i += 2 {
			ops = append(ops, clientv3.OpDelete(memoryKey(i)))
		}
		var err error
		if r, err = cli.Txn(ctx).Then(ops...).Commit(); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := cli.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		b.Fatal(err)
	}
	beat := func(i int) {
		if _, err := beating.Put(ctx, fmt.Sprintf("/registry/leases/kube-node-lease/node-%04d", i%5000), strings.Repeat("v", 400)); err != nil {
			b.Error(err)
		}
	}
	status := func() *clientv3.StatusResponse {
		st, err := cli.Status(ctx, p.client)
		if err != nil {
			b.Fatal(err)
		}
		return st
	}
	took := map[string][]time.Duration{"quiet-": beatsBeside(beat, func() { time.Sleep(10 * time.Second) })}
	b.ReportMetric(float64(status().DbSize)/1e6, "MB-before")
	took[""] = beatsBeside(beat, func() {
		began := time.Now()
		if _, err := cli.Defragment(ctx, p.client); err != nil {
			b.Error(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "s")
		time.Sleep(3 * time.Second)
	})
	b.ReportMetric(float64(status().DbSize)/1e6, "MB-after")
	b.ReportMetric(float64(memoryBytes(b, p.cmd.Process.Pid, "VmHWM:"))/1e6, "MB-rss-peak")
	for prefix, took := range took {
		slices.Sort(took)
		for name, at := range map[string]int{"p99": len(took) * 99 / 100, "p999": len(took) * 999 / 1000, "max": len(took) - 1} {
			b.ReportMetric(float64(took[at].Microseconds())/1e3, prefix+name)
		}
	}
	p.stop(syscall.SIGTERM)
}

// beatsBeside calls beat every 2 ms, whether the calls before have ended or not, while work does, and answers how long each took.
func beatsBeside(beat func(i int), work func()) (took []time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() { defer cancel(); work() }()
	var mu sync.Mutex
	var beats sync.WaitGroup
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			beats.Wait()
			return took
		case <-tick.C:
			began := time.Now()
			beats.Go(func() {
				beat(i)
				mu.Lock()
				took = append(took, time.Since(began))
				mu.Unlock()
			})
		}
	}
}
