package mvcc

import (
	"slices"
	"sort"
)

// history is every version from the compacted revision on, in the order of
// revisions. It is a list of chunks: the full ones never change, and the tail
// is only appended to, so that a view shares both by holding their lengths.
type history struct {
	full [][]*Version
	tail []*Version
}

// historyView is a history as it was when it was taken.
type historyView struct {
	full [][]*Version
	tail []*Version
}

func (h *history) view() historyView { return historyView(*h) }

func (h *history) append(v *Version) {
	if len(h.tail) == cap(h.tail) {
		if len(h.tail) > 0 {
			h.full = append(h.full, h.tail)
		}
		h.tail = make([]*Version, 0, historyChunk)
	}
	h.tail = append(h.tail, v)
}

// compact drops what is below the revision, and of what is at it the versions
// that were superseded in the same revision. Views keep what they had.
func (h *history) compact(rev Revision) {
	chunks := append(slices.Clone(h.full), h.tail)
	var at, rest []*Version // the versions at rev; those above in the chunk where they end
	i := sort.Search(len(chunks), func(i int) bool {
		c := chunks[i]
		return len(c) == 0 || c[len(c)-1].mod >= rev
	})
	for ; i < len(chunks) && len(rest) == 0; i++ {
		lo, hi := firstAt(chunks[i], rev), firstAt(chunks[i], rev+1)
		at = append(at, chunks[i][lo:hi]...)
		rest = chunks[i][hi:]
	}
	head := newestOfKeys(at)
	inTail := i == len(chunks)
	room := len(head) + len(rest)
	if inTail {
		room = max(room, historyChunk)
	}
	first := append(append(make([]*Version, 0, room), head...), rest...)
	if inTail {
		h.full, h.tail = nil, first
		return
	}
	h.full = append([][]*Version{first}, chunks[i:len(chunks)-1]...)
	h.tail = chunks[len(chunks)-1]
}

// newestOfKeys drops from the versions of one revision those that a later one
// of them supersedes.
func newestOfKeys(vs []*Version) []*Version {
	if len(vs) < 2 {
		return vs
	}
	last := make(map[string]*Version, len(vs))
	for _, v := range vs {
		last[string(v.Key())] = v
	}
	return slices.DeleteFunc(slices.Clone(vs), func(v *Version) bool { return last[string(v.Key())] != v })
}

// firstAt answers the index of the first version at or after a revision.
func firstAt(vs []*Version, rev Revision) int {
	return sort.Search(len(vs), func(i int) bool { return vs[i].mod >= rev })
}

// visit calls fn for the versions with from <= mod < to in order until it
// answers false.
func (h historyView) visit(from, to Revision, fn func(*Version) bool) {
	i := sort.Search(len(h.full), func(i int) bool {
		c := h.full[i]
		return c[len(c)-1].mod >= from
	})
	for ; i <= len(h.full); i++ {
		c := h.tail
		if i < len(h.full) {
			c = h.full[i]
		}
		for _, v := range c[firstAt(c, from):] {
			if v.mod >= to || !fn(v) {
				return
			}
		}
	}
}
