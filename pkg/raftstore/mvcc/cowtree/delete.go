package cowtree

import "unsafe"

// Delete takes the item with the key out and answers it. A key that is not
// there changes nothing, and copies nothing. O(log n).
func (t *Tree[K, T]) Delete(k K) (old T, ok bool) {
	t.mustOwn("Delete")
	var way path[K, T]
	l := t.descend(k, &way)
	i, ok := t.find(l.keys[:l.n], k)
	if !ok {
		return old, false
	}
	l = t.ownLeaf(l)
	old = l.items[i]
	w := int(l.weights[i])
	l.remove(i)

	self, small := unsafe.Pointer(l), l.n < leafMin
	for level := 1; level <= t.level; level++ {
		in, i := t.ownInner(way[level-1].in), way[level-1].i
		in.kids[i] = self
		in.sums[i] -= w
		if small {
			t.fill(in, max(i-1, 0), level-1)
		}
		self, small = unsafe.Pointer(in), in.n < innerMin
	}
	t.root = self
	for t.level > 0 && asInner[K, T](t.root).n == 1 {
		t.root = asInner[K, T](t.root).kids[0]
		t.level--
	}
	t.len--
	t.weight -= w
	return old, true
}

// fill puts right the children i and i+1, at the level, of an owned parent.
func (t *Tree[K, T]) fill(in *inner[K, T], i, level int) {
	if level == 0 {
		t.fillLeaf(in, i)
	} else {
		t.fillInner(in, i)
	}
}

// fillLeaf puts right the leaves i and i+1 of an owned parent, of which one is
// too small: together in one if they fit, else half and half.
func (t *Tree[K, T]) fillLeaf(in *inner[K, T], i int) {
	t.ownSeps(in)
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
	r := t.newLeaf()
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
	in.seps.keys[i+1] = t.separator(r.keys[0])
	in.sums[i], in.sums[i+1] = a.weight(), r.weight()
}

// fillInner does for inner nodes what fillLeaf does for leaves.
func (t *Tree[K, T]) fillInner(in *inner[K, T], i int) {
	t.ownSeps(in)
	a, b := asInner[K, T](in.kids[i]), asInner[K, T](in.kids[i+1])
	sep := in.seps.keys[i+1]
	a = t.ownInner(a)
	t.ownSeps(a)
	in.kids[i] = unsafe.Pointer(a)
	if a.n+b.n <= innerMax {
		a.append(b, 0, b.n, sep)
		in.sums[i] += in.sums[i+1]
		in.remove(i + 1)
		return
	}
	half := (a.n + b.n) / 2
	r := t.newInner()
	if a.n > half {
		in.seps.keys[i+1] = a.seps.keys[half]
		r.append(a, half, a.n, sep)
		r.append(b, 0, b.n, sep)
		a.truncate(half)
	} else {
		move := half - a.n
		in.seps.keys[i+1] = b.seps.keys[move]
		a.append(b, 0, move, sep)
		r.append(b, move, b.n, sep)
	}
	in.kids[i+1] = unsafe.Pointer(r)
	in.sums[i], in.sums[i+1] = a.weight(), r.weight()
}
