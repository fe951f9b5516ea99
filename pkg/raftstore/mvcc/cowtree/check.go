package cowtree

import (
	"fmt"
	"reflect"
	"unsafe"
)

// Check verifies every invariant of the package comment and answers the first
// one that does not hold. O(n); for tests and for the checker of a store.
func (t *Tree[K, T]) Check() error {
	c := checker[K, T]{t: t}
	weight, err := c.node(t.root, t.level, true)
	if err != nil {
		return err
	}
	if c.len != t.len {
		return fmt.Errorf("tree of %d items says %d", c.len, t.len)
	}
	if weight != t.weight {
		return fmt.Errorf("tree of weight %d says %d", weight, t.weight)
	}
	return nil
}

type checker[K, T any] struct {
	t    *Tree[K, T]
	len  int
	last K
}

func (c *checker[K, T]) node(p unsafe.Pointer, level int, root bool) (int, error) {
	if level == 0 {
		return c.leaf(asLeaf[K, T](p), root)
	}
	return c.inner(asInner[K, T](p), level, root)
}

func (c *checker[K, T]) leaf(l *leaf[K, T], root bool) (int, error) {
	if l.n > leafMax || (l.n < leafMin && !root) {
		return 0, fmt.Errorf("leaf of %d items is not within [%d, %d]", l.n, leafMin, leafMax)
	}
	if l.epoch > c.t.epoch {
		return 0, fmt.Errorf("leaf of epoch %d in a tree of epoch %d", l.epoch, c.t.epoch)
	}
	weight := 0
	for i := range l.n {
		k := c.t.keyOf(l.items[i])
		if c.t.cmp(k, l.keys[i]) != 0 {
			return 0, fmt.Errorf("slot of %v holds the item of %v", l.keys[i], k)
		}
		if w := c.t.weightOf(l.items[i]); w != l.weights[i] {
			return 0, fmt.Errorf("item %v of weight %d was set with %d", k, w, l.weights[i])
		}
		if c.len > 0 && c.t.cmp(c.last, k) >= 0 {
			return 0, fmt.Errorf("key %v does not follow %v", k, c.last)
		}
		c.last = k
		c.len++
		weight += int(l.weights[i])
	}
	if !allZero(l.keys[l.n:]) || !allZero(l.weights[l.n:]) || !allZero(l.items[l.n:]) {
		return 0, fmt.Errorf("leaf up to %v holds something behind its end", c.last)
	}
	return weight, nil
}

func (c *checker[K, T]) inner(in *inner[K, T], level int, root bool) (int, error) {
	least := innerMin
	if root {
		least = 2
	}
	if in.n > innerMax || in.n < least {
		return 0, fmt.Errorf("inner node of %d children is not within [%d, %d]", in.n, least, innerMax)
	}
	if in.epoch > c.t.epoch || in.seps.epoch > in.epoch {
		return 0, fmt.Errorf("inner node of epoch %d with separators of %d in a tree of %d", in.epoch, in.seps.epoch, c.t.epoch)
	}
	sum := 0
	for i := range in.n {
		k := c.t.minKey(in.kids[i], level-1)
		if sep := in.seps.keys[i]; i > 0 && (c.t.cmp(sep, k) > 0 || c.t.cmp(sep, c.last) <= 0) {
			return 0, fmt.Errorf("%v does not separate %v from %v", sep, c.last, k)
		}
		w, err := c.node(in.kids[i], level-1, false)
		if err != nil {
			return 0, err
		}
		if w != in.sums[i] {
			return 0, fmt.Errorf("child from %v of weight %d is filed with %d", k, w, in.sums[i])
		}
		sum += w
	}
	if !allZero(in.seps.keys[:1]) || !allZero(in.seps.keys[in.n:]) || !allZero(in.sums[in.n:]) || !allZero(in.kids[in.n:]) {
		return 0, fmt.Errorf("inner node up to %v holds something behind its end", c.last)
	}
	return sum, nil
}

func allZero[E any](s []E) bool {
	for i := range s {
		if !reflect.ValueOf(&s[i]).Elem().IsZero() {
			return false
		}
	}
	return true
}
