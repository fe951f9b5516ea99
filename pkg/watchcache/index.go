package watchcache

import (
	"bytes"
	"sync"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// group is the set of watchers which match exactly the same keys.
type group struct {
	start string
	end   string // meaningful unless single
	kind  groupKind

	refs      int           // watchers that are or will be in it; guarded by Hub.mu
	dirtyFrom mvcc.Revision // first and last revision routed to it since the notifier
	dirtyTo   mvcc.Revision // last took it; 0: clean. Guarded by Hub.mu

	mu       sync.Mutex
	watchers []*watcher // guarded by mu
}

type groupKind uint8

const (
	groupSingle groupKind = iota // start is the key
	groupPrefix                  // start ends in '/', end is start with '0' there
	groupRange                   // anything else; an empty end is no bound
)

// add puts w into g. w must not be in a group.
func (g *group) add(w *watcher) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w.slot = len(g.watchers)
	g.watchers = append(g.watchers, w)
}

func (g *group) remove(w *watcher) {
	g.mu.Lock()
	defer g.mu.Unlock()
	last := len(g.watchers) - 1
	g.watchers[w.slot] = g.watchers[last]
	g.watchers[w.slot].slot = w.slot
	g.watchers[last] = nil
	g.watchers = g.watchers[:last]
}

// index finds the groups an event concerns: by hash for single keys and for
// prefixes that end in '/', by interval for the rest. Guarded by Hub.mu.
type index struct {
	single map[string]*group
	prefix map[string]*group
	odd    intervals
}

func kindOf(key, end []byte) groupKind {
	n := len(key) - 1
	switch {
	case end == nil:
		return groupSingle
	case len(end) == len(key) && key[n] == '/' && end[n] == '0' && bytes.Equal(key[:n], end[:n]) &&
		bytes.Count(key, slash) <= prefixSlashesMax:
		return groupPrefix
	}
	return groupRange
}

var slash = []byte{'/'}

// group returns the group of the range, made if it is not there.
func (x *index) group(key, end []byte) *group {
	kind := kindOf(key, end)
	switch kind {
	case groupSingle:
		if g := x.single[string(key)]; g != nil {
			return g
		}
	case groupPrefix:
		if g := x.prefix[string(key)]; g != nil {
			return g
		}
	case groupRange:
		if g := x.odd.find(string(key), string(end)); g != nil {
			return g
		}
	}
	g := &group{start: string(key), end: string(end), kind: kind}
	switch kind {
	case groupSingle:
		if x.single == nil {
			x.single = make(map[string]*group)
		}
		x.single[g.start] = g
	case groupPrefix:
		if x.prefix == nil {
			x.prefix = make(map[string]*group)
		}
		x.prefix[g.start] = g
	case groupRange:
		x.odd.insert(g)
	}
	return g
}

func (x *index) remove(g *group) {
	switch g.kind {
	case groupSingle:
		delete(x.single, g.start)
	case groupPrefix:
		delete(x.prefix, g.start)
	case groupRange:
		x.odd.remove(g)
	}
}

// match calls fn for each group that key belongs to. base is the length of the
// shortest prefix worth a look (a topic's own), at least 1.
func (x *index) match(key []byte, base int, fn func(*group)) {
	if g := x.single[string(key)]; g != nil {
		fn(g)
	}
	if len(x.prefix) > 0 {
		i := base - 1
		for range prefixSlashesMax + 1 {
			if i >= len(key) {
				break
			}
			j := bytes.IndexByte(key[i:], '/')
			if j < 0 {
				break
			}
			i += j + 1
			if g := x.prefix[string(key[:i])]; g != nil {
				fn(g)
			}
		}
	}
	x.odd.stab(key, fn)
}
