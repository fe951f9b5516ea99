package watchcache

import (
	"sort"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// eventLog is a ring of events in revision order. The hub's log holds all events
// of the window; a topic's holds references to those below its prefix. All of
// them are guarded by Hub.logMu. A cursor is a revision, never a pointer into the
// ring: a slow one pins nothing.
type eventLog struct {
	ring []*event // length is a power of two
	head int
	n    int
}

func (l *eventLog) at(i int) *event { return l.ring[(l.head+i)&(len(l.ring)-1)] }

func (l *eventLog) push(e *event) {
	if l.n == len(l.ring) {
		l.resize(max(16, 2*len(l.ring)))
	}
	l.ring[(l.head+l.n)&(len(l.ring)-1)] = e
	l.n++
}

// pop drops the oldest event, and gives memory back when the ring is mostly empty.
func (l *eventLog) pop() {
	l.ring[l.head] = nil
	l.head = (l.head + 1) & (len(l.ring) - 1)
	l.n--
	if len(l.ring) > 64 && l.n < len(l.ring)/8 {
		l.resize(len(l.ring) / 2)
	}
}

func (l *eventLog) resize(size int) {
	ring := make([]*event, size)
	for i := range l.n {
		ring[i] = l.at(i)
	}
	l.ring, l.head = ring, 0
}

// search returns the position of the first event at or after rev. Most cursors
// are near the end, so it gallops backwards from there before it halves.
func (l *eventLog) search(rev mvcc.Revision) int {
	lo, step := l.n, 1
	for lo > 0 && l.at(lo-1).mod >= rev {
		lo = max(0, lo-step)
		step *= 2
	}
	hi := min(l.n, lo+step)
	return lo + sort.Search(hi-lo, func(i int) bool { return l.at(lo+i).mod >= rev })
}
