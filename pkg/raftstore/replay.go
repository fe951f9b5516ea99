package raftstore

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kubeshim/shim/pkg/raftstore/wal"
)

// replay gathers what the WAL says behind a checkpoint. An entry that a hard state behind it counts on is never replaced: it is handed on,
// and only the others are held.
type replay struct {
	base     mark // the checkpoint in bbolt
	id       identity
	mark     mark // the last one in the WAL
	hard     *raftpb.HardState
	take     func(*raftpb.Entry) error // gets the committed entries behind base, in order; nil: nobody does
	taken    uint64                    // index of the last one
	entries  []*raftpb.Entry           // behind taken, without a gap
	end      uint64                    // index of the last entry
	bytes    int64                     // given to the WAL for all behind base, and for those that they replaced
	segments segmentStarts
	any      bool
	heading  bool         // no entry has come since the header of a segment
	at       wal.Position // of the last record
	// installed is the index of the last snapshot that replaced the log; 0: none.
	installed uint64
	newest    uint64       // index of all entries, those that were replaced included
	gap       *recordError // an entry that does not follow
}

func newReplay(base mark) *replay {
	return &replay{base: base, hard: &raftpb.HardState{}, taken: base.index, end: base.index}
}

func (r *replay) empty() bool { return !r.any }

// last is the index of the last entry.
func (r *replay) last() uint64 { return r.end }

// record takes the next record of the WAL.
func (r *replay) record(pos wal.Position, rec wal.Record) error {
	var err error
	r.at = pos
	switch rec.Type {
	case recordIdentity:
		r.heading = true
		var id identity
		if id, err = decodeIdentity(rec.Data); err == nil && r.id != (identity{}) && id != r.id {
			err = fmt.Errorf("identity changes from %+v to %+v", r.id, id)
		}
		r.id = id
	case recordCheckpoint:
		r.mark, err = decodeMark(rec.Data)
	case recordHardState:
		r.hard, err = decodeHardState(rec.Data)
	case recordInstall:
		r.any, r.entries, r.end, r.bytes, r.gap, r.segments = true, nil, r.base.index, 0, nil, nil
		r.installed, _, err = decodeInstall(rec.Data)
	case recordEntry:
		var e *raftpb.Entry
		if e, err = decodeEntry(rec.Data); err == nil {
			err = r.entry(pos, e, len(rec.Data))
		}
	case recordLastEntry:
		var e *raftpb.Entry
		if e, r.hard, err = decodeLastEntry(rec.Data); err == nil {
			err = r.entry(pos, e, len(rec.Data))
		}
	default:
		err = fmt.Errorf("record type %d is unknown: %w", rec.Type, ErrNewerFormat)
	}
	if err != nil {
		return &recordError{pos: pos, err: err}
	}
	if r.gap != nil || r.heading { // a header's hard state is one of before, if not of an early version, where it may count on what comes
		return nil
	}
	return r.handOn(r.hard.GetCommit())
}

// handOn gives up the entries up to a commit index.
func (r *replay) handOn(commit uint64) error {
	n := 0
	for ; n < len(r.entries) && r.entries[n].GetIndex() <= commit; n++ {
		if r.take != nil {
			if err := r.take(r.entries[n]); err != nil {
				return err
			}
		}
		r.taken, r.entries[n] = r.entries[n].GetIndex(), nil
	}
	if n == len(r.entries) {
		r.entries = r.entries[:0]
	} else {
		r.entries = r.entries[n:]
	}
	return nil
}

// recordError is a record that is whole and makes no sense.
type recordError struct {
	pos wal.Position
	err error
}

func (e *recordError) Error() string { return fmt.Sprintf("log record at %v: %v", e.pos, e.err) }
func (e *recordError) Unwrap() error { return e.err }

func (r *replay) entry(pos wal.Position, e *raftpb.Entry, bytes int) error {
	r.any, r.heading = true, false
	index := e.GetIndex()
	r.newest = max(r.newest, index)
	r.segments.add(pos.Segment, index)
	if index <= r.base.index+1 {
		r.gap = nil // so was what did not follow: the log may begin with the end of what was replaced
	}
	if index <= r.base.index {
		r.entries, r.end, r.bytes = nil, r.base.index, 0 // what came behind was replaced
		return nil
	}
	if r.gap == nil && index > r.last()+1 {
		r.gap = &recordError{pos: pos, err: fmt.Errorf("entry %d follows entry %d", index, r.last())}
	}
	if r.gap != nil { // read on: a mark may tell that the database is at fault
		return nil
	}
	r.end, r.bytes = index, r.bytes+int64(bytes)
	if index <= r.taken { // the same once more
		r.entries = r.entries[:0]
		return nil
	}
	r.entries = append(r.entries[:index-r.taken-1], e)
	return nil
}

// finish is to be called behind the last record: check, and what no entry has come behind is handed on.
func (r *replay) finish(d Dirs, dbPath string) error {
	if err := r.check(d, dbPath); err != nil {
		return err
	}
	return r.handOn(r.hard.GetCommit())
}

// check compares the WAL with the database. If entries between the two are missing, the database is at fault if the WAL says that it
// held more: a file that was lost or put back, or whose newest meta page is damaged so that an older one counts. The log is at fault if
// it never came to where the database is (A2).
func (r *replay) check(d Dirs, dbPath string) error {
	if r.id == (identity{}) {
		return errors.New("the log does not say which member it belongs to")
	}
	if r.mark.index > r.base.index {
		return &CorruptError{File: dbPath, Offset: -1, Reason: fmt.Sprintf(
			"it holds the state at index %d, though index %d had been written to it", r.base.index, r.mark.index)}
	}
	if r.installed > r.base.index {
		return &CorruptError{File: dbPath, Offset: -1, Reason: fmt.Sprintf(
			"it holds the state at index %d, though a snapshot at index %d had been installed", r.base.index, r.installed)}
	}
	if r.gap != nil {
		return r.gap
	}
	if end := max(r.mark.index, r.installed, r.newest); end < r.base.index {
		return d.older(end, r.base.index)
	}
	return nil
}
