package etcdapi

import (
	"google.golang.org/grpc/encoding"
	encproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// codec is the wire codec of the server. It knows two shapes of its own and
// leaves everything else to plain proto:
//
//   - *rawRequest, on the way in: the message is decoded and the bytes it came in
//     are kept, so that a command goes into the log as it arrived;
//   - *reply, on the way out: a response that is already bytes, some of them
//     shared with the store.
type codec struct{ plain encoding.CodecV2 }

func newCodec() codec { return codec{plain: encoding.GetCodecV2(encproto.Name)} }

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

// Unmarshal decodes into v. gRPC reuses the buffers of data after the call, so a
// rawRequest takes its own reference; a message that came in one frame is not
// copied for that.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if r, ok := v.(*rawRequest); ok {
		r.buf = data.MaterializeToBuffer(mem.DefaultBufferPool())
		return proto.Unmarshal(r.buf.ReadOnlyData(), r.msg)
	}
	return c.plain.Unmarshal(data, v)
}

// rawRequest is a request of a writing verb: the decoded message, which shares
// nothing with the transport, and the bytes it was decoded from, which belong to
// a buffer of the transport until free.
type rawRequest struct {
	msg proto.Message
	buf mem.Buffer
}

func (r *rawRequest) body() []byte { return r.buf.ReadOnlyData() }

// free gives the buffer back; it may be called when nothing was received.
func (r *rawRequest) free() {
	if r.buf != nil {
		r.buf.Free()
		r.buf = nil
	}
}

// reply is a response in wire form. The buffers belong to whoever holds the
// reply until Marshal passes them on.
type reply struct{ bufs mem.BufferSlice }
