package raftstore

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kubeshim/shim/pkg/raftstore/wal"
)

// logWriter owns the WAL: one append and one fsync for everything that waits, then the answers that depend on it. Whoever holds its
// mutex may write: the log goroutine, or with one voter the node's turn, which appends in place; the goroutine is then left with the
// marks of checkpoints, and with waiting for room on a full disk, while nothing is appended in place. A hard state in which only the commit index moved rides with the next entries; losing it costs nothing, as raft finds out
// again what is committed.
type logWriter struct {
	s     *Store
	wal   *wal.WAL
	log   *raftLog
	inbox *mailbox[logTask]
	wake  chan struct{}

	mu        sync.Mutex // All below, and the WAL's appender, belong to who holds it.
	mark      mark
	hardState *raftpb.HardState // the newest whose entries are written
	written   *raftpb.HardState // the one in the WAL
	segments  segmentStarts
	last      uint64 // index of the last gathered entry
	records   []wal.RecordV
	headers   []byte
	inputs    []nodeInput
	out       []*raftpb.Message // to other members
	later     []logTask         // came in while the disk was full, or a snapshot was installed
	reserveAt time.Time         // when the next attempt to make a spare segment is due
}

// logTask is a message of raft's or a mark to write.
type logTask struct {
	msg     *raftpb.Message
	install *install // what the snapshot of msg is
	mark    *mark
	done    chan error // of mark; capacity 1
}

func newLogWriter(s *Store, log *raftLog) *logWriter {
	wake := make(chan struct{}, 1)
	return &logWriter{s: s, log: log, wake: wake,
		inbox:     newMailbox[logTask](0, wake), // bounded by appendsInFlightMax and a few messages without entries
		hardState: &raftpb.HardState{}, written: &raftpb.HardState{},
		mark: mark{conf: &raftpb.ConfState{}},
	}
}

// header is what each segment begins with. The WAL calls it within Append. The hard state is the written one: what the newest counts on
// may be about to be written, behind this.
func (l *logWriter) header() []wal.Record {
	return []wal.Record{l.s.id.record(), l.mark.record(), hardStateRecord(l.written)}
}

// run is the event loop.
func (l *logWriter) run() {
	for {
		select {
		case <-l.s.stop:
			return
		case <-l.wake:
		}
		left, err := l.work()
		if err != nil {
			if !errors.Is(err, wal.ErrNoSpace) { // that, like ErrStopped, is: stopping
				l.s.fail(fmt.Errorf("write the log: %w", err))
			}
			return
		}
		l.s.node.takeOver(left, l.inbox.len() > 0)
	}
}

// work does what is in the inbox, and says whether it has left something in the node's.
func (l *logWriter) work() (left bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	tasks := l.inbox.take()
	if len(l.later) > 0 {
		tasks, l.later = append(l.later, tasks...), nil
	}
	inputs, err := l.process(tasks, l.awaitSpace)
	if err != nil {
		return false, err
	}
	if len(l.later) > 0 {
		poke(l.wake)
	}
	for _, t := range tasks {
		if t.msg != nil {
			inputs = append(inputs, nodeInput{done: posted{appends: 1, batches: min(1, len(t.msg.GetEntries()))}})
		}
	}
	l.s.node.inbox.leave(inputs...)
	l.inbox.recycle(tasks)
	return len(inputs) > 0, nil
}

// inPlace appends on the goroutine of the turn, and answers what raft is to be told. It does not wait for room: with wal.ErrNoSpace the
// log goroutine has to write the message again, whole.
func (l *logWriter) inPlace(m *raftpb.Message) ([]nodeInput, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.process([]logTask{{msg: m}}, func() bool { return false })
}

// noteCommit takes the hard state of a message without entries, if it need not be written. What came before is written. It does not wait.
func (l *logWriter) noteCommit(m *raftpb.Message) bool {
	if !l.mu.TryLock() {
		return false
	}
	defer l.mu.Unlock()
	hs := messageHardState(m)
	if raft.IsEmptyHardState(hs) {
		return true
	}
	if hs.GetTerm() != l.written.GetTerm() || hs.GetVote() != l.written.GetVote() {
		return false
	}
	l.hardState = hs
	return true
}

