package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// damageLog is a log whose segments are flipped bit by bit.
type damageLog struct {
	mem    *vfs.Mem
	recs   []Record
	last   string // file
	tail   int64
	synced int // records of recs that were followed by another synced write

	headers map[string]map[int64]bool // file, offsets of the bytes in record headers
}

// wanted leaves out some bits where all are alike: of a payload it takes one bit of each second byte, of the rest of a
// header block and of a segment one of each 16th. Headers are taken whole.
func (l *damageLog) wanted(name string, off int64, bit int) bool {
	switch {
	case off < 64 || l.headers[name][off] || name == l.last && off >= l.tail && off < l.tail+64:
		return true
	case off < headerBytes || name == l.last && off >= l.tail:
		return off%16 == 0 && bit == int(off/16%8)
	}
	return off%2 == 0 && bit == int(off/2%8)
}

// buildDamageLog makes a log of two segments; in the last, the first three records share one page, and the last record
// reaches into the next page if wide is set. With packed, half of most records is packed. With recycled, the last segment was in use before.
func buildDamageLog(t *testing.T, recycled, wide, closed, packed bool) damageLog {
	t.Helper()
	mem := vfs.NewMem()
	o := testOptions()
	o.Header = func() []Record { return []Record{{Type: headerType, Data: []byte("header")}} }
	if packed {
		o.PackBytes = packBytesMax
	}
	w, _ := mustOpen(t, mem, o)
	n, record := 0, numbered
	add := func(size int) {
		n++
		mustAppend(t, w, record(n, size))
		mustSync(t, w)
	}
	if packed {
		record = packable
	}
	rotations := 1
	if recycled {
		rotations = 3 // the first released segment takes the place of the fresh spare, and is used at the next rotation
	}
	for range rotations {
		if err := w.Release(Position{Segment: w.header.number}); err != nil {
			t.Fatal(err)
		}
		for number := w.header.number; w.header.number == number; {
			add(1000)
		}
	}
	add(200)
	if w.header.zeroed == recycled {
		t.Fatalf("last segment is zeroed=%v", w.header.zeroed)
	}
	before := n
	if wide {
		add(5000)
	} else {
		add(300)
	}
	log := damageLog{last: segmentName("wal", w.header.number), tail: w.tail}
	if closed {
		before = n
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	log.mem = mem.Crash(vfs.LoseAll)
	log.headers = map[string]map[int64]bool{}
	err := Scan(log.mem, "wal", func(pos Position, r Record) error {
		log.recs = append(log.recs, r)
		name := segmentName("wal", pos.Segment)
		if log.headers[name] == nil {
			log.headers[name] = map[int64]bool{}
		}
		for i := range int64(recordHeaderBytes + alignBytes) {
			log.headers[name][pos.Offset+i] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	log.synced = len(log.recs) - (n - before)
	return log
}

// TestEveryBitFlip flips single bits all over a log: each one is found, or harms no record. Only in the records synced
// last of a log that was not closed, and there only where they reach into a fresh page of a recycled segment, may a flip
// look like a torn write.
func TestEveryBitFlip(t *testing.T) {
	for _, c := range []struct {
		name                   string
		recycled, wide, closed bool
		packed                 bool
		mayCut                 bool
	}{
		{name: "fresh"},
		{name: "fresh wide", wide: true},
		{name: "recycled", recycled: true},
		{name: "recycled wide", recycled: true, wide: true, mayCut: true},
		{name: "recycled wide closed", recycled: true, wide: true, closed: true},
		{name: "fresh packed", packed: true},
		{name: "recycled packed", recycled: true, packed: true},
		{name: "recycled packed closed", recycled: true, closed: true, packed: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := buildDamageLog(t, c.recycled, c.wide, c.closed, c.packed)
			names, _ := log.mem.List("wal")
			var found, harmless, cut int
			for _, base := range names {
				if _, ok := parseSegmentName(base); !ok {
					continue
				}
				name := "wal/" + base
				f, err := log.mem.Open(name)
				if err != nil {
					t.Fatal(err)
				}
				content := readAll(t, log.mem, name)
				for off := range content {
					for bit := range 8 {
						if !log.wanted(name, int64(off), bit) {
							continue
						}
						switch outcome := log.flip(t, f, name, content, off, bit); outcome {
						case "found":
							found++
						case "harmless":
							harmless++
						case "cut":
							cut++
							if !c.mayCut || name != log.last || int64(off) >= log.tail {
								t.Fatalf("bit %d of byte %d in %s: records are lost", bit, off, name)
							}
						}
					}
				}
			}
			if found == 0 || harmless == 0 || c.mayCut != (cut > 0) {
				t.Errorf("%d flips were found, %d harmless, %d cut", found, harmless, cut)
			}
		})
	}
}

// flip scans the log with one bit flipped.
func (l *damageLog) flip(t *testing.T, f vfs.File, name string, content []byte, off, bit int) string {
	write := func(b byte) {
		if _, err := f.WriteAt([]byte{b}, int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	write(content[off] ^ 1<<bit)
	defer write(content[off])
	n := 0
	err := Scan(l.mem, "wal", func(_ Position, r Record) error {
		if n >= len(l.recs) || r.Type != l.recs[n].Type || !bytes.Equal(r.Data, l.recs[n].Data) {
			t.Fatalf("bit %d of byte %d in %s: record %d is wrong", bit, off, name, n)
		}
		n++
		return nil
	})
	switch {
	case isCorrupt(err):
		return "found"
	case err != nil:
		t.Fatalf("bit %d of byte %d in %s: %v", bit, off, name, err)
	case n == len(l.recs):
		return "harmless"
	case n < l.synced:
		t.Fatalf("bit %d of byte %d in %s: %d records, %d were shown to be durable", bit, off, name, n, l.synced)
	}
	return "cut"
}

// TestZeroedSector is the limit of what findDamage can tell: a sector of zeros in the record that was synced last.
func TestZeroedSector(t *testing.T) {
	log := buildDamageLog(t, false, true, false, false)
	patch(t, log.mem, log.last, log.tail&^(sectorBytes-1)-sectorBytes, make([]byte, sectorBytes))
	w, recs := mustOpen(t, log.mem, testOptions())
	if len(recs) != log.synced {
		t.Errorf("%d records, want %d", len(recs), log.synced)
	}
	if w.tail >= log.tail {
		t.Errorf("tail is at %d, it was at %d", w.tail, log.tail)
	}
}

// TestStaleRecords recycles segments again and again with records that have the same size, type and almost the same bytes
// at the same offsets, and ends the process at each of them: never is an old record taken for a new one.
func TestStaleRecords(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions()
	o.Salt = func() uint64 { return 7 } // not even the salt differs
	w, _ := mustOpen(t, mem, o)
	for i := 1; i <= 200; i++ {
		pos := mustAppend(t, w, numbered(i, 1000))
		mustSync(t, w)
		if err := w.Release(pos); err != nil {
			t.Fatal(err)
		}
		n := 0
		err := Scan(mem.Clone(), "wal", func(_ Position, r Record) error {
			n++
			want := numbered(i-int(pos.Offset-headerBytes)/1024+n-1, 1000)
			if !bytes.Equal(r.Data, want.Data) {
				t.Fatalf("record %.8q, want %.8q", r.Data, want.Data)
			}
			return nil
		})
		if want := int(pos.Offset-headerBytes)/1024 + 1; err != nil || n != want {
			t.Fatalf("after record %d: %d records, want %d, %v", i, n, want, err)
		}
	}
}

// TestStaleNumber: even where the checksums fit, the number tells an old record.
func TestStaleNumber(t *testing.T) {
	mem := vfs.NewMem()
	w, _ := mustOpen(t, mem, testOptions())
	mustAppend(t, w, numbered(1, 100), numbered(2, 100))
	mustSync(t, w)
	stale := encoder{seed: w.enc.seed, chain: w.enc.chain, number: 0}
	stale.add(1, 0, []byte("an old one"))
	patch(t, mem, segmentName("wal", 1), w.tail, stale.buf)
	_, replay := collect()
	if err := Scan(mem, "wal", replay); !isCorrupt(err) || !strings.Contains(err.Error(), "number 1, not 3") {
		t.Errorf("scan: %v", err)
	}
}

// TestNewerFormat decodes a segment of a future version.
func TestNewerFormat(t *testing.T) {
	log := buildDamageLog(t, false, false, true, false)
	block := readAll(t, log.mem, log.last)[:headerBytes]
	for i := 56; i < headerBytes; i++ {
		block[i] = byte(i) // what a future version puts there is unknown
	}
	binary.LittleEndian.PutUint32(block[8:], formatVersion+1)
	binary.LittleEndian.PutUint32(block[12:], 0)
	binary.LittleEndian.PutUint32(block[12:], crc32.Checksum(block, castagnoli))
	patch(t, log.mem, log.last, 0, block)
	_, replay := collect()
	_, err := Open(log.mem, "wal", testOptions(), replay)
	if !errors.Is(err, ErrNewerFormat) || !strings.Contains(err.Error(), "format version 3, this version reads up to 2") {
		t.Errorf("open: %v", err)
	}
	block[100] ^= 1 // damage comes first
	patch(t, log.mem, log.last, 0, block)
	if _, err = Open(log.mem, "wal", testOptions(), replay); !isCorrupt(err) {
		t.Errorf("open: %v", err)
	}
}

// TestMissingSegment: a gap between segments is damage, and so is the loss of the last ones, which the one before them was sealed for.
func TestMissingSegment(t *testing.T) {
	for _, lost := range [][]uint64{{2}, {4}, {3, 4}, {2, 3, 4}} {
		mem := vfs.NewMem()
		w, _ := mustOpen(t, mem, testOptions())
		for i := 0; len(w.segments) < 4; i++ {
			mustAppend(t, w, numbered(i, 2000))
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		for _, n := range lost {
			if err := mem.Remove(segmentName("wal", n)); err != nil {
				t.Fatal(err)
			}
		}
		_, replay := collect()
		_, err := Open(mem, "wal", testOptions(), replay)
		if !isCorrupt(err) || !strings.Contains(err.Error(), segmentName("wal", lost[0])) {
			t.Errorf("open without %d: %v", lost, err)
		}
		if err := Scan(mem, "wal", replay); !isCorrupt(err) {
			t.Errorf("scan without %d: %v", lost, err)
		}
	}
}

// TestDamagedSeal: a segment that has a successor needs no seal.
func TestDamagedSeal(t *testing.T) {
	mem := vfs.NewMem()
	w, _ := mustOpen(t, mem, testOptions())
	end := w.tail
	for i := 0; len(w.segments) < 2; i++ {
		end = w.tail
		mustAppend(t, w, numbered(i, 2000))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, replay := collect()
	if err := Scan(mem, "wal", replay); err != nil {
		t.Fatal(err)
	}
	want := len(*got)
	for _, bad := range [][]byte{make([]byte, sealBytes), make([]byte, 20), {0xff}} {
		patch(t, mem, segmentName("wal", 1), end, bad)
		got, replay = collect()
		w, err := Open(mem, "wal", testOptions(), replay)
		if err != nil || len(*got) != want {
			t.Fatalf("%d of %d records, %v", len(*got), want, err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestShortSegment: a segment that lost its end is damage, wherever it is cut.
func TestShortSegment(t *testing.T) {
	for _, size := range []int64{0, 5, headerBytes - 1, headerBytes, 8192, segmentBytesMin - 1} {
		log := buildDamageLog(t, false, false, true, false)
		f, err := log.mem.Open(log.last)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		_, replay := collect()
		if _, err := Open(log.mem, "wal", testOptions(), replay); !isCorrupt(err) {
			t.Errorf("cut to %d bytes: %v", size, err)
		}
	}
}
