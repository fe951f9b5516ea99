package raftstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

func compactTo(s *Store, rev mvcc.Revision) error {
	_, err := s.Propose(context.Background(), Command{Kind: mvcc.KindCompaction,
		Request: &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: int64(rev)}}})
	return err
}

// everything is all that can be read of a store: each readable revision's keys, sizes, and the hash of the rows.
func everything(t testing.TB, s *Store) string {
	t.Helper()
	v := s.View()
	text := fmt.Sprintf("revision %d compacted %d live %d bytes\n", v.Revision(), v.Compacted(), v.LiveSize())
	for rev := max(v.Compacted(), 1); rev <= v.Revision(); rev++ {
		res, err := v.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: int64(rev)})
		if err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf("%d:", rev)
		for _, x := range res.Versions {
			text += fmt.Sprintf(" %s=%s/%d/%d/%d", x.Key(), x.Value(), x.Create(), x.Mod(), x.Num())
		}
		text += "\n"
	}
	hash, compacted, rev, err := v.HashKV(context.Background(), v.Revision())
	return text + fmt.Sprint(hash, compacted, rev, err)
}

// rowsNeeded is how many rows say the same as everything, where each revision has one change: those that are visible at the compacted
// revision, the tombstone if it is one, and one for each later revision.
func rowsNeeded(t *testing.T, v *mvcc.View) int {
	t.Helper()
	res, err := v.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: int64(v.Compacted())})
	if err != nil {
		t.Fatal(err)
	}
	n := len(res.Versions) + int(v.Revision()-v.Compacted())
	if !slices.ContainsFunc(res.Versions, func(x *mvcc.Version) bool { return x.Mod() == v.Compacted() }) {
		n++
	}
	return n
}

// firstOther is the first line that differs.
func firstOther(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d is\n%s\nwant\n%s", i, a[i], b[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(a), len(b))
}

// crashed ends a store without a goodbye and opens it again.
func crashed(h *harness, s *Store) *Store {
	h.t.Helper()
	if err := s.halt(); err != nil {
		h.t.Fatal(err)
	}
	return h.open()
}

// withHistory is a store whose database has many versions of few keys, of which some are deleted, made anew, or deleted for good.
func withHistory(h *harness, versions int) *Store {
	h.t.Helper()
	s := h.open()
	for i := range versions {
		key := fmt.Sprintf("/registry/k%d", i%10)
		if i%7 != 3 {
			put(h.t, s, key, fmt.Sprintf("v%d", i))
		} else if _, err := s.Propose(context.Background(), Command{Kind: mvcc.KindDeleteRange,
			Request: &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}}); err != nil {
			h.t.Fatal(err)
		}
	}
	if err := s.Checkpoint(context.Background()); err != nil {
		h.t.Fatal(err)
	}
	return s
}

// TestStartLeavesOutWhatTheLogCompacts: rows that a compaction in the log makes dead, behind the checkpoint, are not loaded, which nobody can
// tell from what is there; and they leave the database like others.
func TestStartLeavesOutWhatTheLogCompacts(t *testing.T) {
	for _, back := range []int{0, 1, 2, 5, 11, 50} {
		h := newHarness(t)
		s := withHistory(h, 200)
		rev := s.View().Revision() - mvcc.Revision(back)
		put(t, s, "/registry/behind", "the checkpoint")
		if err := compactTo(s, rev); err != nil {
			t.Fatal(err)
		}
		put(t, s, "/registry/k1", "behind the compaction")
		awaitEvent(h, CompactionDone{Revision: rev})
		want := everything(t, s)
		s = crashed(h, s)
		if got := everything(t, s); got != want {
			t.Errorf("compacted to %d before the end: %s", back, firstOther(got, want))
		}
		if err := s.CompactWait(context.Background(), rev); err != nil {
			t.Fatal(err)
		}
		s = crashed(h, s)
		if got := everything(t, s); got != want {
			t.Errorf("compacted to %d before the end, and removed: %s", back, firstOther(got, want))
		}
		rows := rowsNeeded(t, s.View())
		if err := s.halt(); err != nil {
			t.Fatal(err)
		}
		holds(h, rows, rev, rev)
	}
}

// TestStartWithARefusedCompaction: a compaction of the future stands in the log and does nothing. What it would have made dead is there.
func TestStartWithARefusedCompaction(t *testing.T) {
	h := newHarness(t)
	s := withHistory(h, 100)
	if err := compactTo(s, 20); err != nil {
		t.Fatal(err)
	}
	if err := compactTo(s, s.View().Revision()+1); !errors.Is(err, mvcc.ErrFutureRev) {
		t.Fatalf("a compaction of the future: %v", err)
	}
	put(t, s, "/registry/k1", "behind")
	awaitEvent(h, CompactionDone{Revision: 20})
	want := everything(t, s)
	s = crashed(h, s)
	defer closeStore(t, s)
	if got := everything(t, s); got != want {
		t.Error(firstOther(got, want))
	}
}
