package etcdapi

import (
	"context"
	"fmt"
	"io"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// BenchmarkEncodeList measures a list of 20,000 keys encoded, read once in frames
// as the transport reads it, and freed.
func BenchmarkEncodeList(b *testing.B) {
	for _, size := range []int{128, 512, 3000} {
		w := newWorld(b, 1)
		const keys = 20000
		for i := range keys {
			w.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: fmt.Appendf(nil, "k%05d", i), Value: make([]byte, size)}})
		}
		v := w.state.Publish()
		res, err := v.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
		if err != nil {
			b.Fatal(err)
		}
		h := wireHeader{rev: v.Revision(), term: 1}
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			frame := make([]byte, 16*1024)
			b.SetBytes(int64(sizeRange(h, res)))
			b.ReportAllocs()
			for b.Loop() {
				bufs := encoded(b)(encodeRange(h, res, nil)).bufs
				r := bufs.Reader()
				bufs.Free()
				for {
					if _, err := r.Read(frame); err == io.EOF {
						break
					}
				}
			}
		})
	}
}

// BenchmarkHandlers measures what this package adds to a call: decoding, the
// interceptor, the handler and the encoded answer, without the transport.
func BenchmarkHandlers(b *testing.B) {
	ts := startServer(b, Options{})
	desc := ts.kvService()
	ts.NewGRPCServer().Stop()
	value := make([]byte, 3000)
	ops := func(ops ...*pb.RequestOp) []*pb.RequestOp { return ops }
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("/registry/pods/default/a"), Value: value}}}
	get := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("/registry/pods/default/a")}}}
	for name, m := range map[string]proto.Message{
		"Range": &pb.RangeRequest{Key: []byte("/registry/pods/default/a"), Limit: 1},
		"Txn": &pb.TxnRequest{
			Compare: []*pb.Compare{{Key: []byte("/registry/pods/default/a"), Target: pb.Compare_CREATE, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0}, Result: pb.Compare_NOT_EQUAL}},
			Success: ops(put), Failure: ops(get),
		},
	} {
		raw, err := proto.Marshal(m)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := ts.cli.Put(context.Background(), "/registry/pods/default/a", string(value)); err != nil {
			b.Fatal(err)
		}
		var method grpc.MethodDesc
		for _, d := range desc.Methods {
			if d.MethodName == name {
				method = d
			}
		}
		c := newCodec()
		ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs(":authority", "x", "content-type", "application/grpc", "user-agent", "bench", "client-api-version", "3.7"))
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				dec := func(v any) error { return c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(raw)}, v) }
				resp, err := method.Handler(ts.Server, ctx, dec, ts.interceptUnary)
				if err != nil {
					b.Fatal(err)
				}
				bufs, err := c.Marshal(resp)
				if err != nil {
					b.Fatal(err)
				}
				bufs.Free()
			}
		})
	}
}
