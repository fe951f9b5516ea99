package raftstore

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kubeshim/shim/pkg/raftstore/backend"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// BenchmarkBesideBackup makes 300,000 objects of 3,000 bytes, and then 500 heartbeats a second: beside nothing, beside a backup at its rate,
// and beside one without bounds, each from a file that is not in the page cache. The figures are those of the heartbeats, in ms, how long
// the backup took, and how much of the file was in the page cache behind it. For -benchtime=1x.
func BenchmarkBesideBackup(b *testing.B) {
	h := newHarness(b)
	h.fs, h.dir, h.db, h.ticks = vfs.OS, b.TempDir(), "", nil
	h.adjust = func(c *Config) { c.WALSegmentBytes, c.Now, c.Ticks = 0, time.Now, nil }
	s := h.open()
	defer closeStore(b, s)
	value := string(make([]byte, 3000))
	var writers sync.WaitGroup
	var next atomic.Int64
	for range 64 {
		writers.Go(func() {
			for i := next.Add(1); i <= 300_000; i = next.Add(1) {
				put(b, s, fmt.Sprintf("/registry/pods/default/pod-%06d", i), value)
			}
		})
	}
	writers.Wait()
	for _, c := range []struct {
		beside string
		run    func() error
	}{
		{"none", func() error { time.Sleep(10 * time.Second); return nil }},
		{"paced", func() error { return drain(b, s, newPacer(s.ctx, backupRate)) }},
		{"unbounded", func() error { return drain(b, s, nil) }},
		{"cached", func() error { return drainCached(b, s) }},
	} {
		b.Run(c.beside, func(b *testing.B) {
			if err := errors.Join(s.Checkpoint(b.Context()), forgetFile(Dirs{Data: h.dir}.db())); err != nil {
				b.Fatal(err)
			}
			stop := make(chan struct{})
			var took []time.Duration
			var beats sync.WaitGroup
			beats.Go(func() {
				tick := time.NewTicker(2 * time.Millisecond)
				defer tick.Stop()
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					case at := <-tick.C:
						put(b, s, fmt.Sprintf("/registry/leases/kube-node-lease/node-%d", i%100), value[:400])
						took = append(took, time.Since(at))
					}
				}
			})
			start := time.Now()
			if err := c.run(); err != nil {
				b.Fatal(err)
			}
			lasted := time.Since(start)
			close(stop)
			beats.Wait()
			slices.Sort(took)
			ms := func(q float64) float64 { return float64(took[int(float64(len(took)-1)*q)]) / 1e6 }
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(lasted.Seconds(), "s")
			b.ReportMetric(ms(0.5), "p50-ms")
			b.ReportMetric(ms(0.99), "p99-ms")
			b.ReportMetric(ms(0.999), "p999-ms")
			b.ReportMetric(float64(residentBytes(b, Dirs{Data: h.dir}.db()))/(1<<20), "cached-MiB")
		})
	}
}

// drain reads a backup as its client does.
func drain(b *testing.B, s *Store, p *pacer) error {
	_, size, rc, err := s.stream(b.Context(), "backup", p)
	if err != nil {
		return err
	}
	defer rc.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{sha256.New()}, rc, make([]byte, 32<<10))
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// drainCached is what bbolt does by itself.
func drainCached(b *testing.B, s *Store) error {
	var tx *backend.Tx
	err := s.checkpoint.call(b.Context(), func() (err error) { tx, err = s.checkpoint.db.Begin(); return err })
	if err != nil {
		return err
	}
	defer tx.Rollback()
	_, err = tx.WriteTo(struct{ io.Writer }{sha256.New()})
	return err
}

func forgetFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// residentBytes is how much of a file is in the page cache.
func residentBytes(b *testing.B, name string) (n int64) {
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		b.Fatal(err)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Munmap(data)
	pages := make([]byte, (len(data)+os.Getpagesize()-1)/os.Getpagesize())
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)), uintptr(unsafe.Pointer(&pages[0]))); errno != 0 {
		b.Fatal(errno)
	}
	for _, p := range pages {
		n += int64(p&1) * int64(os.Getpagesize())
	}
	return n
}
