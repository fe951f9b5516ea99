package watchcache

import (
	"maps"
	"slices"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// progressRequest asks for a promise up to a revision, behind so many answers: the
// client has to know by then of the watches that it is about.
type progressRequest struct {
	rev     mvcc.Revision
	answers uint64
}

// RequestProgress asks for a promise about all watches of the stream. It comes out
// of Next as BatchProgress with NoWatchID and the revision that was current at the
// request, once all events up to it did: at once when there are none. etcd answers
// only if every watch happens to be synced, and drops the request otherwise; here
// it waits its turn. Dropped, as in etcd, are requests on a stream which has no
// watch, or a watch that starts after the current revision, or one that was
// compacted and not yet cancelled.
func (s *Stream) RequestProgress() {
	s.mu.Lock()
	rev := s.hub.Revision()
	s.trimFuture(rev)
	if s.closed || len(s.watchers) == 0 || s.compacted > 0 || len(s.future) > 0 {
		s.mu.Unlock()
		return
	}
	r := progressRequest{rev, s.answers}
	if n := len(s.progress); n == progressQueueMax {
		s.progress[n-1] = r
	} else {
		s.progress = append(s.progress, r)
	}
	s.mu.Unlock()
	s.signal()
}

// trimFuture forgets the watches whose start revision has come. Caller holds mu.
func (s *Stream) trimFuture(rev mvcc.Revision) {
	if rev == s.futureRev {
		return
	}
	s.futureRev = rev
	maps.DeleteFunc(s.future, func(w *watcher, _ struct{}) bool { return w.first <= rev })
}

// Tick is called once per progress interval: each watch that asked for progress
// notifications and had no event since the last one is owed a notification. It
// returns false once the stream is closed.
func (s *Stream) Tick() bool {
	s.mu.Lock()
	if s.due.len() == 0 {
		for _, id := range slices.Sorted(maps.Keys(s.watchers)) {
			w := s.watchers[id]
			if !w.progress {
				continue
			}
			if w.due && w.state == stateIdle {
				s.due.push(w)
			}
			w.due = true
		}
	}
	some, open := s.due.len() > 0, !s.closed
	s.mu.Unlock()
	if some {
		s.signal()
	}
	return open
}

// notification returns the next one owed by Tick. A watch that is no longer idle
// will show its progress by events. Caller holds mu.
func (s *Stream) notification() (Batch, bool) {
	rev := s.hub.notifiedRev()
	for s.due.len() > 0 {
		w := s.due.pop()
		// While idle it was woken for nothing up to rev which it has not passed.
		if w.state == stateIdle && w.first <= rev && w.last <= rev {
			return Batch{Kind: BatchProgress, WatchID: w.id, Revision: rev}, true
		}
	}
	return Batch{}, false
}

// progressReady says whether the oldest progress request can be answered: nothing
// is queued at or below its revision, nor an answer from before it, and the notifier
// is past it. One that is moot by now is dropped. It is called when ready is empty.
// Caller holds mu; await is the revision to await with
// Hub.awaitNotified after releasing it, 0 for none.
func (s *Stream) progressReady() (b Batch, ok bool, await mvcc.Revision) {
	if len(s.progress) == 0 || s.answers-uint64(s.control.len()) < s.progress[0].answers {
		return Batch{}, false, 0
	}
	target := s.progress[0].rev
	if s.hub.notifiedRev() < target {
		return Batch{}, false, target
	}
	s.progress = append(s.progress[:0], s.progress[1:]...)
	s.releaseHeld()
	if s.compacted > 0 || len(s.watchers) == 0 {
		return Batch{}, false, 0
	}
	return Batch{Kind: BatchProgress, WatchID: NoWatchID, Revision: target}, true, 0
}

// releaseHeld queues again what waited for a progress answer. Caller holds mu.
func (s *Stream) releaseHeld() {
	for _, w := range s.held {
		s.ready.push(w)
	}
	clear(s.held)
	s.held = s.held[:0]
}
