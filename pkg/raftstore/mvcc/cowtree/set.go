package cowtree

import "unsafe"

// setOp is one Set on its way down and up again.
type setOp[K, T any] struct {
	key      K
	item     T
	weight   int32
	old      T
	replaced bool
	delta    int // change of the weight below
}

// Set puts the item in, in the place of the one with the same key if there is
// one, and answers that one. O(log n).
func (t *Tree[K, T]) Set(item T) (old T, replaced bool) {
	t.mustOwn("Set")
	op := setOp[K, T]{key: t.keyOf(item), item: item, weight: t.weightOf(item)}
	root, right := t.set(t.root, t.level, &op)
	t.root = root
	if right != nil {
		t.growRoot(right)
	}
	if !op.replaced {
		t.len++
	}
	t.weight += op.delta
	return op.old, op.replaced
}

// set answers the node that takes p's place, and the one to be put to its
// right if it had to be split.
func (t *Tree[K, T]) set(p unsafe.Pointer, level int, op *setOp[K, T]) (self, right unsafe.Pointer) {
	if level == 0 {
		l, r := t.setLeaf(asLeaf[K, T](p), op)
		return unsafe.Pointer(l), unsafe.Pointer(r)
	}
	in := asInner[K, T](p)
	i := t.childFor(in, op.key)
	kid, split := t.set(in.kids[i], level-1, op)
	in = t.ownInner(in)
	in.kids[i] = kid
	in.keys[i] = t.minKey(kid, level-1)
	in.sums[i] += op.delta
	if split == nil {
		return unsafe.Pointer(in), nil
	}
	w := t.nodeWeight(split, level-1)
	in.sums[i] -= w
	r := t.insertKid(in, i+1, t.minKey(split, level-1), w, split)
	return unsafe.Pointer(in), unsafe.Pointer(r)
}

func (t *Tree[K, T]) setLeaf(l *leaf[K, T], op *setOp[K, T]) (self, right *leaf[K, T]) {
	i, eq := t.find(l.keys[:l.n], op.key)
	l = t.ownLeaf(l)
	if eq {
		op.old, op.replaced = l.items[i], true
		op.delta = int(op.weight) - int(l.weights[i])
		l.keys[i], l.weights[i], l.items[i] = op.key, op.weight, op.item
		return l, nil
	}
	op.delta = int(op.weight)
	if l.n < leafMax {
		l.insert(i, op.key, op.weight, op.item)
		return l, nil
	}
	at := splitAt(i, leafMax, leafMin)
	r := &leaf[K, T]{epoch: t.epoch}
	r.append(l, at, l.n)
	l.truncate(at)
	if i > at {
		r.insert(i-at, op.key, op.weight, op.item)
	} else {
		l.insert(i, op.key, op.weight, op.item)
	}
	return l, r
}

// insertKid puts a child at i and answers the new right half if the node was
// full.
func (t *Tree[K, T]) insertKid(in *inner[K, T], i int, k K, sum int, kid unsafe.Pointer) *inner[K, T] {
	if in.n < innerMax {
		in.insert(i, k, sum, kid)
		return nil
	}
	at := splitAt(i, innerMax, innerMin)
	r := &inner[K, T]{epoch: t.epoch}
	r.append(in, at, in.n)
	in.truncate(at)
	if i > at {
		r.insert(i-at, k, sum, kid)
	} else {
		in.insert(i, k, sum, kid)
	}
	return r
}

// splitAt answers how many of the max entries of a full node stay in it when
// one more goes in at i. Halves as a rule; but whoever writes at the end of a
// node is likely to go on there (names that ascend with time), and then the
// left node should stay well filled.
func splitAt(i, max, min int) int {
	if i == max {
		return max - min
	}
	return max / 2
}

// growRoot puts a new root above the old one and its right half.
func (t *Tree[K, T]) growRoot(right unsafe.Pointer) {
	in := &inner[K, T]{epoch: t.epoch}
	for _, p := range []unsafe.Pointer{t.root, right} {
		in.insert(in.n, t.minKey(p, t.level), t.nodeWeight(p, t.level), p)
	}
	t.root = unsafe.Pointer(in)
	t.level++
}

// minKey answers the smallest key of a node that is not empty.
func (t *Tree[K, T]) minKey(p unsafe.Pointer, level int) K {
	if level == 0 {
		return asLeaf[K, T](p).keys[0]
	}
	return asInner[K, T](p).keys[0]
}

func (t *Tree[K, T]) nodeWeight(p unsafe.Pointer, level int) int {
	if level == 0 {
		return asLeaf[K, T](p).weight()
	}
	return asInner[K, T](p).weight()
}
