package etcdapi

import (
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// listChunk is a part of a large list that is encoded when the transport comes
// to it: until then it is a few pointers, and from then until it was sent a
// pooled slice. A list of any size that a client does not read takes the memory
// of its pointers, and the transport handles one buffer where there would be two
// for each key-value. The copy is paid back by the one that gRPC makes into its
// write buffer, which then reads what is in the cache.
//
// Its last user may be in the transport, after the handler and its View are
// gone: it holds versions, which never change.
type listChunk struct {
	// Never set: it gives the type the methods which only package mem can
	// write, for reading a received message. Nothing calls them here.
	mem.SliceBuffer

	num   protowire.Number
	shape kvShape
	vs    []*mvcc.Version
	size  int // of the encoding, at most encodeChunkBytes

	refs   atomic.Int32
	encode sync.Once
	data   *[encodeChunkBytes]byte // set by encode
}

// listChunkPool keeps slices of encodeChunkBytes. gRPC's own pool would clear
// each before it is filled.
var listChunkPool = sync.Pool{New: func() any { return new([encodeChunkBytes]byte) }}

// ReadOnlyData is the encoding. The first call makes it.
func (c *listChunk) ReadOnlyData() []byte {
	c.encode.Do(func() {
		c.data = listChunkPool.Get().(*[encodeChunkBytes]byte)
		b := c.data[:0]
		for _, v := range c.vs {
			b = appendKeyValue(b, c.num, v, c.shape)
		}
		if len(b) != c.size {
			panic("etcdapi: a chunk of a list has another size than was told")
		}
	})
	return c.data[:c.size:c.size]
}

// Len is the size of the encoding; it does not need to be made.
func (c *listChunk) Len() int { return c.size }

// Ref adds a user.
func (c *listChunk) Ref() { c.refs.Add(1) }

// Free takes a user away. With the last one goes the encoding.
func (c *listChunk) Free() {
	if c.refs.Add(-1) == 0 && c.data != nil {
		listChunkPool.Put(c.data)
		c.data = nil
	}
}

// Slice copies a part.
func (c *listChunk) Slice(start, end int) mem.Buffer {
	return mem.SliceBuffer(append([]byte(nil), c.ReadOnlyData()[start:end]...))
}

// keyValues writes a repeated mvccpb.KeyValue field. In a large response it
// becomes chunks; what does not fit into one is shared with the store.
func (e *encoder) keyValues(num protowire.Number, vs []*mvcc.Version, s kvShape) {
	if e.whole || len(vs) < 2 {
		for _, v := range vs {
			e.keyValue(num, v, s)
		}
		return
	}
	first, size := 0, 0
	flush := func(end int) {
		if size > 0 {
			e.cutChunk()
			c := &listChunk{num: num, shape: s, vs: vs[first:end], size: size}
			c.refs.Store(1)
			e.bufs = append(e.bufs, c)
		}
		first, size = end, 0
	}
	for i, v := range vs {
		n := sizeBytesField(num, s.size(v))
		if size+n > encodeChunkBytes {
			flush(i)
		}
		if n > encodeChunkBytes {
			e.keyValue(num, v, s)
			first = i + 1
			continue
		}
		size += n
	}
	flush(len(vs))
}

// appendKeyValue appends one mvccpb.KeyValue field.
func appendKeyValue(b []byte, num protowire.Number, v *mvcc.Version, s kvShape) []byte {
	b = protowire.AppendTag(b, num, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(s.size(v)))
	return s.append(b, v)
}
