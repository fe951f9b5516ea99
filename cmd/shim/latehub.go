package main

import (
	"sync"
	"sync/atomic"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/watchcache"
)

// lateHub brings events to a hub that is made after the store has begun to
// apply: the hub reads the store, so it cannot come first, and the store must
// not wait for it.
//
// Events from before the hub are not lost, they are history, which the hub
// reads from its View. What matters is that each batch is one or the other. A
// View is published before its events are offered here, and open makes the hub
// and makes it known under one lock; so a batch that finds no hub is in the View
// the hub begins with, and one that finds it is either in that View, too, or all
// behind it.
type lateHub struct {
	mu   sync.Mutex
	hub  atomic.Pointer[watchcache.Hub]
	from mvcc.Revision // the hub began at it; set before hub
}

// open makes the hub.
func (l *lateHub) open(o watchcache.Options, env watchcache.Env) *watchcache.Hub {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := watchcache.New(o, env)
	l.from = h.Revision()
	l.hub.Store(h)
	return h
}

// append is called by who applies.
func (l *lateHub) append(v *mvcc.View, events []mvcc.Event) {
	h := l.hub.Load()
	if h == nil {
		l.mu.Lock()
		h = l.hub.Load()
		l.mu.Unlock()
	}
	if h == nil || v.Revision() <= l.from {
		return
	}
	h.Append(v, events)
}
