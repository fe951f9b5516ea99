package mvcc

import (
	"runtime"
	"testing"
	"weak"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// TestMemoryOfObjects checks what objects of 3 kB cost: at most 1.3 times
// their bytes, index, history and what the next checkpoint needs included.
func TestMemoryOfObjects(t *testing.T) {
	const n, size = 20000, 3000
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	s := filled(n, size)
	v := s.Publish()
	ratio := float64(heap()-before) / float64(n*size)
	if v.KeyCount() != n || ratio > 1.3 {
		t.Fatalf("%d objects take %.2f times their bytes", v.KeyCount(), ratio)
	}
	t.Logf("%.3f times the bytes", ratio)
	runtime.KeepAlive(s)
}

// TestMemoryOfHeartbeats checks that versions which compaction has removed do
// not stay in memory, whoever still holds a key, a lease or a list of them.
func TestMemoryOfHeartbeats(t *testing.T) {
	s := New(Options{})
	apply := func(r *pb.InternalRaftRequest) {
		if res := s.Apply(Entry{Index: s.Index() + 1, Request: r}); res.Err != nil {
			t.Fatal(res.Err)
		}
	}
	apply(&pb.InternalRaftRequest{LeaseGrant: &pb.LeaseGrantRequest{ID: 1, TTL: 60}})
	var old []weak.Pointer[Version]
	for round := range 3 {
		for i := range 100 {
			apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: benchKey(i), Lease: 1}})
			if v, _ := s.keys.Get(benchKey(i)); round < 2 {
				old = append(old, weak.Make(v))
			}
		}
		if round == 0 { // these are in a file, the others are not
			s.EndCheckpoint(s.BeginCheckpoint(), true)
		}
	}
	apply(&pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: int64(s.Revision())}})
	for !s.CompactStep(10) {
	}
	runtime.GC()
	held := 0
	for _, w := range old {
		if w.Value() != nil {
			held++
		}
	}
	if held > 0 {
		t.Errorf("%d of %d removed versions are still held", held, len(old))
	}
	if c := s.BeginCheckpoint(); c.PutCount() != 100 || len(c.Dead()) != 100 {
		t.Errorf("checkpoint puts %d and deletes %d rows", c.PutCount(), len(c.Dead()))
	}
}
