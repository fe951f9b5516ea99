package watchcache

import (
	"sync/atomic"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

type counters struct {
	streams, watchers, slow, pending atomic.Int64
	events                           atomic.Uint64
}

// Stats is what the hub can say about itself.
type Stats struct {
	Streams  int64
	Watchers int64
	Slow     int64  // watchers behind since their creation, or out of the window
	Events   uint64 // events given to clients, once per watcher
	Pending  int64  // events handed to a stream's sender and not yet sent

	WindowFrom   mvcc.Revision // the log holds every event from here on
	WindowEvents int
	WindowBytes  int64

	// Topics are the resource prefixes which somebody watches. Watchers of wider
	// ranges, and of keys outside of any, are in Root.
	Topics []TopicStats
	Root   int64
}

// TopicStats is one resource prefix.
type TopicStats struct {
	Prefix   string // "/registry/pods/"
	Watchers int
	Events   uint64 // events that came while it was watched
}

// Stats returns the state of now. It costs O(topics).
func (h *Hub) Stats() Stats {
	c := &h.counts
	st := Stats{
		Streams: c.streams.Load(), Watchers: c.watchers.Load(), Slow: c.slow.Load(),
		Events: c.events.Load(), Pending: c.pending.Load(),
	}
	h.mu.Lock()
	st.Root = st.Watchers
	st.Topics = make([]TopicStats, 0, len(h.topics))
	for _, t := range h.topics {
		st.Topics = append(st.Topics, TopicStats{t.prefix, t.watchers, t.events})
		st.Root -= int64(t.watchers)
	}
	h.logMu.RLock()
	st.WindowFrom, st.WindowEvents, st.WindowBytes = h.windowFrom, h.log.n, h.logBytes
	h.logMu.RUnlock()
	h.mu.Unlock()
	return st
}
