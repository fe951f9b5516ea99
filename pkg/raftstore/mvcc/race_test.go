package mvcc

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// TestReadersRaceCompaction reads old revisions from many goroutines while the
// state goes on and compacts. A read answers what the revision was when it was
// current, or that it is compacted; never anything else.
func TestReadersRaceCompaction(t *testing.T) {
	const keys, writes, readers = 50, 4000, 4
	var view atomic.Pointer[View]
	var truth sync.Map // Revision -> what all keys were
	all := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	s := New(Options{})
	view.Store(s.Publish())
	truth.Store(Revision(1), "[]")
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 3))
			for !stop.Load() {
				v := view.Load()
				rev := v.Revision() - Revision(rng.Int64N(min(int64(v.Revision()), 60)))
				res, err := v.Range(&pb.RangeRequest{Key: all.Key, RangeEnd: all.RangeEnd, Revision: int64(rev)})
				if err == ErrCompacted {
					continue
				}
				want, _ := truth.Load(rev)
				if got := fmt.Sprint(renderVersions(res.Versions)); err != nil || got != want {
					t.Errorf("view at %d read at %d: %v\nwant %v\ngot  %v", v.Revision(), rev, err, want, got)
					return
				}
				last := rev
				err = v.History(rev, v.Revision()+1, func(e Event) bool {
					ok := e.Version.Mod() == last || e.Version.Mod() == last+1
					last = e.Version.Mod()
					return ok
				})
				if err == nil && last != v.Revision() {
					t.Errorf("history from %d ended at %d of %d", rev, last, v.Revision())
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(9, 9))
	for i := range writes {
		key := fmt.Appendf(nil, "%02d", rng.IntN(keys))
		req := &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: key, Value: fmt.Append(nil, i)}}
		if rng.IntN(4) == 0 {
			req = &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: key}}
		}
		s.Apply(Entry{Index: s.Index() + 1, Request: req})
		if rng.IntN(20) == 0 {
			rev := int64(s.Revision()) - rng.Int64N(min(int64(s.Revision()), 40))
			s.Apply(Entry{Index: s.Index() + 1, Request: &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: rev}}})
		}
		v := s.Publish()
		res, err := v.Range(all)
		if err != nil {
			t.Fatal(err)
		}
		truth.Store(v.Revision(), fmt.Sprint(renderVersions(res.Versions)))
		view.Store(v)
		s.CompactStep(rng.IntN(10) + 1)
		if i%16 == 0 {
			runtime.Gosched()
		}
	}
	stop.Store(true)
	wg.Wait()
}
