package watchcache

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Hub is the event log and everybody who watches it.
//
// Lock order: Hub.mu, Hub.logMu; and apart from these group.mu, Stream.mu. No
// goroutine holds Hub.mu or Hub.logMu while it takes one of the other two, so
// neither who applies nor a reader waits for a stream.
type Hub struct {
	opts Options
	env  Env

	// rev is the last revision in the log; stored under mu and logMu.
	rev atomic.Int64
	// notified is the revision up to which every concerned watcher was woken.
	notified atomic.Int64
	// waking is how many senders were woken for events and have not run since.
	waking atomic.Int64

	mu        sync.Mutex
	root      index
	topics    map[string]*topic
	groups    map[*group]struct{}
	dirty     []*group
	notifying bool                 // a notifier goroutine is running
	waiting   map[*Stream]struct{} // streams to wake when notified moves
	streams   map[*Stream]struct{} // open ones
	closed    bool

	logMu      sync.RWMutex
	log        eventLog
	logBytes   int64
	windowFrom mvcc.Revision // log has every event from here on

	counts counters
}

// New returns a Hub whose log is empty and begins after the revision of
// env.View(). It starts no goroutine. Options that do not validate are a
// programming error and panic.
func New(o Options, env Env) *Hub {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		panic(fmt.Sprintf("watchcache: %v", err))
	}
	h := &Hub{
		opts:    o,
		env:     env,
		topics:  make(map[string]*topic),
		groups:  make(map[*group]struct{}),
		waiting: make(map[*Stream]struct{}),
		streams: make(map[*Stream]struct{}),
	}
	rev := env.View().Revision()
	h.rev.Store(int64(rev))
	h.notified.Store(int64(rev))
	h.windowFrom = rev + 1
	return h
}

// Revision returns the last revision of the log: what a client may rely on being
// watchable.
func (h *Hub) Revision() mvcc.Revision { return mvcc.Revision(h.rev.Load()) }

// Waking says that senders are about to run which were woken for events: whoever
// is to write to a connection may let them run first, and write more at a time. A
// sender that waits for its client is not among them.
func (h *Hub) Waking() bool { return h.waking.Load() > 0 }

func (h *Hub) notifiedRev() mvcc.Revision { return mvcc.Revision(h.notified.Load()) }

// Close ends all streams: Next returns ErrStopped, also of streams opened later.
// Append may still be called. Without it a graceful stop would wait for clients
// that never hang up.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	streams := slices.Collect(maps.Keys(h.streams))
	h.mu.Unlock()
	for _, s := range streams {
		s.close(ErrStopped)
	}
}

// Append takes over the events up to v in (mod, sub) order; those the hub has are
// skipped. v must be what env.View() returns by now. One goroutine at a time calls
// it, that of who applies. It never waits for a watcher: it writes the log, marks the concerned groups
// and leaves waking to the notifier. If the events do not connect to the log's end
// (the state came from a snapshot), the log starts over and cursors read history.
func (h *Hub) Append(v *mvcc.View, events []mvcc.Event) {
	rev := v.Revision()
	for len(events) > 0 && events[0].Version.Mod() <= h.Revision() {
		events = events[1:]
	}
	if rev <= h.Revision() {
		return
	}
	entries := make([]event, len(events))
	for i := range events {
		entries[i].set(events[i])
	}

	h.mu.Lock()
	last := h.Revision()
	if n := len(entries); n == 0 || entries[0].mod != last+1 || entries[n-1].mod != rev {
		h.restart(last, rev)
	} else {
		h.extend(entries, rev)
		for i := range entries {
			h.route(&entries[i])
		}
	}
	start := h.startNotifier()
	h.mu.Unlock()
	if start {
		go h.notify()
	}
}

// extend writes the log and the sub-logs, and cuts the window. Caller holds mu.
func (h *Hub) extend(entries []event, rev mvcc.Revision) {
	for i := range entries {
		e := &entries[i]
		if n := topicLen(e.key); n > 0 {
			e.topic = h.topics[string(e.key[:n])]
		}
	}
	h.logMu.Lock()
	defer h.logMu.Unlock()
	for i := range entries {
		e := &entries[i]
		h.log.push(e)
		h.logBytes += e.charge()
		if e.topic != nil {
			e.topic.log.push(e)
		}
	}
	h.rev.Store(int64(rev))
	for h.log.n > h.opts.WindowEvents || h.logBytes > h.opts.WindowBytes {
		h.evictRevision()
		if h.log.n == 0 {
			break
		}
	}
}

// evictRevision drops the oldest revision, whole: a cursor sees all of it or reads
// history. Caller holds mu and logMu.
func (h *Hub) evictRevision() {
	mod := h.log.at(0).mod
	for h.log.n > 0 && h.log.at(0).mod == mod {
		e := h.log.at(0)
		h.log.pop()
		h.logBytes -= e.charge()
		if e.topic != nil && !e.topic.dead {
			e.topic.log.pop()
		}
		e.topic = nil
	}
	h.windowFrom = mod + 1
}

// restart empties the log and wakes everybody, to read (last, rev] from history.
// Caller holds mu.
func (h *Hub) restart(last, rev mvcc.Revision) {
	h.logMu.Lock()
	h.log, h.logBytes, h.windowFrom = eventLog{}, 0, rev+1
	for _, t := range h.topics {
		t.log, t.start = eventLog{}, rev+1
	}
	h.rev.Store(int64(rev))
	h.logMu.Unlock()
	for g := range h.groups {
		h.mark(g, last+1, rev)
	}
}

// route marks the groups that e concerns. Caller holds mu.
func (h *Hub) route(e *event) {
	mark := func(g *group) { h.mark(g, e.mod, e.mod) }
	h.root.match(e.key, 1, mark)
	if t := e.topic; t != nil {
		t.events++
		t.index.match(e.key, len(t.prefix), mark)
	}
}

func (h *Hub) mark(g *group, from, to mvcc.Revision) {
	if g.dirtyTo == 0 {
		g.dirtyFrom = from
		h.dirty = append(h.dirty, g)
	}
	g.dirtyTo = to
}
