package etcdapi

import (
	"fmt"
	"io"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// BenchmarkEncodeShare measures where sharing a value beats copying it: a page
// of keys encoded, read once in frames as the transport reads it, and freed.
func BenchmarkEncodeShare(b *testing.B) {
	for _, size := range []int{128, 256, 512, 1024, 2048, 4096} {
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
		for _, shared := range []bool{false, true} {
			b.Run(fmt.Sprintf("size=%d/shared=%v", size, shared), func(b *testing.B) {
				benchmarkEncode(b, v, res, shared)
			})
		}
	}
}

func benchmarkEncode(b *testing.B, v *mvcc.View, res *mvcc.RangeResult, shared bool) {
	frame := make([]byte, 16*1024)
	b.ReportAllocs()
	for b.Loop() {
		e := newEncoder(-1)
		e.shareMin = 1 << 30
		if shared {
			e.shareMin = 0
		}
		e.rangeFields(wireHeader{rev: v.Revision(), term: 1}, res)
		bufs := e.finish().bufs
		r := bufs.Reader()
		bufs.Free()
		for {
			if _, err := r.Read(frame); err == io.EOF {
				break
			}
		}
	}
	b.SetBytes(int64(sizeRange(wireHeader{rev: v.Revision(), term: 1}, res)))
}
