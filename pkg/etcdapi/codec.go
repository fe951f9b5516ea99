package etcdapi

import (
	"google.golang.org/grpc/encoding"
	encproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// codec is the wire codec of the server. It knows two shapes of its own and
// leaves everything else to plain proto:
//
//   - a rawRequest, on the way in: the buffer it came in is kept beside the
//     message, so that a command goes into the log as it arrived;
//   - *reply, on the way out: a response that is already bytes, some of them
//     shared with the store.
type codec struct {
	plain encoding.CodecV2
	pool  mem.BufferPool // for messages that came in pieces
}

func newCodec() codec {
	return codec{plain: encoding.GetCodecV2(encproto.Name), pool: mem.DefaultBufferPool()}
}

// Name is "proto": the content subtype stays application/grpc(+proto).
func (codec) Name() string { return encproto.Name }

// Marshal hands the buffers of a reply to gRPC, which frees them once sent, and
// encodes any other message as proto. A reply can be sent once.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(*reply); ok {
		bufs := r.bufs
		r.bufs = nil
		return bufs, nil
	}
	return c.plain.Marshal(v)
}

// Unmarshal decodes into v. gRPC gives its references to data up after that. A
// rawRequest takes one of its own to the buffer of the message; a message that
// came in several is copied into one. proto copies the byte fields of
// other messages.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if r, ok := v.(rawRequest); ok {
		buf := data.MaterializeToBuffer(c.pool)
		r.keep(buf)
		return r.receive(buf.ReadOnlyData())
	}
	return c.plain.Unmarshal(data, v)
}

// reply is a response in wire form. The buffers belong to whoever holds the
// reply until Marshal passes them on.
type reply struct {
	bufs mem.BufferSlice

	// For the log, where a call was slow. Eight bytes more, and an answer to a write would take 32 more.
	kvs   uint32 // key-values of a range
	count uint32 // keys that a range counted, or a delete has deleted
}

// partBytes is the size of what is encoded when it is sent.
func (r *reply) partBytes() int64 {
	n := int64(0)
	for _, b := range r.bufs {
		if p := partOf(b); p != nil {
			n += int64(p.size)
		}
	}
	return n
}
