package mvcc

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// BenchmarkCompactNothing is a compaction that frees one version, or none, behind 100,000 that were created since the last checkpoint.
func BenchmarkCompactNothing(b *testing.B) {
	for _, name := range []string{"none", "one"} {
		b.Run(name, func(b *testing.B) {
			s := filled(100_000, 100)
			put := &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: benchKey(0)}}
			for b.Loop() {
				if name == "one" {
					s.Apply(Entry{Index: s.Index() + 1, Request: put})
				} else {
					put.Put.Key = append([]byte("/registry/x"), benchKey(int(s.Index()))...)
					s.Apply(Entry{Index: s.Index() + 1, Request: put})
				}
				s.Apply(Entry{Index: s.Index() + 1, Request: &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: int64(s.Revision())}}})
				for !s.CompactStep(512) {
				}
			}
		})
	}
}

// BenchmarkGrowth is what a guarded update costs beside applying it, at the quota.
func BenchmarkGrowth(b *testing.B) {
	v := filled(100_000, 100).Publish()
	txn := &pb.InternalRaftRequest{Txn: &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: benchKey(7), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: 9}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: benchKey(7), Value: make([]byte, 100)}}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: benchKey(7)}}}},
	}}
	b.ReportAllocs()
	for b.Loop() {
		if g := v.Growth(txn); g != 0 {
			b.Fatalf("grows by %d", g)
		}
	}
}