// finish leaves the newest commit index, so that the next start need not wait for raft to find it. Nobody else writes any more.
func (l *logWriter) finish() {
	if l.hardState.GetCommit() == l.written.GetCommit() {
		return
	}
	if _, err := l.wal.Append(hardStateRecord(l.hardState)); err == nil {
		_ = l.wal.Sync()
	}
}

// process answers what raft is to be told. await waits for room, as awaitSpace; if it is false, so is the outcome wal.ErrNoSpace.
func (l *logWriter) process(tasks []logTask, await func() bool) ([]nodeInput, error) {
	for _, t := range tasks { // first, as the segments they give back may be the only room for the entries
		if t.mark != nil {
			t.done <- l.release(*t.mark)
		}
	}
	l.inputs = l.inputs[:0]
	for len(tasks) > 0 {
		n := l.together(tasks)
		if n == 0 {
			if err := l.install(tasks[0], await); err != nil {
				return nil, err
			}
			tasks = tasks[1:]
			continue
		}
		if err := l.batch(tasks[:n], await); err != nil {
			return nil, err
		}
		tasks = tasks[n:]
	}
	l.sendOut()
	l.watchSpace()
	return l.inputs, nil
}

// together answers how many of the tasks go into one append: what the WAL takes at once, but one at least. 0: the first one is an install.
func (l *logWriter) together(tasks []logTask) (n int) {
	size, limit := 0, l.appendMax()
	for ; n < len(tasks) && tasks[n].install == nil; n++ {
		size += walSize(tasks[n].msg.GetEntries())
		if n > 0 && size > limit {
			break
		}
	}
	return n
}

// appendMax is how many bytes of entries one append takes, as walSize counts them.
func (l *logWriter) appendMax() int { return int(l.wal.BatchBytesMax()) - walBatchReserve }

// walSize is at least what entries take in the WAL.
func walSize(entries []*raftpb.Entry) (size int) {
	for _, e := range entries {
		size += len(e.GetData()) + walEntryOverhead
	}
	return size
}

// tell has raft and others hear of what is durable, before a wait.
func (l *logWriter) tell() {
	l.sendOut()
	if len(l.inputs) > 0 {
		l.s.node.inbox.put(l.inputs...)
		l.inputs = l.inputs[:0]
	}
}

func (l *logWriter) sendOut() {
	if len(l.out) > 0 {
		l.s.peers.Send(l.out)
		clear(l.out)
		l.out = l.out[:0]
	}
}

// batch makes one append of the tasks.
func (l *logWriter) batch(tasks []logTask, await func() bool) error {
	if err := l.append(tasks, await); err != nil {
		l.hardState = l.written // it may count on what was not written
		return err
	}
	for _, t := range tasks {
		if t.msg != nil {
			l.log.append(t.msg.GetEntries())
			l.inputs, l.out = l.s.responses(l.inputs, l.out, t.msg)
		}
	}
	return nil
}

// responses appends what was to wait for m to be durable: what raft here has to hear, and votes and acknowledgements for others (I2).
func (s *Store) responses(inputs []nodeInput, out []*raftpb.Message, m *raftpb.Message) ([]nodeInput, []*raftpb.Message) {
	for _, r := range m.GetResponses() {
		if r.GetTo() == s.id.member {
			inputs = append(inputs, nodeInput{msg: r})
		} else if n := len(out); n > 0 && covers(r, out[n-1]) {
			out[n-1] = r
		} else {
			out = append(out, r)
		}
	}
	return inputs, out
}

// covers: the acknowledgement r says all that the one before it says.
func covers(r, before *raftpb.Message) bool {
	return r.GetType() == raftpb.MsgAppResp && before.GetType() == raftpb.MsgAppResp && !r.GetReject() && !before.GetReject() &&
		r.GetTo() == before.GetTo() && r.GetTerm() == before.GetTerm() && r.GetIndex() >= before.GetIndex()
}

