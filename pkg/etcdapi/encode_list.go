package etcdapi

import (
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// listPart is what the buffers of a list have in common. The last user of one may
// be in the transport, after the handler and its View are gone: it holds
// encodings, which never change, and where to read those that have left memory
// (coldRows).
type listPart struct {
	// Never set: it gives the type the methods which only package mem can
	// write, for reading a received message. Nothing calls them here.
	mem.SliceBuffer

	size  int       // of the encoding
	rows  *coldRows // where some of it is read; nil: all is in memory
	place int       // among what is read there
	grant *grant    // what its size is part of

	refs   atomic.Int32
	encode sync.Once
}

// Len is the size of the encoding; it does not need to be made.
func (p *listPart) Len() int { return p.size }

// Ref adds a user.
func (p *listPart) Ref() { p.refs.Add(1) }

// unref takes a user away and answers whether it was the last.
func (p *listPart) unref() bool {
	if p.refs.Add(-1) != 0 {
		return false
	}
	if p.rows != nil {
		p.rows.free()
		p.rows = nil
	}
	p.grant.sent(p.size)
	p.grant = nil
	return true
}

// partOf is the list part that a buffer is, or nil.
func partOf(b mem.Buffer) *listPart {
	switch b := b.(type) {
	case *listChunk:
		return &b.listPart
	case *listValue:
		return &b.listPart
	}
	return nil
}

// listChunk is a part of a large list that is encoded when the transport comes
// to it: until then it is a few pointers, and from then until it was sent a
// pooled slice. The transport handles one buffer where there would be two for each
// key-value. The copy is paid back by the one that gRPC makes into its write
// buffer, which then reads what is in the cache.
type listChunk struct {
	listPart
	num   protowire.Number
	shape kvShape
	vs    []*mvcc.Version // of a shape without values
	kvs   []mvcc.Encoding // of the whole shape
	data  *[encodeChunkBytes]byte
}

// listChunkPool keeps slices of encodeChunkBytes. gRPC's own pool would clear
// each before it is filled.
var listChunkPool = sync.Pool{New: func() any { return new([encodeChunkBytes]byte) }}

// ReadOnlyData is the encoding. The first call makes it.
func (c *listChunk) ReadOnlyData() []byte {
	c.encode.Do(func() {
		if c.rows != nil {
			c.rows.reach(c.place)
		}
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

// Free takes a user away. With the last one goes the encoding, and what it was
// made of: a list that its client takes slowly keeps what it has not taken.
func (c *listChunk) Free() {
	if !c.unref() {
		return
	}
	if c.data != nil {
		listChunkPool.Put(c.data)
		c.data = nil
	}
	c.vs, c.kvs = nil, nil
}

// Slice copies a part.
func (c *listChunk) Slice(start, end int) mem.Buffer {
	return mem.SliceBuffer(append([]byte(nil), c.ReadOnlyData()[start:end]...))
}

// listValue is a key-value of a list that is too large for a chunk. It is not
// copied; one that has left memory is read when the transport comes to it.
type listValue struct {
	listPart
	kv   mvcc.Encoding
	data []byte
}

// ReadOnlyData is the encoding. The first call reads it.
func (l *listValue) ReadOnlyData() []byte {
	l.encode.Do(func() {
		if l.data = l.kv.Bytes(); l.data != nil {
			return
		}
		l.rows.reach(l.place)
		b, err := l.rows.append(make([]byte, 0, l.size), l.kv)
		if err != nil {
			l.rows.drop() // nothing of this is sent any more
		}
		l.data = b[:l.size:l.size]
	})
	return l.data
}

// Free takes a user away. With the last one goes what it holds.
func (l *listValue) Free() {
	if l.unref() {
		l.kv, l.data = mvcc.Encoding{}, nil
	}
}

// Slice copies a part.
func (l *listValue) Slice(start, end int) mem.Buffer {
	return mem.SliceBuffer(append([]byte(nil), l.ReadOnlyData()[start:end]...))
}

// keyValues writes a repeated mvccpb.KeyValue field. In a large response it
// becomes chunks; what does not fit into one is shared with the store.
func (e *encoder) keyValues(num protowire.Number, vs []*mvcc.Version, s kvShape) {
	if e.whole || len(vs) < 2 {
		e.readAhead(vs, s)
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
			e.listValue(num, v, s)
			first = i + 1
			continue
		}
		size += n
	}
	flush(len(vs))
}

// readAhead has the disk begin with all of a few key-values that are to be read
// one after the other.
func (e *encoder) readAhead(vs []*mvcc.Version, s kvShape) {
	if e.rows == nil || len(vs) < 2 || s != kvWhole {
		return
	}
	kvs := make([]mvcc.Encoding, len(vs))
	for i, v := range vs {
		kvs[i] = v.Encoding()
	}
	e.rows.reach(e.rows.add(kvs))
}

// listValue writes a key-value that is larger than a chunk.
func (e *encoder) listValue(num protowire.Number, v *mvcc.Version, s kvShape) {
	if s != kvWhole {
		e.keyValue(num, v, s)
		return
	}
	l := &listValue{kv: v.Encoding()}
	e.begin(&l.listPart, l.kv.Len(), []mvcc.Encoding{l.kv})
	e.openField(num, l.size)
	e.cutChunk()
	e.bufs = append(e.bufs, l)
}

// newListChunk is a part of a list. It holds the encodings as they are now: what
// is in memory does not leave it under way.
func (e *encoder) newListChunk(num protowire.Number, vs []*mvcc.Version, s kvShape, size int) *listChunk {
	c := &listChunk{num: num, shape: s}
	if s == kvWhole {
		c.kvs = make([]mvcc.Encoding, len(vs))
		for i, v := range vs {
			c.kvs[i] = v.Encoding()
		}
	} else {
		c.vs = vs
	}
	e.begin(&c.listPart, size, c.kvs)
	return c
}

// begin gives a part its size and its first user, and what it is read from if
// some of it is cold.
func (e *encoder) begin(p *listPart, size int, kvs []mvcc.Encoding) {
	p.size = size
	p.refs.Store(1)
	switch {
	case !slices.ContainsFunc(kvs, func(kv mvcc.Encoding) bool { return !kv.Resident() }):
	case e.rows == nil:
		e.err = errEvicted
	default:
		p.rows, p.place = e.rows, e.rows.add(kvs)
		p.rows.ref()
	}
}
