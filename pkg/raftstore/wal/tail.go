package wal

import (
	"encoding/binary"
	"fmt"
)

// The end of the log is where the last segment's chain of good records ends. What stands there is one of
//
//   - nothing: zeros, or what an earlier use of the file left,
//   - a torn write: of what was written since the last fdatasync each sector may be on disk or not,
//   - damage: the record was durable once, and is no longer what it was.
//
// tail tells the last from the other two, by what a crash cannot leave:
//
//  1. A record behind the bad one, written in this use of the segment, that was written when the bad one was durable.
//     Record headers say so (recordHeader.durable), and a header proves itself without the record before it. A record
//     behind the bad one that says no such thing is no proof: it may belong to the same unsynced writes.
//  2. A bad record among those which became durable together with the segment's header.
//  3. Nothing missing. Where the bytes are known to have been zeros before the record was written, a sector that did not
//     reach the disk is seen as zeros. A record that is bad although none of its sectors is zero was written in full, and
//     changed later. Known zeros are: all of a fresh segment, and in a recycled one the rest of each page that already
//     held a durable record, because the first write into a page fills it up with zeros.
//
// So of the records that were durable, damage is found in all but those that were synced last, with nothing written after
// them, where the damage looks like a sector of zeros or where the record reaches into a fresh page of a recycled segment.
// These look like a torn write and are cut. Close writes a mark behind the last record, so that a log which was closed has
// no such records.
type tail struct {
	r        *reader
	reason   string // why r.next stopped
	eraseEnd int64  // up to where something may be left that must be zeroed, r.at if nothing is
}

// findTail looks at what stands behind the last good record of the last segment. The error is a *CorruptError, or one of
// reading.
func findTail(r *reader, reason string) (*tail, error) {
	t := &tail{r: r, reason: reason, eraseEnd: r.at}
	if r.number < r.attested {
		return nil, r.corrupt(reason + ", and the record is one of those that the segment began with")
	}
	if err := t.scan(); err != nil {
		return nil, err
	}
	if r.header.bytes-r.at < recordHeaderBytes {
		return t, nil
	}
	return t, t.findDamage()
}

// scan looks for records of this use of the segment behind the bad one, and for the end of what is not zero.
func (t *tail) scan() error {
	r := t.r
	size := r.header.bytes
	buf := make([]byte, min(readBytes, size-r.at))
	for at := r.at; at < size; {
		chunk := buf[:min(size-at, int64(len(buf)))]
		if err := readFull(r.file, chunk, at); err != nil {
			return fmt.Errorf("read %s at offset %d: %w", r.name, at, err)
		}
		if err := t.scanChunk(chunk, at); err != nil {
			return err
		}
		if at+int64(len(chunk)) == size {
			break
		}
		at += int64(len(chunk)) - recordHeaderBytes + alignBytes // a header may begin in this chunk and end in the next
	}
	return nil
}

// scanChunk is scan for the bytes of chunk, which stand at offset base.
func (t *tail) scanChunk(chunk []byte, base int64) error {
	r := t.r
	size := r.header.bytes
	expected := r.number + 1
	numberMax := expected + uint64(size/recordHeaderBytes)
	zerosMeant := min(roundUp(r.at, pageBytes), size)
	if r.header.zeroed {
		zerosMeant = size
	}
	for off := 0; off < len(chunk); off += alignBytes {
		at := base + int64(off)
		if at < zerosMeant && binary.LittleEndian.Uint64(chunk[off:]) != 0 {
			t.eraseEnd = max(t.eraseEnd, at+alignBytes)
		}
		if off+recordHeaderBytes > len(chunk) {
			continue
		}
		number := binary.LittleEndian.Uint64(chunk[off+8:])
		if number < expected || number > numberMax {
			continue
		}
		h, ok := decodeHeader(chunk[off:], r.seed)
		if !ok {
			continue
		}
		if h.durable() >= expected {
			return r.corrupt(fmt.Sprintf("%s, and record %d at offset %d was written after it was durable",
				t.reason, h.number, at))
		}
		t.eraseEnd = max(t.eraseEnd, min(at+recordBytes(int64(h.length)), size))
	}
	return nil
}

// findDamage looks whether the bad record at r.at was written in full (the third case above).
func (t *tail) findDamage() error {
	r := t.r
	b, err := r.load(r.at, recordHeaderBytes)
	if err != nil {
		return err
	}
	end := r.at + recordHeaderBytes
	if h, ok := decodeHeader(b, r.seed); ok {
		end = r.at + recordBytes(int64(h.length))
		if end > r.header.bytes || h.number != r.number+1 {
			return r.corrupt(t.reason) // its header is as it was written, so nothing is torn here
		}
		r.attest(h.durable())
	}
	if end > t.zerosEnd() {
		return nil
	}
	for at := r.at; at < end; {
		next := min(roundUp(at+1, sectorBytes), end)
		piece, err := r.load(at, next-at)
		if err != nil {
			return err
		}
		if allZero(piece) {
			return nil
		}
		at = next
	}
	return r.corrupt(t.reason + ", though no part of the record is missing")
}

// zerosEnd is up to where the bytes behind the last durable record are known to have been zeros.
func (t *tail) zerosEnd() int64 {
	if t.r.header.zeroed {
		return t.r.header.bytes
	}
	return roundUp(t.r.attestedEnd, pageBytes)
}

// erase makes sure that what is cut stays cut: it zeroes all that could be taken for a record, or for a part of one,
// behind the tail. A crash in the middle leaves a tail that is cut at the same place, for there are only more zeros.
func (t *tail) erase() error {
	zeros := make([]byte, min(t.eraseEnd-t.r.at, readBytes))
	for at := t.r.at; at < t.eraseEnd; {
		n := min(t.eraseEnd-at, int64(len(zeros)))
		if _, err := t.r.file.WriteAt(zeros[:n], at); err != nil {
			return noSpaceOr(fmt.Sprintf("cut the torn tail of %s at offset %d", t.r.name, t.r.at), err)
		}
		at += n
	}
	return nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }
