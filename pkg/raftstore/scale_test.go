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

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// BenchmarkStart fills a store with as many objects of 3,000 bytes as SHIM_SCALE says (default 20,000), stops it without a goodbye, and
// measures how long the next start takes and what memory it needs.
func BenchmarkStart(b *testing.B) {
	n := 20_000
	fmt.Sscan(os.Getenv("SHIM_SCALE"), &n)
	h := newHarness(b)
	h.fs, h.dir, h.db, h.ticks = vfs.OS, b.TempDir(), "", nil
	h.adjust = func(c *Config) { c.WALSegmentBytes = 0; c.Now = time.Now; c.Ticks = nil }
	s := h.open()
	value := bytes.Repeat([]byte("0123456789"), 300)
	var writers sync.WaitGroup
	for w := range 64 {
		writers.Go(func() {
			for i := w; i < n; i += 64 {
				put(b, s, fmt.Sprintf("/registry/pods/default/pod-%06d", i), string(value))
			}
		})
	}
	writers.Wait()
	if err := s.Checkpoint(context.Background()); err != nil {
		b.Fatal(err)
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
		b.ReportMetric(float64(m.HeapAlloc)/float64(n*3000), "heap/data")
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
