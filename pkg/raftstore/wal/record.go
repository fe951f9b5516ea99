package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// TypeReserved is the type of the log's own records (the mark that Close leaves, and the seal); callers use 1 to 255.
const TypeReserved = 0

// sealPayload tells the seal from the mark. The seal is the last record of a segment, written once the next segment is there for good;
// its number is that of the next segment's first record, and the chain does not go through it.
var sealPayload = []byte("sealed\x00\x00")

// Record is what the log keeps: bytes with a type, both opaque to it.
//
// Data given to a replay function aliases a read buffer, or one of unpacked payloads, which is never used again: it may be kept, which
// pins the up to 256 KiB (or the record's own size) read or unpacked together with it.
type Record struct {
	Type uint8
	Data []byte
}

// RecordV is a record whose data comes in pieces, which Append joins in its write buffer.
type RecordV struct {
	Type uint8
	Data [][]byte
}

// Position is the place of a record. Positions of later records compare greater.
type Position struct {
	Segment uint64 // number of the segment, from 1
	Offset  int64  // bytes from the segment's start
}

// Compare is negative if p is before q, 0 if they are equal, positive if p is behind q.
func (p Position) Compare(q Position) int {
	switch {
	case p.Segment < q.Segment || p.Segment == q.Segment && p.Offset < q.Offset:
		return -1
	case p == q:
		return 0
	}
	return 1
}

func (p Position) String() string { return fmt.Sprintf("%d/%d", p.Segment, p.Offset) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A record on disk, little-endian, beginning at a multiple of 8:
//
//	 0      4   5          8            16          20          24            24+length
//	 +------+---+----------+------------+-----------+-----------+-------------+---------+
//	 |length|typ| unsynced | number     | headerCRC | chain     | payload     | padding |
//	 +------+---+----------+------------+-----------+-----------+-------------+---------+
//
//	offset size
//	 0     4    length of the payload in bytes; bit 31: it is packed (pack.go), and this is the length that it has then
//	 4     1    type; 0 is the mark that Close leaves, or with a payload the seal of a segment that is full
//	 5     3    unsynced: how many records directly before this one were not known to be durable when it was written.
//	            So record number-1-unsynced was durable, and with it all before. 2^24-1 claims nothing
//	 8     8    number of the record: 1 for the first of a log, then one more each, over all segments
//	16     4    CRC32C of bytes 0 to 15, continued from the segment's seed. So a header alone shows that it was written
//	            in this use of the segment, whatever stands before it
//	20     4    CRC32C of bytes 0 to 19, of the payload as it stands here, and if it is packed of what it is unpacked,
//	            continued from the chain of the record before (of the first record in a segment: from the segment's seed)
//	24          payload, then zeros up to a multiple of 8, which are checked too
type recordHeader struct {
	length   uint32
	packed   bool
	typ      uint8
	unsynced uint32
	number   uint64
}

// recordBytes is the size on disk of a record with so much payload.
func recordBytes(payload int64) int64 {
	return (recordHeaderBytes + payload + alignBytes - 1) &^ (alignBytes - 1)
}

// durable is the number of the last record that this header shows to have been durable when it was written.
func (h recordHeader) durable() uint64 {
	if h.unsynced == unsyncedUnknown || uint64(h.unsynced) >= h.number {
		return 0
	}
	return h.number - 1 - uint64(h.unsynced)
}

// flagPacked in the length of a record.
const flagPacked = 1 << 31

// encoder appends records to a buffer, which begins where a page does and is aligned for the disk, and carries the chain.
type encoder struct {
	buf    []byte
	seed   uint32
	chain  uint32
	number uint64  // of the last record
	packer *packer // nil: payloads stay as they are
}

// add appends a record; durable is the number of the last record known to be so.
func (e *encoder) add(typ uint8, durable uint64, pieces ...[]byte) {
	start := len(e.buf)
	e.number++
	unsynced := min(e.number-1-durable, unsyncedUnknown)
	e.buf = append(e.buf, make([]byte, recordHeaderBytes)...)
	var unpacked []byte
	var flags uint32
	if e.packer != nil {
		window := len(e.packer.window)
		if packed, ok := e.packer.pack(e.buf, pieces...); ok {
			e.buf, unpacked, flags = packed, e.packer.window[window:], flagPacked
		}
	}
	if flags == 0 {
		for _, p := range pieces {
			e.buf = append(e.buf, p...)
		}
	}
	h := e.buf[start:]
	length := len(h) - recordHeaderBytes
	binary.LittleEndian.PutUint32(h[0:], uint32(length)|flags)
	binary.LittleEndian.PutUint32(h[4:], uint32(typ)|uint32(unsynced)<<8)
	binary.LittleEndian.PutUint64(h[8:], e.number)
	binary.LittleEndian.PutUint32(h[16:], crc32.Update(e.seed, castagnoli, h[:16]))
	e.chain = chainOf(e.chain, h, unpacked)
	binary.LittleEndian.PutUint32(h[20:], e.chain)
	var pad [alignBytes]byte
	e.buf = append(e.buf, pad[:recordBytes(int64(length))-recordHeaderBytes-int64(length)]...)
}

// reserve makes room for size bytes more, and for the rest of the page they end in.
func (e *encoder) reserve(size int64) {
	need := int(roundUp(int64(len(e.buf))+size, pageBytes))
	if need > cap(e.buf) {
		e.buf = append(vfs.AlignedBuffer(max(need, min(2*cap(e.buf), bufferKeepBytes), bufferBytesMin)), e.buf...)
	}
}

// pages is what goes to the disk: the buffer, and zeros up to the end of the page.
func (e *encoder) pages() []byte {
	n := int64(len(e.buf))
	return append(e.buf, make([]byte, roundUp(n, pageBytes)-n)...)
}

// written keeps of the buffer what the last page begins with, which the next write begins with, too.
func (e *encoder) written() {
	rest := e.buf[len(e.buf)/pageBytes*pageBytes:]
	if cap(e.buf) > bufferKeepBytes {
		e.buf = vfs.AlignedBuffer(bufferBytesMin)
	}
	e.buf = append(e.buf[:0], rest...)
}

// loadChain is the chain as a record says it.
func loadChain(record []byte) uint32 { return binary.LittleEndian.Uint32(record[20:]) }

// chainOf continues the chain over a record's header, what stands behind it, and what that is when unpacked; nil: it is not packed.
func chainOf(chain uint32, record, unpacked []byte) uint32 {
	chain = crc32.Update(chain, castagnoli, record[:20])
	chain = crc32.Update(chain, castagnoli, record[recordHeaderBytes:])
	return crc32.Update(chain, castagnoli, unpacked)
}

// decodeHeader reads a record's header; ok says that its checksum fits this use of the segment.
func decodeHeader(b []byte, seed uint32) (h recordHeader, ok bool) {
	length, word := binary.LittleEndian.Uint32(b[0:]), binary.LittleEndian.Uint32(b[4:])
	h = recordHeader{
		length:   length &^ flagPacked,
		packed:   length&flagPacked != 0,
		typ:      uint8(word),
		unsynced: word >> 8,
		number:   binary.LittleEndian.Uint64(b[8:]),
	}
	return h, h.number != 0 && binary.LittleEndian.Uint32(b[16:]) == crc32.Update(seed, castagnoli, b[:16])
}
