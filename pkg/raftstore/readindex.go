package raftstore

import (
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
)

// readIndexes are the linearizable reads that wait for a read index: the leader's word that it was still the leader, and how far it had
// committed by then. Everybody who comes while one is asked for shares the next one; so there is one in flight, however many read.
//
//	readers --> gathering --node asks raft--> asked --the leader answers--> confirmed (index) --apply gets there--> done
//
// An answer that does not come is asked for again each readRetryInterval, together with who has come meanwhile. Who has waited for the time
// of a request is answered by the ticker, as the node may hang with its disk. Who takes a batch out under mu finishes it.
type readIndexes struct {
	s *Store

	// The node's.
	request uint64 // the last one
	askedAt uint64 // its ticks then
	again   bool   // ask again at once

	behindOf atomic.Int64 // how many are in confirmed

	mu        sync.Mutex
	gathering *readBatch
	asked     []*readBatch // by request
	confirmed []*readBatch
}

// readBatch are the readers that share one answer.
type readBatch struct {
	request uint64 // the first that was made for it
	since   int64  // unix nanoseconds, of the first reader
	index   uint64 // confirmed
	err     error  // before done is closed
	done    chan struct{}
}

func (b *readBatch) finish(err error) {
	b.err = err
	close(b.done)
}

// join makes the caller part of the next batch.
func (r *readIndexes) join() *readBatch {
	r.mu.Lock()
	b := r.gathering
	if b == nil {
		b = &readBatch{since: r.s.clock.Load(), done: make(chan struct{})}
		r.gathering = b
	}
	r.mu.Unlock()
	poke(r.s.node.wake)
	return b
}

// ask asks raft if somebody waits and nothing is asked for, or if it has been asked for long. The node calls it.
func (r *readIndexes) ask(rn *raft.RawNode, now uint64) bool {
	r.mu.Lock()
	waits := len(r.asked) > 0
	retry := r.again || now-r.askedAt >= r.retryTicks()
	if waits && !retry || !waits && r.gathering == nil {
		r.mu.Unlock()
		return false
	}
	r.request++
	if b := r.gathering; b != nil {
		b.request = r.request
		r.asked = append(r.asked, b)
		r.gathering = nil
	}
	r.mu.Unlock()
	r.askedAt, r.again = now, false
	rn.ReadIndex(r.context())
	return true
}

// context names the request. Two members never have equal ones, nor two starts of one: the leader would answer one of them only.
func (r *readIndexes) context() []byte {
	b := binary.BigEndian.AppendUint64(nil, r.s.id.member)
	return binary.BigEndian.AppendUint64(b, r.request)
}

// retryTicks is readRetryInterval.
func (r *readIndexes) retryTicks() uint64 {
	interval := r.s.cfg.TickInterval
	return uint64((readRetryInterval + interval - 1) / interval)
}

// sweep answers those who have waited for too long.
func (r *readIndexes) sweep(now time.Time) {
	limit := now.Add(-r.s.cfg.requestTimeout()).UnixNano()
	r.mu.Lock()
	defer r.mu.Unlock()
	late := func(b *readBatch) bool {
		if b.since > limit {
			return false
		}
		r.s.metrics.readFailed()
		b.finish(ErrTimeout)
		return true
	}
	if r.gathering != nil && late(r.gathering) {
		r.gathering = nil
	}
	r.asked = slices.DeleteFunc(r.asked, late)
	waiting := len(r.confirmed)
	r.confirmed = slices.DeleteFunc(r.confirmed, late)
	r.behindOf.Add(int64(len(r.confirmed) - waiting))
}

// fail answers all that is asked for.
func (r *readIndexes) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.asked {
		r.s.metrics.readFailed()
		b.finish(err)
	}
	r.asked = nil
}

// askAgain lets the next turn ask again at once. The node calls it when there is another leader.
func (r *readIndexes) askAgain() { r.again = true }

// confirm takes an answer: it is good for all that was asked for with that request or before it. The node calls it.
func (r *readIndexes) confirm(rs raft.ReadState) {
	if len(rs.RequestCtx) != 16 || binary.BigEndian.Uint64(rs.RequestCtx) != r.s.id.member {
		return
	}
	request := binary.BigEndian.Uint64(rs.RequestCtx[8:])
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.asked) > 0 && r.asked[0].request <= request {
		b := r.asked[0]
		r.asked = r.asked[1:]
		b.index = rs.Index
		r.behindOf.Add(1) // before the look: either this sees what was applied, or apply sees that somebody waits
		if r.s.applied.Load() >= b.index {
			r.behindOf.Add(-1)
			b.finish(nil)
		} else {
			r.confirmed = append(r.confirmed, b)
		}
	}
}

// applied finishes what waits for an index up to this one, which must be published. Apply calls it.
func (r *readIndexes) applied(index uint64) {
	if r.behindOf.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	rest := r.confirmed[:0]
	for _, b := range r.confirmed {
		if b.index <= index {
			r.behindOf.Add(-1)
			b.finish(nil)
		} else {
			rest = append(rest, b)
		}
	}
	clear(r.confirmed[len(rest):])
	r.confirmed = rest
}
