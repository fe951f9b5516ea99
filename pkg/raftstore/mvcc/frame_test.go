package mvcc

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/auth"
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
		"put of somebody": {ID: 1, Put: put, Header: &pb.RequestHeader{Username: "u", AuthRevision: 7}}, "txn of somebody": {Txn: update, Header: &pb.RequestHeader{}},
		"user":      {ID: 5, AuthUserAdd: &pb.AuthUserAddRequest{Name: "u"}, Header: &pb.RequestHeader{Username: "root", AuthRevision: 7}},
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
	framed, err := AppendInfo(Frame(nil, 1, KindDeleteRange, []byte("\x0a\x01k")), auth.Info{Username: "u", Revision: 300})
	if err != nil {
		t.Fatal(err)
	}
	all["framed, of somebody"] = framed
	all["framed, of somebody, cut"] = framed[:len(framed)-1]
	all["framed, of somebody, and garbage"] = append(framed[:len(framed):len(framed)], 0xff)
	all["framed, twice of somebody"] = append(framed[:len(framed):len(framed)], framed[len(framed)-8:]...)
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

// TestInfo: who asks is framed as etcd frames it, and a name that is no UTF-8 is refused before it is in the log.
func TestInfo(t *testing.T) {
	i := auth.Info{Username: "alice", Revision: 1 << 40}
	b, err := AppendInfo(Frame(nil, 3, KindPut, nil), i)
	if err != nil {
		t.Fatal(err)
	}
	var d Decoder
	r, err := d.Decode(b)
	if err != nil || infoOf(r) != i || r.ID != 3 || r.Put == nil {
		t.Errorf("%v, %v", r, err)
	}
	if r, err = d.Decode(Frame(nil, 4, KindPut, nil)); err != nil || infoOf(r) != (auth.Info{}) {
		t.Errorf("the next request is of %v, %v", r, err)
	}
	if _, err := AppendInfo(nil, auth.Info{Username: "\xff"}); err == nil {
		t.Error("a name that is no UTF-8 was framed")
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
