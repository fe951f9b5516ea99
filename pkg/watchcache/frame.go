package watchcache

import (
	"encoding/binary"
	"math/bits"
)

// Frame is an event as a field of a WatchResponse: tag, length, mvccpb.Event. Its
// pieces are shared with other watchers, and with the store, and never modified.
type Frame struct {
	// pieces are the wire form, one after the other. A short event is copied into
	// the first one; of a long one the versions' own encodings are among them.
	pieces [framePieces][]byte
	n      int
	size   int
}

const framePieces = 4 // what is before the version, it, what is before the previous one, that

// Pieces are the wire form, one after the other.
func (f *Frame) Pieces() [][]byte { return f.pieces[:f.n] }

// Len is the length of the wire form.
func (f *Frame) Len() int { return f.size }

// AppendTo appends the wire form.
func (f *Frame) AppendTo(b []byte) []byte {
	for _, p := range f.Pieces() {
		b = append(b, p...)
	}
	return b
}

// WholeFrame is a frame of one piece, which is not copied.
func WholeFrame(wire []byte) *Frame {
	return &Frame{pieces: [framePieces][]byte{wire}, n: 1, size: len(wire)}
}

// Tags of the messages an event is framed with.
//
//	WatchResponse.events = 11   0x5a len
//	  Event.type         = 1    0x08 0x01   (DELETE; PUT is the default and absent)
//	  Event.kv           = 2    0x12 len KeyValue
//	  Event.prev_kv      = 3    0x1a len KeyValue (absent without one)
const (
	tagEvents = 0x5a
	tagType   = 0x08
	tagKV     = 0x12
	tagPrevKV = 0x1a

	typeDelete = 1

	// frameHeadsMax is what all that is not a version takes at most.
	frameHeadsMax = 2 + 3*(1+binary.MaxVarintLen64)
)

// newFrame frames an event.
func newFrame(tombstone bool, kv, prev []byte) *Frame {
	body := 1 + uvarintLen(uint64(len(kv))) + len(kv)
	if tombstone {
		body += 2
	}
	if prev != nil {
		body += 1 + uvarintLen(uint64(len(prev))) + len(prev)
	}
	size := 1 + uvarintLen(uint64(body)) + body
	if len(kv)+len(prev) < frameShareBytesMin {
		b := appendKVHead(make([]byte, 0, size), body, tombstone, len(kv))
		b = append(b, kv...)
		if prev != nil {
			b = append(appendPrevHead(b, len(prev)), prev...)
		}
		return WholeFrame(b)
	}
	own := new(struct {
		Frame
		heads [frameHeadsMax]byte
	})
	f := &own.Frame
	f.size, f.n = size, 2
	f.pieces[0] = appendKVHead(own.heads[:0], body, tombstone, len(kv))
	f.pieces[1] = kv
	if prev != nil {
		f.pieces[2] = appendPrevHead(own.heads[len(f.pieces[0]):][:0], len(prev))
		f.pieces[3] = prev
		f.n = framePieces
	}
	return f
}

// appendKVHead appends what is before the version.
func appendKVHead(b []byte, body int, tombstone bool, kv int) []byte {
	b = binary.AppendUvarint(append(b, tagEvents), uint64(body))
	if tombstone {
		b = append(b, tagType, typeDelete)
	}
	return binary.AppendUvarint(append(b, tagKV), uint64(kv))
}

func appendPrevHead(b []byte, prev int) []byte {
	return binary.AppendUvarint(append(b, tagPrevKV), uint64(prev))
}

func uvarintLen(x uint64) int { return (bits.Len64(x|1) + 6) / 7 }
