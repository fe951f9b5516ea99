package cowtree

import "unsafe"

// leaf holds items in the order of their keys. Keys and weights are repeated
// beside the items so that neither a search nor a sum visits an item.
type leaf[K, T any] struct {
	epoch   uint64
	n       int
	keys    [leafMax]K
	weights [leafMax]int32
	items   [leafMax]T
}

// inner holds children. A child is an *inner, or a *leaf when the node's level
// is 1; the level is known from the way down, never from the node.
type inner[K, T any] struct {
	epoch uint64
	n     int
	seps  *separators[K]
	sums  [innerMax]int // the weight of the child
	kids  [innerMax]unsafe.Pointer
}

// separators tell the children of an inner node apart: every key in child i is
// at or above key i, and every key in child i-1 is below it. Key 0 is not used.
// They stand aside because most writes change a child and its sum and leave the
// separators alone: a copied node shares them until a child comes or goes.
type separators[K any] struct {
	epoch uint64
	keys  [innerMax]K
}

func asLeaf[K, T any](p unsafe.Pointer) *leaf[K, T]   { return (*leaf[K, T])(p) }
func asInner[K, T any](p unsafe.Pointer) *inner[K, T] { return (*inner[K, T])(p) }

// ownLeaf answers a leaf that this epoch may change.
func (t *Tree[K, T]) ownLeaf(l *leaf[K, T]) *leaf[K, T] {
	if l.epoch == t.epoch {
		return l
	}
	c := new(leaf[K, T])
	*c = *l
	c.epoch = t.epoch
	return c
}

// ownInner answers an inner node that this epoch may change, its separators
// aside.
func (t *Tree[K, T]) ownInner(in *inner[K, T]) *inner[K, T] {
	if in.epoch == t.epoch {
		return in
	}
	c := new(inner[K, T])
	*c = *in
	c.epoch = t.epoch
	return c
}

// ownSeps lets this epoch change the separators of an owned node.
func (t *Tree[K, T]) ownSeps(in *inner[K, T]) {
	if in.seps.epoch == t.epoch {
		return
	}
	c := new(separators[K])
	*c = *in.seps
	c.epoch = t.epoch
	in.seps = c
}

func (t *Tree[K, T]) newLeaf() *leaf[K, T] { return &leaf[K, T]{epoch: t.epoch} }

func (t *Tree[K, T]) newInner() *inner[K, T] {
	return &inner[K, T]{epoch: t.epoch, seps: &separators[K]{epoch: t.epoch}}
}

func (l *leaf[K, T]) weight() int {
	sum := 0
	for _, w := range l.weights[:l.n] {
		sum += int(w)
	}
	return sum
}

func (in *inner[K, T]) weight() int {
	sum := 0
	for _, w := range in.sums[:in.n] {
		sum += w
	}
	return sum
}

// insert puts an item at i; the leaf is owned and has room.
func (l *leaf[K, T]) insert(i int, k K, w int32, item T) {
	copy(l.keys[i+1:l.n+1], l.keys[i:l.n])
	copy(l.weights[i+1:l.n+1], l.weights[i:l.n])
	copy(l.items[i+1:l.n+1], l.items[i:l.n])
	l.keys[i], l.weights[i], l.items[i] = k, w, item
	l.n++
}

// remove takes the item at i out; the leaf is owned.
func (l *leaf[K, T]) remove(i int) {
	copy(l.keys[i:l.n], l.keys[i+1:l.n])
	copy(l.weights[i:l.n], l.weights[i+1:l.n])
	copy(l.items[i:l.n], l.items[i+1:l.n])
	l.truncate(l.n - 1)
}

// truncate keeps the first n items and zeroes the slots behind them.
func (l *leaf[K, T]) truncate(n int) {
	clear(l.keys[n:l.n])
	clear(l.weights[n:l.n])
	clear(l.items[n:l.n])
	l.n = n
}

// append moves the items i to j of another leaf behind its own.
func (l *leaf[K, T]) append(from *leaf[K, T], i, j int) {
	copy(l.keys[l.n:], from.keys[i:j])
	copy(l.weights[l.n:], from.weights[i:j])
	copy(l.items[l.n:], from.items[i:j])
	l.n += j - i
}

// insert puts a child at i, which is not 0 unless the node is empty; the node
// and its separators are owned, and it has room.
func (in *inner[K, T]) insert(i int, sep K, sum int, kid unsafe.Pointer) {
	keys := &in.seps.keys
	copy(keys[i+1:in.n+1], keys[i:in.n])
	copy(in.sums[i+1:in.n+1], in.sums[i:in.n])
	copy(in.kids[i+1:in.n+1], in.kids[i:in.n])
	if i > 0 {
		keys[i] = sep
	}
	in.sums[i], in.kids[i] = sum, kid
	in.n++
}

// remove takes the child at i, which is not 0, out; the node and its separators
// are owned.
func (in *inner[K, T]) remove(i int) {
	keys := &in.seps.keys
	copy(keys[i:in.n], keys[i+1:in.n])
	copy(in.sums[i:in.n], in.sums[i+1:in.n])
	copy(in.kids[i:in.n], in.kids[i+1:in.n])
	in.truncate(in.n - 1)
}

// truncate keeps the first n children and zeroes the slots behind them; the
// node and its separators are owned.
func (in *inner[K, T]) truncate(n int) {
	clear(in.seps.keys[n:in.n])
	clear(in.sums[n:in.n])
	clear(in.kids[n:in.n])
	in.n = n
}

// append moves the children i to j of another node behind its own; sep is the
// separator in front of the first of them. The node and its separators are
// owned.
func (in *inner[K, T]) append(from *inner[K, T], i, j int, sep K) {
	copy(in.seps.keys[in.n:], from.seps.keys[i:j])
	if in.n > 0 {
		in.seps.keys[in.n] = sep
	} else {
		clear(in.seps.keys[:1])
	}
	copy(in.sums[in.n:], from.sums[i:j])
	copy(in.kids[in.n:], from.kids[i:j])
	in.n += j - i
}
