package raftstore

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// BenchmarkBesideDefragmentation deletes half of so many MB of objects of 3,000 bytes, every second one, compacts, and defragments while
// heartbeats come, 500 a second. The figures are the time it took, the CPU that the process used, and the latencies of the heartbeats
// beside it and before it (quiet-), in ms.
func BenchmarkBesideDefragmentation(b *testing.B) {
	for _, mb := range []int{600, 4000} {
		b.Run(fmt.Sprintf("mb=%d", mb), func(b *testing.B) {
			for range b.N {
				besideDefragmentation(b, mb*1000/3)
			}
		})
	}
}

func besideDefragmentation(b *testing.B, objects int) {
	b.StopTimer()
	h := newHarness(b)
	h.fs, h.dir, h.db, h.ticks = vfs.OS, b.TempDir(), "", nil
	h.adjust = func(c *Config) {
		c.WALSegmentBytes, c.Now, c.Ticks = 0, time.Now, nil
	}
	s := h.open()
	defer closeStore(b, s)
	value := string(make([]byte, 3000))
	each := func(n int, do func(i int)) {
		var writers sync.WaitGroup
		for w := range 64 {
			writers.Go(func() {
				for i := w; i < n; i += 64 {
					do(i)
				}
			})
		}
		writers.Wait()
	}
	each(objects, func(i int) { put(b, s, fmt.Sprintf("/registry/pods/default/pod-%07d", i), value) })
	each(objects/2, func(i int) {
		if _, err := s.Propose(context.Background(), deleteCommand(fmt.Sprintf("/registry/pods/default/pod-%07d", 2*i))); err != nil {
			b.Error(err)
		}
	})
	rev := int64(s.View().Revision())
	if _, err := s.Propose(context.Background(), Command{Kind: mvcc.KindCompaction,
		Request: &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: rev, Physical: true}}}); err != nil {
		b.Fatal(err)
	}
	if err := s.CompactWait(context.Background(), mvcc.Revision(rev)); err != nil {
		b.Fatal(err)
	}
	beat := func(i int) {
		put(b, s, fmt.Sprintf("/registry/leases/kube-node-lease/node-%04d", i%5000), value[:400])
	}
	quiet := beatsBeside(beat, func() { time.Sleep(3 * time.Second) })
	before := s.Status()
	cpu, start := cpuUsed(), time.Now()
	b.StartTimer()
	loud := beatsBeside(beat, func() {
		if err := s.Defragment(context.Background()); err != nil {
			b.Error(err)
		}
		b.StopTimer()
		b.ReportMetric(float64((cpuUsed()-cpu).Microseconds())/1e3, "cpu-ms")
		b.ReportMetric(float64(before.DBSize)/1e6, "MB-before")
		b.ReportMetric(float64(s.Status().DBSize)/1e6, "MB-after")
		b.ReportMetric(time.Since(start).Seconds(), "s")
		time.Sleep(3 * time.Second)
	})
	for _, l := range []struct {
		prefix string
		took   []time.Duration
	}{{"quiet-", quiet}, {"", loud}} {
		slices.Sort(l.took)
		b.ReportMetric(float64(l.took[len(l.took)*99/100].Microseconds())/1e3, l.prefix+"p99")
		b.ReportMetric(float64(l.took[len(l.took)*999/1000].Microseconds())/1e3, l.prefix+"p999")
		b.ReportMetric(float64(l.took[len(l.took)-1].Microseconds())/1e3, l.prefix+"max")
	}
}
