package compact

import (
	"errors"
	"fmt"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Memory bounds how much of the versions is in memory; what is not is in the
// database only. The zero value is no bound.
type Memory struct {
	// Limit is how many bytes the process may use, 0 for no limit. Keys, index and
	// the rest are in memory always; values get what they leave.
	Limit int64
	// HistoryBytes is how many bytes of superseded versions may be in memory.
	// Default: an eighth of Limit; without one there is no bound. Less makes
	// reads of the past and watchers that are far behind go to the disk.
	HistoryBytes int64
}

// EnsureDefaults fills in what is zero.
func (m *Memory) EnsureDefaults() {
	if m.HistoryBytes == 0 {
		m.HistoryBytes = m.Limit / historyShare
	}
}

// Validate reports everything that is wrong.
func (m *Memory) Validate() error {
	var errs []error
	if m.Limit < 0 || m.Limit > 0 && m.Limit < MemoryLimitMin {
		errs = append(errs, fmt.Errorf("memory limit %d is below %d bytes", m.Limit, int64(MemoryLimitMin)))
	}
	if m.HistoryBytes < 0 {
		errs = append(errs, fmt.Errorf("history of %d bytes", m.HistoryBytes))
	}
	return errors.Join(errs...)
}

// WindowBytes is how much of the newest events the watch log may hold: a
// sixteenth of the limit, 64 MiB at most.
func (m Memory) WindowBytes() int64 {
	if m.Limit == 0 {
		return windowBytesMax
	}
	return min(windowBytesMax, m.Limit/windowShare)
}

// WatchBatchBytes is the size from which a watcher's batch of several revisions is
// not grown further: a hundred and twenty-eighth of the limit, 1 MiB at most. Each
// slow stream holds one.
func (m Memory) WatchBatchBytes() int64 {
	if m.Limit == 0 {
		return watchBatchBytesMax
	}
	return min(watchBatchBytesMax, m.Limit/watchBatchShare)
}

// ListBytes is how much of large answers may be under way: an eighth of the limit,
// 256 MiB without one. Values that were replaced, or would have left memory, stay
// in it for an answer that its client has not taken.
func (m Memory) ListBytes() int64 {
	if m.Limit == 0 {
		return listBytesUnlimited
	}
	return m.Limit / listShare
}

// LoadEvicted is how many of rows that take so many bytes in all are to be
// loaded without their values, so that half of the limit holds the others and
// the keys of all.
func (m Memory) LoadEvicted(rows int, bytes int64) int {
	room := m.Limit/2 - int64(rows)*rowHeapBytes
	if m.Limit == 0 || bytes <= room {
		return 0
	}
	return rows - int(float64(rows)*max(0, float64(room))/float64(bytes))
}

// MemoryStats is what a decision is made from, in bytes. The zero value is what
// is known before the first collection.
type MemoryStats struct {
	Heap    int64 // what the last collection has found alive
	Other   int64 // what the runtime uses beside the heap
	Values  int64 // of Heap: encodings of versions
	History int64 // of Values: those of superseded versions
}

// Room answers how many bytes of versions may stay in memory. What is on the
// heap beside them was measured, so that everything counts which nobody keeps
// an account of. History leaves first: it gets what live values do not need.
func (m Memory) Room(s MemoryStats) mvcc.Room {
	m.EnsureDefaults()
	room := mvcc.Room{History: m.HistoryBytes}
	if m.Limit == 0 {
		return room
	}
	values := m.Limit / 2
	if s.Heap > 0 {
		values = m.Limit/100*heapPercent - s.Other - max(0, s.Heap-s.Values)
	}
	values = max(values, m.Limit/valuesShareMin)
	live := max(0, s.Values-s.History)
	room.History = max(1, min(m.HistoryBytes, values-live))
	room.Live = values - min(room.History, s.History)
	return room
}

// LowWater is the room down to which versions leave once they are too many, so
// that not every write makes another one leave.
func LowWater(room mvcc.Room) mvcc.Room {
	return mvcc.Room{Live: room.Live - room.Live/lowWaterShare, History: room.History - room.History/lowWaterShare}
}
