package watchcache

import (
	"bytes"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Create makes a watch. The answer comes out of Next as BatchCreated, before any
// event of the watch; refusals too. Key and RangeEnd are kept, not copied.
func (s *Stream) Create(req CreateRequest) {
	w := newWatcher(s, req)
	if err := w.check(req); err != nil {
		s.Refuse(err)
		return
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	if !s.takeID(w, req.ID) {
		s.mu.Unlock()
		s.Refuse(ErrDuplicateID)
		return
	}
	s.mu.Unlock()

	// From here on the watch is woken for new events. What is there already is read
	// by its first turn: it begins ready, whether there is anything or not.
	s.hub.register(w)
	compacted := s.hub.env.View().Compacted()
	rev := s.hub.Revision()

	s.mu.Lock()
	s.begin(w, rev, compacted)
	closed := s.closed
	s.mu.Unlock()
	if closed {
		s.hub.unregister(w)
		return
	}
	s.signal()
}

// begin places the cursor and answers. Caller holds mu.
func (s *Stream) begin(w *watcher, rev, compacted mvcc.Revision) {
	w.syncRev, w.prevFrom = rev, compacted+1
	w.next = w.first
	if w.first == 0 {
		w.next = rev + 1
	}
	s.pushControl(answer{Batch{Kind: BatchCreated, WatchID: w.id, Revision: rev}, w})
	if s.closed {
		return
	}
	w.state = stateMade
	if w.first > rev { // etcd counts the very next revision as the future too
		if s.future == nil {
			s.future = make(map[*watcher]struct{})
		}
		s.future[w] = struct{}{}
	}
	if w.next <= rev {
		s.setSlow(w, true)
		if w.next < compacted {
			w.doomed = compacted
		}
	}
}

func newWatcher(s *Stream, req CreateRequest) *watcher {
	w := &watcher{
		stream: s, key: req.Key, first: req.StartRevision,
		prevKV: req.PrevKV, fragment: req.Fragment, progress: req.ProgressNotify,
		noPut: req.NoPut, noDelete: req.NoDelete,
		due: req.ProgressNotify,
	}
	if len(w.key) == 0 {
		w.key = []byte{0}
	}
	switch {
	case len(req.RangeEnd) == 1 && req.RangeEnd[0] == 0:
		w.end = []byte{}
	case len(req.RangeEnd) > 0:
		w.end = req.RangeEnd
	}
	return w
}

func (w *watcher) check(req CreateRequest) error {
	if req.StartRevision < 0 {
		return mvcc.ErrCompacted
	}
	if len(w.end) > 0 && bytes.Compare(w.key, w.end) >= 0 {
		return ErrEmptyRange
	}
	return nil
}

// takeID gives w the ID asked for, or the next free one for 0. Caller holds mu.
func (s *Stream) takeID(w *watcher, id int64) bool {
	if id == 0 {
		for s.watchers[s.nextID] != nil {
			s.nextID++
		}
		id = s.nextID
		s.nextID++
	} else if s.watchers[id] != nil {
		return false
	}
	w.id = id
	s.watchers[id] = w
	return true
}

// Refuse answers a request for a watch that is not to be made, as Create answers
// those that cannot be.
func (s *Stream) Refuse(err error) {
	s.mu.Lock()
	s.pushControl(answer{batch: Batch{Kind: BatchCreated, WatchID: NoWatchID, Revision: s.hub.Revision(), Err: err}})
	s.mu.Unlock()
	s.signal()
}

// Cancel ends a watch. The answer comes out of Next; afterwards nothing of the
// watch does. An unknown ID is not answered, as etcd has it.
func (s *Stream) Cancel(id int64) {
	s.mu.Lock()
	w := s.watchers[id]
	if s.closed || w == nil {
		s.mu.Unlock()
		return
	}
	delete(s.watchers, id)
	delete(s.future, w)
	live := w.state != stateCompacted
	if !live {
		s.compacted--
	}
	s.setSlow(w, false)
	w.state = stateCancelled
	s.pushControl(answer{batch: Batch{Kind: BatchCancelled, WatchID: id, Revision: s.hub.Revision()}})
	s.mu.Unlock()

	if live {
		s.hub.unregister(w)
	}
	s.signal()
}