// append makes the entries and hard states of all tasks durable.
func (l *logWriter) append(tasks []logTask, await func() bool) error {
	l.records, l.headers = l.records[:0], l.headers[:0]
	var first uint64
	size, limit := 0, l.appendMax()
	for _, t := range tasks {
		if t.msg == nil {
			continue
		}
		if hs := messageHardState(t.msg); !raft.IsEmptyHardState(hs) {
			l.hardState = hs
		}
		for _, e := range t.msg.GetEntries() {
			if size > 0 && size+len(e.GetData())+walEntryOverhead > limit {
				if err := l.write(first, true, await); err != nil {
					return err
				}
				first, size = 0, 0
			}
			if first == 0 || e.GetIndex() < first { // a later message may replace the end of the former
				first = e.GetIndex()
			}
			l.last = e.GetIndex()
			from := len(l.headers)
			l.headers = entryHeader(l.headers, e)
			l.records = append(l.records, wal.RecordV{Type: recordEntry, Data: [][]byte{l.headers[from:len(l.headers):len(l.headers)], e.GetData()}})
			size += len(e.GetData()) + walEntryOverhead
		}
	}
	return l.write(first, false, await)
}

// messageHardState is the hard state a MsgStorageAppend carries, empty if none.
func messageHardState(m *raftpb.Message) *raftpb.HardState {
	return &raftpb.HardState{Term: new(m.GetTerm()), Vote: new(m.GetVote()), Commit: new(m.GetCommit())}
}

// write appends the gathered records with the hard state behind them, and syncs. more says that the batch goes on, so that the
// hard state, which may count on entries that are still to come, must not be written yet.
func (l *logWriter) write(first uint64, more bool, await func() bool) error {
	voted := l.hardState.GetTerm() != l.written.GetTerm() || l.hardState.GetVote() != l.written.GetVote()
	if len(l.records) == 0 && (!voted || more) {
		return nil
	}
	hard := l.hardState
	if more {
		hard = l.written
	} else if hard.GetCommit() != l.written.GetCommit() || voted {
		l.withHardState(hardStateRecord(hard))
	}
	pos, err := l.wal.AppendV(l.records...)
	for errors.Is(err, wal.ErrNoSpace) {
		if !await() {
			return err
		}
		pos, err = l.wal.AppendV(l.records...)
	}
	if err != nil {
		return err
	}
	if first != 0 {
		l.segments.add(pos.Segment, first)
	}
	began := l.s.syncs.begin()
	if err := l.wal.Sync(); err != nil {
		return err
	}
	l.s.syncs.add(first, l.last, began)
	l.written = hard
	clear(l.records)
	l.records, l.headers = l.records[:0], l.headers[:0]
	return nil
}

// withHardState has the hard state come with the last entry, or alone if there is none.
func (l *logWriter) withHardState(hard wal.Record) {
	if n := len(l.records); n > 0 {
		last := &l.records[n-1]
		*last = wal.RecordV{Type: recordLastEntry, Data: [][]byte{hard.Data, last.Data[0], last.Data[1]}}
		return
	}
	l.records = append(l.records, wal.RecordV{Type: hard.Type, Data: [][]byte{hard.Data}})
}

// awaitSpace waits until there may be room for a segment. What was proposed stays proposed meanwhile: it must not be forgotten,
// since raft has promised an order. A checkpoint that ends meanwhile gives segments back here, which may be all the room there will
// be: so raft hears before of what is written already, or no checkpoint would ever hold it. False: the store is stopping.
func (l *logWriter) awaitSpace() bool {
	l.tell()
	l.setSpaceLow(true)
	l.s.logFull.Store(true)
	defer l.s.logFull.Store(false)
	for {
		select {
		case <-l.s.stop:
			return false
		case <-l.wake:
		}
		released := l.releaseMarks() // the node's tick keeps waking us
		// The note may have taken a released segment into use, so there can be room in it even if there is no spare.
		if l.makeRoom() == nil || released {
			return true
		}
	}
}

// releaseMarks does what the inbox has for checkpoints, and puts off all else. It says whether one of them gave back what it could.
func (l *logWriter) releaseMarks() (released bool) {
	tasks := l.inbox.take()
	for _, t := range tasks {
		if t.mark != nil {
			err := l.release(*t.mark)
			released = released || err == nil
			t.done <- err
		} else {
			l.later = append(l.later, t)
		}
	}
	l.inbox.recycle(tasks)
	return released
}

// watchSpace follows the WAL's spare segment.
func (l *logWriter) watchSpace() {
	l.setSpaceLow(l.wal.SpaceLow() && l.makeRoom() != nil)
}

