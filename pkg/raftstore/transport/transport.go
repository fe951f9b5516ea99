package transport

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
)

// Handler is what the transport hands everything to. Its methods are called from the transport's goroutines, concurrently except where
// said otherwise, and never from within a method of the Transport.
type Handler interface {
	// Message takes a message from a peer, and owns it. The messages of one peer come in the order they were sent in, per lane (see the
	// package comment). It may block to slow the peer down, until ended is closed: the peer, whose probes of that lane are not answered
	// meanwhile, has connected anew. An error ends the stream as well. Data of entries shares the memory of the frame it came in.
	Message(m *raftpb.Message, ended <-chan struct{}) error
	// Delivered says that Message has been called with all that had come together. It is called from where that was.
	Delivered()
	// Unreachable says that messages to a peer were dropped or may be lost. It comes from one goroutine; several losses may be one call.
	Unreachable(id uint64)
	// SnapshotSent says how a SendSnapshot ended: ok, once the receiver has said that it is stored.
	SnapshotSent(id uint64, ok bool)
	// ReceiveSnapshot stores a snapshot durably and then hands the message on. r gives size bytes and then io.EOF; the last of them
	// come only after the checksum of all was found right, any other end is an error, and then everything must be as if nothing
	// had come. It must return soon after ctx ends. One member's snapshots come one after the other.
	ReceiveSnapshot(ctx context.Context, m *raftpb.Message, size int64, r io.Reader) error
	// Removed says that a member of the cluster has refused this one because it was removed. It is called once at most.
	Removed()
	// Refuses is asked about the sender of each incoming stream and call, and of each open stream after SetPeers: nil, ErrRemoved or
	// ErrUnknownMember. A member that is not known yet but was not removed should be let in, as this member may be the one behind.
	Refuses(from uint64) error
	// Call answers a Call of the member from. ctx ends with the caller's. A gRPC status reaches the caller as it is.
	Call(ctx context.Context, from uint64, name string, request []byte) ([]byte, error)
	// Members is the JSON of etcd's GET /members, Versions that of GET /version.
	Members() []byte
	Versions() []byte
}

// Transport connects a member with its peers. Its methods may be called from any goroutine and do not block, but for Call, Serve and Close.
type Transport struct {
	o        Options
	h        Handler
	metrics  *metrics
	grpc     *grpc.Server
	reports  reports
	refuse   refuseLog
	began    time.Time
	arrivals arrivals

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // all goroutines but those of gRPC and net/http

	urls  atomic.Pointer[[]string]         // own ones
	links atomic.Pointer[map[uint64]*link] // immutable; replaced under mu

	mu        sync.Mutex
	closed    bool
	incoming  map[incomingKey]*incoming
	listeners map[net.Listener]func() // what Close does about a Serve
}

// New returns a transport without peers. It starts its one goroutine that is not a peer's; Close ends it.
func New(o Options, h Handler) (*Transport, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("transport options: %w", err)
	}
	m, err := newMetrics(o.Member, o.Registerer)
	if err != nil {
		return nil, err
	}
	t := &Transport{o: o, h: h, metrics: m, began: time.Now(), incoming: make(map[incomingKey]*incoming), listeners: make(map[net.Listener]func())}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.urls.Store(new([]string))
	t.links.Store(&map[uint64]*link{})
	t.reports.init()
	t.grpc = t.newServer()
	t.wg.Go(t.report)
	return t, nil
}

// SetPeers says who the members are, this one included, whose URLs the others are told. Links to those who are no longer there are ended,
// and streams from those whom Handler.Refuses now refuses. What that is asked about must be published before.
func (t *Transport) SetPeers(peers []Peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	now := make(map[uint64]*link, len(peers))
	was := *t.links.Load()
	for _, p := range peers {
		if p.ID == t.o.Member {
			t.urls.Store(&p.URLs)
			continue
		}
		l := was[p.ID]
		if l == nil {
			l = t.newLink(p.ID, p.URLs)
		} else {
			l.remote = false
			l.setURLs(p.URLs)
		}
		now[p.ID] = l
	}
	for id, l := range was {
		switch {
		case now[id] == l:
		case l.remote:
			now[id] = l // not a member yet; it goes with its streams
		default:
			l.cancel()
		}
	}
	t.links.Store(&now)
	t.reports.recheck()
}

// link is the one to a peer, or nil.
func (t *Transport) link(id uint64) *link { return (*t.links.Load())[id] }

// addRemote makes a link to a member that has connected to this one, which does not know it yet: it has to be answered.
func (t *Transport) addRemote(i identity) {
	if len(i.urls) == 0 || t.link(i.from) != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	remotes := 0
	for _, l := range *t.links.Load() {
		if l.remote {
			remotes++
		}
	}
	if t.closed || remotes >= remotesMax || t.link(i.from) != nil {
		return
	}
	now := maps.Clone(*t.links.Load())
	now[i.from] = t.newLink(i.from, i.urls)
	now[i.from].remote = true
	t.links.Store(&now)
}

