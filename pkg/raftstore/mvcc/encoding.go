package mvcc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/cespare/xxhash/v2"
)

// Encoding is the encoded mvccpb.KeyValue of a version as it was held when
// Version.Encoding answered it: the bytes, which it keeps in memory, or a stub,
// which says where to read them. It never changes. The zero Encoding is none.
//
// In memory a stub is, in one allocation, numbers little endian,
//
//	0 | length of the key (uvarint) | key | mod u64 | sub u32 | sum u64
//
// Its first byte tells it from an encoding, which begins with the tag of the
// key; the key is at the same place in both. sum is the xxhash64 of the
// encoding, so that no read takes other bytes for it than those that left.
type Encoding struct {
	at *byte
	n  uint32 // length of the encoding, in memory or not
}

const (
	stubMark = 0
	// stubTail is the length of a stub behind its key.
	stubTail = 8 + 4 + 8
	// stubHead is the least that can be read of any stub.
	stubHead = 1 + binary.MaxVarintLen32
)

// IsZero tells that it is the encoding of nothing.
func (e Encoding) IsZero() bool { return e.at == nil }

// Len is the length of the encoding, in memory or not.
func (e Encoding) Len() int { return int(e.n) }

// Resident tells that the encoding is in memory.
func (e Encoding) Resident() bool { return e.at != nil && *e.at != stubMark }

// Bytes is the encoding if it is in memory, otherwise nil. Never to be modified.
func (e Encoding) Bytes() []byte {
	if !e.Resident() {
		return nil
	}
	return unsafe.Slice(e.at, e.n)
}

// Append appends the encoding, which is read from r if it has left memory. The
// error is ErrRowGone, ErrOvertaken or a *ReadError.
func (e Encoding) Append(dst []byte, r RowReader) ([]byte, error) {
	if kv := e.Bytes(); kv != nil || e.at == nil {
		return append(dst, kv...), nil
	}
	s := e.stub()
	at := len(dst)
	dst, err := r.AppendRow(dst, s.row)
	switch {
	case errors.Is(err, ErrRowGone), errors.Is(err, ErrOvertaken):
		return dst[:at], err
	case err != nil:
		return dst[:at], &ReadError{Row: s.row, Err: err}
	case len(dst)-at != int(e.n) || xxhash.Sum64(dst[at:]) != s.sum:
		return dst[:at], &ReadError{Row: s.row, Err: errRowChanged}
	}
	return dst, nil
}

// Read is the encoding, never to be modified: Bytes, or what Append reads.
func (e Encoding) Read(r RowReader) ([]byte, error) {
	if kv := e.Bytes(); kv != nil {
		return kv, nil
	}
	return e.Append(nil, r)
}

// stub is a stub in parts.
type stub struct {
	row RowKey
	sum uint64
}

func (e Encoding) stub() stub {
	keyLen, n := binary.Uvarint(unsafe.Slice(e.at, stubHead)[1:])
	key := 1 + n + int(keyLen)
	tail := unsafe.Slice(e.at, key+stubTail)[key:]
	return stub{
		row: RowKey{Main: Revision(binary.LittleEndian.Uint64(tail)), Sub: int64(binary.LittleEndian.Uint32(tail[8:]))},
		sum: binary.LittleEndian.Uint64(tail[12:]),
	}
}

// newStub is the stub of a version whose encoding is kv.
func (v *Version) newStub(kv []byte) []byte {
	key := bytesFieldLen(int(v.keyLen))
	b := append(make([]byte, 0, key+stubTail), kv[:key]...)
	b[0] = stubMark
	b = binary.LittleEndian.AppendUint64(b, uint64(v.mod))
	b = binary.LittleEndian.AppendUint32(b, v.sub)
	return binary.LittleEndian.AppendUint64(b, xxhash.Sum64(kv))
}

// Rows is the file that the last finished checkpoint is in: where versions are
// read that have left memory. It may be used by any goroutine.
type Rows interface {
	// Begin freezes the rows: those that are there can be read until Close,
	// whatever becomes of the file, and those that come as long as they are there.
	Begin() (RowReader, error)
}

// RowReader reads frozen rows, on one goroutine at a time.
type RowReader interface {
	// AppendRow appends the value of a row. ErrRowGone: there is no such row.
	AppendRow(dst []byte, k RowKey) ([]byte, error)
	// ReadAhead tells which rows will be read soon, in any order, so that the
	// disk may begin with all of them. It waits for none, and may sort them.
	ReadAhead(rows []RowAhead)
	Close()
}

// RowAhead is a row that will be read.
type RowAhead struct {
	Row   RowKey
	Bytes int // of its value
}

// AppendAhead appends the row that the encoding is read from, if it has left
// memory.
func (e Encoding) AppendAhead(rows []RowAhead) []RowAhead {
	if e.at == nil || e.Resident() {
		return rows
	}
	return append(rows, RowAhead{Row: e.stub().row, Bytes: e.Len()})
}

// ErrRowGone is that there is no such row: compaction has removed it.
var ErrRowGone = errors.New("there is no such row")

// ErrOvertaken is the answer of a read on a View whose revision a compaction has
// passed, if it needs a version that has left memory: the row may be gone. The
// read is to be done again on a newer View, which is published by then or about
// to be; it shows another version, or answers ErrCompacted.
var ErrOvertaken = errors.New("a compaction has overtaken the view")

var errRowChanged = errors.New("the row is not the one that was written")

// ReadError is a version that has left memory and cannot be read.
type ReadError struct {
	Row RowKey
	Err error
}

func (e *ReadError) Error() string {
	return fmt.Sprintf("read row %d.%d: %v", e.Row.Main, e.Row.Sub, e.Err)
}

// Unwrap answers Err.
func (e *ReadError) Unwrap() error { return e.Err }

// LazyReader is a RowReader that begins when the first row is asked for.
type LazyReader struct {
	Begin func() (RowReader, error)

	r RowReader
}

// AppendRow is that of RowReader. The error may be that of Begin.
func (l *LazyReader) AppendRow(dst []byte, k RowKey) ([]byte, error) {
	if l.r == nil {
		r, err := l.Begin()
		if err != nil {
			return dst, err
		}
		l.r = r
	}
	return l.r.AppendRow(dst, k)
}

// ReadAhead is that of RowReader. It begins if there are two rows to read.
func (l *LazyReader) ReadAhead(rows []RowAhead) {
	if l.r == nil && len(rows) > 1 {
		l.r, _ = l.Begin() // an error will be met again by who reads the rows
	}
	if l.r != nil {
		l.r.ReadAhead(rows)
	}
}

// Close may be called whether anything was read or not.
func (l *LazyReader) Close() {
	if l.r != nil {
		l.r.Close()
		l.r = nil
	}
}
