package watchcache

import (
	"context"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Next returns what is to be sent next, and waits until there is something. When it
// is called again, what it returned before counts as sent. Watches take turns, one
// batch each, and answers to Create and Cancel have every other turn: a client that
// goes on making watches hears of the others. It fails with ErrClosed,
// ErrStopped or the cause of ctx.
func (s *Stream) Next(ctx context.Context) (Batch, error) {
	s.settle(0)
	if s.ctx != ctx {
		s.follow(ctx)
	}
	for {
		b, ok, err := s.step()
		if err != nil || ok {
			return b, err
		}
		if ctx.Err() != nil {
			return Batch{}, context.Cause(ctx)
		}
		<-s.wakec
	}
}

// follow has the end of ctx signal the stream: waiting on one channel costs half
// of waiting on two, and Next waits once per event.
func (s *Stream) follow(ctx context.Context) {
	if s.unfollow != nil {
		s.unfollow()
	}
	s.ctx, s.unfollow = ctx, context.AfterFunc(ctx, s.signal)
}

// step finds the next batch, or says that there is none.
func (s *Stream) step() (Batch, bool, error) {
	s.mu.Lock()
	s.run()
	for {
		if s.closed {
			err := s.err
			s.mu.Unlock()
			return Batch{}, false, err
		}
		if s.control.len() > 0 && !s.answered {
			b := s.popControl()
			s.mu.Unlock()
			return b, true, nil
		}
		s.answered = false
		if b, ok := s.notification(); ok {
			s.mu.Unlock()
			return b, true, nil
		}
		limit := noLimit
		if len(s.progress) > 0 {
			// A read under way at the request may have gone past its revision; a
			// promise never falls behind what was sent.
			s.progress[0].rev = max(s.progress[0].rev, s.sent)
			limit = s.progress[0].rev
		}
		if w := s.turn(limit); w != nil {
			b, ok := s.deliver(w, limit)
			if ok {
				s.mu.Unlock()
				return b, true, nil
			}
			continue
		}
		b, ok, await := s.progressReady()
		switch {
		case ok:
			s.mu.Unlock()
			return b, true, nil
		case s.control.len() > 0, limit != noLimit && await == 0:
			continue // with an answer, or with a request less
		}
		s.park()
		s.mu.Unlock()
		if await > 0 {
			s.hub.awaitNotified(s, await)
		}
		return Batch{}, false, nil
	}
}

// turn returns the watcher whose turn it is, nil if none has anything to read up
// to limit. Caller holds mu.
func (s *Stream) turn(limit mvcc.Revision) *watcher {
	for s.ready.len() > 0 {
		w := s.ready.pop()
		switch {
		case w.state != stateReady:
		case w.next > limit:
			s.held = append(s.held, w)
		default:
			w.state = stateReading
			return w
		}
	}
	return nil
}

// deliver reads for w, outside of mu, and puts its cursor where it belongs. Caller
// holds mu.
func (s *Stream) deliver(w *watcher, limit mvcc.Revision) (Batch, bool) {
	r, next := &s.out, w.next
	if w.doomed > 0 {
		r.reset()
		r.compactedAt = w.doomed
	} else {
		s.mu.Unlock()
		s.hub.read(w, next, limit, r)
		s.mu.Lock()
	}
	if w.state != stateReading { // cancelled or closed meanwhile
		return Batch{}, false
	}
	if r.err != nil {
		s.mu.Unlock()
		s.close(r.err)
		s.mu.Lock()
		return Batch{}, false
	}
	if r.compactedAt > 0 {
		return s.expire(w, r.compactedAt), true
	}
	w.next = r.next
	switch {
	case r.end && w.wakeTo < w.next:
		w.state = stateIdle
		s.setSlow(w, false)
	default:
		w.state = stateReady
		s.ready.push(w)
		if r.history {
			s.setSlow(w, true)
		}
	}
	if len(r.frames) == 0 {
		return Batch{}, false
	}
	w.last, w.due = r.last, false
	s.sent = max(s.sent, r.last)
	s.settle(len(r.frames))
	b := Batch{
		Kind: BatchEvents, WatchID: w.id, Revision: r.last,
		Fragment: w.fragment, Events: r.frames,
	}
	if r.history || next <= w.syncRev {
		b.Revision = max(s.hub.Revision(), r.last) // behind: the current one, as etcd has it
	}
	return b, true
}

// expire ends a watch that was compacted away. Its ID stays taken until the client
// cancels it. Caller holds mu.
func (s *Stream) expire(w *watcher, at mvcc.Revision) Batch {
	s.setSlow(w, false)
	w.state = stateCompacted
	s.compacted++
	// The watcher leaves the hub off this lock, which the notifier takes inside the
	// group's.
	s.mu.Unlock()
	s.hub.unregister(w)
	s.mu.Lock()
	return Batch{Kind: BatchCancelled, WatchID: w.id, CompactRevision: at}
}

// settle counts the events returned last as sent, and n as on their way.
func (s *Stream) settle(n int) {
	if n == 0 && s.inFlight.Load() == 0 {
		return
	}
	c := &s.hub.counts
	was := s.inFlight.Swap(int64(n))
	c.events.Add(uint64(was))
	c.pending.Add(int64(n) - was)
}
