package model

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/prototext"
)

// TestStep is a life of two keys.
func TestStep(t *testing.T) {
	guard := func(key string, rev int64, put, get string) *pb.TxnRequest {
		return &pb.TxnRequest{
			Compare: []*pb.Compare{{Key: []byte(key), Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: rev}}},
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(put)}}}},
			Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(get)}}}},
		}
	}
	s := New()
	s, r := s.Step(&pb.PutRequest{Key: []byte("a"), Value: []byte("1")})
	if got := r.(*pb.PutResponse); got.Header.Revision != 2 || got.PrevKv != nil {
		t.Errorf("first put: %v", prototext.Format(got))
	}
	s, r = s.Step(guard("a", 2, "2", "a"))
	if got := r.(*pb.TxnResponse); !got.Succeeded || got.Header.Revision != 3 || s.Get("a").Version != 2 || s.Get("a").CreateRevision != 2 {
		t.Errorf("guarded put: %v", prototext.Format(got))
	}
	before := s
	s, r = s.Step(guard("a", 2, "3", "a"))
	if got := r.(*pb.TxnResponse); got.Succeeded || got.Header.Revision != 3 || string(got.Responses[0].GetResponseRange().Kvs[0].Value) != "2" {
		t.Errorf("guarded put that fails: %v", prototext.Format(got))
	}
	s, r = s.Step(&pb.DeleteRangeRequest{Key: []byte("a"), PrevKv: true})
	if got := r.(*pb.DeleteRangeResponse); got.Deleted != 1 || got.Header.Revision != 4 || string(got.PrevKvs[0].Value) != "2" {
		t.Errorf("delete: %v", prototext.Format(got))
	}
	s, r = s.Step(&pb.DeleteRangeRequest{Key: []byte("a")})
	if got := r.(*pb.DeleteRangeResponse); got.Deleted != 0 || got.Header.Revision != 4 || s.Revision != 4 {
		t.Errorf("delete of nothing: %v", prototext.Format(got))
	}
	if before.Get("a") == nil {
		t.Error("a state has changed")
	}
}
