package watchcache

import (
	"errors"
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
	err         error         // the store cannot read what it holds: the stream ends
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

	h.frame(w, r)
	clear(r.events)
}

// frame makes the frames of the events found in the window. A previous version
// that has left memory, and that compaction has removed since, is left out, as
// etcd does.
func (h *Hub) frame(w *watcher, r *readout) {
	rows := &mvcc.LazyReader{Begin: h.rows}
	defer rows.Close()
	for _, e := range r.events {
		f, err := e.frame(w.prevKV && e.mod >= w.prevFrom, rows)
		if errors.Is(err, mvcc.ErrRowGone) && e.mod <= h.env.View().Compacted() {
			f, err = e.frame(false, rows)
		}
		if err != nil {
			r.err = err
			return
		}
		r.frames = append(r.frames, f)
	}
}

// rows begins to read what has left memory, as of now.
func (h *Hub) rows() (mvcc.RowReader, error) {
	for {
		r, err := h.env.View().Rows(0)
		if !errors.Is(err, mvcc.ErrOvertaken) {
			return r, err
		}
		runtime.Gosched() // a compaction is applied and not published yet
	}
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
			size += e.prev.Len()
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
	rows := &mvcc.LazyReader{Begin: func() (mvcc.RowReader, error) { return v.Rows(next) }}
	defer rows.Close()
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
		var kv, prev []byte
		if kv, r.err = ev.Version.Encoding().Read(rows); r.err == nil && w.prevKV && ev.Prev != nil {
			prev, r.err = ev.Prev.Encoding().Read(rows)
		}
		if r.err != nil {
			return false
		}
		f := appendFrame(nil, ev.Version.Tombstone(), kv, prev)
		r.took(mod, len(f))
		r.frames = append(r.frames, f)
		return true
	})
	if err == nil && !errors.Is(r.err, mvcc.ErrOvertaken) {
		return
	}
	r.err = nil
	r.frames, r.next = r.frames[:0], next
	if c := h.env.View().Compacted(); next < c {
		r.compactedAt = c
		return
	}
	// The compaction is applied and not published yet: which revision to name the
	// next turn will know.
	runtime.Gosched()
}
