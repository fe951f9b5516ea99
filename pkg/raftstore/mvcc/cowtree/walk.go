package cowtree

import (
	"iter"
	"unsafe"
)

// walkOp is one walk in ascending order over [from, to).
type walkOp[K, T any] struct {
	from, to K
	weighted bool // pass over items of weight 0
	fn       func(T) bool
}

// AscendFirst calls fn for every item in ascending order until it answers
// false.
func (t *Tree[K, T]) AscendFirst(fn func(T) bool) {
	op := walkOp[K, T]{fn: fn}
	t.walk(t.root, t.level, &op, false, false)
}

// Ascend calls fn for the items with a key of from or above in ascending order
// until it answers false.
func (t *Tree[K, T]) Ascend(from K, fn func(T) bool) {
	op := walkOp[K, T]{from: from, fn: fn}
	t.walk(t.root, t.level, &op, true, false)
}

// AscendRange calls fn for the items with from <= key < to in ascending order
// until it answers false. Keys are compared at the two ends only.
func (t *Tree[K, T]) AscendRange(from, to K, fn func(T) bool) {
	op := walkOp[K, T]{from: from, to: to, fn: fn}
	t.walk(t.root, t.level, &op, true, true)
}

// AscendWeighted is Ascend over the items with a weight above 0. Subtrees
// without one are passed over as a whole.
func (t *Tree[K, T]) AscendWeighted(from K, fn func(T) bool) {
	op := walkOp[K, T]{from: from, weighted: true, fn: fn}
	t.walk(t.root, t.level, &op, true, false)
}

// AscendWeightedRange is AscendRange over the items with a weight above 0.
func (t *Tree[K, T]) AscendWeightedRange(from, to K, fn func(T) bool) {
	op := walkOp[K, T]{from: from, to: to, weighted: true, fn: fn}
	t.walk(t.root, t.level, &op, true, true)
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

// walk visits the node p. low and high say whether the bounds fall into it;
// what lies between them is visited without a comparison.
func (t *Tree[K, T]) walk(p unsafe.Pointer, level int, op *walkOp[K, T], low, high bool) bool {
	if level == 0 {
		return t.walkLeaf(asLeaf[K, T](p), op, low, high)
	}
	in := asInner[K, T](p)
	first, end := 0, in.n
	if low {
		first = t.childFor(in, op.from)
	}
	if high {
		end, _ = t.find(in.keys[:in.n], op.to)
	}
	for i := first; i < end; i++ {
		if op.weighted && in.sums[i] == 0 {
			continue
		}
		if !t.walk(in.kids[i], level-1, op, low && i == first, high && i == end-1) {
			return false
		}
	}
	return true
}

func (t *Tree[K, T]) walkLeaf(l *leaf[K, T], op *walkOp[K, T], low, high bool) bool {
	first, end := 0, l.n
	if low {
		first, _ = t.find(l.keys[:l.n], op.from)
	}
	if high {
		end, _ = t.find(l.keys[:l.n], op.to)
	}
	for i := first; i < end; i++ {
		if op.weighted && l.weights[i] == 0 {
			continue
		}
		if !op.fn(l.items[i]) {
			return false
		}
	}
	return true
}
