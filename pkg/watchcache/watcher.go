package watchcache

import (
	"bytes"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// watcher is a key range and a cursor. It holds no events.
type watcher struct {
	id     int64
	stream *Stream
	key    []byte
	end    []byte        // nil: the one key; empty: no bound
	first  mvcc.Revision // the start revision that was asked for; 0: after current

	prevKV, fragment, progress bool
	noPut, noDelete            bool

	// prevFrom is the first revision whose event may carry prev_kv from the window:
	// the one before it was readable when the watch was made. syncRev was current
	// then. Both are set once, under Stream.mu, before the watcher is first read.
	prevFrom, syncRev mvcc.Revision

	group *group // set once by register, before the watcher is reachable
	topic *topic // nil: reads the hub's log
	slot  int    // in group.watchers; guarded by group.mu

	// The rest is guarded by Stream.mu.
	state  watcherState
	next   mvcc.Revision // the first revision not yet delivered or passed over; stale while idle
	wakeTo mvcc.Revision // the last revision it was woken for
	last   mvcc.Revision // the last revision delivered
	doomed mvcc.Revision // it begins below this compacted revision: its first turn ends it
	slow   bool          // counted as slow: behind since its creation, or out of the window
	due    bool          // the next tick owes it a progress notification
}

type watcherState uint8

const (
	stateNew       watcherState = iota // being registered
	stateMade                          // its BatchCreated waits to be sent; it is not read before
	stateIdle                          // has passed everything it was woken for
	stateReady                         // queued: there may be events
	stateReading                       // the send loop is reading for it
	stateCompacted                     // told that it was compacted; its ID stays taken until it is cancelled
	stateCancelled
)

func (w *watcher) matches(key []byte) bool {
	switch {
	case w.end == nil:
		return bytes.Equal(key, w.key)
	case bytes.Compare(key, w.key) < 0:
		return false
	}
	return len(w.end) == 0 || bytes.Compare(key, w.end) < 0
}

// wants is matches and the filters.
func (w *watcher) wants(key []byte, tombstone bool) bool {
	if tombstone && w.noDelete || !tombstone && w.noPut {
		return false
	}
	return w.matches(key)
}

// register makes w reachable for the notifier. Afterwards every event appended
// later wakes it.
func (h *Hub) register(w *watcher) {
	h.mu.Lock()
	x := &h.root
	if n := topicOfRange(w.key, w.end); n > 0 {
		w.topic = h.topic(w.key[:n])
		x = &w.topic.index
	}
	g := x.group(w.key, w.end)
	g.refs++
	h.groups[g] = struct{}{}
	w.group = g
	h.mu.Unlock()

	g.add(w)
	h.counts.watchers.Add(1)
}

// topic returns the topic of prefix with one watcher more. Caller holds mu.
func (h *Hub) topic(prefix []byte) *topic {
	t := h.topics[string(prefix)]
	if t == nil {
		t = &topic{prefix: string(prefix)}
		h.logMu.Lock()
		t.start = h.Revision() + 1
		h.logMu.Unlock()
		h.topics[t.prefix] = t
	}
	t.watchers++
	return t
}

// unregister undoes register. No wake reaches w afterwards.
func (h *Hub) unregister(w *watcher) {
	w.group.remove(w)
	h.counts.watchers.Add(-1)

	h.mu.Lock()
	defer h.mu.Unlock()
	g, t := w.group, w.topic
	x := &h.root
	if t != nil {
		x = &t.index
	}
	if g.refs--; g.refs == 0 {
		x.remove(g)
		delete(h.groups, g)
	}
	if t == nil {
		return
	}
	if t.watchers--; t.watchers == 0 {
		delete(h.topics, t.prefix)
		h.logMu.Lock()
		t.dead, t.log = true, eventLog{}
		h.logMu.Unlock()
	}
}
