package cowtree

import "unsafe"

// step is an inner node on the way to a leaf, and the child taken there.
type step[K, T any] struct {
	in *inner[K, T]
	i  int
}

// path is the way from the root to a leaf; level 1 is at index 0.
type path[K, T any] [levelMax]step[K, T]

// descend answers the leaf that k belongs to, and fills in the way there.
func (t *Tree[K, T]) descend(k K, way *path[K, T]) *leaf[K, T] {
	p := t.root
	for level := t.level; level > 0; level-- {
		in := asInner[K, T](p)
		i := t.childFor(in, k)
		way[level-1] = step[K, T]{in, i}
		p = in.kids[i]
	}
	return asLeaf[K, T](p)
}

// Set puts the item in, in the place of the one with the same key if there is
// one, and answers that one. O(log n).
func (t *Tree[K, T]) Set(item T) (old T, replaced bool) {
	t.mustOwn("Set")
	k, w := t.keyOf(item), t.weightOf(item)
	var way path[K, T]
	l := t.descend(k, &way)
	i, eq := t.find(l.keys[:l.n], k)
	l = t.ownLeaf(l)
	delta := int(w)
	var right unsafe.Pointer
	var sep K
	if eq {
		old, replaced = l.items[i], true
		delta -= int(l.weights[i])
		l.keys[i], l.weights[i], l.items[i] = k, w, item
	} else {
		right, sep = t.insertItem(l, i, k, w, item)
		t.len++
	}
	t.weight += delta
	t.ascend(&way, unsafe.Pointer(l), right, sep, delta)
	return old, replaced
}

// ascend puts a changed node in the place of the old one, and the half split
// off it to its right, all the way up.
func (t *Tree[K, T]) ascend(way *path[K, T], self, right unsafe.Pointer, sep K, delta int) {
	for level := 1; level <= t.level; level++ {
		in, i := t.ownInner(way[level-1].in), way[level-1].i
		in.kids[i] = self
		in.sums[i] += delta
		if right != nil {
			w := t.nodeWeight(right, level-1)
			in.sums[i] -= w
			right, sep = t.insertKid(in, i+1, sep, w, right)
		}
		self = unsafe.Pointer(in)
	}
	t.root = self
	if right != nil {
		t.growRoot(right, sep)
	}
}

// insertItem puts an item at i. If the leaf was full it answers the new right
// half and what separates the two.
func (t *Tree[K, T]) insertItem(l *leaf[K, T], i int, k K, w int32, item T) (right unsafe.Pointer, sep K) {
	if l.n < leafMax {
		l.insert(i, k, w, item)
		return nil, sep
	}
	at := splitAt(i, leafMax, leafMin)
	r := t.newLeaf()
	r.append(l, at, l.n)
	l.truncate(at)
	if i > at {
		r.insert(i-at, k, w, item)
	} else {
		l.insert(i, k, w, item)
	}
	return unsafe.Pointer(r), t.separator(r.keys[0])
}

// insertKid puts a child at i, which is not 0. If the node was full it answers
// the new right half and what separates the two.
func (t *Tree[K, T]) insertKid(in *inner[K, T], i int, sep K, sum int, kid unsafe.Pointer) (right unsafe.Pointer, rsep K) {
	t.ownSeps(in)
	if in.n < innerMax {
		in.insert(i, sep, sum, kid)
		return nil, rsep
	}
	at := splitAt(i, innerMax, innerMin)
	rsep = in.seps.keys[at]
	r := t.newInner()
	r.append(in, at, in.n, rsep)
	in.truncate(at)
	if i > at {
		r.insert(i-at, sep, sum, kid)
	} else {
		in.insert(i, sep, sum, kid)
	}
	return unsafe.Pointer(r), rsep
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
func (t *Tree[K, T]) growRoot(right unsafe.Pointer, sep K) {
	in := t.newInner()
	in.insert(0, sep, t.nodeWeight(t.root, t.level), t.root)
	in.insert(1, sep, t.nodeWeight(right, t.level), right)
	t.root = unsafe.Pointer(in)
	t.level++
}

func (t *Tree[K, T]) nodeWeight(p unsafe.Pointer, level int) int {
	if level == 0 {
		return asLeaf[K, T](p).weight()
	}
	return asInner[K, T](p).weight()
}
