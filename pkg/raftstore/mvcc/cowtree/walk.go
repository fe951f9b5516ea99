package cowtree

import (
	"iter"
	"unsafe"
)

// AscendFirst calls fn for every item in ascending order until it answers
// false.
func (t *Tree[K, T]) AscendFirst(fn func(T) bool) {
	t.walk(bounds[K]{}, fn)
}

// Ascend calls fn for the items with a key of from or above in ascending order
// until it answers false.
func (t *Tree[K, T]) Ascend(from K, fn func(T) bool) {
	t.walk(bounds[K]{from: from, low: true}, fn)
}

// AscendRange calls fn for the items with from <= key < to in ascending order
// until it answers false. Keys are compared at the two ends only.
func (t *Tree[K, T]) AscendRange(from, to K, fn func(T) bool) {
	t.walk(bounds[K]{from: from, to: to, low: true, high: true}, fn)
}

// AscendWeighted is Ascend over the items with a weight above 0. Subtrees
// without one are passed over as a whole.
func (t *Tree[K, T]) AscendWeighted(from K, fn func(T) bool) {
	t.walk(bounds[K]{from: from, weighted: true, low: true}, fn)
}

// AscendWeightedRange is AscendRange over the items with a weight above 0.
func (t *Tree[K, T]) AscendWeightedRange(from, to K, fn func(T) bool) {
	t.walk(bounds[K]{from: from, to: to, weighted: true, low: true, high: true}, fn)
}

// All is AscendFirst as an iterator.
func (t *Tree[K, T]) All() iter.Seq[T] { return t.AscendFirst }

// From is Ascend as an iterator.
func (t *Tree[K, T]) From(from K) iter.Seq[T] {
	return func(yield func(T) bool) { t.Ascend(from, yield) }
}

// Range is AscendRange as an iterator.
func (t *Tree[K, T]) Range(from, to K) iter.Seq[T] {
	return func(yield func(T) bool) { t.AscendRange(from, to, yield) }
}

// WeightedRange is AscendWeightedRange as an iterator.
func (t *Tree[K, T]) WeightedRange(from, to K) iter.Seq[T] {
	return func(yield func(T) bool) { t.AscendWeightedRange(from, to, yield) }
}

// bounds are the ends of a walk.
type bounds[K any] struct {
	from, to  K
	low, high bool // whether there is a from, a to
	weighted  bool // pass over items of weight 0
}

// walk visits the leaves from the one that from falls into to the one that to
// falls into; what lies between these two is visited without a comparison, but
// for one a leaf.
func (t *Tree[K, T]) walk(b bounds[K], fn func(T) bool) {
	var way path[K, T]
	var l *leaf[K, T]
	first := 0
	if b.low {
		l = t.descend(b.from, &way)
		first, _ = t.find(l.keys[:l.n], b.from)
	} else {
		l = t.leftmost(t.root, t.level, false, &way)
	}
	for ; l != nil; l = t.next(&way, b.weighted) {
		end, last := l.n, false
		if b.high && l.n > 0 && t.cmp(l.keys[l.n-1], b.to) >= 0 {
			end, _ = t.find(l.keys[:l.n], b.to)
			last = true
		}
		for i := first; i < end; i++ {
			if b.weighted && l.weights[i] == 0 {
				continue
			}
			if !fn(l.items[i]) {
				return
			}
		}
		if last {
			return
		}
		first = 0
	}
}

// next answers the leaf to the right of the one the way leads to, and makes it
// the way to that one; nil at the end. weighted passes over nodes of weight 0.
func (t *Tree[K, T]) next(way *path[K, T], weighted bool) *leaf[K, T] {
	for level := 1; level <= t.level; level++ {
		s := &way[level-1]
		for s.i++; s.i < s.in.n; s.i++ {
			if !weighted || s.in.sums[s.i] != 0 {
				return t.leftmost(s.in.kids[s.i], level-1, weighted, way)
			}
		}
	}
	return nil
}

// leftmost answers the first leaf under a node, and fills in the way there.
// weighted passes over nodes of weight 0; there must be others.
func (t *Tree[K, T]) leftmost(p unsafe.Pointer, level int, weighted bool, way *path[K, T]) *leaf[K, T] {
	for ; level > 0; level-- {
		in, i := asInner[K, T](p), 0
		for weighted && in.sums[i] == 0 {
			i++
		}
		way[level-1] = step[K, T]{in, i}
		p = in.kids[i]
	}
	return asLeaf[K, T](p)
}
