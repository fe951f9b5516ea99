package main

import (
	"encoding/binary"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/encoding"
	encproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kubeshim/shim/test/internal/protofields"
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
			return protofields.Each(b, func(num protowire.Number, _ []byte, v uint64) error {
				if num == fieldRevision {
					l.Revision = int64(v)
				}
				return nil
			})
		case num == fieldKVs:
			kv.Reset()
			err := protofields.Each(b, func(num protowire.Number, b []byte, v uint64) error {
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
				return nil
			})
			l.Digest.Add(&kv)
			return err
		}
		return nil
	})
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
			return protofields.ErrMalformed
		}
		v, err := binary.ReadUvarint(w)
		if err != nil {
			return protofields.ErrMalformed
		}
		switch num, typ := protowire.DecodeTag(tag); {
		case typ == protowire.VarintType:
		case typ != protowire.BytesType || v > uint64(w.left):
			return protofields.ErrMalformed
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
		return nil, protofields.ErrMalformed
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
