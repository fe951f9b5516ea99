package mvcc

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// filled is a state with n objects of the size, published every 16 entries as
// the apply loop would.
func filled(n, size int) *State {
	s := New(Options{})
	value := make([]byte, size)
	for i := range n {
		s.Apply(Entry{Index: s.Index() + 1, Request: &pb.InternalRaftRequest{
			Put: &pb.PutRequest{Key: benchKey(i), Value: value}}})
		if i%16 == 0 {
			s.Publish()
		}
	}
	return s
}

func benchKey(i int) []byte {
	return fmt.Appendf(nil, "/registry/pods/namespace-%d/pod-%08d", i%50, i)
}

func BenchmarkPut(b *testing.B) {
	for _, batch := range []int{1, 16} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			s := filled(20000, 400)
			keys := make([][]byte, 20000)
			for i := range keys {
				keys[i] = benchKey(i)
			}
			value := make([]byte, 400)
			b.ReportAllocs()
			for i := range b.N {
				s.Apply(Entry{Index: s.Index() + 1, Request: &pb.InternalRaftRequest{
					Put: &pb.PutRequest{Key: keys[i*7919%len(keys)], Value: value}}})
				if i%batch == 0 {
					s.Publish()
				}
				if i%10000 == 9999 {
					s.Apply(Entry{Index: s.Index() + 1, Request: &pb.InternalRaftRequest{
						Compaction: &pb.CompactionRequest{Revision: int64(s.Revision())}}})
					for !s.CompactStep(0) {
					}
				}
			}
		})
	}
}

// BenchmarkTxnUpdate is what the apiserver sends for an update.
func BenchmarkTxnUpdate(b *testing.B) {
	s := filled(20000, 3000)
	value := make([]byte, 3000)
	reqs := make([]*pb.InternalRaftRequest, 20000)
	for i := range reqs {
		key := benchKey(i)
		reqs[i] = &pb.InternalRaftRequest{Txn: &pb.TxnRequest{
			Compare: []*pb.Compare{{Target: pb.Compare_MOD, Key: key, TargetUnion: &pb.Compare_ModRevision{ModRevision: int64(i + 2)}}},
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value}}}},
			Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}},
		}}
	}
	b.ReportAllocs()
	for i := range b.N {
		req := reqs[i*7919%len(reqs)]
		key := req.Txn.Compare[0].Key
		v, _ := s.keys.Get(key)
		req.Txn.Compare[0].TargetUnion.(*pb.Compare_ModRevision).ModRevision = int64(v.Mod())
		s.Apply(Entry{Index: s.Index() + 1, Request: req})
		if i%16 == 0 {
			s.Publish()
		}
		if i%10000 == 9999 {
			s.Apply(Entry{Index: s.Index() + 1, Request: &pb.InternalRaftRequest{
				Compaction: &pb.CompactionRequest{Revision: int64(s.Revision())}}})
			for !s.CompactStep(0) {
			}
		}
	}
}

func BenchmarkCount(b *testing.B) {
	for _, n := range []int{20000, 200000, 1_000_000} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			v := filled(n, 100).Publish()
			req := &pb.RangeRequest{Key: []byte("/registry/pods/"), RangeEnd: []byte("/registry/pods0"), CountOnly: true}
			b.ReportAllocs()
			for b.Loop() {
				if r, err := v.Range(req); err != nil || r.Count != int64(n) {
					b.Fatal(r, err)
				}
			}
		})
	}
}

func BenchmarkPage(b *testing.B) {
	for _, n := range []int{20000, 200000, 1_000_000} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			v := filled(n, 100).Publish()
			req := &pb.RangeRequest{
				Key: []byte("/registry/pods/namespace-25/"), RangeEnd: []byte("/registry/pods0"),
				Limit: 500, Revision: int64(v.Revision()),
			}
			b.ReportAllocs()
			for b.Loop() {
				if r, err := v.Range(req); err != nil || len(r.Versions) != 500 {
					b.Fatal(r, err)
				}
			}
		})
	}
}

// BenchmarkCompact is the removal of 78k dead versions among 20k keys.
func BenchmarkCompact(b *testing.B) {
	for range b.N {
		b.StopTimer()
		s := filled(20000, 100)
		for i := range 78000 {
			s.Apply(Entry{Index: s.Index() + 1, Request: &pb.InternalRaftRequest{
				Put: &pb.PutRequest{Key: benchKey(i % 20000), Value: []byte("x")}}})
		}
		b.StartTimer()
		s.Apply(Entry{Index: s.Index() + 1, Request: &pb.InternalRaftRequest{
			Compaction: &pb.CompactionRequest{Revision: int64(s.Revision())}}})
		for !s.CompactStep(0) {
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	s := filled(200000, 3000)
	rows := make([]Row, 0, 200000)
	for v := range s.pending.puts.all() {
		rows = append(rows, Row{Key: v.RowKey().Append(nil), Value: v.RowValue()})
	}
	b.ReportAllocs()
	for b.Loop() {
		got, err := Load(Loader{
			Index: 1, CompactScheduled: -1, CompactFinished: -1, RowsHint: len(rows),
			Rows: parts(rowsOf(rows[:len(rows)/2], nil), rowsOf(rows[len(rows)/2:], nil)),
		}, Options{})
		if err != nil || got.keys.Len() != len(rows) {
			b.Fatal(err)
		}
	}
}

// BenchmarkCompact80k is all steps of a compaction of 80,000 dead versions of 400 bytes, on few keys and on many, and what they cost with
// the View that readers would get after each slice.
func BenchmarkCompact80k(b *testing.B) {
	for _, keys := range []int{5_000, 80_000} {
		for _, checkpointed := range []bool{false, true} {
			b.Run(fmt.Sprintf("keys=%d/checkpointed=%t", keys, checkpointed), func(b *testing.B) {
				var slowest time.Duration
				for range b.N {
					b.StopTimer()
					s := filled(keys, 400)
					value := make([]byte, 400)
					for i := range 80_000 {
						s.Apply(Entry{Index: s.Index() + 1, Request: &pb.InternalRaftRequest{
							Put: &pb.PutRequest{Key: benchKey(i * 7919 % keys), Value: value}}})
					}
					if checkpointed {
						s.EndCheckpoint(s.BeginCheckpoint(), true)
					}
					runtime.GC()
					b.StartTimer()
					s.Apply(Entry{Index: s.Index() + 1, Request: &pb.InternalRaftRequest{
						Compaction: &pb.CompactionRequest{Revision: int64(s.Revision())}}})
					for done := false; !done; {
						at := time.Now()
						done = s.CompactStep(512)
						slowest = max(slowest, time.Since(at))
					}
				}
				b.ReportMetric(float64(slowest.Microseconds()), "slowest-slice-µs")
			})
		}
	}
}
