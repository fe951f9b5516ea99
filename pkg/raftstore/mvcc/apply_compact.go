package mvcc

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// compaction is the removal of what the compacted revision has made dead. To
// compact is one assignment: reads below the revision are refused from then
// on. The memory is freed afterwards, in steps, without looking at any key
// that has nothing dead: every write leaves a note of what it will have killed
// once it is itself compacted.
//
//   - A version at or below the compacted revision has nothing readable before
//     it: its prev is cut.
//   - A tombstone below the compacted revision is itself dead. One exactly at
//     it is kept, as etcd has done since 3.5.16.
//   - What the next checkpoint would have written of it need not be written,
//     but for a tombstone that a checkpoint's older rows of its key need: they
//     are deleted in parts, in the order of revisions, and must not come back
//     to life by a crash in between.
type compaction struct {
	superseded versionQueue // versions that have one before them, by revision
	tombstones versionQueue // by revision
	target     Revision     // what is being removed; the compacted revision
	finished   Revision     // what was removed completely
	sweep      int          // the chunk of pending.puts to look at next
	busy       bool
}

// applyCompact makes all before the revision unreadable.
func (s *State) applyCompact(r *pb.CompactionRequest) (*CompactResult, error) {
	rev := Revision(r.Revision)
	if rev <= s.compacted {
		return nil, ErrCompacted
	}
	if rev > s.revision {
		return nil, ErrFutureRev
	}
	s.compacted = rev
	s.latest.compacted.Store(int64(rev))
	s.history.compact(rev)
	s.startRemoval()
	s.pending.meta = true
	return &CompactResult{Revision: rev}, nil
}

func (s *State) startRemoval() {
	s.compact.target = s.compacted
	s.compact.busy = true
	s.compact.sweep = 0
}

// CompactStep removes a bounded part of what the last compaction has made dead
// and tells whether all of it is gone. budget is in versions looked at, 1000
// if it is 0. It changes nothing that a reader can see.
func (s *State) CompactStep(budget int) (done bool) {
	c := &s.compact
	if !c.busy {
		return true
	}
	if budget <= 0 {
		budget = compactStepDefault
	}
	for ; budget > 0; budget-- {
		if v := c.superseded.front(); v != nil && v.mod <= c.target {
			c.superseded.pop()
			s.cut(v)
			continue
		}
		if t := c.tombstones.front(); t != nil && t.mod < c.target {
			c.tombstones.pop()
			s.bury(t)
			continue
		}
		if len(s.pending.unput) > 0 && c.sweep < s.pending.puts.len() {
			budget -= s.pending.puts.sweep(c.sweep)
			c.sweep++
			continue
		}
		s.pending.puts.dropEmpty()
		s.pending.unput = rowList{}
		c.busy, c.finished = false, c.target
		return true
	}
	return false
}

// cut removes the version before v.
func (s *State) cut(v *Version) {
	if p := v.prev.Load(); p != nil {
		if p.mod <= s.pending.begun || p.flags&flagRowsBefore != 0 {
			v.flags |= flagRowsBefore
		}
		s.kill(p)
		v.prev.Store(nil)
	}
}

// bury removes a tombstone, and its key from the index if it is the newest of
// its key. If it is not, the version after it still points to it, which reads
// as no key either way.
func (s *State) bury(t *Version) {
	s.kill(t)
	if newest, ok := s.keys.Get(t.Key()); ok && newest == t {
		s.keys.Delete(t.Key())
	}
}

// kill accounts for a row that is gone.
func (s *State) kill(v *Version) {
	if v.flags&flagDead != 0 {
		return
	}
	v.flags |= flagDead
	s.resident.removed(v)
	s.size -= v.RowSize()
	if v.mod > s.pending.begun {
		s.pending.stale--
	}
	if v.mod <= s.pending.begun || v.stays() {
		s.pending.dead.append(v.RowKey())
	} else {
		s.pending.unput.append(v.RowKey())
	}
}

// versionQueue is a first-in first-out list in chunks.
type versionQueue struct {
	chunks [][]*Version
	at     int // in the first chunk
	popped int // in total
}

func (q *versionQueue) push(v *Version) {
	n := len(q.chunks)
	if n == 0 || len(q.chunks[n-1]) == cap(q.chunks[n-1]) {
		q.chunks = append(q.chunks, make([]*Version, 0, pendingChunk))
		n++
	}
	q.chunks[n-1] = append(q.chunks[n-1], v)
}

// front answers the oldest version, or nil.
func (q *versionQueue) front() *Version {
	if len(q.chunks) == 0 || q.at == len(q.chunks[0]) {
		return nil
	}
	return q.chunks[0][q.at]
}

// look answers the version that was pushed as the nth, counted from 0, or nil.
// It must not be popped yet.
func (q *versionQueue) look(n int) *Version {
	i := q.at + n - q.popped
	if chunk := i / pendingChunk; chunk < len(q.chunks) && i%pendingChunk < len(q.chunks[chunk]) {
		return q.chunks[chunk][i%pendingChunk]
	}
	return nil
}

func (q *versionQueue) pop() {
	q.chunks[0][q.at] = nil
	q.popped++
	q.at++
	if q.at == cap(q.chunks[0]) {
		q.chunks[0] = nil
		q.chunks = q.chunks[1:]
		q.at = 0
	}
}
