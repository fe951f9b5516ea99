package main

import (
	"encoding/binary"
	"errors"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/encoding"
	encproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// listCodec takes lists in as they are on the wire: the readers of a storm are on
// other machines, and what it costs here to make messages of 700 MB would be the
// most of what the storm costs.
type listCodec struct{ encoding.CodecV2 }

func newListCodec() listCodec { return listCodec{encoding.GetCodecV2(encproto.Name)} }

// Unmarshal has a *listPart take what is in data; all else is proto.
func (c listCodec) Unmarshal(data mem.BufferSlice, v any) error {
	l, ok := v.(*listPart)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	in := wire{rest: data, left: data.Len()}
	if l.streamed {
		return in.fields(func(num protowire.Number, n int) error {
			return in.within(n, func() error { return l.take(&in) })
		})
	}
	return l.take(&in)
}

// listPart is a RangeResponse, or a RangeStreamResponse.
type listPart struct {
	*saidList
	streamed bool
}

// Numbers of fields of RangeResponse and of its header.
const (
	fieldHeader   = 1
	fieldKVs      = 2
	fieldRevision = 3
)

func (l *listPart) take(in *wire) error {
	var kv mvccpb.KeyValue
	return in.fields(func(num protowire.Number, n int) error {
		b, err := in.next(n)
		switch {
		case err != nil:
			return err
		case num == fieldHeader:
			return numbers(b, func(num protowire.Number, v uint64, _ []byte) {
				if num == fieldRevision {
					l.Revision = int64(v)
				}
			})
		case num == fieldKVs:
			kv.Reset()
			err := numbers(b, func(num protowire.Number, v uint64, b []byte) {
				switch num {
				case 1:
					kv.Key = b
				case 2:
					kv.CreateRevision = int64(v)
				case 3:
					kv.ModRevision = int64(v)
				case 4:
					kv.Version = int64(v)
				case 5:
					kv.Value = b
				case 6:
					kv.Lease = int64(v)
				}
			})
			l.Digest.Add(&kv)
			return err
		}
		return nil
	})
}

var errWire = errors.New("malformed message")

// numbers goes through the fields of a message in one piece: v is what a varint
// says, b what bytes are.
func numbers(m []byte, field func(num protowire.Number, v uint64, b []byte)) error {
	for len(m) > 0 {
		num, typ, n := protowire.ConsumeTag(m)
		if n < 0 {
			return errWire
		}
		m = m[n:]
		var v uint64
		var b []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(m)
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(m)
		default:
			n = protowire.ConsumeFieldValue(num, typ, m)
		}
		if n < 0 {
			return errWire
		}
		field(num, v, b)
		m = m[n:]
	}
	return nil
}

// wire reads a message that came in pieces.
type wire struct {
	rest  mem.BufferSlice
	piece []byte // what is left of the piece before rest
	left  int    // of the message that is being read
	whole []byte // room for what is not in one piece
}

// fields calls field with what is in the message that is being read: bytes are the
// next n. Numbers are skipped.
func (w *wire) fields(field func(num protowire.Number, n int) error) error {
	for w.left > 0 {
		tag, err := binary.ReadUvarint(w)
		if err != nil {
			return errWire
		}
		v, err := binary.ReadUvarint(w)
		if err != nil {
			return errWire
		}
		switch num, typ := protowire.DecodeTag(tag); {
		case typ == protowire.VarintType:
		case typ != protowire.BytesType || v > uint64(w.left):
			return errWire
		default:
			if err := field(num, int(v)); err != nil {
				return err
			}
		}
	}
	return nil
}

// within has a message of n bytes be the one that is read.
func (w *wire) within(n int, read func() error) error {
	behind := w.left - n
	w.left = n
	err := read()
	w.left = behind
	return err
}

// ReadByte is for varints.
func (w *wire) ReadByte() (byte, error) {
	b, err := w.next(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// next is the next n bytes, until the next call.
func (w *wire) next(n int) ([]byte, error) {
	if n > w.left {
		return nil, errWire
	}
	w.left -= n
	if n <= len(w.piece) {
		b := w.piece[:n]
		w.piece = w.piece[n:]
		return b, nil
	}
	w.whole = w.whole[:0]
	for n > 0 {
		for len(w.piece) == 0 {
			w.piece, w.rest = w.rest[0].ReadOnlyData(), w.rest[1:]
		}
		m := min(n, len(w.piece))
		w.whole = append(w.whole, w.piece[:m]...)
		w.piece, n = w.piece[m:], n-m
	}
	return w.whole, nil
}
