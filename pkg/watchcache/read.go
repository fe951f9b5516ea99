package watchcache

import (
	"errors"
	"runtime"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// readout is what one read of a watcher gave. A stream reuses its one.
type readout struct {
	events []*event // found in the window; cleared before the read returns
	frames []*Frame

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
	rows.ReadAhead(w.coldPrevious(r.events))
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

// coldPrevious is the previous versions that have left memory.
func (w *watcher) coldPrevious(events []*event) (rows []mvcc.RowAhead) {
	if !w.prevKV {
		return nil
	}
	for _, e := range events {
		if e.mod >= w.prevFrom {
			rows = e.prev.AppendAhead(rows)
		}
	}
	return rows
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

// pastEvent is an event that was found in the history.
type pastEvent struct {
	tombstone bool
	kv, prev  mvcc.Encoding
}

// framePast makes the frames of events of the history. What of them has left
// memory is read, and the disk is told of all of it first.
func (r *readout) framePast(events []pastEvent, begin func() (mvcc.RowReader, error)) {
	rows := &mvcc.LazyReader{Begin: begin}
	defer rows.Close()
	var cold []mvcc.RowAhead
	for _, e := range events {
		cold = e.prev.AppendAhead(e.kv.AppendAhead(cold))
	}
	rows.ReadAhead(cold)
	for _, e := range events {
		var kv, prev []byte
		if kv, r.err = e.kv.Read(rows); r.err == nil && !e.prev.IsZero() {
			prev, r.err = e.prev.Read(rows)
		}
		if r.err != nil {
			return
		}
		r.frames = append(r.frames, newFrame(e.tombstone, kv, prev))
	}
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
	var found []pastEvent
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
		p := pastEvent{tombstone: ev.Version.Tombstone(), kv: ev.Version.Encoding()}
		if w.prevKV && ev.Prev != nil {
			p.prev = ev.Prev.Encoding()
		}
		r.took(mod, p.kv.Len()+p.prev.Len())
		found = append(found, p)
		return true
	})
	if err == nil {
		r.framePast(found, func() (mvcc.RowReader, error) { return v.Rows(next) })
	}
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
