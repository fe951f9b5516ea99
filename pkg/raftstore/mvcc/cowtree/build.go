package cowtree

import (
	"fmt"
	"unsafe"
)

// Build replaces what is in the tree by the items, which must ascend strictly
// by key; it panics if they do not. O(n). Nodes are filled to 7/8, so that the
// writes that follow do not split each of them.
func (t *Tree[K, T]) Build(sorted []T) {
	t.mustOwn("Build")
	t.level, t.len, t.weight = 0, len(sorted), 0
	if len(sorted) == 0 {
		t.root = unsafe.Pointer(t.newLeaf())
		return
	}
	row := t.buildLeaves(sorted)
	for len(row) > 1 {
		row = t.buildInners(row)
		t.level++
	}
	t.root = row[0]
	t.weight = t.nodeWeight(t.root, t.level)
}

func (t *Tree[K, T]) buildLeaves(sorted []T) []unsafe.Pointer {
	nodes := (len(sorted) + buildLeaf - 1) / buildLeaf
	row := make([]unsafe.Pointer, 0, nodes)
	var last K
	for i := range nodes {
		l := t.newLeaf()
		for _, item := range sorted[i*len(sorted)/nodes : (i+1)*len(sorted)/nodes] {
			k := t.keyOf(item)
			if (i > 0 || l.n > 0) && t.cmp(last, k) >= 0 {
				panic(fmt.Sprintf("cowtree: build: key %v does not follow %v", k, last))
			}
			l.keys[l.n], l.weights[l.n], l.items[l.n] = k, t.weightOf(item), item
			l.n++
			last = k
		}
		row = append(row, unsafe.Pointer(l))
	}
	return row
}

// buildInners puts a row of nodes at t.level below a row of inner nodes.
func (t *Tree[K, T]) buildInners(below []unsafe.Pointer) []unsafe.Pointer {
	nodes := (len(below) + buildInner - 1) / buildInner
	row := make([]unsafe.Pointer, 0, nodes)
	for i := range nodes {
		in := t.newInner()
		for _, p := range below[i*len(below)/nodes : (i+1)*len(below)/nodes] {
			in.insert(in.n, t.separator(t.minKey(p, t.level)), t.nodeWeight(p, t.level), p)
		}
		row = append(row, unsafe.Pointer(in))
	}
	return row
}

// minKey answers the smallest key under a node.
func (t *Tree[K, T]) minKey(p unsafe.Pointer, level int) K {
	for ; level > 0; level-- {
		p = asInner[K, T](p).kids[0]
	}
	return asLeaf[K, T](p).keys[0]
}
