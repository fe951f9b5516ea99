package compact

import (
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func putOp(key, value string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}}}
}

func txnOp(r *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
}

func TestCost(t *testing.T) {
	del := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("k")}}}
	rng := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k")}}}
	inner := &pb.TxnRequest{Success: []*pb.RequestOp{putOp("a", "1")}, Failure: []*pb.RequestOp{putOp("abc", "123"), putOp("d", "")}}
	for _, c := range []struct {
		name string
		req  *pb.InternalRaftRequest
		want int64
	}{
		{"put", &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("key"), Value: []byte("value")}}, 264},
		{"empty put", &pb.InternalRaftRequest{Put: &pb.PutRequest{}}, 256},
		{"delete", &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: []byte("key")}}, 0},
		{"compaction", &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: 5}}, 0},
		{"grant", &pb.InternalRaftRequest{LeaseGrant: &pb.LeaseGrantRequest{TTL: 5}}, 64},
		{"revoke", &pb.InternalRaftRequest{LeaseRevoke: &pb.LeaseRevokeRequest{ID: 5}}, 0},
		{"txn without puts", &pb.InternalRaftRequest{Txn: &pb.TxnRequest{Success: []*pb.RequestOp{del, rng}, Failure: []*pb.RequestOp{rng}}}, 0},
		{"txn success dearer", &pb.InternalRaftRequest{Txn: &pb.TxnRequest{Success: []*pb.RequestOp{putOp("a", "22"), putOp("b", "22")}, Failure: []*pb.RequestOp{putOp("a", strings.Repeat("x", 10))}}}, 518},
		{"txn failure dearer", &pb.InternalRaftRequest{Txn: inner}, 256 + 6 + 256 + 1},
		{"txn in txn", &pb.InternalRaftRequest{Txn: &pb.TxnRequest{Success: []*pb.RequestOp{txnOp(inner), putOp("z", "z"), del}}}, 519 + 258},
		{"nothing", &pb.InternalRaftRequest{}, 0},
	} {
		if got := Cost(c.req); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestQuota(t *testing.T) {
	for _, c := range []struct {
		name       string
		quota      Quota
		size, cost int64
		want       QuotaDecision
	}{
		{"room", 1000, 500, 499, QuotaDecision{true, 499, 500}},
		{"to the last byte", 1000, 500, 500, QuotaDecision{false, 500, 500}},
		{"full", 1000, 1000, 1, QuotaDecision{false, 1, 0}},
		{"full and free", 1000, 1000, 0, QuotaDecision{true, 0, 0}},
		{"over and free", 1000, 3000, 0, QuotaDecision{true, 0, -2000}},
		{"default", 0, DefaultQuotaBytes - 257, 256, QuotaDecision{true, 256, 257}},
		{"default full", 0, DefaultQuotaBytes - 256, 256, QuotaDecision{false, 256, 256}},
		{"none", -1, 1 << 60, 1 << 40, QuotaDecision{true, 1 << 40, 1}},
	} {
		if got := c.quota.Admit(c.size, c.cost); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if !Quota(8<<30).Suggested() || Quota(8<<30+1).Suggested() || !Quota(-1).Suggested() {
		t.Error("the suggested maximum is 8 GiB")
	}
}

func TestQuotaAlarm(t *testing.T) {
	type look struct {
		used   int64
		raised bool
		want   QuotaLook
	}
	for name, c := range map[string]struct {
		quota Quota
		begin int64
		looks []look
	}{
		"filled and emptied": {1000, 0, []look{
			{700, false, QuotaLook{}}, {800, false, QuotaLook{Near: 80}}, {801, false, QuotaLook{}}, {949, false, QuotaLook{Near: 90}},
			{998, false, QuotaLook{}}, {999, false, QuotaLook{Raise: true}}, {999, true, QuotaLook{}}, {950, true, QuotaLook{}},
			{949, true, QuotaLook{Lower: true}}, {949, true, QuotaLook{Lower: true}}, {949, false, QuotaLook{}},
		}},
		"around a level": {1000, 0, []look{
			{810, false, QuotaLook{Near: 80}}, {760, false, QuotaLook{}}, {810, false, QuotaLook{}}, {749, false, QuotaLook{}},
			{810, false, QuotaLook{Near: 80}}, {900, false, QuotaLook{Near: 90}}, {849, false, QuotaLook{}}, {905, false, QuotaLook{Near: 90}},
		}},
		"at once":                        {1000, 0, []look{{950, false, QuotaLook{Near: 90}}, {100, false, QuotaLook{}}, {920, false, QuotaLook{Near: 90}}}},
		"opened over the quota":          {1000, 1200, []look{{1200, false, QuotaLook{Near: 90}}, {1200, true, QuotaLook{}}, {1100, false, QuotaLook{}}, {1101, false, QuotaLook{Raise: true}}}},
		"disarmed and raised by growing": {1000, 1000, []look{{1000, true, QuotaLook{Near: 90}}, {1000, false, QuotaLook{}}, {1000, false, QuotaLook{}}, {1001, false, QuotaLook{Raise: true}}}},
		"no quota":                       {-1, 0, []look{{1 << 50, false, QuotaLook{}}, {1 << 50, true, QuotaLook{Lower: true}}}},
	} {
		a := NewQuotaAlarm(c.quota, c.begin)
		for i, l := range c.looks {
			if got := a.Look(l.used, l.raised); got != l.want {
				t.Errorf("%s: look %d: %+v, want %+v", name, i, got, l.want)
			}
		}
	}
	if low := Quota(0).Low(); low <= DefaultQuotaBytes/100*94 || low >= DefaultQuotaBytes/100*96 {
		t.Errorf("low is %d", low)
	}
}
