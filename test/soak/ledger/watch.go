package ledger

import (
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// event is one line of the log.
type event struct {
	item    // of a deletion only mod
	key     keyID
	deleted bool
	prev    uint64 // hash of the version before, found by Judge
}

// Witness keeps all that a watch of everything was told.
type Witness struct {
	l    *Ledger
	log  []event
	at   []time.Time // when revision 2+i came
	last atomic.Int64
}

// Witness is the ledger's.
func (l *Ledger) Witness() *Witness {
	l.witness.l = l
	if l.witness.last.Load() == 0 {
		l.witness.last.Store(1) // an empty store's
	}
	return &l.witness
}

// Last is the newest revision that was seen. A stream that breaks goes on
// behind it.
func (w *Witness) Last() int64 { return w.last.Load() }

// Take is given the events of a response.
func (w *Witness) Take(events []*mvccpb.Event, at time.Time) {
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	before := w.Last() // all of a revision come in one response
	for _, e := range events {
		last, rev := w.last.Load(), e.Kv.ModRevision
		switch {
		case rev == last+1:
			w.at = append(w.at, at)
		case rev != last || rev == before:
			w.l.problem("the log has revision %d behind %d", rev, last)
			return
		}
		w.last.Store(rev)
		ev := event{item: itemOf(e.Kv), key: w.l.id(string(e.Kv.Key)), deleted: e.Type == mvccpb.Event_DELETE}
		if ev.deleted {
			ev.value = 0
		}
		w.log = append(w.log, ev)
	}
}

// Follower is a watch of a prefix. Its fields but the last are what a process of
// its own tells.
type Follower struct {
	Name   string `json:"name"`
	Prefix string `json:"prefix"`
	From   int64  `json:"from"` // the first revision that it asked for
	Prev   bool   `json:"prev"` // it asked for the versions before
	// Last is the revision of its last event.
	Last int64 `json:"last"`
	// Compacted: it was told that what it lacks was compacted up to here.
	Compacted int64     `json:"compacted,omitempty"`
	Promises  []Promise `json:"promises,omitempty"`
	Problems  []string  `json:"problems,omitempty"`
	stream
}

// Promise is a progress notification: all events up to Revision were sent.
type Promise struct {
	Revision int64 `json:"revision"`
	Events   int64 `json:"events"` // that had come before it
}

// Next is where it goes on when its stream breaks.
func (f *Follower) Next() int64 {
	next := max(f.From, f.Last+1)
	if n := len(f.Promises); n > 0 {
		next = max(next, f.Promises[n-1].Revision+1)
	}
	return next
}

// Add takes up the events of a response.
func (f *Follower) Take(events []*mvccpb.Event) {
	for _, e := range events {
		key := string(e.Kv.Key)
		it, deleted := itemOf(e.Kv), e.Type == mvccpb.Event_DELETE
		if deleted {
			it.value = 0
		}
		var prev uint64
		if f.Prev && e.PrevKv != nil {
			prev = itemOf(e.PrevKv).sum(key)
		}
		f.stream.add(eventSum(deleted, it.sum(key), prev))
		f.Last = e.Kv.ModRevision
	}
}

// Promised is given the revision of a progress notification.
func (f *Follower) Promised(rev int64) {
	if n := len(f.Promises); n > 0 && f.Promises[n-1].Revision == rev {
		return
	}
	f.Promises = append(f.Promises, Promise{rev, f.Events})
}

// Follow has Judge look at a watch; of a live one when it has ended.
func (l *Ledger) Follow(f *Follower) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.followers = append(l.followers, f)
}
