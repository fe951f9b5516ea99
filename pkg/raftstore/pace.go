package raftstore

import (
	"sync/atomic"
	"time"
)

// pace makes batches larger while there are many proposals and several voters. Each batch is a message to every other member, an answer, an
// fsync and some ten wakes on each, whatever its size: about a millisecond of CPU of three members, as much as ten entries take. So under load
// a batch is held back for batchPause after the one before, or until nearly as many wait as were ever under way of late: then there is
// hardly anybody left to wait for, and clients that wait for their answers are not kept waiting for nothing.
//
// It depends on the time alone, not on what becomes of a batch: whatever is lost or hangs, the pause ends by itself. A few proposals are
// never held back.
type pace struct {
	wake    chan struct{} // of the node
	pausing atomic.Bool
	enough  atomic.Int64 // so many proposals end the pause before its time

	// All below belongs to the node.
	timer *time.Timer // ends the pause
	batch float64     // entries of a batch, of late
	crowd float64     // the most that were under way, of late
}

// proposed begins a pause behind a batch, if batches are large. underWay are the entries that are proposed and not applied, these included.
func (p *pace) proposed(entries, underWay int) {
	p.batch += (float64(entries) - p.batch) / 4
	if entries == 1 && underWay <= 1 {
		p.batch = 0 // the load is over
	}
	p.crowd = max(float64(underWay), p.crowd*(1-1.0/64))
	if p.batch < pausedBatchMin {
		return
	}
	p.enough.Store(int64(p.crowd * 3 / 4))
	p.pausing.Store(true)
	if p.timer == nil {
		p.timer = time.AfterFunc(batchPause, p.end)
	} else {
		p.timer.Reset(batchPause)
	}
}

func (p *pace) end() {
	p.pausing.Store(false)
	poke(p.wake)
}

// holds: so few proposals have to wait. Whoever has put one into the queue need not wake the node then; the end of the pause does.
func (p *pace) holds(waiting int) bool {
	return p.pausing.Load() && int64(waiting) < p.enough.Load()
}
