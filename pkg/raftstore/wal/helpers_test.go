package wal

import (
	"errors"
	"fmt"
	"testing"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// testOptions run the same way each time: no goroutine, salts that count. Records take the bytes that they have, unless a test is about
// packed ones.
func testOptions() Options {
	var salt uint64
	return Options{
		SegmentBytes:  segmentBytesMin,
		ReserveInline: true,
		PackBytes:     -1,
		Salt: func() uint64 {
			salt += 0x9e3779b97f4a7c15
			return salt
		},
	}
}

// collect gives a replay function and the records it saw, the data copied.
func collect() (*[]Record, func(Position, Record) error) {
	var recs []Record
	return &recs, func(_ Position, r Record) error {
		recs = append(recs, Record{Type: r.Type, Data: append([]byte{}, r.Data...)})
		return nil
	}
}

func mustOpen(t testing.TB, fs vfs.FS, o Options) (*WAL, []Record) {
	t.Helper()
	recs, replay := collect()
	w, err := Open(fs, "wal", o, replay)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return w, *recs
}

func mustAppend(t testing.TB, w *WAL, recs ...Record) Position {
	t.Helper()
	pos, err := w.Append(recs...)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return pos
}

func mustSync(t testing.TB, w *WAL) {
	t.Helper()
	if err := w.Sync(); err != nil {
		t.Fatalf("sync: %v", err)
	}
}

// numbered gives a record whose data begins with its number and has size bytes, none of them zero.
func numbered(n, size int) Record {
	data := fmt.Appendf(nil, "%08d", n)
	for len(data) < size {
		data = append(data, byte('a'+(n+len(data))%26))
	}
	return Record{Type: 1 + uint8(n%3), Data: data[:max(size, 8)]}
}

func isCorrupt(err error) bool {
	var c *CorruptError
	return errors.As(err, &c) && c.File != "" && c.Reason != ""
}

// readAll gives a file's bytes.
func readAll(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.OpenReadOnly(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if err := readFull(f, b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// patch overwrites bytes of a file, durably.
func patch(t testing.TB, fs vfs.FS, name string, off int64, b []byte) {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}
