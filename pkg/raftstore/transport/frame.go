package transport

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
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
// The entries are not protobuf so that they cost neither an allocation each nor a second copy: the receiver's share the frame's bytes. There
// is no checksum: TCP and TLS have theirs, and what is stored gets one.
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

// appendFrame appends a frame of the messages, with a probe unless that is 0.
func appendFrame(b []byte, probe uint64, messages []outgoing) []byte {
	size := 1 + probeBytes
	for i := range messages {
		size += messages[i].bytes
	}
	b = slices.Grow(b, size)
	if probe == 0 {
		b = append(b, 0)
	} else {
		b = binary.LittleEndian.AppendUint64(append(b, flagProbe), probe)
	}
	for i := range messages {
		b = messages[i].append(b)
	}
	return b
}

func (o *outgoing) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(proto.Size(o.shell)))
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, o.shell)
	if err != nil {
		panic(fmt.Sprintf("marshal %v: %v", o.shell, err)) // proto2 without required fields
	}
	b = binary.AppendUvarint(b, uint64(len(o.entries)))
	for _, e := range o.entries {
		b = binary.AppendUvarint(b, uint64(e.GetType()))
		b = binary.AppendUvarint(b, e.GetTerm())
		b = binary.AppendUvarint(b, e.GetIndex())
		b = binary.AppendUvarint(b, uint64(len(e.GetData())))
		b = append(b, e.GetData()...)
	}
	return b
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
