package wal

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// FuzzOpen overwrites a part of a real log, or gives a file of its own, with the header's checksum made good if fix is set.
// Open never panics. What it gives is an error, or records; and then the same again, since what is cut stays cut. As long
// as the header is left alone, only records that were written come out.
func FuzzOpen(f *testing.F) {
	mem := vfs.NewMem()
	o := testOptions()
	o.PackBytes = packBytesMax
	w, _ := mustOpen(f, mem, o)
	for i := range 6 {
		mustAppend(f, w, packable(i, 10+i*150), numbered(i, 5))
		mustSync(f, w)
	}
	real := readAll(f, mem, segmentName("wal", 1))
	var want []Record
	if err := Scan(mem, "wal", func(_ Position, r Record) error {
		want = append(want, r)
		return nil
	}); err != nil {
		f.Fatal(err)
	}
	f.Add(false, false, uint16(w.tail), []byte{})
	f.Add(false, false, uint16(headerBytes), []byte{1, 2, 3, 4})
	f.Add(false, false, uint16(headerBytes), real[headerBytes+40:headerBytes+400])
	f.Add(false, false, uint16(w.tail), real[headerBytes:headerBytes+400])
	f.Add(false, false, uint16(w.tail-600), make([]byte, 600))
	f.Add(false, true, uint16(32), []byte{9})
	f.Add(false, true, uint16(40), []byte{0, 0, 0, 0, 0, 0, 0, 1})
	f.Add(true, true, uint16(0), real[:headerBytes])
	f.Add(true, false, uint16(0), real)
	f.Add(true, true, uint16(0), []byte("shimWAL\n"))

	f.Fuzz(func(t *testing.T, whole, fix bool, off uint16, b []byte) {
		content := append([]byte{}, real...)
		if whole {
			content = append([]byte{}, b...)
		} else {
			copy(content[min(int(off), len(content)):], b)
		}
		if fix && len(content) >= headerBytes {
			clear(content[12:16])
			binary.LittleEndian.PutUint32(content[12:], crc32.Checksum(content[:headerBytes], castagnoli))
		}
		known := want
		if whole || !bytes.Equal(content[:headerBytes], real[:headerBytes]) {
			known = nil
		}
		checkOpen(t, content, known)
	})
}

// checkOpen opens a log of one segment with these contents. If known is given, no other records may come out.
func checkOpen(t *testing.T, content []byte, known []Record) {
	mem := vfs.NewMem()
	if err := mem.MkdirAll("wal"); err != nil {
		t.Fatal(err)
	}
	file, err := mem.Create(segmentName("wal", 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	o := testOptions()
	o.PackBytes = packBytesMax
	first, replay := collect()
	w, err := Open(mem, "wal", o, replay)
	if err != nil {
		return
	}
	for i, r := range *first {
		if known != nil && (i >= len(known) || r.Type != known[i].Type || !bytes.Equal(r.Data, known[i].Data)) {
			t.Fatalf("record %d was never written: %q", i, r.Data)
		}
	}
	pos, err := w.Append(packable(1, 100))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	again, replay := collect()
	_, err = Open(mem.Crash(vfs.LoseAll), "wal", o, replay)
	if err != nil || len(*again) != len(*first)+1 {
		t.Fatalf("%d records at first, %d after one more at %s, %v", len(*first), len(*again), pos, err)
	}
}
