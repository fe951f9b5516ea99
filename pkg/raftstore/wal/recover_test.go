package wal

import (
	"encoding/binary"
	"hash/crc32"
	"strings"
	"syscall"
	"testing"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// TestHeadDamage: the records a segment begins with became durable before the segment got its name, so damage to them is
// never taken for a torn write, not even in the pages of a recycled segment.
func TestHeadDamage(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions()
	o.SegmentBytes = 2 * segmentBytesMin
	o.Header = func() []Record { return []Record{numbered(0, 100), numbered(1, 5000)} }
	w, _ := mustOpen(t, mem, o)
	for w.header.number < 4 {
		mustAppend(t, w, numbered(2, 3000))
		if err := w.Release(Position{Segment: w.header.number}); err != nil {
			t.Fatal(err)
		}
	}
	if w.header.zeroed {
		t.Fatal("the segment is fresh")
	}
	crashed := mem.Crash(vfs.LoseAll)
	patch(t, crashed, segmentName("wal", 4), 8192, []byte("damage"))
	_, replay := collect()
	if _, err := Open(crashed, "wal", o, replay); !isCorrupt(err) || !strings.Contains(err.Error(), "began with") {
		t.Errorf("open: %v", err)
	}
}

// TestChainOverSegments: a segment continues the chain of the one before it.
func TestChainOverSegments(t *testing.T) {
	mem := vfs.NewMem()
	w, _ := mustOpen(t, mem, testOptions())
	for w.header.number < 2 {
		mustAppend(t, w, numbered(2, 3000))
	}
	crashed := mem.Crash(vfs.LoseAll) // the second segment has no record yet
	_, replay := collect()
	if err := Scan(crashed, "wal", replay); err != nil {
		t.Fatal(err)
	}
	name := segmentName("wal", 2)
	block := readAll(t, crashed, name)[:headerBytes]
	block[48] ^= 1
	clear(block[12:16])
	binary.LittleEndian.PutUint32(block[12:], crc32.Checksum(block, castagnoli))
	patch(t, crashed, name, 0, block)
	if err := Scan(crashed, "wal", replay); !isCorrupt(err) || !strings.Contains(err.Error(), "does not continue") {
		t.Errorf("scan: %v", err)
	}
}

// TestSpareWrittenInVain: a spare whose header could not be written is no longer all zeros, and what is left in it of a
// long header is not taken for damage behind a short one.
func TestSpareWrittenInVain(t *testing.T) {
	mem := vfs.NewMem()
	fail := func(vfs.Op) error { return nil }
	fs := vfs.Hooked(mem, vfs.Hooks{Before: func(op vfs.Op) error { return fail(op) }})
	o := testOptions()
	size := 4000
	o.Header = func() []Record { return []Record{numbered(1, size)} }
	w, _ := mustOpen(t, fs, o)
	mustAppend(t, w, numbered(2, 8000))
	fail = vfs.FailNth(1, &vfs.ShortWrite{Bytes: 8000, Err: syscall.ENOSPC}, func(op vfs.Op) bool {
		return op.Kind == vfs.OpWrite
	})
	if _, err := w.Append(numbered(3, 3000)); !isNoSpace(err) {
		t.Fatalf("append: %v", err)
	}
	size = 10
	mustAppend(t, w, numbered(3, 3000))
	mustSync(t, w)
	if w.header.zeroed {
		t.Error("the segment is said to be all zeros")
	}
	if _, recs := mustOpen(t, mem.Crash(vfs.LoseAll), o); len(recs) != 4 {
		t.Errorf("%d records", len(recs))
	}
}

// TestReopenedClaims: what Open has read is durable, and the next record says so.
func TestReopenedClaims(t *testing.T) {
	mem := vfs.NewMem()
	w, _ := mustOpen(t, mem, testOptions())
	mustAppend(t, w, numbered(1, 100), numbered(2, 100), numbered(3, 100))
	w, _ = mustOpen(t, mem.Crash(vfs.KeepAll), testOptions())
	pos := mustAppend(t, w, numbered(4, 100), numbered(5, 100))
	written, err := w.fs.OpenReadOnly(segmentName("wal", 1))
	if err != nil {
		t.Fatal(err)
	}
	at := pos.Offset
	for want := uint64(4); want <= 5; want++ {
		b := make([]byte, recordHeaderBytes)
		if err := readFull(written, b, at); err != nil {
			t.Fatal(err)
		}
		h, ok := decodeHeader(b, w.enc.seed)
		if !ok || h.number != want || h.durable() != 3 {
			t.Errorf("record %d has the header %+v, %v", want, h, ok)
		}
		at += recordBytes(100)
	}
}

// TestUnsyncedUnknown: a record with more unsynced ones before it than its header can say claims nothing.
func TestUnsyncedUnknown(t *testing.T) {
	for _, c := range []struct{ number, durable, want uint64 }{
		{1, 0, 0},
		{10, 9, 9},
		{10, 4, 4},
		{1 << 30, 5, 0},
		{1<<24 - 1, 1, 1},
		{1<<24 + 1, 1, 0},
	} {
		e := encoder{number: c.number - 1}
		e.add(1, c.durable, nil)
		h, ok := decodeHeader(e.buf, 0)
		if !ok || h.number != c.number || h.durable() != c.want {
			t.Errorf("record %d, durable %d: %+v gives %d, want %d", c.number, c.durable, h, h.durable(), c.want)
		}
	}
}
