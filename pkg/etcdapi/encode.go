package etcdapi

import (
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// encoder builds a response out of pooled chunks, of byte slices that belong to
// the store, and of lists that are encoded as they are sent (listChunk).
//
// Bytes are appended to the current chunk, which becomes one buffer of the
// response when it is full and goes back to the pool when it was sent. A lone
// key-value of shareMin bytes or more is not copied: what the chunk has gathered
// becomes a buffer, then the value's own bytes do. A chunk cut up in this way is
// left to the garbage collector: reference counts for its pieces, a tag and a
// length each, cost more than it does. Sharing is safe because an encoded
// version is never modified.
type encoder struct {
	bufs     mem.BufferSlice
	root     mem.Buffer // the current chunk as a buffer, over its whole capacity
	chunk    []byte     // its bytes, len is what was appended
	start    int        // first byte of chunk that is not in bufs yet
	cut      bool       // pieces of the chunk are in bufs
	shareMin int
	whole    bool      // the response fits into one chunk
	rows     *coldRows // nil: nothing may be read
	err      error

	// The answer to a write is one allocation: these are its bytes, the buffer
	// they are in, the list of that one buffer, and the reply.
	small [encodeSmallBytes]byte
	box   mem.SliceBuffer
	one   [1]mem.Buffer
	reply reply
}

// newListEncoder starts a response that is mostly a list, of size bytes or of
// unknown size if it is negative: what is around the list of a large one takes a
// small chunk.
func newListEncoder(size int, rows *coldRows) *encoder {
	e := newEncoder(size, rows)
	if !e.whole {
		e.newChunk(encodeListHeadBytes)
	}
	return e
}

// newEncoder starts a response of size bytes, or of unknown size if it is
// negative. Without rows it fails if something has left memory (errEvicted).
func newEncoder(size int, rows *coldRows) *encoder {
	e := &encoder{shareMin: encodeShareBytesMin, rows: rows}
	e.bufs = e.one[:0]
	if size >= 0 && size <= encodeWholeBytesMax {
		e.whole, e.shareMin = true, size+1
		e.newChunk(size)
	}
	return e
}

func (e *encoder) newChunk(size int) {
	e.start, e.cut = 0, false
	if size <= len(e.small) && e.box == nil {
		e.box = e.small[:size:size]
		e.root, e.chunk = &e.box, e.box[:0]
		return
	}
	if mem.IsBelowBufferPoolingThreshold(size) {
		e.chunk = make([]byte, size)
		e.root, e.chunk = mem.SliceBuffer(e.chunk), e.chunk[:0]
		return
	}
	pool := mem.DefaultBufferPool()
	data := pool.Get(size)
	e.root = mem.NewBuffer(data, pool)
	e.chunk = (*data)[:0]
}

// reserve makes sure that n more bytes fit into the chunk.
func (e *encoder) reserve(n int) {
	if e.root != nil && len(e.chunk)+n <= e.root.Len() {
		return
	}
	e.closeChunk()
	e.newChunk(max(n, encodeChunkBytes))
}

// share adds b to the response without copying it.
func (e *encoder) share(b []byte) { e.bufs = append(e.bufs, mem.SliceBuffer(b)) }

// cutChunk adds what the chunk gathered since the last cut.
func (e *encoder) cutChunk() {
	if len(e.chunk) > e.start {
		e.share(e.chunk[e.start:len(e.chunk):len(e.chunk)])
		e.start, e.cut = len(e.chunk), true
	}
}

func (e *encoder) closeChunk() {
	switch {
	case e.root == nil:
	case e.cut:
		e.cutChunk()
	case len(e.chunk) == e.root.Len():
		e.bufs = append(e.bufs, e.root)
	default:
		if len(e.chunk) > 0 {
			e.bufs = append(e.bufs, e.root.Slice(0, len(e.chunk)))
		}
		e.root.Free()
	}
	e.root, e.chunk = nil, nil
}

func (e *encoder) finish() (*reply, error) {
	e.closeChunk()
	if e.err != nil {
		e.bufs.Free()
		return nil, e.err
	}
	e.reply.bufs = e.bufs
	return &e.reply, nil
}

// openField writes tag and length of a length-delimited field of n bytes.
func (e *encoder) openField(num protowire.Number, n int) {
	e.reserve(protowire.SizeTag(num) + protowire.SizeVarint(uint64(n)))
	e.chunk = protowire.AppendTag(e.chunk, num, protowire.BytesType)
	e.chunk = protowire.AppendVarint(e.chunk, uint64(n))
}

func (e *encoder) uintField(num protowire.Number, v uint64) {
	if n := sizeUintField(num, v); n > 0 {
		e.reserve(n)
		e.chunk = appendUintField(e.chunk, num, v)
	}
}

func (e *encoder) boolField(num protowire.Number, v bool) {
	if v {
		e.uintField(num, 1)
	}
}

func (e *encoder) header(num protowire.Number, h wireHeader) {
	n := h.size()
	e.reserve(sizeBytesField(num, n))
	e.chunk = protowire.AppendTag(e.chunk, num, protowire.BytesType)
	e.chunk = protowire.AppendVarint(e.chunk, uint64(n))
	e.chunk = h.append(e.chunk)
}

// keyValue writes one mvccpb.KeyValue field.
func (e *encoder) keyValue(num protowire.Number, v *mvcc.Version, s kvShape) {
	if s != kvWhole {
		n := s.size(v)
		e.reserve(sizeBytesField(num, n))
		e.chunk = protowire.AppendTag(e.chunk, num, protowire.BytesType)
		e.chunk = s.append(protowire.AppendVarint(e.chunk, uint64(n)), v)
		return
	}
	enc := v.Encoding()
	kv := enc.Bytes()
	if kv != nil && len(kv) >= e.shareMin {
		e.openField(num, len(kv))
		e.cutChunk()
		e.share(kv)
		return
	}
	e.reserve(sizeBytesField(num, enc.Len()))
	e.chunk = protowire.AppendTag(e.chunk, num, protowire.BytesType)
	e.chunk = protowire.AppendVarint(e.chunk, uint64(enc.Len()))
	if kv != nil {
		e.chunk = append(e.chunk, kv...)
		return
	}
	e.readChunk(enc)
}

// readChunk appends to the chunk what has left memory.
func (e *encoder) readChunk(enc mvcc.Encoding) {
	switch {
	case e.err != nil:
	case e.rows == nil:
		e.err = errEvicted
	default:
		e.chunk, e.err = e.rows.append(e.chunk, enc)
	}
}

// kvShape says which fields of a key-value a response carries.
type kvShape uint8

const (
	kvWhole     kvShape = iota
	kvKeys              // keys_only: from etcd's index, so without lease
	kvKeysLease         // keys_only sorted by value: etcd reads the rows, so with lease
)

// Field numbers of mvccpb.KeyValue.
const (
	kvKey            protowire.Number = 1
	kvCreateRevision protowire.Number = 2
	kvModRevision    protowire.Number = 3
	kvVersion        protowire.Number = 4
	kvLease          protowire.Number = 6
)

func (s kvShape) size(v *mvcc.Version) int {
	if s == kvWhole {
		return v.Size()
	}
	n := sizeUintField(kvCreateRevision, uint64(v.Create())) +
		sizeUintField(kvModRevision, uint64(v.Mod())) +
		sizeUintField(kvVersion, uint64(v.Num()))
	if k := len(v.Key()); k > 0 {
		n += sizeBytesField(kvKey, k)
	}
	if s == kvKeysLease {
		n += sizeUintField(kvLease, uint64(v.Lease()))
	}
	return n
}

// append appends the key-value in a shape without its value.
func (s kvShape) append(b []byte, v *mvcc.Version) []byte {
	if k := v.Key(); len(k) > 0 {
		b = protowire.AppendTag(b, kvKey, protowire.BytesType)
		b = protowire.AppendBytes(b, k)
	}
	b = appendUintField(b, kvCreateRevision, uint64(v.Create()))
	b = appendUintField(b, kvModRevision, uint64(v.Mod()))
	b = appendUintField(b, kvVersion, uint64(v.Num()))
	if s == kvKeysLease {
		b = appendUintField(b, kvLease, uint64(v.Lease()))
	}
	return b
}

// sizeKeyValues is the size of a repeated key-value field.
func sizeKeyValues(num protowire.Number, vs []*mvcc.Version, s kvShape) int {
	n := 0
	for _, v := range vs {
		n += sizeBytesField(num, s.size(v))
	}
	return n
}
