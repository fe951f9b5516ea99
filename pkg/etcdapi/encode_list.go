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
// gone: it holds encodings, which never change, and where to read those that have
// left memory (coldRows).
type listChunk struct {
	// Never set: it gives the type the methods which only package mem can
	// write, for reading a received message. Nothing calls them here.
	mem.SliceBuffer

	num   protowire.Number
	shape kvShape
	vs    []*mvcc.Version // of a shape without values
	kvs   []mvcc.Encoding // of the whole shape
	size  int             // of the encoding, at most encodeChunkBytes
	rows  *coldRows       // where some of kvs are read; nil: all are in memory

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
		if b := c.fill(c.data[:0]); len(b) != c.size {
			panic("etcdapi: a chunk of a list has another size than was told")
		}
	})
	return c.data[:c.size:c.size]
}

// fill appends the encoding.
func (c *listChunk) fill(b []byte) []byte {
	for _, v := range c.vs {
		b = protowire.AppendTag(b, c.num, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(c.shape.size(v)))
		b = c.shape.append(b, v)
	}
	for _, e := range c.kvs {
		b = protowire.AppendTag(b, c.num, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(e.Len()))
		if kv := e.Bytes(); kv != nil {
			b = append(b, kv...)
			continue
		}
		var err error
		if b, err = c.rows.append(b, e); err != nil {
			c.rows.drop() // nothing of this is sent any more
			return b[:c.size]
		}
	}
	return b
}

// Len is the size of the encoding; it does not need to be made.
func (c *listChunk) Len() int { return c.size }

// Ref adds a user.
func (c *listChunk) Ref() { c.refs.Add(1) }

// Free takes a user away. With the last one goes the encoding.
func (c *listChunk) Free() {
	if c.refs.Add(-1) != 0 {
		return
	}
	if c.data != nil {
		listChunkPool.Put(c.data)
		c.data = nil
	}
	if c.rows != nil {
		c.rows.free()
		c.rows = nil
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
			e.bufs = append(e.bufs, e.newListChunk(num, vs[first:end], s, size))
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

// newListChunk is a part of a list. It holds the encodings as they are now: what
// is in memory does not leave it under way.
func (e *encoder) newListChunk(num protowire.Number, vs []*mvcc.Version, s kvShape, size int) *listChunk {
	c := &listChunk{num: num, shape: s, size: size}
	c.refs.Store(1)
	if s != kvWhole {
		c.vs = vs
		return c
	}
	cold := false
	c.kvs = make([]mvcc.Encoding, len(vs))
	for i, v := range vs {
		c.kvs[i] = v.Encoding()
		cold = cold || !c.kvs[i].Resident()
	}
	switch {
	case !cold:
	case e.rows == nil:
		e.err = errEvicted
	default:
		c.rows = e.rows
		c.rows.ref()
	}
	return c
}
