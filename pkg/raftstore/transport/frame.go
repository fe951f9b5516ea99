package transport

import (
	"encoding/binary"
	"fmt"
	"io"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// A frame of the lanes, from the one who dialed:
//
//	offset  bytes
//	0       1      flags: 1 = a probe follows
//	1       8      the probe, if there is one: any number, to be sent back as it is; little endian
//	...            messages, up to the end of the frame
//
// and a message:
//
//	uvarint  length of the shell
//	         the shell: the raftpb.Message without its entries, as protobuf
//	uvarint  number of entries; of each:
//	           uvarint type, uvarint term, uvarint index, uvarint length of the data, the data
//
// The entries are not protobuf so that they cost neither an allocation each nor a second copy: large data goes to gRPC from where raft
// has it, and the receiver's entries share the frame's bytes. There is no checksum: TCP and TLS have theirs, and what is stored gets one.
//
// A frame back, on the control lane, is the 8 bytes of a probe.
const (
	flagProbe  = 1
	probeBytes = 8
	// entryBytesMin is the least an entry takes in a frame; it bounds what a broken count makes a receiver allocate.
	entryBytesMin = 4
)

// outgoing is a message that waits to be sent; its entries are apart.
type outgoing struct {
	shell   *raftpb.Message
	entries []*raftpb.Entry
	bytes   int // about what it takes in memory and in a frame
}

// newOutgoing takes m over.
func newOutgoing(m *raftpb.Message) outgoing {
	o := outgoing{shell: m, entries: m.Entries, bytes: messageOverhead + len(m.GetContext())}
	m.Entries = nil
	for _, e := range o.entries {
		o.bytes += len(e.GetData()) + entryOverhead
	}
	return o
}

// copied is the number of bytes that the message takes in the frame's own buffer, at most.
func (o *outgoing) copied() int {
	n := proto.Size(o.shell) + 2*binary.MaxVarintLen64
	for _, e := range o.entries {
		n += 4 * binary.MaxVarintLen64
		if len(e.GetData()) < shareBytesMin {
			n += len(e.GetData())
		}
	}
	return n
}

// frameWriter builds one frame. What is copied stands in one buffer, and cuts say where shared data comes in between.
type frameWriter struct {
	buf    []byte
	cuts   []int
	shared [][]byte
}

// encodeFrame is a frame of the messages, with a probe unless that is 0, and its size.
func encodeFrame(probe uint64, messages []outgoing) (mem.BufferSlice, int) {
	size := 1 + probeBytes
	for i := range messages {
		size += messages[i].copied()
	}
	pool := mem.DefaultBufferPool()
	space := pool.Get(size)
	w := frameWriter{buf: (*space)[:0]}
	if probe == 0 {
		w.buf = append(w.buf, 0)
	} else {
		w.buf = binary.LittleEndian.AppendUint64(append(w.buf, flagProbe), probe)
	}
	for i := range messages {
		w.message(&messages[i])
	}
	*space = w.buf
	return w.slices(mem.NewBuffer(space, pool))
}

func (w *frameWriter) message(o *outgoing) {
	w.buf = binary.AppendUvarint(w.buf, uint64(proto.Size(o.shell)))
	buf, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(w.buf, o.shell)
	if err != nil {
		panic(fmt.Sprintf("marshal %v: %v", o.shell, err)) // proto2 without required fields
	}
	w.buf = binary.AppendUvarint(buf, uint64(len(o.entries)))
	for _, e := range o.entries {
		data := e.GetData()
		w.buf = binary.AppendUvarint(w.buf, uint64(e.GetType()))
		w.buf = binary.AppendUvarint(w.buf, e.GetTerm())
		w.buf = binary.AppendUvarint(w.buf, e.GetIndex())
		w.buf = binary.AppendUvarint(w.buf, uint64(len(data)))
		if len(data) < shareBytesMin {
			w.buf = append(w.buf, data...)
			continue
		}
		w.cuts, w.shared = append(w.cuts, len(w.buf)), append(w.shared, data)
	}
}

// slices puts the pieces into order.
func (w *frameWriter) slices(own mem.Buffer) (mem.BufferSlice, int) {
	size := len(w.buf)
	if len(w.cuts) == 0 {
		return mem.BufferSlice{own}, size
	}
	out := make(mem.BufferSlice, 0, 2*len(w.cuts)+1)
	at := 0
	for i, cut := range w.cuts {
		out = append(out, own.Slice(at, cut), mem.SliceBuffer(w.shared[i]))
		size += len(w.shared[i])
		at = cut
	}
	if at < len(w.buf) {
		out = append(out, own.Slice(at, len(w.buf)))
	}
	own.Free()
	return out, size
}

// frameReader takes a frame apart. The entries of its messages share the frame's bytes.
type frameReader struct {
	probe uint64 // 0: none
	rest  []byte
}

func newFrameReader(b []byte) (frameReader, error) {
	if len(b) == 0 || b[0]&^flagProbe != 0 {
		return frameReader{}, fmt.Errorf("%w: flags", errMalformed)
	}
	r := frameReader{rest: b[1:]}
	if b[0] == flagProbe {
		if len(r.rest) < probeBytes {
			return frameReader{}, fmt.Errorf("%w: probe", errMalformed)
		}
		r.probe, r.rest = binary.LittleEndian.Uint64(r.rest), r.rest[probeBytes:]
	}
	return r, nil
}

// next is the next message, or io.EOF, or errMalformed.
func (r *frameReader) next() (*raftpb.Message, error) {
	if len(r.rest) == 0 {
		return nil, io.EOF
	}
	shell, ok := r.bytes()
	if !ok {
		return nil, fmt.Errorf("%w: shell", errMalformed)
	}
	m := new(raftpb.Message)
	if err := proto.Unmarshal(shell, m); err != nil {
		return nil, fmt.Errorf("%w: %v", errMalformed, err)
	}
	n, ok := r.uvarint()
	if !ok || n > uint64(len(r.rest)/entryBytesMin) || len(m.GetEntries()) > 0 {
		return nil, fmt.Errorf("%w: number of entries", errMalformed)
	}
	if n == 0 {
		return m, nil
	}
	entries := make([]entry, n)
	m.Entries = make([]*raftpb.Entry, n)
	for i := range entries {
		if !r.entry(&entries[i]) {
			return nil, fmt.Errorf("%w: entry", errMalformed)
		}
		m.Entries[i] = &entries[i].Entry
	}
	return m, nil
}

// entry is a raftpb.Entry with room for what its pointers point to, so that all entries of a message are one allocation.
type entry struct {
	raftpb.Entry
	typ         raftpb.EntryType
	term, index uint64
}

func (r *frameReader) entry(e *entry) (ok bool) {
	typ, ok := r.uvarint()
	if _, known := raftpb.EntryType_name[int32(typ)]; !ok || !known || typ > 1<<30 {
		return false
	}
	if e.term, ok = r.uvarint(); !ok {
		return false
	}
	if e.index, ok = r.uvarint(); !ok {
		return false
	}
	data, ok := r.bytes()
	if !ok {
		return false
	}
	e.typ = raftpb.EntryType(typ)
	e.Type, e.Term, e.Index = &e.typ, &e.term, &e.index
	if len(data) > 0 {
		e.Data = data
	}
	return true
}

func (r *frameReader) uvarint() (uint64, bool) {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		return 0, false
	}
	r.rest = r.rest[n:]
	return v, true
}

// bytes is a length and as many bytes; appending to them does not reach what is behind.
func (r *frameReader) bytes() ([]byte, bool) {
	n, ok := r.uvarint()
	if !ok || n > uint64(len(r.rest)) {
		return nil, false
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b, true
}
