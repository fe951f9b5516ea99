package watchcache

import (
	"context"
	"math"
	"sync"
	"sync/atomic"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Stream is the watches of one client stream. Create, Cancel and RequestProgress
// belong to one goroutine (the receiver), Next to another (the sender); Tick and
// Close may be called from any.
type Stream struct {
	hub *Hub

	// wakec holds a token when Next should look again.
	wakec chan struct{}
	// progressTarget is what the notifier compares; stored under Hub.mu.
	progressTarget atomic.Int64

	mu       sync.Mutex
	space    sync.Cond // signalled when control shrinks, or on Close
	closed   bool
	err      error // why it is closed, Next's answer
	nextID   int64
	watchers map[int64]*watcher
	// compacted counts watchers in stateCompacted, future holds those that asked
	// for a revision which had not come at futureRev: either makes progress requests
	// moot.
	compacted int
	future    map[*watcher]struct{}
	futureRev mvcc.Revision

	control  queue[answer]
	answers  uint64 // how many were ever put into control
	answered bool   // the last batch was one of them
	ready    queue[*watcher]
	held     []*watcher // ready, but past the revision the next progress is for
	progress []progressRequest
	due      queue[*watcher] // watches owed a progress notification by Tick
	sent     mvcc.Revision   // last revision of an event returned by Next
	sender   senderState

	// The sender's own.
	out      readout
	ctx      context.Context // the one Next was called with last, which signals when it ends
	unfollow func() bool

	inFlight atomic.Int64 // events of the batch returned last
}

// answer is what Create or Cancel has to say. The watch that it says is made, if it says so,
// is read from then on.
type answer struct {
	batch Batch
	made  *watcher
}

// NewStream opens a stream. Close must be called.
func (h *Hub) NewStream() *Stream {
	s := &Stream{hub: h, wakec: make(chan struct{}, 1), watchers: make(map[int64]*watcher)}
	s.space.L = &s.mu
	h.counts.streams.Add(1)
	h.mu.Lock()
	h.streams[s] = struct{}{}
	closed := h.closed
	h.mu.Unlock()
	if closed {
		s.close(ErrStopped)
	}
	return s
}

// Close ends the stream and its watches. Next returns ErrClosed from then on, and
// a Create or Cancel that waits for room returns. Closing again does nothing.
func (s *Stream) Close() { s.close(ErrClosed) }

func (s *Stream) close(err error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed, s.err = true, err
	s.run()
	var live []*watcher
	for _, w := range s.watchers {
		if w.state != stateCompacted && w.state != stateNew {
			live = append(live, w)
		}
		s.setSlow(w, false)
		w.state = stateCancelled
	}
	clear(s.watchers)
	clear(s.future)
	s.space.Broadcast()
	s.mu.Unlock()

	for _, w := range live {
		s.hub.unregister(w)
	}
	s.hub.mu.Lock()
	delete(s.hub.waiting, s)
	delete(s.hub.streams, s)
	s.hub.mu.Unlock()
	s.hub.counts.streams.Add(-1)
	s.settle(0)
	s.signal()
}

// signal lets Next look again.
func (s *Stream) signal() {
	select {
	case s.wakec <- struct{}{}:
	default:
	}
}

// senderState is what the notifier knows of the goroutine that calls Next.
type senderState uint8

const (
	senderBusy   senderState = iota // will look again by itself
	senderParked                    // found nothing: waits, or is about to
	senderWoken                     // signalled since, and counted in Hub.waking
)

// park notes that the sender found nothing to send. Caller holds mu.
func (s *Stream) park() { s.sender = senderParked }

// run notes that the sender is at work, or will never be again. Caller holds mu.
func (s *Stream) run() {
	if s.sender == senderWoken {
		s.hub.waking.Add(-1)
	}
	s.sender = senderBusy
}

// wake is the notifier's: w has events in [from, to].
func (s *Stream) wake(w *watcher, from, to mvcc.Revision) {
	s.mu.Lock()
	if w.next > to && w.state != stateNew {
		s.mu.Unlock() // read already, or begins later
		return
	}
	w.wakeTo = max(w.wakeTo, to)
	if w.state == stateIdle {
		w.next = max(w.next, from)
		w.state = stateReady
		s.ready.push(w)
	}
	parked := s.sender == senderParked && s.ready.len() > 0
	if parked {
		s.sender = senderWoken
		s.hub.waking.Add(1)
	}
	s.mu.Unlock()
	if parked {
		s.signal()
	}
}

// popControl is the next answer. Caller holds mu.
func (s *Stream) popControl() Batch {
	a := s.control.pop()
	s.answered = true
	s.space.Signal()
	if w := a.made; w != nil && w.state == stateMade {
		w.state = stateReady
		s.ready.push(w)
	}
	return a.batch
}

// pushControl queues an answer, and waits while the client leaves too many unread.
// Caller holds mu, which is given up while waiting.
func (s *Stream) pushControl(a answer) {
	for s.control.len() >= controlQueueMax && !s.closed {
		s.space.Wait()
	}
	if !s.closed {
		s.control.push(a)
		s.answers++
	}
}

func (s *Stream) setSlow(w *watcher, slow bool) {
	if w.slow == slow {
		return
	}
	w.slow = slow
	if slow {
		s.hub.counts.slow.Add(1)
	} else {
		s.hub.counts.slow.Add(-1)
	}
}

// noLimit is the limit of a read that has none.
const noLimit mvcc.Revision = math.MaxInt64 - 1
