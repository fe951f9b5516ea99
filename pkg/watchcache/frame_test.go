package watchcache

import (
	"bytes"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// TestFrame: short or long, a frame is what protobuf makes of the event; a long one
// has the versions as they are.
func TestFrame(t *testing.T) {
	version := func(size int) (*mvccpb.KeyValue, []byte) {
		kv := &mvccpb.KeyValue{Key: []byte("k"), CreateRevision: 2, ModRevision: 300, Version: 4, Value: []byte(strings.Repeat("v", size))}
		b, err := proto.Marshal(kv)
		if err != nil {
			t.Fatal(err)
		}
		return kv, b
	}
	for _, size := range []int{0, 1, 100, 115, 400, 480, 990, 1000, 1010, 3000, 1 << 15, 1 << 21} {
		for _, prevSize := range []int{-1, 0, 500, 20_000} {
			for _, tombstone := range []bool{false, true} {
				ev := &mvccpb.Event{}
				var kv, prev []byte
				if ev.Kv, kv = version(size); tombstone {
					ev.Type = mvccpb.Event_DELETE
				}
				if prevSize >= 0 {
					ev.PrevKv, prev = version(prevSize)
				}
				body, err := proto.Marshal(ev)
				if err != nil {
					t.Fatal(err)
				}
				f := newFrame(tombstone, kv, prev)
				want := protowire.AppendBytes(protowire.AppendTag(nil, 11, protowire.BytesType), body)
				if got := f.AppendTo(nil); !bytes.Equal(got, want) || f.Len() != len(want) {
					t.Fatalf("%d and %d bytes, tombstone %v: %d bytes, says %d, want %d", size, prevSize, tombstone, len(got), f.Len(), len(want))
				}
				shares := len(f.Pieces()) > 1
				if shares != (len(kv)+len(prev) >= frameShareBytesMin) {
					t.Errorf("%d and %d bytes: %d pieces", len(kv), len(prev), len(f.Pieces()))
				}
				if shares && (&f.Pieces()[1][0] != &kv[0] || prev != nil && &f.Pieces()[3][0] != &prev[0]) {
					t.Errorf("%d and %d bytes: a version was copied", len(kv), len(prev))
				}
			}
		}
	}
}
