package mvcc

import (
	"errors"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// TestSucceed: a view that was published before a snapshot took the place of its state learns of the compactions behind it: the rows that
// those remove are gone, and not damaged.
func TestSucceed(t *testing.T) {
	b := &bucket{rows: map[RowKey][]byte{}, leases: map[LeaseID]Lease{}, scheduled: -1, finished: -1, evicted: 100}
	index := uint64(0)
	apply := func(s *State, r *pb.InternalRaftRequest) {
		t.Helper()
		index++
		if res := s.Apply(Entry{Index: index, Term: 1, Request: r}); res.Err != nil {
			t.Fatal(res.Err)
		}
	}
	checkpoint := func(s *State) {
		t.Helper()
		c := s.BeginCheckpoint()
		err := b.write(c)
		s.EndCheckpoint(c, err == nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	put := &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 1000)}}
	first := New(Options{Rows: b})
	apply(first, put)
	checkpoint(first)
	before, err := b.load() // without the value
	if err != nil {
		t.Fatal(err)
	}
	old := before.Publish()

	apply(first, put)
	apply(first, put)
	checkpoint(first)
	snapshot, err := b.load()
	if err != nil {
		t.Fatal(err)
	}
	snapshot.Succeed(before)
	if r, err := old.Rows(0); err != nil {
		t.Errorf("rows of the old view, with nothing compacted: %v", err)
	} else {
		r.Close()
	}
	apply(snapshot, &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: int64(snapshot.Revision())}})
	for !snapshot.CompactStep(0) {
	}
	checkpoint(snapshot)
	checkpoint(snapshot)
	if len(b.rows) != 1 {
		t.Fatalf("%d rows are left", len(b.rows))
	}
	if _, err := old.Rows(0); !errors.Is(err, ErrOvertaken) {
		t.Errorf("rows of the old view behind a compaction: %v", err)
	}
}