// makeRoom makes the spare segment if there is none. The mark may have become able to give back more than when it was noted: the segment
// that was the current one then, as soon as what waited for room stands in the next one. If it cannot, there may be room all the same.
func (l *logWriter) makeRoom() error {
	_ = l.giveBack(l.mark, wal.Position{})
	return l.tryReserve()
}

// tryReserve makes the spare segment if there is none. An attempt takes for a moment whatever room there is, even if it is too little;
// a checkpoint that is being written, which will give segments back, goes first.
// Where the file system has no fallocate it is made of zeros that are written: an attempt that took long is not soon followed by the next.
func (l *logWriter) tryReserve() error {
	began := time.Now()
	if began.Before(l.reserveAt) && l.wal.SpaceLow() || !l.s.room.TryLock() {
		return wal.ErrNoSpace
	}
	defer l.s.room.Unlock()
	err := l.wal.TryReserve()
	if took := time.Since(began); err != nil && took >= reserveCheap {
		l.reserveAt = time.Now().Add(min(reservePauseFactor*took, reservePauseMax))
	}
	return err
}

func (l *logWriter) setSpaceLow(low bool) {
	if l.s.spaceLow.Swap(low) != low {
		l.s.metrics.setSpaceLow(low)
		l.s.cfg.OnEvent(SpaceChanged{Low: low})
	}
}

// release notes that bbolt holds everything up to the mark, and gives the segments back that nothing needs any more. On a full disk
// the segments go first, which needs no room and makes some. If there is none for the note even then, the next segment begins with it.
func (l *logWriter) release(m mark) error {
	l.mark = m
	at, noted := l.note(m)
	if noted != nil && !errors.Is(noted, wal.ErrNoSpace) {
		return noted
	}
	if err := l.giveBack(m, at); err != nil || noted == nil {
		return err
	}
	if at, noted = l.note(m); errors.Is(noted, wal.ErrNoSpace) {
		return nil
	} else if noted != nil {
		return noted
	}
	return l.giveBack(m, at)
}

// note makes the mark durable and answers where it stands.
func (l *logWriter) note(m mark) (at wal.Position, err error) {
	if at, err = l.wal.Append(m.record()); err == nil {
		err = l.wal.Sync()
	}
	if err != nil {
		return wal.Position{}, fmt.Errorf("note the checkpoint in the log: %w", err)
	}
	return at, nil
}

// giveBack releases the segments before the first that holds an entry above the mark. When there is no such entry, that is the one
// with the note, if it has been written: a segment begins with all else that is needed. A batch that waits for room has entries which raft's
// log does not have yet, and some of them may be written.
func (l *logWriter) giveBack(m mark, note wal.Position) error {
	segment, ok := l.segments.firstNeeded(m.index)
	if last, err := l.log.LastIndex(); err == nil && max(last, l.last) <= m.index && note.Segment > segment {
		segment, ok = note.Segment, true
	}
	if !ok {
		return nil
	}
	size := l.wal.Size()
	err := l.wal.Release(wal.Position{Segment: segment})
	if l.wal.Size() < size && l.wal.SpaceLow() { // what went was removed, not kept as the spare: now there may be room for one
		l.reserveAt = time.Time{}
	}
	if err != nil {
		return fmt.Errorf("release the log before segment %d: %w", segment, err)
	}
	return nil
}

// segmentStarts knows, per segment, an index such that the segments before it matter only to indexes below.
type segmentStarts []struct{ segment, first uint64 }

func (s *segmentStarts) add(segment, first uint64) {
	for i := range *s { // a conflict: what stood at first and above in older segments was replaced
		(*s)[i].first = min((*s)[i].first, first)
	}
	if n := len(*s); n == 0 || (*s)[n-1].segment < segment {
		*s = append(*s, struct{ segment, first uint64 }{segment, first})
	}
}

// firstNeeded is the oldest segment that holds an entry above index, and forgets those before it.
func (s *segmentStarts) firstNeeded(index uint64) (segment uint64, ok bool) {
	for len(*s) > 0 && (*s)[0].first <= index+1 {
		segment, ok = (*s)[0].segment, true
		if len(*s) == 1 || (*s)[1].first > index+1 {
			break
		}
		*s = (*s)[1:]
	}
	return segment, ok
}
