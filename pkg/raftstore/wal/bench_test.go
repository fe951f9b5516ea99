package wal

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// BenchmarkAppendSync appends records, each batch with its own fdatasync: one of 400 bytes, the size of a node's heartbeat, back to
// back and at the pace of 20 a second, 16 of them, and 20 of 3 kB, a burst of pods. It goes past the page cache or, with
// direct=false, through it. The segments are fresh (preallocated, never written) or recycled. It reports
//
//	cpu-ns/op   processor time of the process, the kernel's on its behalf included
//	block-B/op  write_bytes of /proc/self/io: exact past the page cache; through it, whole folios are counted
//	disk-B/op   bytes written to the block device named by WAL_BENCH_DEVICE (such as vda), by everybody
//
// The log lies in WAL_BENCH_DIR, or the directory for temporary files.
func BenchmarkAppendSync(b *testing.B) {
	for _, c := range []appendSync{
		{records: 1, bytes: 400}, {records: 1, bytes: 400, pace: 50 * time.Millisecond},
		{records: 16, bytes: 400}, {records: 20, bytes: 3000},
	} {
		for _, c.recycled = range []bool{false, true} {
			for _, c.direct = range []bool{false, true} {
				name := fmt.Sprintf("records=%dx%d/pace=%v/recycled=%v/direct=%v", c.records, c.bytes, c.pace, c.recycled, c.direct)
				b.Run(name, func(b *testing.B) { c.run(b) })
			}
		}
	}
}

type appendSync struct {
	records, bytes   int
	pace             time.Duration
	recycled, direct bool
}

// pageCache is a file system that does not know another way.
type pageCache struct{ vfs.FS }

func (p pageCache) OpenDirect(name string) (vfs.File, error) { return p.Open(name) }

func (c appendSync) run(b *testing.B) {
	parent := os.Getenv("WAL_BENCH_DIR")
	if parent == "" {
		parent = b.TempDir()
	}
	dir, err := os.MkdirTemp(parent, "wal")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	fs := vfs.OS
	if !c.direct {
		fs = pageCache{vfs.OS}
	}
	w, err := Open(fs, dir, Options{SegmentBytes: 16 << 20}, nil)
	if err != nil {
		b.Fatal(err)
	}
	recs := make([]Record, c.records)
	for i := range recs {
		recs[i] = numbered(i, c.bytes)
	}
	if c.recycled {
		recycle(b, w)
	}
	cpu, block, disk := processTime(b), blockBytes(b), deviceBytes(b)
	b.ReportAllocs()
	for b.Loop() {
		if c.pace > 0 {
			time.Sleep(c.pace)
		}
		pos := mustAppend(b, w, recs...)
		mustSync(b, w)
		if pos.Offset < 8192 && c.recycled { // a rotation: the segment before becomes the next spare
			if err := w.Release(pos); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(processTime(b)-cpu)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(blockBytes(b)-block)/float64(b.N), "block-B/op")
	if os.Getenv("WAL_BENCH_DEVICE") != "" {
		b.ReportMetric(float64(deviceBytes(b)-disk)/float64(b.N), "disk-B/op")
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}

func processTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func blockBytes(b *testing.B) (bytes int64) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Skip(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nwrite_bytes: ")
	fmt.Sscan(rest, &bytes)
	return bytes
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
