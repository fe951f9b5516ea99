package transport

import "google.golang.org/grpc/mem"

// frame is one gRPC message of any of our methods: bytes, whose meaning is the method's.
//
// Ownership: on the way out the buffers belong to the frame until Marshal passes them to gRPC, which frees them once they are written.
// On the way in the bytes are the frame's own; those of a pooled one go back to the pool by free.
type frame struct {
	out    mem.BufferSlice
	pooled bool // wish: receive into a buffer of the pool

	in     []byte
	buffer mem.Buffer // holds in, if pooled
}

// bytesFrame is a frame to send. b must not change until it is written.
func bytesFrame(b []byte) *frame { return &frame{out: mem.BufferSlice{mem.SliceBuffer(b)}} }

// free gives the buffer of a pooled frame back.
func (f *frame) free() {
	if f.buffer != nil {
		f.buffer.Free()
		f.buffer, f.in = nil, nil
	}
}

// codec lets frames through as they are. It is forced on every call and on the server, so content subtypes play no part.
type codec struct{}

// Name implements encoding.CodecV2.
func (codec) Name() string { return "frame" }

// Marshal implements encoding.CodecV2. A frame can be sent once.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	f := v.(*frame)
	out := f.out
	f.out = nil
	return out, nil
}

// Unmarshal implements encoding.CodecV2: gRPC reuses the buffers of data, so they are copied once. Entries of messages share that copy.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	f := v.(*frame)
	if !f.pooled {
		f.in = data.Materialize()
		return nil
	}
	f.buffer = data.MaterializeToBuffer(mem.DefaultBufferPool())
	f.in = f.buffer.ReadOnlyData()
	return nil
}
