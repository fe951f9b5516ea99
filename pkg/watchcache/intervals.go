package watchcache

import "strings"

// intervals is a set of groups by their range: a treap ordered by (start, end)
// whose nodes know the largest end below them, so that the k ranges which hold a
// key are found in O(log n + k). Priorities are hashes of a counter: the shape
// needs no randomness from outside.
type intervals struct {
	root *ivNode
	made uint64
}

type ivNode struct {
	g           *group
	pri         uint64
	left, right *ivNode
	maxEnd      string
	unbounded   bool // some range below has no end; maxEnd is then meaningless
}

func (n *ivNode) update() {
	n.maxEnd, n.unbounded = n.g.end, n.g.end == ""
	for _, c := range [2]*ivNode{n.left, n.right} {
		if c == nil {
			continue
		}
		n.unbounded = n.unbounded || c.unbounded
		n.maxEnd = max(n.maxEnd, c.maxEnd)
	}
}

func compareRange(s1, e1, s2, e2 string) int {
	if c := strings.Compare(s1, s2); c != 0 {
		return c
	}
	return strings.Compare(e1, e2)
}

func (t *intervals) find(start, end string) *group {
	n := t.root
	for n != nil {
		c := compareRange(start, end, n.g.start, n.g.end)
		switch {
		case c == 0:
			return n.g
		case c < 0:
			n = n.left
		default:
			n = n.right
		}
	}
	return nil
}

// insert adds g; its range must not be there.
func (t *intervals) insert(g *group) {
	t.made++
	z := t.made * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	n := &ivNode{g: g, pri: z ^ z>>31}
	n.update()
	t.root = insertNode(t.root, n)
}

func insertNode(at, n *ivNode) *ivNode {
	if at == nil {
		return n
	}
	if n.pri > at.pri {
		n.left, n.right = split(at, n.g)
		n.update()
		return n
	}
	if compareRange(n.g.start, n.g.end, at.g.start, at.g.end) < 0 {
		at.left = insertNode(at.left, n)
	} else {
		at.right = insertNode(at.right, n)
	}
	at.update()
	return at
}

// split parts n into what is before and what is after g's range.
func split(n *ivNode, g *group) (l, r *ivNode) {
	if n == nil {
		return nil, nil
	}
	if compareRange(n.g.start, n.g.end, g.start, g.end) < 0 {
		n.right, r = split(n.right, g)
		n.update()
		return n, r
	}
	l, n.left = split(n.left, g)
	n.update()
	return l, n
}

// remove takes g out; it must be there.
func (t *intervals) remove(g *group) { t.root = removeNode(t.root, g) }

func removeNode(n *ivNode, g *group) *ivNode {
	c := compareRange(g.start, g.end, n.g.start, n.g.end)
	switch {
	case c == 0:
		return merge(n.left, n.right)
	case c < 0:
		n.left = removeNode(n.left, g)
	default:
		n.right = removeNode(n.right, g)
	}
	n.update()
	return n
}

func merge(l, r *ivNode) *ivNode {
	switch {
	case l == nil:
		return r
	case r == nil:
		return l
	case l.pri > r.pri:
		l.right = merge(l.right, r)
		l.update()
		return l
	}
	r.left = merge(l, r.left)
	r.update()
	return r
}

// stab calls fn for each range that holds key.
func (t *intervals) stab(key []byte, fn func(*group)) { stabNode(t.root, key, fn) }

func stabNode(n *ivNode, key []byte, fn func(*group)) {
	for n != nil {
		if !n.unbounded && n.maxEnd <= string(key) {
			return
		}
		if n.g.start > string(key) {
			n = n.left
			continue
		}
		if n.g.end == "" || n.g.end > string(key) {
			fn(n.g)
		}
		stabNode(n.left, key, fn)
		n = n.right
	}
}
