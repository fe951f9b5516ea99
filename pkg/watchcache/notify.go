package watchcache

import "github.com/kubeshim/shim/pkg/raftstore/mvcc"

// mark of a group as the notifier took it.
type marked struct {
	g        *group
	from, to mvcc.Revision
}

// startNotifier decides whether the caller has to start one. When nobody is
// concerned the notified revision moves at once. Caller holds mu.
func (h *Hub) startNotifier() bool {
	if h.notifying {
		return false
	}
	if len(h.dirty) == 0 && len(h.waiting) == 0 {
		h.notified.Store(h.rev.Load())
		return false
	}
	h.notifying = true
	return true
}

// notify wakes the watchers of marked groups until none is left, then ends. There
// is at most one at a time. What was appended while it worked it takes in one go,
// so a stream is woken at most once per pass.
func (h *Hub) notify() {
	var work []marked
	var waiting []*Stream
	for {
		h.mu.Lock()
		for s := range h.waiting {
			if s.progressTarget.Load() <= h.notified.Load() {
				waiting = append(waiting, s)
				delete(h.waiting, s)
			}
		}
		if len(h.dirty) == 0 && len(waiting) == 0 && h.notified.Load() == h.rev.Load() {
			h.notifying = false
			h.mu.Unlock()
			return
		}
		for _, g := range h.dirty {
			work = append(work, marked{g, g.dirtyFrom, g.dirtyTo})
			g.dirtyFrom, g.dirtyTo = 0, 0
		}
		clear(h.dirty)
		h.dirty = h.dirty[:0]
		rev := h.rev.Load()
		h.mu.Unlock()

		for _, m := range work {
			m.g.wake(m.from, m.to)
		}
		h.notified.Store(rev)
		for _, s := range waiting {
			s.signal()
		}
		clear(work)
		clear(waiting)
		work, waiting = work[:0], waiting[:0]
	}
}

// wake tells every watcher of g that it has events in [from, to].
func (g *group) wake(from, to mvcc.Revision) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.watchers {
		w.stream.wake(w, from, to)
	}
}

// awaitNotified has s signalled once every watcher was woken up to rev.
func (h *Hub) awaitNotified(s *Stream, rev mvcc.Revision) {
	h.mu.Lock()
	s.progressTarget.Store(int64(rev))
	h.waiting[s] = struct{}{}
	start := h.startNotifier()
	h.mu.Unlock()
	if start {
		go h.notify()
	}
}
