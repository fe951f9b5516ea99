package raftstore

import (
	"fmt"
	"sync"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// raftLog is raft's Storage: the tail of the log that is durable in the WAL and may still be asked for. The log appends after
// the fsync, the node reads and drops what is applied; hence the mutex.
//
// With one voter nothing asks for applied entries again, so they leave memory at once; with more members
// Config.SnapshotCatchupEntries of them, of at most bounds.catchup, stay for those that lag. Who needs older ones gets a snapshot.
type raftLog struct {
	mu sync.Mutex
	// base is the entry before the first one kept; its term is kept because raft matches against it.
	baseIndex, baseTerm uint64
	entries             []*raftpb.Entry // entries[i] has index baseIndex+1+i
	applied             uint64
	bytes               int // sizes of entries
	hardState           *raftpb.HardState
	confState           *raftpb.ConfState
}

var _ raft.Storage = (*raftLog)(nil)

// InitialState is read once, by raft.NewRawNode.
func (l *raftLog) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hardState, l.confState, nil
}

// Entries are entries [lo, hi), at least one and otherwise at most maxSize bytes.
func (l *raftLog) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lo <= l.baseIndex {
		return nil, raft.ErrCompacted
	}
	if hi > l.lastIndex()+1 {
		return nil, raft.ErrUnavailable
	}
	from := l.entries[lo-l.baseIndex-1 : hi-l.baseIndex-1]
	n, size := 0, uint64(0)
	for n < len(from) {
		size += uint64(entrySize(from[n]))
		if n > 0 && size > maxSize {
			break
		}
		n++
	}
	if n == 0 {
		return nil, raft.ErrUnavailable
	}
	// Dropping clears the slots in place, so the caller gets a slice of its own.
	return append([]*raftpb.Entry(nil), from[:n]...), nil
}

// Term is the term of entry i.
func (l *raftLog) Term(i uint64) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.term(i)
}

func (l *raftLog) term(i uint64) (uint64, error) {
	switch {
	case i == l.baseIndex:
		return l.baseTerm, nil
	case i < l.baseIndex:
		return 0, raft.ErrCompacted
	case i > l.lastIndex():
		return 0, raft.ErrUnavailable
	}
	return l.entries[i-l.baseIndex-1].GetTerm(), nil
}

// LastIndex is the index of the last durable entry.
func (l *raftLog) LastIndex() (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastIndex(), nil
}

func (l *raftLog) lastIndex() uint64 { return l.baseIndex + uint64(len(l.entries)) }

// FirstIndex is the index of the first entry kept.
func (l *raftLog) FirstIndex() (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.baseIndex + 1, nil
}

// Snapshot is asked for when a member needs entries that are gone. It names the newest state that there is; see Store.sendSnapshot.
func (l *raftLog) Snapshot() (*raftpb.Snapshot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	term, err := l.term(l.applied)
	if err != nil || l.applied == 0 {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(l.applied), Term: new(term), ConfState: l.confState}}, nil
}

// restore makes the log an empty one that begins behind a snapshot.
func (l *raftLog) restore(index, term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.baseIndex, l.baseTerm, l.applied = index, term, index
	l.entries, l.bytes = nil, 0
}

// append adds durable entries. Entries at or above the first index are replaced from there on, as raft asks for after a conflict.
func (l *raftLog) append(entries []*raftpb.Entry) {
	if len(entries) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	first := entries[0].GetIndex()
	if first <= l.baseIndex || first > l.lastIndex()+1 {
		panic(fmt.Sprintf("append of entry %d to a log of (%d, %d]", first, l.baseIndex, l.lastIndex()))
	}
	keep := first - l.baseIndex - 1
	for _, e := range l.entries[keep:] {
		l.bytes -= entrySize(e)
	}
	for _, e := range entries {
		l.bytes += entrySize(e)
	}
	clear(l.entries[keep:])
	l.entries = append(l.entries[:keep], entries...)
}

// dropApplied forgets applied entries: all but the newest keep of them, and of these the oldest beyond keepBytes.
func (l *raftLog) dropApplied(applied, keep uint64, keepBytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.applied = max(l.applied, applied)
	upTo := l.baseIndex
	if applied > keep {
		upTo = max(upTo, applied-keep)
	}
	bytes := l.bytes
	for i := l.baseIndex + 1; i <= upTo; i++ {
		bytes -= entrySize(l.entries[i-l.baseIndex-1])
	}
	for upTo < applied && bytes > keepBytes {
		bytes -= entrySize(l.entries[upTo-l.baseIndex])
		upTo++
	}
	if upTo > l.baseIndex {
		l.bytes = bytes
		l.drop(upTo)
	}
}

func entrySize(e *raftpb.Entry) int { return len(e.Data) + entryOverhead }

// drop forgets the entries up to and including index.
func (l *raftLog) drop(index uint64) {
	term, _ := l.term(index)
	n := index - l.baseIndex
	clear(l.entries[:n])
	if int(n) == len(l.entries) {
		l.entries = l.entries[:0]
		if cap(l.entries) > batchEntriesMax {
			l.entries = nil
		}
	} else {
		l.entries = l.entries[n:]
	}
	l.baseIndex, l.baseTerm = index, term
}
