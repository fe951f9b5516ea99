package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"path"
	"strconv"
	"strings"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// formatVersion is what this package writes. It reads version 1 as well, which has no packed records; nor has what is appended to a
// segment of that version.
const (
	formatVersion = 2
	formatPacked  = 2
)

const (
	segmentSuffix = ".wal"
	spareName     = "spare"
	spareTempName = "spare.tmp"
)

var magic = [8]byte{'s', 'h', 'i', 'm', 'W', 'A', 'L', '\n'}

// The header block of a segment, 4096 bytes, little-endian:
//
//	offset size
//	 0     8    magic "shimWAL\n"
//	 8     4    format version
//	12     4    CRC32C of the whole block with this field as zero. It is also the segment's seed: the checksums of its
//	            records continue from it
//	16     8    number of the segment; the file's name is this number in 16 hexadecimal digits and ".wal"
//	24     8    salt: a random number, so that the seed differs from that of each earlier use of the file
//	32     8    number of the first record
//	40     8    size of the file in bytes
//	48     4    chain: that of the last record before this segment, 0 if there is none
//	52     4    flags; bit 0: the file was all zeros behind this block when it was made (fresh, not recycled)
//	56     4    how many records Options.Header gave; they became durable together with this block
//	60          zeros
//
// Magic, version and checksum stay where they are in all versions, so that a newer file is told apart from a damaged one.
type segmentHeader struct {
	version     uint32
	number      uint64
	salt        uint64
	firstRecord uint64
	bytes       int64
	prevChain   uint32
	zeroed      bool
	records     uint32 // from Options.Header
}

const flagZeroed = 1

// encode gives the block and the seed.
func (h segmentHeader) encode() ([]byte, uint32) {
	b := make([]byte, headerBytes)
	copy(b, magic[:])
	binary.LittleEndian.PutUint32(b[8:], h.version)
	binary.LittleEndian.PutUint64(b[16:], h.number)
	binary.LittleEndian.PutUint64(b[24:], h.salt)
	binary.LittleEndian.PutUint64(b[32:], h.firstRecord)
	binary.LittleEndian.PutUint64(b[40:], uint64(h.bytes))
	binary.LittleEndian.PutUint32(b[48:], h.prevChain)
	if h.zeroed {
		binary.LittleEndian.PutUint32(b[52:], flagZeroed)
	}
	binary.LittleEndian.PutUint32(b[56:], h.records)
	seed := crc32.Checksum(b, castagnoli)
	binary.LittleEndian.PutUint32(b[12:], seed)
	return b, seed
}

// decodeSegmentHeader reads the block b of the file name, whose name says that it is segment number and which is size
// bytes long.
func decodeSegmentHeader(b []byte, name string, number uint64, size int64) (segmentHeader, uint32, error) {
	corrupt := func(offset int64, format string, args ...any) (segmentHeader, uint32, error) {
		return segmentHeader{}, 0, &CorruptError{File: name, Offset: offset, Reason: fmt.Sprintf(format, args...)}
	}
	if len(b) < headerBytes {
		return corrupt(int64(len(b)), "segment header is cut off: the file has %d bytes", size)
	}
	if [8]byte(b) != magic {
		return corrupt(0, "not a segment: wrong magic")
	}
	seed := binary.LittleEndian.Uint32(b[12:])
	zeroed := append([]byte{}, b[:headerBytes]...)
	clear(zeroed[12:16])
	if sum := crc32.Checksum(zeroed, castagnoli); sum != seed {
		return corrupt(0, "segment header has checksum %08x, its bytes give %08x", seed, sum)
	}
	v := binary.LittleEndian.Uint32(b[8:])
	if v > formatVersion {
		return segmentHeader{}, 0, fmt.Errorf("%s has format version %d, this version reads up to %d: %w",
			name, v, formatVersion, ErrNewerFormat)
	} else if v == 0 {
		return corrupt(8, "unknown format version %d", v)
	}
	h := segmentHeader{
		version:     v,
		number:      binary.LittleEndian.Uint64(b[16:]),
		salt:        binary.LittleEndian.Uint64(b[24:]),
		firstRecord: binary.LittleEndian.Uint64(b[32:]),
		bytes:       int64(binary.LittleEndian.Uint64(b[40:])),
		prevChain:   binary.LittleEndian.Uint32(b[48:]),
		zeroed:      binary.LittleEndian.Uint32(b[52:])&flagZeroed != 0,
		records:     binary.LittleEndian.Uint32(b[56:]),
	}
	if h.number != number {
		return corrupt(16, "segment says it is number %d, its name says %d", h.number, number)
	}
	if h.bytes != size {
		return corrupt(40, "segment was made with %d bytes, the file has %d", h.bytes, size)
	}
	if h.bytes%pageBytes != 0 || h.bytes < segmentBytesMin || h.bytes > segmentBytesMax {
		return corrupt(40, "segment has an impossible size of %d bytes", h.bytes)
	}
	if h.firstRecord == 0 || h.firstRecord > 1<<63 || int64(h.records) > h.bytes/recordHeaderBytes {
		return corrupt(32, "segment has an impossible first record %d or %d records at its start", h.firstRecord, h.records)
	}
	return h, seed, nil
}

func segmentName(dir string, number uint64) string {
	return path.Join(dir, fmt.Sprintf("%016x%s", number, segmentSuffix))
}

// parseSegmentName gives the number in a file name, and false if it is not the name of a segment.
func parseSegmentName(base string) (uint64, bool) {
	hex, found := strings.CutSuffix(base, segmentSuffix)
	if !found || len(hex) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(hex, 16, 64)
	return n, err == nil && n > 0 && fmt.Sprintf("%016x", n) == hex
}

// listSegments gives the numbers of the segments in dir, ascending, after a check that none is missing in between.
func listSegments(fs vfs.FS, dir string) ([]uint64, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list write-ahead log: %w", err)
	}
	var numbers []uint64
	for _, name := range names { // sorted by name is sorted by number
		if n, ok := parseSegmentName(name); ok {
			if last := len(numbers) - 1; last >= 0 && numbers[last]+1 != n {
				return nil, &CorruptError{File: segmentName(dir, numbers[last]+1), Reason: "segment is missing"}
			}
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}
