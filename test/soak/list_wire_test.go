package main

import (
	"fmt"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/test/soak/ledger"
)

// TestListWire: a list that is read as it is on the wire says what its message
// says, wherever it is cut into pieces.
func TestListWire(t *testing.T) {
	resp := &pb.RangeResponse{Header: &pb.ResponseHeader{ClusterId: 1 << 63, MemberId: 7, Revision: 12345, RaftTerm: 2}, More: true, Count: 40}
	var want ledger.Digest
	for i := range 40 {
		kv := &mvccpb.KeyValue{Key: fmt.Appendf(nil, "/registry/pods/%03d", i), Value: make([]byte, i*i), CreateRevision: int64(i + 1),
			ModRevision: int64(1000 * i), Version: int64(i % 3), Lease: int64(i%2) << 62}
		resp.Kvs = append(resp.Kvs, kv)
		want.Add(kv)
	}
	for _, streamed := range []bool{false, true} {
		m := proto.Message(resp)
		if streamed {
			m = &pb.RangeStreamResponse{RangeResponse: resp}
		}
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{1, 2, 7, 100, 4096, len(b)} {
			var pieces mem.BufferSlice
			for piece := range slices.Chunk(b, size) {
				pieces = append(pieces, mem.SliceBuffer(piece))
			}
			l := &listPart{saidList: &saidList{}, streamed: streamed}
			if err := newListCodec().Unmarshal(pieces, l); err != nil {
				t.Fatalf("streamed %v, pieces of %d bytes: %v", streamed, size, err)
			}
			if l.Revision != 12345 || l.Digest != want {
				t.Errorf("streamed %v, pieces of %d bytes: revision %d, %+v, want 12345, %+v", streamed, size, l.Revision, l.Digest, want)
			}
		}
		l := &listPart{saidList: &saidList{}, streamed: streamed}
		if err := newListCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(b[:len(b)-1])}, l); err == nil {
			t.Errorf("streamed %v: a list that is cut off is taken", streamed)
		}
	}
}
