package raftstore

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/backend"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// dying is a store with 10 keys of which bbolt holds 190 dead rows; a checkpoint or part deletes 30 of them.
func dying(h *harness, l *ledger) (*Store, mvcc.Revision) {
	h.t.Helper()
	h.adjust = func(c *Config) { l.watch(c); c.Checkpoints.DeadRows, c.freelistBytes = 30, 1 }
	s := h.open()
	for i := range 200 {
		key := fmt.Sprintf("/registry/k%d", i%10)
		l.try(key, i)
		put(h.t, s, key, fmt.Sprintf("v%d", i))
		l.ack(key, i)
	}
	if err := s.Checkpoint(context.Background()); err != nil {
		h.t.Fatal(err)
	}
	rev := s.View().Revision()
	if _, err := s.Propose(context.Background(), Command{Kind: mvcc.KindCompaction,
		Request: &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: int64(rev), Physical: true}}}); err != nil {
		h.t.Fatal(err)
	}
	awaitEvent(h, CompactionDone{Revision: rev})
	return s, rev
}

// awaitEvent waits until the store has told of e.
func awaitEvent(h *harness, e Event) {
	await(h.t, e.String(), func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return slices.Contains(h.structs, e)
	})
}

// holds compares what the file of h holds with what it should.
func holds(h *harness, rows int, scheduled, finished mvcc.Revision) {
	h.t.Helper()
	db, err := backend.Open(h.db, backend.Options{ReadOnly: true})
	if err != nil {
		h.t.Fatal(err)
	}
	defer db.Close()
	c, err := db.Check(func(_ int64, reason string) { h.t.Errorf("check: %s", reason) })
	if err != nil || c.Rows != rows || c.CompactScheduled != scheduled || c.CompactFinished != finished {
		h.t.Errorf("the file holds %d rows, compaction scheduled %d and finished %d (%v), want %d, %d and %d",
			c.Rows, c.CompactScheduled, c.CompactFinished, err, rows, scheduled, finished)
	}
}

// TestRemovalInParts: a physical compaction has its answer when the last part is written.
func TestRemovalInParts(t *testing.T) {
	h := newHarness(t)
	s, rev := dying(h, newLedger())
	if err := s.CompactWait(context.Background(), rev); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	var done []RemovalDone
	for _, e := range h.structs {
		if e, ok := e.(RemovalDone); ok {
			done = append(done, e)
		}
	}
	h.mu.Unlock()
	if len(done) != 1 || done[0].Rows != 190 || done[0].Parts != 7 {
		t.Errorf("removals %+v, want one of 190 rows in 7 parts", done)
	}
	if err := s.halt(); err != nil {
		t.Fatal(err)
	}
	holds(h, 10, rev, rev)
}

// TestCrashBetweenParts: whatever part a crash comes behind, the state is the same, and the next start removes what is left.
func TestCrashBetweenParts(t *testing.T) {
	h, l := newHarness(t), newLedger()
	s, rev := dying(h, l)
	put(t, s, "/registry/behind", "v1") // a part is at the index of the checkpoint before it
	var images []*harness
	err := s.checkpoint.call(context.Background(), func() error { // no part comes by itself meanwhile
		c := s.checkpoint
		if err := c.write("test"); err != nil {
			return err
		}
		for {
			db, err := os.ReadFile(h.db)
			if err != nil {
				return err
			}
			next := newHarness(t)
			next.adjust, next.fs = h.adjust, h.fs.(*vfs.Mem).Crash(vfs.LoseAll)
			if err := os.WriteFile(next.db, db, 0o600); err != nil {
				return err
			}
			images = append(images, next)
			if len(c.removal.batch.Dead) == 0 {
				return nil
			}
			c.remove()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	if len(images) != 7 {
		t.Fatalf("%d states between parts, want 7", len(images))
	}
	for i, next := range images {
		left, finished := 190-30*(i+1), mvcc.NeverCompacted
		if left <= 0 {
			left, finished = 0, rev
		}
		holds(next, 11+left, rev, finished)
		l.verify(t, next, l.ackedNow())
		s := next.open()
		if err := s.CompactWait(context.Background(), rev); err != nil {
			t.Fatal(err)
		}
		closeStore(t, s)
		holds(next, 11, rev, rev)
	}
}

// TestEtcdStartsBetweenParts: a backup between two parts is one that etcd takes.
func TestEtcdStartsBetweenParts(t *testing.T) {
	h := newHarness(t)
	s, _ := dying(h, newLedger())
	defer closeStore(t, s)
	if _, err := s.Propose(context.Background(), Command{Kind: mvcc.KindLeaseGrant, Request: &pb.InternalRaftRequest{
		LeaseGrant: &pb.LeaseGrantRequest{ID: 77, TTL: 600}}}); err != nil {
		t.Fatal(err)
	}
	etcdStarts(t, s)
}

// TestDefragmentBetweenParts: the parts go on in the new file.
func TestDefragmentBetweenParts(t *testing.T) {
	h := newHarness(t)
	s, rev := dying(h, newLedger())
	if err := s.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := s.Defragment(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := s.CompactWait(context.Background(), rev); err != nil {
		t.Fatal(err)
	}
	if err := s.halt(); err != nil {
		t.Fatal(err)
	}
	holds(h, 10, rev, rev)
}

// TestRemovalBesideFailures: parts of a removal that succeed do not make up for checkpoints that fail, which are larger and leave the disk alone
// the longer the more of them have failed in a row.
func TestRemovalBesideFailures(t *testing.T) {
	s, _ := dying(newHarness(t), newLedger())
	defer closeStore(t, s)
	c := s.checkpoint
	err := c.call(context.Background(), func() error {
		if err := c.write("test"); err != nil {
			return err
		}
		c.failures = 5
		before := len(c.removal.batch.Dead)
		if c.remove(); len(c.removal.batch.Dead) >= before || c.failures != 5 {
			t.Errorf("%d dead rows are left of %d, and %d failures are known", len(c.removal.batch.Dead), before, c.failures)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
