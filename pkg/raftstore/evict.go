package raftstore

import (
	"errors"
	"sync/atomic"

	"github.com/kubeshim/shim/pkg/compact"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Versions leave memory as compacted ones do: a slice of mvcc.State.EvictStep per turn of the apply goroutine's loop. What may stay is
// decided by compact.Memory, each time that the size of the heap has been measured. What was written after the last checkpoint cannot
// leave; then the eviction is blocked, and asks for a checkpoint.

// room is how much of the versions may stay in memory, as it was decided last.
type room struct{ live, history atomic.Int64 }

func (r *room) set(to mvcc.Room) {
	r.live.Store(to.Live)
	r.history.Store(to.History)
}

func (r *room) get() mvcc.Room { return mvcc.Room{Live: r.live.Load(), History: r.history.Load()} }

// FitMemory tells how many bytes of the heap a collection has found alive, and how many the process uses beside the heap. Versions then
// leave memory as far as Config.Memory wants it. It is to be called after each collection.
func (s *Store) FitMemory(heap, other int64) {
	r := s.View().Residency()
	s.versionRoom.set(s.cfg.Memory.Room(compact.MemoryStats{Heap: heap, Other: other, Values: r.Live + r.History, History: r.History}))
	s.apply.inbox.put(applyTask{do: s.apply.crowded})
}

// crowded begins an eviction if there is more in memory than there is room for.
func (a *applier) crowded() {
	if a.evicting || a.blocked || !a.state.Crowded(a.s.versionRoom.get()) {
		return
	}
	a.evicting = true
	poke(a.wake)
}

// evictStep lets a slice of versions leave memory.
func (a *applier) evictStep() {
	if !a.evicting {
		return
	}
	did := a.state.EvictStep(compact.LowWater(a.s.versionRoom.get()), evictStepBudget)
	if did == mvcc.EvictionMore {
		return
	}
	a.evicting = false
	a.publish(nil) // views before this one keep some of it in memory
	if did == mvcc.EvictionBlocked {
		a.blocked = true
		a.s.checkpoint.crowded.Store(true)
		poke(a.s.checkpoint.poke)
	}
}

// unblock is called when a checkpoint is finished.
func (a *applier) unblock() {
	a.blocked = false
	a.crowded()
}

// unreadable fails the store if an entry could not be applied, as a version that it needs cannot be read. Other members may be able to:
// this one must not go on as if the entry had been refused.
func (a *applier) unreadable(res mvcc.Result) bool {
	var lost *mvcc.ReadError
	if res.Err == nil || !errors.As(res.Err, &lost) {
		return false
	}
	a.s.fail(lost)
	return true
}

// Rows is where versions are read that have left memory.
func (s *Store) Rows() mvcc.Rows { return s.checkpoint.db.Rows() }
