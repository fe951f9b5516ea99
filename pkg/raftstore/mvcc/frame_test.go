package mvcc

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// payloads are entries of all kinds, and some that are none.
func payloads(t testing.TB) map[string][]byte {
	put := &pb.PutRequest{Key: []byte("k"), Value: []byte("v"), Lease: 7, PrevKv: true}
	del := &pb.DeleteRangeRequest{Key: []byte("k"), RangeEnd: []byte("l")}
	update := &pb.TxnRequest{
		Compare: []*pb.Compare{{Target: pb.Compare_MOD, Key: []byte("k"), TargetUnion: &pb.Compare_ModRevision{ModRevision: 3}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: put}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k")}}}},
	}
	nested := &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: update}}, update.Success[0], update.Success[0]}}
	all := map[string][]byte{"none": {}, "garbage": {0xff}}
	for name, r := range map[string]*pb.InternalRaftRequest{
		"put": {ID: 1, Put: put}, "put without ID": {Put: put}, "delete": {ID: 1 << 60, DeleteRange: del}, "update": {ID: 2, Txn: update},
		"nested": {ID: 3, Txn: nested}, "two": {ID: 3, Put: put, DeleteRange: del}, "empty put": {ID: 4, Put: &pb.PutRequest{}},
		"empty txn": {ID: 4, Txn: &pb.TxnRequest{}}, "lease": {ID: 5, LeaseGrant: &pb.LeaseGrantRequest{ID: 5, TTL: 9}},
	} {
		b, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = b
		all[name+", cut"] = b[:len(b)-1]
		all[name+" and garbage"] = append(b[:len(b):len(b)], 0xff)
	}
	all["expiry"] = FrameLeaseExpiry(nil, 9, 5, 3)
	return all
}

// TestDecoder: one decoder for all entries reads what proto reads.
func TestDecoder(t *testing.T) {
	var d Decoder
	for range 3 { // in another order each time
		for name, b := range payloads(t) {
			want, wantErr := Decode(b)
			got, err := d.Decode(b)
			if (err == nil) != (wantErr == nil) || err == nil && !proto.Equal(got, want) {
				t.Errorf("%s: %v, %v; proto: %v, %v", name, got, err, want, wantErr)
			}
		}
	}
	update := payloads(t)["update"]
	if n := testing.AllocsPerRun(100, func() {
		if _, err := d.Decode(update); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("an update takes %v allocations", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	update := payloads(b)["update"]
	b.Run("Decoder", func(b *testing.B) {
		var d Decoder
		b.ReportAllocs()
		for b.Loop() {
			_, _ = d.Decode(update)
		}
	})
	b.Run("proto", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = Decode(update)
		}
	})
}
