package raftstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// history is what clients can see of a store.
type history struct {
	answers   []string
	hash      uint32
	revision  mvcc.Revision
	compacted mvcc.Revision
	leases    string
	contents  string
}

func randomCommand(rng *rand.Rand, rev mvcc.Revision) Command {
	key := fmt.Appendf(nil, "k%d", rng.IntN(30))
	r := &pb.InternalRaftRequest{}
	switch rng.IntN(12) {
	case 0:
		r.LeaseGrant = &pb.LeaseGrantRequest{ID: rng.Int64N(5) + 1, TTL: 1000}
		return Command{Kind: mvcc.KindLeaseGrant, Request: r}
	case 1:
		r.LeaseRevoke = &pb.LeaseRevokeRequest{ID: rng.Int64N(5) + 1}
		return Command{Kind: mvcc.KindLeaseRevoke, Request: r}
	case 2:
		r.Compaction = &pb.CompactionRequest{Revision: max(1, int64(rev)-rng.Int64N(50))}
		return Command{Kind: mvcc.KindCompaction, Request: r}
	case 3, 4:
		r.DeleteRange = &pb.DeleteRangeRequest{Key: key}
		return Command{Kind: mvcc.KindDeleteRange, Request: r}
	case 5, 6:
		r.Txn = &pb.TxnRequest{
			Compare: []*pb.Compare{{Key: key, Target: pb.Compare_MOD, Result: pb.Compare_GREATER,
				TargetUnion: &pb.Compare_ModRevision{ModRevision: int64(rev) - rng.Int64N(20)}}},
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: []byte("txn")}}}},
			Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}}}},
		}
		return Command{Kind: mvcc.KindTxn, Request: r}
	}
	r.Put = &pb.PutRequest{Key: key, Value: make([]byte, rng.IntN(200)), Lease: rng.Int64N(5)}
	return Command{Kind: mvcc.KindPut, Request: r}
}

// play runs commands that depend on the seed alone, and lets pace do between them what must not matter.
func play(t *testing.T, seed uint64, pace func(h *harness, s *Store) *Store) history {
	t.Helper()
	h, rng := newHarness(t), rand.New(rand.NewPCG(seed, 0))
	h.adjust = func(c *Config) { c.WALSegmentBytes, c.Checkpoints.DeadRows, c.Checkpoints.PartBytes = 64<<10, 3, 1000 }
	s := h.open()
	var got history
	for range 600 {
		res, err := s.Propose(context.Background(), randomCommand(rng, s.View().Revision()))
		got.answers = append(got.answers, fmt.Sprint(res.Revision, len(res.Events), err))
		s = pace(h, s)
	}
	v := s.View()
	hash, compacted, rev, err := v.HashKV(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	got.hash, got.compacted, got.revision = hash, compacted, rev
	for _, l := range v.Leases() {
		got.leases += fmt.Sprintf("%d:%q ", l.ID, v.LeaseKeys(l.ID))
	}
	got.contents = contents(t, v)
	closeStore(t, s)
	return got
}

// TestPaceDoesNotMatter: checkpoints, restarts, defragmentations, evictions and compaction steps may come at any time, and clients see the same.
func TestPaceDoesNotMatter(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	want := play(t, seed, func(_ *harness, s *Store) *Store { return s })
	for round := range 3 {
		rng := rand.New(rand.NewPCG(seed, uint64(round)+1))
		got := play(t, seed, func(h *harness, s *Store) *Store {
			switch rng.IntN(60) {
			case 0:
				closeStore(t, s)
				return h.open()
			case 1: // no goodbye
				if err := s.halt(); err != nil {
					t.Fatal(err)
				}
				return h.open()
			case 2, 3:
				if err := s.Checkpoint(context.Background()); err != nil {
					t.Fatal(err)
				}
			case 5, 6, 7:
				evictAll(t, s)
			case 8:
				s.versionRoom.set(mvcc.Room{Live: 1 + rng.Int64N(2000), History: 1 + rng.Int64N(2000)})
			case 4:
				if err := s.Defragment(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			return s
		})
		for i := range want.answers {
			if got.answers[i] != want.answers[i] {
				t.Fatalf("round %d: answer %d is %s, at an even pace it is %s", round, i, got.answers[i], want.answers[i])
			}
		}
		if got.hash != want.hash || got.revision != want.revision || got.compacted != want.compacted || got.leases != want.leases || got.contents != want.contents {
			t.Errorf("round %d: %+v differs from %+v", round, got, want)
		}
	}
}
