package etcdapi

import (
	"math/rand/v2"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/request"
)

// rawTypes are the requests with a decoder of their own: the message in a
// rawRequest, the decoder alone, and an empty message for proto.
var rawTypes = []struct {
	name string
	make func() (r rawRequest, m proto.Message, decode func([]byte) bool, plain proto.Message)
}{
	{"range", func() (rawRequest, proto.Message, func([]byte) bool, proto.Message) {
		r := new(rangeRequest)
		return r, &r.RangeRequest, func(b []byte) bool { return request.Range(b, &r.RangeRequest) }, new(pb.RangeRequest)
	}},
	{"put", func() (rawRequest, proto.Message, func([]byte) bool, proto.Message) {
		r := new(putRequest)
		return r, &r.PutRequest, func(b []byte) bool { return request.Put(b, &r.PutRequest) }, new(pb.PutRequest)
	}},
	{"delete", func() (rawRequest, proto.Message, func([]byte) bool, proto.Message) {
		r := new(deleteRequest)
		return r, &r.DeleteRangeRequest, func(b []byte) bool { return request.DeleteRange(b, &r.DeleteRangeRequest) }, new(pb.DeleteRangeRequest)
	}},
	{"txn", func() (rawRequest, proto.Message, func([]byte) bool, proto.Message) {
		r := new(txnRequest)
		return r, &r.TxnRequest, r.Decode, new(pb.TxnRequest)
	}},
}

// checkReceive decodes b in both ways: the messages, or the refusals, are equal.
func checkReceive(t *testing.T, kind int, b []byte) (decoded bool) {
	t.Helper()
	raw, got, _, want := rawTypes[kind].make()
	gotErr, wantErr := raw.receive(b), proto.Unmarshal(b, want)
	if (gotErr == nil) != (wantErr == nil) {
		t.Fatalf("%s %x: %v, proto: %v", rawTypes[kind].name, b, gotErr, wantErr)
	}
	if wantErr == nil && !proto.Equal(got, want) {
		t.Fatalf("%s %x:\n got %v\nwant %v", rawTypes[kind].name, b, got, want)
	}
	_, _, decode, _ := rawTypes[kind].make()
	return decode(b)
}

// fullRange sets every field now and then.
func fullRange(r *rand.Rand, w *world) *pb.RangeRequest {
	q := w.rangeRequest()
	q.Revision, q.Serializable = int64(r.IntN(3)-1), r.IntN(2) == 0
	q.MinModRevision, q.MaxModRevision = int64(r.IntN(3)), r.Int64()
	q.MinCreateRevision, q.MaxCreateRevision = int64(r.IntN(3)), int64(r.IntN(3))
	return q
}

func randomCompare(r *rand.Rand, w *world) *pb.Compare {
	c := &pb.Compare{Key: w.key(), Result: pb.Compare_CompareResult(r.IntN(4)), Target: pb.Compare_CompareTarget(r.IntN(5))}
	n := int64(r.IntN(3) - 1)
	switch r.IntN(7) {
	case 0:
		c.TargetUnion = &pb.Compare_Version{Version: n}
	case 1:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: n}
	case 2, 3:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: n}
	case 4:
		c.TargetUnion = &pb.Compare_Value{Value: w.key()[:r.IntN(3)]}
	case 5:
		c.TargetUnion = &pb.Compare_Lease{Lease: n}
	}
	if r.IntN(3) == 0 {
		c.RangeEnd = w.key()
	}
	return c
}

// TestDecodeEqualsProto compares the decoders with proto on random requests, and
// on damaged ones.
func TestDecodeEqualsProto(t *testing.T) {
	w := newWorld(t, rand.Uint64())
	r, fast := w.rand, 0
	for range 3000 {
		put := w.putRequest()
		put.IgnoreValue, put.IgnoreLease = r.IntN(2) == 0, r.IntN(2) == 0
		txn := w.txnRequest(r.IntN(2))
		for range r.IntN(3) {
			txn.Compare = append(txn.Compare, randomCompare(r, w))
		}
		if r.IntN(5) == 0 {
			txn.Failure = append(txn.Failure, &pb.RequestOp{})
		}
		kind := r.IntN(len(rawTypes))
		b, err := proto.Marshal([]proto.Message{
			fullRange(r, w), put, &pb.DeleteRangeRequest{Key: w.key(), RangeEnd: w.key(), PrevKv: r.IntN(2) == 0}, txn,
		}[kind])
		if err != nil {
			t.Fatal(err)
		}
		if checkReceive(t, kind, b) {
			fast++
		}
		checkReceive(t, kind, damaged(r, b))
	}
	if fast < 2000 {
		t.Errorf("only %d of 3000 requests took the short way", fast)
	}
}

// damaged cuts, changes, doubles or extends b.
func damaged(r *rand.Rand, b []byte) []byte {
	b = append([]byte(nil), b...)
	switch n := len(b); r.IntN(5) {
	case 0:
		return b[:r.IntN(n+1)]
	case 1:
		return append(b, b...)
	case 2:
		return protowire.AppendVarint(protowire.AppendTag(b, protowire.Number(1+r.IntN(70)), protowire.VarintType), r.Uint64())
	case 3:
		return protowire.AppendBytes(protowire.AppendTag(b, protowire.Number(1+r.IntN(70)), protowire.BytesType), b[:r.IntN(n+1)])
	default:
		if n > 0 {
			b[r.IntN(min(n, 60))] ^= byte(1 << r.IntN(8))
		}
		return b
	}
}

// FuzzDecode looks for bytes that the decoders and proto read differently.
func FuzzDecode(f *testing.F) {
	f.Add(uint8(3), []byte("\x0a\x05\x1a\x01k\x30\x01\x12\x05\x12\x03\x0a\x01k"))
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) { checkReceive(t, int(kind)%len(rawTypes), b) })
}
