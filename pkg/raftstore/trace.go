package raftstore

import (
	"sync"
	"time"
)

// Trace is what one command has waited for. ProposeTo fills it in while it waits, if Config.Trace says that there may be some; whoever
// asked for it reads it once ProposeTo has answered. A command that timed out, or was refused before the log, leaves it empty.
type Trace struct {
	Index, Term uint64 // of the entry
	// Fsync is the fsync of this member's log that the entry was in. Raft has an entry applied only where it is durable, so it has
	// ended before Apply begins. Empty if the entry was applied long after it was written.
	Fsync TracedBatch
	// Apply is from the first entry of the batch to the View that shows all of it (I4).
	Apply TracedBatch
}

// TracedBatch is something that was done for several entries at once.
type TracedBatch struct {
	Began, Ended time.Time
	Entries      int
}

// syncedMax is how many fsyncs are remembered for entries that are not applied yet.
const syncedMax = 1024

// syncs remembers which fsync an entry was in. A nil one remembers nothing, as there are no traces.
type syncs struct {
	mu   sync.Mutex
	ring [syncedMax]synced
	next int
}

type synced struct {
	first, last uint64
	TracedBatch
}

// begin is the time, if anybody wants to know.
func (s *syncs) begin() time.Time {
	if s == nil {
		return time.Time{}
	}
	return time.Now()
}

// add takes an fsync that has ended, of entries first to last; first 0: there were none.
func (s *syncs) add(first, last uint64, began time.Time) {
	if s == nil || first == 0 {
		return
	}
	ended := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ring[s.next] = synced{first, last, TracedBatch{Began: began, Ended: ended, Entries: int(last - first + 1)}}
	s.next = (s.next + 1) % syncedMax
}

// of is the last fsync that the entry was in.
func (s *syncs) of(index uint64) TracedBatch {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range syncedMax {
		r := &s.ring[(s.next+syncedMax-1-i)%syncedMax]
		if r.first <= index && index <= r.last {
			return r.TracedBatch
		}
		if r.first == 0 {
			break
		}
	}
	return TracedBatch{}
}

// trace fills in the traces of the waiters of a batch that was published.
func (a *applier) trace(applied TracedBatch, index func(i int) (index, term uint64)) {
	for i, w := range a.waiting {
		if w == nil || w.trace == nil {
			continue
		}
		t := w.trace
		t.Index, t.Term = index(i)
		t.Fsync, t.Apply = a.s.syncs.of(t.Index), applied
	}
}
