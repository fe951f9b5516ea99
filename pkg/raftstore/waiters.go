package raftstore

import (
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// waiter is a call that waits for its entry to be applied. Exactly one of apply, sweep, fail and the call itself takes it out of
// the table; who takes it out finishes it, or, if it is the call itself, nobody does.
type waiter struct {
	proposal // data and pool are the node's once it is queued
	request  *pb.InternalRaftRequest
	trace    *Trace        // nil: nobody wants one
	deadline int64         // by Store.since
	outcome  outcome       // of who took the waiter out until done has something, then the call's
	done     chan struct{} // capacity 1
}

type outcome struct {
	result mvcc.Result
	err    error
}

// finish hands the call its outcome.
func (w *waiter) finish(o outcome) {
	w.outcome = o
	w.done <- struct{}{}
}

// waiters are the calls in flight by request ID. Callers add, who applies takes a batch under one lock.
type waiters struct {
	pool sync.Pool // of *waiter

	mu   sync.Mutex
	byID map[uint64]*waiter
}

func newWaiters() *waiters {
	return &waiters{byID: make(map[uint64]*waiter), pool: sync.Pool{New: func() any { return &waiter{done: make(chan struct{}, 1)} }}}
}

// get answers a waiter that nobody knows of.
func (t *waiters) get() *waiter { return t.pool.Get().(*waiter) }

// put gives it back. Nobody else may know of it any more.
func (t *waiters) put(w *waiter) {
	w.proposal, w.request, w.trace, w.outcome = proposal{}, nil, nil, outcome{}
	t.pool.Put(w)
}

func (t *waiters) add(w *waiter) {
	t.mu.Lock()
	t.byID[w.id] = w
	t.mu.Unlock()
}

// remove is true when the caller took its own waiter back; false when an outcome is on its way.
func (t *waiters) remove(id uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.byID[id]
	delete(t.byID, id)
	return ok
}

// waits is whether a call waits for its outcome.
func (t *waiters) waits(id uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id] != nil
}

func (t *waiters) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byID)
}

// take moves the waiters of ids to dst, nil for those that are not here.
func (t *waiters) take(dst []*waiter, ids []uint64) []*waiter {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		w := t.byID[id]
		if w != nil {
			delete(t.byID, id)
		}
		dst = append(dst, w)
	}
	return dst
}

// sweep answers the calls whose time is over, with what why says.
func (t *waiters) sweep(now int64, why func(deadline int64) error) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for id, w := range t.byID {
		if w.deadline <= now {
			delete(t.byID, id)
			w.finish(outcome{err: why(w.deadline)})
			n++
		}
	}
	return n
}

// fail answers one call, if it is still here.
func (t *waiters) fail(id uint64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.byID[id]; w != nil {
		delete(t.byID, id)
		w.finish(outcome{err: err})
	}
}

// failAll answers every call.
func (t *waiters) failAll(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, w := range t.byID {
		delete(t.byID, id)
		w.finish(outcome{err: err})
	}
}
