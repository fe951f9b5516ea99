package raftstore

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3"
)

// readIndexes are the linearizable reads that wait for a read index: the leader's word that it was still the leader, and how far it had
// committed by then. Everybody who comes while one is asked for shares the next one; so there is one in flight, however many read.
//
//	readers --> gathering --node asks raft--> asked --the leader answers--> confirmed (index) --apply gets there--> done
//
// An answer that does not come is asked for again each readRetryInterval, together with who has come meanwhile. The node owns asked;
// the rest is under mu.
type readIndexes struct {
	s *Store

	asked     []*readBatch // by request
	request   uint64       // of the last one
	askedAt   uint64       // ticks of the node
	unapplied atomic.Int64 // how many are in confirmed

	mu        sync.Mutex
	gathering *readBatch
	asking    bool // something is asked for
	confirmed []*readBatch
}

// readBatch are the readers that share one answer.
type readBatch struct {
	request uint64 // the first that was made for it
	since   uint64 // ticks of the node
	index   uint64 // confirmed
	err     error  // before done is closed
	done    chan struct{}
}

func (b *readBatch) finish(err error) {
	b.err = err
	close(b.done)
}

// join makes the caller part of the next batch. The first one wakes the node to ask for it, unless that has to wait for an answer that
// is under way: the turn that has this one asks.
func (r *readIndexes) join() *readBatch {
	r.mu.Lock()
	b, first := r.gathering, r.gathering == nil
	if first {
		b = &readBatch{done: make(chan struct{})}
		r.gathering = b
	}
	first = first && !r.asking
	r.mu.Unlock()
	if first {
		poke(r.s.node.wake)
	}
	return b
}

// ask asks raft if somebody waits and nothing is asked for, or if it has been asked for long. The node calls it.
func (r *readIndexes) ask(rn *raft.RawNode, now uint64) bool {
	retry := len(r.asked) > 0 && now-r.askedAt >= r.ticks(int64(readRetryInterval))
	if len(r.asked) > 0 && !retry {
		return false
	}
	r.mu.Lock()
	b := r.gathering
	r.gathering, r.asking = nil, retry || r.gathering != nil
	r.mu.Unlock()
	if b == nil && !retry {
		return false
	}
	r.request++
	if b != nil {
		b.request, b.since = r.request, now
		r.asked = append(r.asked, b)
	}
	if retry {
		r.s.cfg.OnEvent(SlowReadIndex{Request: r.request - 1, Retry: readRetryInterval})
		r.expire(now)
	}
	if len(r.asked) > 0 {
		r.askedAt = now
		rn.ReadIndex(r.context())
	}
	r.answered()
	return true
}

// answered notes that nothing is asked for any more, if so. The turn has to ask once more then.
func (r *readIndexes) answered() {
	if len(r.asked) > 0 {
		return
	}
	r.mu.Lock()
	r.asking = false
	r.mu.Unlock()
}

// context names the request. Two members never have equal ones, nor two starts of one, which count from a random number on: the leader would
// answer one of them only, and that by how far it was when it was asked first.
func (r *readIndexes) context() []byte {
	b := binary.BigEndian.AppendUint64(nil, r.s.id.member)
	return binary.BigEndian.AppendUint64(b, r.request)
}

func (r *readIndexes) ticks(nanoseconds int64) uint64 {
	interval := int64(r.s.cfg.TickInterval)
	return uint64((nanoseconds + interval - 1) / interval)
}

// expire answers those who have waited for too long.
func (r *readIndexes) expire(now uint64) {
	limit := r.ticks(int64(r.s.cfg.requestTimeout()))
	for len(r.asked) > 0 && now-r.asked[0].since >= limit {
		r.s.metrics.readTimedOut()
		r.asked[0].finish(ErrTimeout)
		r.asked = r.asked[1:]
	}
}

// fail answers all that is asked for. The node calls it.
func (r *readIndexes) fail(err error) {
	for _, b := range r.asked {
		r.s.metrics.readFailed()
		b.finish(err)
	}
	r.asked = nil
	r.answered()
}

// askAgain lets the next turn ask again at once. The node calls it when there is another leader.
func (r *readIndexes) askAgain() { r.askedAt = 0 }

// confirm takes an answer: it is good for all that was asked for with that request or before it. One to a former start, which was late and names
// a request that this one has not made, is as old as that. The node calls it.
func (r *readIndexes) confirm(rs raft.ReadState) {
	if len(rs.RequestCtx) != 16 || binary.BigEndian.Uint64(rs.RequestCtx) != r.s.id.member {
		return
	}
	request := binary.BigEndian.Uint64(rs.RequestCtx[8:])
	if request > r.request {
		return
	}
	for len(r.asked) > 0 && r.asked[0].request <= request {
		b := r.asked[0]
		r.asked = r.asked[1:]
		b.index = rs.Index
		r.await(b)
	}
	r.answered()
}

// await finishes the batch once its index is applied.
func (r *readIndexes) await(b *readBatch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unapplied.Add(1) // before the look: either this sees what was applied, or apply sees that somebody waits
	if r.s.applied.Load() >= b.index {
		r.unapplied.Add(-1)
		b.finish(nil)
		return
	}
	r.confirmed = append(r.confirmed, b)
}

// applied finishes what waits for an index up to this one, which must be published. Apply calls it.
func (r *readIndexes) applied(index uint64) {
	if r.unapplied.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	rest := r.confirmed[:0]
	for _, b := range r.confirmed {
		if b.index <= index {
			r.unapplied.Add(-1)
			b.finish(nil)
		} else {
			rest = append(rest, b)
		}
	}
	clear(r.confirmed[len(rest):])
	r.confirmed = rest
}