// dropRemote ends the link to a remote whose streams have ended. The caller holds mu.
func (t *Transport) dropRemote(id uint64) {
	l := t.link(id)
	if l == nil || !l.remote {
		return
	}
	now := maps.Clone(*t.links.Load())
	delete(now, id)
	t.links.Store(&now)
	l.cancel()
}

// Send queues messages to peers and owns them from then on: their entries' data must not change until it is sent, which nobody is told. What
// cannot be queued is dropped, and Handler.Unreachable called later. A few small messages are sent before it returns, if the kernel takes them
// without waiting. MsgSnap goes by SendSnapshot.
func (t *Transport) Send(messages []*raftpb.Message) {
	links := *t.links.Load()
	for _, m := range messages {
		if m.GetType() == raftpb.MsgSnap {
			panic(fmt.Sprintf("transport: snapshot to %x among messages", m.GetTo()))
		}
		if l := links[m.GetTo()]; l != nil {
			l.send(m)
		}
	}
	for i, m := range messages {
		if l := links[m.GetTo()]; l != nil && !again(messages, i) {
			l.push(laneOf(m.GetType()))
		}
	}
}

// again: a later message goes the same way.
func again(messages []*raftpb.Message, i int) bool {
	return slices.ContainsFunc(messages[i+1:], func(m *raftpb.Message) bool {
		return m.GetTo() == messages[i].GetTo() && laneOf(m.GetType()) == laneOf(messages[i].GetType())
	})
}

// ActiveSince is the time since when messages reach the peer without interruption, or zero.
func (t *Transport) ActiveSince(id uint64) time.Time {
	if l := t.link(id); l != nil {
		if e := l.epoch.Load(); e != nil {
			return e.since
		}
	}
	return time.Time{}
}

// Close ends everything under way, on every listener too, and waits for it. The Handler is not called afterwards; none of its methods may
// wait for Close.
func (t *Transport) Close() {
	t.mu.Lock()
	t.closed = true
	streams := make([]*incoming, 0, len(t.incoming))
	for _, in := range t.incoming {
		streams = append(streams, in)
	}
	listeners := maps.Clone(t.listeners)
	t.mu.Unlock()
	t.cancel()
	for _, in := range streams {
		in.end(ErrClosed)
	}
	for _, stop := range listeners {
		stop()
	}
	t.grpc.Stop()
	t.wg.Wait()
}

// reports is what the report goroutine has to tell the Handler. It is bounded by the number of peers.
type reports struct {
	mu          sync.Mutex
	unreachable map[uint64]struct{}
	failed      map[uint64]int // snapshots that were not begun
	removed     bool
	streams     bool // to be checked again
	wake        chan struct{}
}

func (r *reports) init() {
	r.unreachable, r.failed = make(map[uint64]struct{}), make(map[uint64]int)
	r.wake = make(chan struct{}, 1)
}

func (r *reports) note(what func()) {
	r.mu.Lock()
	what()
	r.mu.Unlock()
	poke(r.wake)
}

func (r *reports) lost(id uint64)           { r.note(func() { r.unreachable[id] = struct{}{} }) }
func (r *reports) snapshotFailed(id uint64) { r.note(func() { r.failed[id]++ }) }
func (r *reports) recheck()                 { r.note(func() { r.streams = true }) }
func (r *reports) selfRemoved()             { r.note(func() { r.removed = true }) }

// report calls the Handler with what others found, so that none of them is called back from within a call of theirs.
func (t *Transport) report() {
	told := false
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-t.reports.wake:
		}
		r := &t.reports
		r.mu.Lock()
		unreachable, failed, removed, streams := r.unreachable, r.failed, r.removed, r.streams
		r.unreachable, r.failed, r.streams = make(map[uint64]struct{}), make(map[uint64]int), false
		r.mu.Unlock()
		for id := range unreachable {
			t.h.Unreachable(id)
		}
		for id, n := range failed {
			for range n {
				t.h.SnapshotSent(id, false)
			}
		}
		if removed && !told {
			told = true
			t.h.Removed()
		}
		if streams {
			t.recheck()
		}
	}
}

// recheck ends the streams of members that are refused now.
func (t *Transport) recheck() {
	t.mu.Lock()
	streams := make([]*incoming, 0, len(t.incoming))
	for _, in := range t.incoming {
		streams = append(streams, in)
	}
	t.mu.Unlock()
	for _, in := range streams {
		if err := t.h.Refuses(in.key.from); err != nil {
			in.end(err)
		}
	}
}
