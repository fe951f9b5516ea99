package raftstore

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// BenchmarkBesideCompaction makes 80,000 dead versions of 5,000 leases among 20,000 objects of 3,000 bytes, and compacts them physically
// while heartbeats come, 500 a second. With mixed, a sixth of the objects is updated in between, so that rows which live stand between
// those that die. The figures are what the compaction used (cpu-ms, MB), how long it took, and the latencies of the heartbeats beside it
// (until half a second later) and before it (quiet-), in ms.
func BenchmarkBesideCompaction(b *testing.B) {
	for _, mixed := range []bool{false, true} {
		b.Run(fmt.Sprintf("mixed=%t", mixed), func(b *testing.B) {
			for range b.N {
				besideCompaction(b, mixed)
			}
		})
	}
}

func besideCompaction(b *testing.B, mixed bool) {
	const pods, leases, versions = 20_000, 5_000, 80_000
	b.StopTimer()
	h := newHarness(b)
	h.fs, h.dir, h.db, h.ticks = vfs.OS, b.TempDir(), "", nil
	h.adjust = func(c *Config) { c.WALSegmentBytes, c.Now, c.Ticks = 0, time.Now, nil }
	s := h.open()
	defer closeStore(b, s)
	value := string(make([]byte, 3000))
	pod := func(i int) { put(b, s, fmt.Sprintf("/registry/pods/default/pod-%06d", i*7919%pods), value) }
	beat := func(i int) {
		put(b, s, fmt.Sprintf("/registry/leases/kube-node-lease/node-%04d", i%leases), value[:400])
	}
	fill := func(n int, each func(i int)) {
		var writers sync.WaitGroup
		for w := range 64 {
			writers.Go(func() {
				for i := w; i < n; i += 64 {
					each(i)
				}
			})
		}
		writers.Wait()
	}
	fill(pods, pod)
	fill(leases, beat)
	fill(versions, func(i int) {
		beat(i)
		if mixed && i%24 == 0 {
			pod(i / 24)
		}
	})
	if err := s.Checkpoint(context.Background()); err != nil {
		b.Fatal(err)
	}
	rev := int64(s.View().Revision())
	quiet := beatsBeside(beat, func() { time.Sleep(2 * time.Second) })
	cpu, written := cpuUsed(), bytesWritten(b)
	time.Sleep(time.Second)
	b.StartTimer()
	loud := beatsBeside(beat, func() {
		_, err := s.Propose(context.Background(), Command{Kind: mvcc.KindCompaction,
			Request: &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: rev, Physical: true}}})
		if err == nil {
			err = s.CompactWait(context.Background(), mvcc.Revision(rev))
		}
		if err != nil {
			b.Error(err)
		}
		b.StopTimer()
		b.ReportMetric(float64((cpuUsed()-cpu).Microseconds())/1e3, "cpu-ms")
		b.ReportMetric(float64(bytesWritten(b)-written)/1e6, "MB")
		time.Sleep(time.Second / 2)
	})
	for _, l := range []struct {
		prefix string
		took   []time.Duration
	}{{"quiet-", quiet}, {"", loud}} {
		slices.Sort(l.took)
		b.ReportMetric(float64(l.took[len(l.took)*99/100].Microseconds())/1e3, l.prefix+"p99")
		b.ReportMetric(float64(l.took[len(l.took)-1].Microseconds())/1e3, l.prefix+"max")
	}
}

// beatsBeside answers how long each beat took while work went on, from when it was due.
func beatsBeside(beat func(i int), work func()) []time.Duration {
	const every = 2 * time.Millisecond
	done := make(chan struct{})
	go func() { defer close(done); work() }()
	var mu sync.Mutex
	var took []time.Duration
	var beats sync.WaitGroup
	defer beats.Wait()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-done:
			beats.Wait()
			return took
		case <-tick.C:
			at := time.Now()
			beats.Go(func() {
				beat(i)
				mu.Lock()
				took = append(took, time.Since(at))
				mu.Unlock()
			})
		}
	}
}

// bytesWritten is what this process has caused to be written to disk.
func bytesWritten(b *testing.B) (n int64) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0 // not Linux
	}
	_, after, _ := strings.Cut(string(text), "\nwrite_bytes: ")
	fmt.Sscan(after, &n)
	return n
}
