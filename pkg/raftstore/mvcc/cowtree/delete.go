package cowtree

import "unsafe"

// deleteOp is one Delete on its way down and up again.
type deleteOp[K, T any] struct {
	key    K
	old    T
	found  bool
	weight int32
}

// Delete takes the item with the key out and answers it. A key that is not
// there changes nothing, and copies nothing. O(log n).
func (t *Tree[K, T]) Delete(k K) (old T, ok bool) {
	t.mustOwn("Delete")
	op := deleteOp[K, T]{key: k}
	root := t.del(t.root, t.level, &op)
	if !op.found {
		return old, false
	}
	t.root = root
	for t.level > 0 {
		in := asInner[K, T](t.root)
		if in.n > 1 {
			break
		}
		t.root = in.kids[0]
		t.level--
	}
	t.len--
	t.weight -= int(op.weight)
	return op.old, true
}

// del answers the node that takes p's place; it may be below the minimum,
// which its parent puts right.
func (t *Tree[K, T]) del(p unsafe.Pointer, level int, op *deleteOp[K, T]) unsafe.Pointer {
	if level == 0 {
		l := asLeaf[K, T](p)
		i, eq := t.find(l.keys[:l.n], op.key)
		if !eq {
			return p
		}
		l = t.ownLeaf(l)
		op.old, op.weight, op.found = l.items[i], l.weights[i], true
		l.remove(i)
		return unsafe.Pointer(l)
	}
	in := asInner[K, T](p)
	i := t.childFor(in, op.key)
	kid := t.del(in.kids[i], level-1, op)
	if !op.found {
		return p
	}
	in = t.ownInner(in)
	in.kids[i] = kid
	in.keys[i] = t.minKey(kid, level-1)
	in.sums[i] -= int(op.weight)
	if level == 1 {
		if asLeaf[K, T](kid).n < leafMin {
			t.fillLeaf(in, max(i-1, 0))
		}
	} else if asInner[K, T](kid).n < innerMin {
		t.fillInner(in, max(i-1, 0))
	}
	return unsafe.Pointer(in)
}

// fillLeaf puts right the leaves i and i+1 of an owned parent, of which one is
// too small: together in one if they fit, else half and half.
func (t *Tree[K, T]) fillLeaf(in *inner[K, T], i int) {
	a, b := asLeaf[K, T](in.kids[i]), asLeaf[K, T](in.kids[i+1])
	a = t.ownLeaf(a)
	in.kids[i] = unsafe.Pointer(a)
	if a.n+b.n <= leafMax {
		a.append(b, 0, b.n)
		in.sums[i] += in.sums[i+1]
		in.remove(i + 1)
		return
	}
	half := (a.n + b.n) / 2
	r := &leaf[K, T]{epoch: t.epoch}
	if a.n > half {
		r.append(a, half, a.n)
		r.append(b, 0, b.n)
		a.truncate(half)
	} else {
		move := half - a.n
		a.append(b, 0, move)
		r.append(b, move, b.n)
	}
	in.kids[i+1] = unsafe.Pointer(r)
	in.keys[i+1] = r.keys[0]
	in.sums[i], in.sums[i+1] = a.weight(), r.weight()
}

// fillInner does for inner nodes what fillLeaf does for leaves.
func (t *Tree[K, T]) fillInner(in *inner[K, T], i int) {
	a, b := asInner[K, T](in.kids[i]), asInner[K, T](in.kids[i+1])
	a = t.ownInner(a)
	in.kids[i] = unsafe.Pointer(a)
	if a.n+b.n <= innerMax {
		a.append(b, 0, b.n)
		in.sums[i] += in.sums[i+1]
		in.remove(i + 1)
		return
	}
	half := (a.n + b.n) / 2
	r := &inner[K, T]{epoch: t.epoch}
	if a.n > half {
		r.append(a, half, a.n)
		r.append(b, 0, b.n)
		a.truncate(half)
	} else {
		move := half - a.n
		a.append(b, 0, move)
		r.append(b, move, b.n)
	}
	in.kids[i+1] = unsafe.Pointer(r)
	in.keys[i+1] = r.keys[0]
	in.sums[i], in.sums[i+1] = a.weight(), r.weight()
}
