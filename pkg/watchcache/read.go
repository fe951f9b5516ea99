package watchcache

import (
	"runtime"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// readout is what one read of a watcher gave. A stream reuses its one.
type readout struct {
	events []*event // found in the window; cleared before the read returns
	frames [][]byte

	bytes       int
	revs        int
	last        mvcc.Revision // revision of the last frame
	scanned     int
	at          mvcc.Revision // revision being scanned
	next        mvcc.Revision // where the cursor stands afterwards
	end         bool          // there was nothing after it
	history     bool          // read outside the window
	compactedAt mvcc.Revision // the cursor is below it: the watch is over
}

func (r *readout) reset() {
	clear(r.frames)
	*r = readout{events: r.events[:0], frames: r.frames[:0]}
}

// full says, before the first event of revision mod is taken, whether it belongs
// to the next batch.
func (r *readout) full(mod mvcc.Revision, bytesMax int) bool {
	if mod == r.at {
		return false
	}
	r.at = mod
	return r.scanned >= scanEventsMax || r.revs >= batchRevisionsMax || r.bytes >= bytesMax
}

func (r *readout) took(mod mvcc.Revision, bytes int) {
	if mod != r.last {
		r.last = mod
		r.revs++
	}
	r.bytes += bytes
}

// read collects the events w wants in [next, limit] from wherever they are: the
// topic's log, the hub's log, or the history of the store. It takes whole
// revisions, and a bounded number of them.
func (h *Hub) read(w *watcher, next, limit mvcc.Revision, r *readout) {
	r.reset()
	h.logMu.RLock()
	windowFrom := h.windowFrom
	if next < windowFrom {
		h.logMu.RUnlock()
		h.readHistory(w, next, min(windowFrom, limit+1), r)
		return
	}
	log := &h.log
	if t := w.topic; t != nil && next >= t.start {
		log = &t.log
	}
	h.readLog(w, log, next, limit, r)
	h.logMu.RUnlock()

	for _, e := range r.events {
		r.frames = append(r.frames, e.frame(w.prevKV && e.mod >= w.prevFrom))
	}
	clear(r.events)
}

// readLog collects from a log that has every event of w from next on. Caller holds
// logMu.
func (h *Hub) readLog(w *watcher, log *eventLog, next, limit mvcc.Revision, r *readout) {
	for i := log.search(next); i < log.n; i++ {
		e := log.at(i)
		if e.mod > limit {
			r.next = limit + 1
			return
		}
		if r.full(e.mod, h.opts.BatchBytes) {
			r.next = e.mod
			return
		}
		r.scanned++
		if !w.wants(e.key, e.tombstone) {
			continue
		}
		size := len(e.kv)
		if w.prevKV {
			size += len(e.prev)
		}
		r.took(e.mod, size)
		r.events = append(r.events, e)
	}
	r.next, r.end = max(next, h.Revision()+1), true
}

// readHistory collects from the store, in [next, to). A compaction that comes
// meanwhile makes what was read worthless if next is below it.
func (h *Hub) readHistory(w *watcher, next, to mvcc.Revision, r *readout) {
	r.history = true
	v := h.env.View()
	if next < v.Compacted() {
		r.compactedAt = v.Compacted()
		return
	}
	r.next = to
	err := v.History(next, to, func(ev mvcc.Event) bool {
		mod := ev.Version.Mod()
		if r.full(mod, h.opts.BatchBytes) {
			r.next = mod
			return false
		}
		r.scanned++
		if !w.wants(ev.Version.Key(), ev.Version.Tombstone()) {
			return true
		}
		var prev []byte
		if w.prevKV && ev.Prev != nil {
			prev = ev.Prev.KV()
		}
		f := appendFrame(nil, ev.Version.Tombstone(), ev.Version.KV(), prev)
		r.took(mod, len(f))
		r.frames = append(r.frames, f)
		return true
	})
	if err == nil {
		return
	}
	r.frames, r.next = r.frames[:0], next
	if c := h.env.View().Compacted(); next < c {
		r.compactedAt = c
		return
	}
	// The compaction is applied and not published yet: which revision to name the
	// next turn will know.
	runtime.Gosched()
}
