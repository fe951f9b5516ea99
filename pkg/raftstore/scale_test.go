package raftstore

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// BenchmarkStart fills a store with as many objects as SHIM_SCALE says (default 20,000), of SHIM_BYTES (default 3,000), writes each
// SHIM_HISTORY times more (default 0) and compacts that without removing it from the database, stops without a goodbye, and measures how
// long the next start takes and what memory it needs.
func BenchmarkStart(b *testing.B) {
	n, size, history := 20_000, 3000, 0
	fmt.Sscan(os.Getenv("SHIM_SCALE"), &n)
	fmt.Sscan(os.Getenv("SHIM_BYTES"), &size)
	fmt.Sscan(os.Getenv("SHIM_HISTORY"), &history)
	h := newHarness(b)
	h.fs, h.dir, h.db, h.ticks = vfs.OS, b.TempDir(), "", nil
	h.adjust = func(c *Config) { c.WALSegmentBytes = 0; c.Now = time.Now; c.Ticks = nil }
	s := h.open()
	value := string(bytes.Repeat([]byte("0123456789"), (size+9)/10)[:size])
	for range 1 + history {
		var writers sync.WaitGroup
		for w := range 64 {
			writers.Go(func() {
				for i := w; i < n; i += 64 {
					put(b, s, fmt.Sprintf("/registry/pods/default/pod-%06d", i), value)
				}
			})
		}
		writers.Wait()
	}
	if err := s.Checkpoint(context.Background()); err != nil {
		b.Fatal(err)
	}
	if history > 0 {
		if _, err := s.Propose(context.Background(), Command{Kind: mvcc.KindCompaction,
			Request: &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: int64(s.View().Revision())}}}); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.halt(); err != nil {
		b.Fatal(err)
	}
	s = nil
	b.ResetTimer()
	for range b.N {
		s = h.open()
		b.StopTimer()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc)/float64(n*size), "heap/data")
		if err := s.halt(); err != nil {
			b.Fatal(err)
		}
		s = nil
		b.StartTimer()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	b.Logf("%q", h.events[max(0, len(h.events)-3):])
}
