package mvcc

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestHistory checks the log over many chunks, with revisions of any length,
// and that a view of it does not change.
func TestHistory(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var h history
	var all []*Version
	type frozen struct {
		v    historyView
		want []*Version
	}
	var views []frozen
	compacted, rev := Revision(-1), Revision(1)
	for range 400 {
		rev++
		n := 1 + rng.IntN(5)
		if rng.IntN(30) == 0 {
			n = rng.IntN(3 * historyChunk)
		}
		for sub := range n {
			v := newTombstone(fmt.Appendf(nil, "%d", sub), rev, uint32(sub))
			all = append(all, v)
			h.append(v)
		}
		if rng.IntN(10) == 0 {
			compacted += Revision(rng.IntN(int(rev-compacted) + 1))
			h.compact(compacted)
			all = slices.DeleteFunc(all, func(v *Version) bool { return v.mod < compacted })
		}
		if rng.IntN(5) == 0 {
			views = append(views, frozen{h.view(), slices.Clone(all)})
		}
		from := max(compacted, 0) + Revision(rng.IntN(int(rev)))
		checkVisit(t, h.view(), all, from, from+Revision(rng.IntN(20)))
	}
	for _, f := range views {
		checkVisit(t, f.v, f.want, 0, rev)
	}
}

func checkVisit(t *testing.T, h historyView, all []*Version, from, to Revision) {
	t.Helper()
	var want, got []*Version
	for _, v := range all {
		if v.mod >= from && v.mod < to {
			want = append(want, v)
		}
	}
	h.visit(from, to, func(v *Version) bool {
		got = append(got, v)
		return true
	})
	if !slices.Equal(want, got) {
		t.Fatalf("visit [%d, %d): %d versions, want %d", from, to, len(got), len(want))
	}
	if len(want) > 1 {
		n := 0
		h.visit(from, to, func(*Version) bool { n++; return n < 2 })
		if n != 2 {
			t.Fatalf("visit went on after it was told to stop: %d", n)
		}
	}
}

// TestHistorySuperseded checks that compaction drops, of its own revision, what
// that revision itself superseded: a file would not have it either.
func TestHistorySuperseded(t *testing.T) {
	var h history
	put := newPut([]byte("a"), nil, 2, 2, 0, 1, 0)
	del := newTombstone([]byte("a"), 2, 1)
	h.append(put)
	h.append(del)
	checkVisit(t, h.view(), []*Version{put, del}, 1, 9)
	before := h.view()
	h.compact(2)
	checkVisit(t, h.view(), []*Version{del}, 1, 9)
	checkVisit(t, before, []*Version{put, del}, 1, 9)
}
