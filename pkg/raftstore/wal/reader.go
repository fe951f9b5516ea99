package wal

import (
	"errors"
	"fmt"
	"io"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// reader walks the records of one segment. After it has met a bad record, at, chain and number are still those of the
// last good one.
type reader struct {
	file   vfs.File
	name   string
	header segmentHeader
	seed   uint32

	at     int64  // where the next record begins
	chain  uint32 // of the last record
	number uint64 // of the last record

	// attested is the number of the last record that is shown to have become durable, by the segment's header or by a
	// later record; attestedEnd is where it ends, and ends are the ends of the records behind it.
	attested    uint64
	attestedEnd int64
	ends        []recordEnd

	window   []byte // bytes from windowAt on; never written again once a record aliases it
	windowAt int64
	unpacker unpacker

	reason string // why there is no next record
	marked bool   // the last record is the mark of Close
}

type recordEnd struct {
	number uint64
	end    int64
}

// openReader reads the header of a segment.
func openReader(file vfs.File, dir string, number uint64) (*reader, error) {
	name := segmentName(dir, number)
	size, err := file.Size()
	if err != nil {
		return nil, fmt.Errorf("size of %s: %w", name, err)
	}
	block := make([]byte, min(size, headerBytes))
	if err := readFull(file, block, 0); err != nil {
		return nil, fmt.Errorf("read segment header of %s: %w", name, err)
	}
	header, seed, err := decodeSegmentHeader(block, name, number, size)
	if err != nil {
		return nil, err
	}
	return &reader{
		file: file, name: name, header: header, seed: seed,
		at: headerBytes, chain: seed, number: header.firstRecord - 1,
		attested: header.firstRecord - 1 + uint64(header.records), attestedEnd: headerBytes,
	}, nil
}

// next gives the next record. A non-empty reason says why there is none at r.at: the end of the log, or damage.
func (r *reader) next() (rec Record, reason string, err error) {
	room := r.header.bytes - r.at
	if room < recordHeaderBytes {
		return Record{}, "segment is full", nil
	}
	b, err := r.load(r.at, recordHeaderBytes)
	if err != nil {
		return Record{}, "", err
	}
	h, ok := decodeHeader(b, r.seed)
	if !ok {
		return Record{}, "record header has a wrong checksum", nil
	}
	if h.number != r.number+1 {
		return Record{}, fmt.Sprintf("record has number %d, not %d", h.number, r.number+1), nil
	}
	size := recordBytes(int64(h.length))
	if size > room {
		return Record{}, fmt.Sprintf("record of %d bytes passes the end of the segment", h.length), nil
	}
	if b, err = r.load(r.at, size); err != nil {
		return Record{}, "", err
	}
	end := recordHeaderBytes + int64(h.length)
	data := b[recordHeaderBytes:end:end]
	var unpacked []byte
	if h.packed {
		if r.header.version < formatPacked {
			return Record{}, "", r.corrupt("packed record in a segment of a version without them") // its header proves itself
		}
		if unpacked, err = r.unpacker.unpack(data); err != nil {
			return Record{}, err.Error(), nil
		}
		data = unpacked
	}
	chain := chainOf(r.chain, b[:end], unpacked)
	if chain != loadChain(b) {
		return Record{}, "record has a wrong checksum", nil
	}
	for _, pad := range b[end:] {
		if pad != 0 {
			return Record{}, "padding behind the record is not zero", nil
		}
	}
	if h.packed {
		r.unpacker.take(data)
	}
	r.at, r.chain, r.number = r.at+size, chain, h.number
	r.ends = append(r.ends, recordEnd{h.number, r.at})
	r.attest(h.durable())
	return Record{Type: h.typ, Data: data}, "", nil
}

// attest takes note that the record number was durable.
func (r *reader) attest(number uint64) {
	r.attested = max(r.attested, number)
	for len(r.ends) > 0 && r.ends[0].number <= r.attested {
		r.attestedEnd = r.ends[0].end
		r.ends = r.ends[1:]
	}
}

// load gives n bytes from off on, which lie within the segment.
func (r *reader) load(off, n int64) ([]byte, error) {
	from := off - r.windowAt
	if r.window == nil || from < 0 || from+n > int64(len(r.window)) {
		window := make([]byte, min(max(n, readBytes), r.header.bytes-off))
		if err := readFull(r.file, window, off); err != nil {
			return nil, fmt.Errorf("read %s at offset %d: %w", r.name, off, err)
		}
		r.window, r.windowAt, from = window, off, 0
	}
	return r.window[from : from+n : from+n], nil
}

func (r *reader) corrupt(reason string) error {
	return &CorruptError{File: r.name, Offset: r.at, Reason: reason}
}

// readFull is ReadAt for which less than all is an error.
func readFull(f io.ReaderAt, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
