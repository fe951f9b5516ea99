package mvcc

import (
	"fmt"
	"math/rand/v2"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// TestPendingRows compares what is said to be pending with the versions themselves, through writes, deletes, compactions and checkpoints.
func TestPendingRows(t *testing.T) {
	s, random := New(Options{}), rand.New(rand.NewPCG(1, 2))
	versions := make(map[string][]*Version) // of keys, since the last checkpoint, without dead ones
	counted := 0
	for index := uint64(1); index < 3000; index++ {
		key := fmt.Sprint(random.IntN(20))
		r := &pb.InternalRaftRequest{}
		switch op := random.IntN(100); {
		case op < 80:
			r.Put = &pb.PutRequest{Key: []byte(key), Value: []byte("v")}
		case op < 95:
			r.DeleteRange = &pb.DeleteRangeRequest{Key: []byte(key)}
		case op < 98:
			r.Compaction = &pb.CompactionRequest{Revision: int64(s.revision) - int64(random.IntN(30))}
		default:
			s.EndCheckpoint(s.BeginCheckpoint(), true)
			clear(versions)
		}
		for _, e := range s.Apply(Entry{Index: index, Term: 1, Request: r}).Events {
			versions[string(e.Version.Key())] = append(versions[string(e.Version.Key())], e.Version)
		}
		for !s.CompactStep(0) {
		}
		var want PendingRows
		for _, of := range versions {
			for i, v := range of {
				if v.flags&flagDead == 0 || v.stays() {
					want.Rows++
				}
				if v.flags&flagDead == 0 && (i < len(of)-1 || v.Tombstone()) {
					want.Stale++
				}
			}
		}
		if got := s.Publish().Pending(); got != want {
			t.Fatalf("at index %d %+v is pending, want %+v", index, got, want)
		}
		counted = max(counted, want.Stale)
	}
	if counted < 10 {
		t.Errorf("at most %d stale versions: the test has lost its sense", counted)
	}
}
