package wal

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// BenchmarkAppendSync appends records of 400 bytes, the size of a node's heartbeat, each with its own fdatasync, and
// reports what that costs the disk:
//
//	written-B/op  bytes given to write calls
//	disk-B/op     bytes written to the block device named by WAL_BENCH_DEVICE (such as vda), by everybody
//
// write_bytes of /proc/self/io is of no use here: it counts whole folios of the page cache, which may be much larger than
// what is written back.
//
// The log lies in WAL_BENCH_DIR, or the directory for temporary files. The segments are fresh (preallocated, never
// written) or recycled.
func BenchmarkAppendSync(b *testing.B) {
	for _, batch := range []int{1, 16} {
		for _, recycled := range []bool{false, true} {
			b.Run(fmt.Sprintf("batch=%d/recycled=%v", batch, recycled), func(b *testing.B) {
				benchAppendSync(b, batch, recycled)
			})
		}
	}
}

func benchAppendSync(b *testing.B, batch int, recycled bool) {
	parent := os.Getenv("WAL_BENCH_DIR")
	if parent == "" {
		parent = b.TempDir()
	}
	dir, err := os.MkdirTemp(parent, "wal")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var written atomic.Int64
	fs := vfs.Hooked(vfs.OS, vfs.Hooks{After: func(op vfs.Op, _ error) {
		if op.Kind == vfs.OpWrite {
			written.Add(op.Bytes)
		}
	}})
	w, err := Open(fs, dir, Options{SegmentBytes: 16 << 20}, nil)
	if err != nil {
		b.Fatal(err)
	}
	recs := make([]Record, batch)
	for i := range recs {
		recs[i] = numbered(i, 400)
	}
	if recycled {
		recycle(b, w)
	}
	writtenBefore, diskBefore := written.Load(), deviceBytes(b)
	b.ReportAllocs()
	for b.Loop() {
		pos := mustAppend(b, w, recs...)
		mustSync(b, w)
		if pos.Offset < 8192 && recycled { // a rotation: the segment before becomes the next spare
			if err := w.Release(pos); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(written.Load()-writtenBefore)/float64(b.N), "written-B/op")
	if os.Getenv("WAL_BENCH_DEVICE") != "" {
		b.ReportMetric(float64(deviceBytes(b)-diskBefore)/float64(b.N), "disk-B/op")
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}

// recycle fills segments until the current one was in use before, and so was the spare.
func recycle(b *testing.B, w *WAL) {
	filler := make([]byte, 1<<20)
	for round := 0; round < 3; {
		number := w.header.number
		pos := mustAppend(b, w, Record{Type: 1, Data: filler})
		if pos.Segment == number {
			continue
		}
		round++
		if err := w.TryReserve(); err != nil {
			b.Fatal(err)
		}
		if err := w.Release(pos); err != nil {
			b.Fatal(err)
		}
	}
	mustSync(b, w)
	if w.header.zeroed {
		b.Fatal("the segment is fresh")
	}
}

func deviceBytes(b *testing.B) int64 {
	device := os.Getenv("WAL_BENCH_DEVICE")
	if device == "" {
		return 0
	}
	text, err := os.ReadFile(filepath.Join("/sys/block", device, "stat"))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(text))
	var sectors int64
	fmt.Sscan(fields[6], &sectors)
	return sectors * 512
}

// BenchmarkOpen replays a log of 16 MiB.
func BenchmarkOpen(b *testing.B) {
	mem := vfs.NewMem()
	w, _ := mustOpen(b, mem, Options{SegmentBytes: 64 << 20, ReserveInline: true})
	for i := range 40_000 {
		mustAppend(b, w, numbered(i, 400))
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		if err := Scan(mem, "wal", func(Position, Record) error { n++; return nil }); err != nil || n != 40_000 {
			b.Fatal(n, err)
		}
	}
}
