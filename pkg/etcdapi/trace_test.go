package etcdapi

import (
	"context"
	"reflect"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	tracesdk "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/raftstore"
)

// TestNoTracing: without a provider the handlers are those that they are without tracing, and watches have no spans.
func TestNoTracing(t *testing.T) {
	off := &Server{}
	if got := traced(off, "put", putAttributes, (*Server).kvPut); reflect.ValueOf(got).Pointer() != reflect.ValueOf((*Server).kvPut).Pointer() {
		t.Error("a handler is wrapped")
	}
	spans := off.tracer.watches(context.Background())
	if spans != nil {
		t.Error("a stream has spans")
	}
	if n := testing.AllocsPerRun(10, func() { spans.create(nil); spans.sent(nil); spans.end() }); n != 0 {
		t.Errorf("%g allocations", n)
	}
}

// BenchmarkTracing is a put through its handler without tracing, with calls that are not sampled, and with a provider that samples and sends
// nothing.
func BenchmarkTracing(b *testing.B) {
	for name, opts := range map[string]Options{
		"off":       {},
		"unsampled": {TracerProvider: tracesdk.NewTracerProvider(tracesdk.WithSampler(tracesdk.NeverSample()))},
		"sampled":   {TracerProvider: tracesdk.NewTracerProvider(tracesdk.WithSampler(tracesdk.AlwaysSample()))},
	} {
		b.Run(name, func(b *testing.B) {
			ts := startServer(b, opts, func(c *raftstore.Config) { c.Trace = opts.TracerProvider != nil })
			var method grpc.MethodDesc
			for _, d := range ts.kvService().Methods {
				if d.MethodName == "Put" {
					method = d
				}
			}
			raw, err := proto.Marshal(&pb.PutRequest{Key: []byte("/registry/pods/default/a"), Value: make([]byte, 400)})
			if err != nil {
				b.Fatal(err)
			}
			c := newCodec()
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					dec := func(v any) error { return c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(raw)}, v) }
					resp, err := method.Handler(ts.Server, context.Background(), dec, ts.interceptUnary)
					if err != nil {
						b.Error(err)
						return
					}
					bufs, _ := c.Marshal(resp)
					bufs.Free()
				}
			})
		})
	}
}
