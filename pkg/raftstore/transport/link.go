package transport

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3/raftpb"
)

// lane is one of the streams between two members.
type lane int

const (
	laneControl  lane = iota // everything small; probes
	laneAppend               // MsgApp and MsgProp: what carries the data of clients
	laneSnapshot             // one stream per snapshot
)

// messageLanes are the ones with a queue.
const messageLanes = 2

var laneNames = [...]string{laneControl: "Control", laneAppend: "Append", laneSnapshot: "Snapshot"}

func (l lane) String() string { return laneNames[l] }

func laneOf(t raftpb.MessageType) lane {
	if t == raftpb.MsgApp || t == raftpb.MsgProp {
		return laneAppend
	}
	return laneControl
}

// link is the way to one peer: its queues, and a goroutine that keeps a connection.
type link struct {
	t       *Transport
	id      uint64
	metrics linkMetrics
	remote  bool // not among the members; under Transport.mu

	ctx    context.Context // ends when the peer is gone
	cancel context.CancelFunc

	queues  [messageLanes]*queue
	urls    atomic.Pointer[[]string]
	epoch   atomic.Pointer[epoch] // the connection; nil: none
	kick    chan struct{}         // capacity 1: connecting is worth another try
	tried   chan struct{}         // closed when the first attempt to connect is over
	sending atomic.Bool           // a snapshot

	// Of the goroutine of run.
	once   bool   // tried is closed
	at     int    // index of the URL that worked last
	failed string // the text of the failure told last
}

// newLink starts the link. The caller holds Transport.mu, and Close has not begun.
func (t *Transport) newLink(id uint64, urls []string) *link {
	l := &link{t: t, id: id, metrics: t.metrics.link(id), kick: make(chan struct{}, 1), tried: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(t.ctx)
	l.urls.Store(&urls)
	for i := range l.queues {
		l.queues[i] = newQueue(t.o.QueueMessages, t.o.QueueBytes)
		l.queues[i].unshut() // the first messages wait for the first attempt
	}
	t.wg.Go(l.run)
	return l
}

// setURLs takes effect at once if the URL in use is not among them.
func (l *link) setURLs(urls []string) {
	if slices.Equal(*l.urls.Load(), urls) {
		return
	}
	l.urls.Store(&urls)
	if e := l.epoch.Load(); e != nil && !slices.Contains(urls, e.url) {
		e.cancel(errURLGone)
	}
	poke(l.kick)
}

// send queues one message or drops it. A push has to follow.
func (l *link) send(m *raftpb.Message) {
	o := newOutgoing(m)
	if o.bytes > l.t.o.MessageBytesMax {
		l.t.o.OnEvent(MessageTooLarge{Peer: types.ID(l.id), Type: m.GetType(), Bytes: o.bytes})
	} else if l.queues[laneOf(m.GetType())].put(o) {
		return
	}
	l.lost(1)
}

// push sends what is queued, here if that need not wait, otherwise by the lane's sender.
func (l *link) push(which lane) {
	if e := l.epoch.Load(); e == nil || !e.sendNow(which) {
		poke(l.queues[which].wake)
	}
}

// lost counts messages that were dropped.
func (l *link) lost(n int) {
	l.metrics.sentFailed.Add(float64(n))
	l.t.reports.lost(l.id)
}

// run connects, and connects again.
func (l *link) run() {
	var pause time.Duration
	for {
		began := time.Now()
		e, err := l.connect()
		if err == nil {
			l.failed = ""
			err = l.serve(e)
		} else if l.ctx.Err() == nil && l.failed != err.Error() {
			l.failed = err.Error()
			l.t.o.OnEvent(DialFailed{Peer: types.ID(l.id), Err: err})
		}
		l.attempted()
		dropped := 0
		for _, q := range l.queues {
			dropped += q.shut()
		}
		if l.ctx.Err() != nil {
			return
		}
		l.lost(dropped)
		if errors.Is(err, ErrRemoved) {
			l.t.reports.selfRemoved()
		}
		if time.Since(began) > l.t.o.BackoffMax && e != nil {
			pause = 0 // it has worked for a while
		}
		if !l.wait(pause) {
			return
		}
		pause = min(max(2*pause, backoffMin), l.t.o.BackoffMax)
		for _, q := range l.queues {
			q.unshut()
		}
	}
}

// attempted lets calls go on that waited for the first attempt.
func (l *link) attempted() {
	if !l.once {
		l.once = true
		close(l.tried)
	}
}

// awaitEpoch is the connection to the peer, or nil. A link that was just made has its first attempt to connect.
func (l *link) awaitEpoch(ctx context.Context) *epoch {
	select {
	case <-l.tried:
	case <-l.ctx.Done():
	case <-ctx.Done():
	}
	return l.epoch.Load()
}

// wait is false when the link is over.
func (l *link) wait(pause time.Duration) bool {
	if pause > 0 {
		pause = pause/2 + rand.N(pause/2+1)
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.kick:
	case <-l.ctx.Done():
		return false
	}
	return true
}

// connect tries each URL once, the one that worked last first.
func (l *link) connect() (*epoch, error) {
	urls := *l.urls.Load()
	err := ErrUnreachable
	for i := range urls {
		at := (l.at + i) % len(urls)
		var e *epoch
		if e, err = l.dial(urls[at]); err == nil {
			l.at = at
			return e, nil
		}
		if l.ctx.Err() != nil || errors.Is(err, ErrRemoved) {
			break
		}
	}
	return nil, err
}

// serve uses a connection until it fails, and tells why.
func (l *link) serve(e *epoch) error {
	select {
	case <-l.kick: // from before
	default:
	}
	l.epoch.Store(e)
	l.attempted()
	if !slices.Contains(*l.urls.Load(), e.url) {
		e.cancel(errURLGone) // setURLs came between
	}
	l.metrics.active.Set(1)
	l.t.o.OnEvent(Connected{Peer: types.ID(l.id), URL: e.url, Version: e.version})
	err := e.run()
	l.epoch.Store(nil)
	l.metrics.active.Set(0)
	l.metrics.disconnected.Inc()
	if l.ctx.Err() == nil {
		l.t.o.OnEvent(Disconnected{Peer: types.ID(l.id), URL: e.url, Err: text(err), Lived: time.Since(e.since)})
	}
	return err
}
