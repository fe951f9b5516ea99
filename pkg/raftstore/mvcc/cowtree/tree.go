package cowtree

import (
	"bytes"
	"fmt"
	"math"
	"unsafe"
)

// Tree is an ordered map of items. See the package comment for who may do what
// with it.
type Tree[K, T any] struct {
	cmp    func(a, b K) int
	keyOf  func(T) K
	weigh  func(T) int
	clone  func(K) K      // of a key that becomes a separator; nil: itself
	root   unsafe.Pointer // *leaf at level 0, else *inner
	level  int            // of the root; leaves are at 0
	epoch  uint64
	len    int
	weight int
	frozen bool
}

// New answers an empty tree. cmp orders the keys (negative, zero, positive);
// key answers the key of an item, which may alias the item's memory and must
// not change while the item is in the tree; weight answers what the item adds
// to the sums, between 0 and 1<<31-1, and must not change either.
func New[K, T any](cmp func(a, b K) int, key func(T) K, weight func(T) int) *Tree[K, T] {
	t := &Tree[K, T]{cmp: cmp, keyOf: key, weigh: weight, root: unsafe.Pointer(new(leaf[K, T]))}
	if clone, ok := any(cloneBytes).(func(K) K); ok {
		t.clone = clone
	}
	return t
}

// cloneBytes copies the keys of trees whose keys are byte slices.
var cloneBytes = bytes.Clone

// separator answers what keeps a key as a separator without its item.
func (t *Tree[K, T]) separator(k K) K {
	if t.clone == nil {
		return k
	}
	return t.clone(k)
}

// Snapshot answers a frozen copy in O(1). Writes to the original do not show
// in it; writes to the copy panic. The snapshot of a snapshot is itself.
func (t *Tree[K, T]) Snapshot() *Tree[K, T] {
	if t.frozen {
		return t
	}
	c := *t
	c.frozen = true
	t.epoch++
	return &c
}

// Len answers the number of items. O(1).
func (t *Tree[K, T]) Len() int { return t.len }

// Weight answers the sum of the weights of all items. O(1).
func (t *Tree[K, T]) Weight() int { return t.weight }

// Get answers the item with the key. O(log n), no allocation.
func (t *Tree[K, T]) Get(k K) (item T, ok bool) {
	p := t.root
	for level := t.level; level > 0; level-- {
		in := asInner[K, T](p)
		p = in.kids[t.childFor(in, k)]
	}
	l := asLeaf[K, T](p)
	i, eq := t.find(l.keys[:l.n], k)
	if !eq {
		return item, false
	}
	return l.items[i], true
}

// WeightBefore answers the sum of the weights of the items with a key below k.
// O(log n), no allocation. The weight of [a, b) is WeightBefore(b) -
// WeightBefore(a).
func (t *Tree[K, T]) WeightBefore(k K) int {
	sum := 0
	p := t.root
	for level := t.level; level > 0; level-- {
		in := asInner[K, T](p)
		i := t.childFor(in, k)
		for _, w := range in.sums[:i] {
			sum += w
		}
		p = in.kids[i]
	}
	l := asLeaf[K, T](p)
	i, _ := t.find(l.keys[:l.n], k)
	for _, w := range l.weights[:i] {
		sum += int(w)
	}
	return sum
}

// find answers the first index whose key is not below k, and whether it is k.
func (t *Tree[K, T]) find(keys []K, k K) (int, bool) {
	cmp := t.cmp
	lo, hi := 0, len(keys)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		c := cmp(keys[mid], k)
		if c == 0 {
			return mid, true
		}
		if c < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, false
}

// childFor answers the child in which k is, or would be put: the last one
// whose separator is not above k, or the first.
func (t *Tree[K, T]) childFor(in *inner[K, T], k K) int {
	i, eq := t.find(in.seps.keys[1:in.n], k)
	if eq {
		return i + 1
	}
	return i
}

func (t *Tree[K, T]) weightOf(item T) int32 {
	w := t.weigh(item)
	if w < 0 || w > math.MaxInt32 {
		panic(fmt.Sprintf("cowtree: weight %d is not within [0, %d]", w, math.MaxInt32))
	}
	return int32(w)
}

func (t *Tree[K, T]) mustOwn(what string) {
	if t.frozen {
		panic("cowtree: " + what + " on a snapshot")
	}
}
