package mvcc

import (
	"iter"
	"maps"
	"slices"

	"github.com/kubeshim/shim/pkg/auth"
)

// pending is what the next checkpoint has to write.
type pending struct {
	puts   versionList          // versions written since the last one, those that died since left out
	dead   rowList              // rows that a checkpoint may have written and that are dead
	unput  rowList              // dead ones that are still in puts
	leases map[LeaseID]struct{} // granted, revoked or changed
	meta   bool
	auth   *auth.State // what a finished checkpoint holds
	again  bool        // puts holds rows of a checkpoint that failed

	begun Revision // rows up to here may be in a checkpoint
	stale int      // versions above begun that the next compaction beyond them makes dead
}

// PendingRows is how many versions the next checkpoint would write, or a few
// more, and how many of those are superseded or tombstones, and so need not be
// written once they are compacted.
type PendingRows struct{ Rows, Stale int }

func (p *pending) rows() PendingRows { return PendingRows{p.puts.n, min(max(p.stale, 0), p.puts.n)} }

// add notes a version and the one it supersedes, or nil.
func (p *pending) add(v, prev *Version) {
	p.puts.append(v)
	if v.Tombstone() {
		p.stale++
	}
	if prev != nil && prev.mod > p.begun && !prev.Tombstone() {
		p.stale++
	}
}

// Checkpoint is what a store that holds the last finished checkpoint has to
// write to hold the state at Index. It is captured in O(1) and may be written
// by any goroutine while entries go on being applied.
type Checkpoint struct {
	Index, Term uint64
	// View is the state at Index: its hash, leases, alarms, cluster version.
	View *View
	// MetaChanged tells that alarms, the cluster version, the downgrade or a
	// compacted revision have changed.
	MetaChanged bool
	// CompactScheduled is the compacted revision, CompactFinished the one
	// whose dead rows are all gone once those of Dead and of the checkpoints
	// before are deleted; -1: never.
	CompactScheduled, CompactFinished Revision

	puts   versionList
	dead   rowList
	leases map[LeaseID]struct{}
	auth   *auth.State // of the checkpoint before
}

// BeginCheckpoint captures what has changed since the last checkpoint that was
// finished. It has to be given back to EndCheckpoint before the next one.
func (s *State) BeginCheckpoint() *Checkpoint {
	p := &s.pending
	if p.again { // what has died since need not be written and deleted
		p.puts.sweepAll()
		p.again = false
	}
	c := &Checkpoint{
		Index: s.index, Term: s.term, View: s.Publish(), MetaChanged: p.meta,
		CompactScheduled: s.compacted, CompactFinished: s.compact.finished,
		puts: p.puts, dead: p.dead, leases: p.leases, auth: p.auth,
	}
	// What is dead in puts is written now and deleted by the next one.
	p.puts, p.dead, p.unput = versionList{}, p.unput, rowList{}
	p.leases, p.meta = make(map[LeaseID]struct{}), false
	p.begun, p.stale = s.revision, 0
	// A sweep under way was of the list that has just been taken.
	s.compact.sweep = 0
	return c
}

// EndCheckpoint tells whether a checkpoint was written. If not, the next one
// covers what it covered.
func (s *State) EndCheckpoint(c *Checkpoint, ok bool) {
	if ok {
		s.resident.persisted = c.View.revision
		s.pending.auth = c.View.auth
		return
	}
	p := &s.pending
	p.puts, p.again = c.puts.join(p.puts), true
	p.dead = append(c.dead, p.dead...)
	maps.Copy(p.leases, c.leases)
	p.meta = p.meta || c.MetaChanged
	s.compact.sweep = 0
}

// Puts answers the versions to write as rows, in the order of revisions. None
// is dead at Index, but for those that a compaction under way has not come to
// yet, which a later checkpoint names in Dead, and tombstones that this one
// names there.
func (c *Checkpoint) Puts() iter.Seq[*Version] { return c.puts.all() }

// PutCount is the number of versions that Puts answers, or a few more.
func (c *Checkpoint) PutCount() int { return c.puts.n }

// Dead answers the rows to delete behind Puts, in the order of revisions, at
// once or, in this order, later: the state that a store holds with the rest of
// them is the same. Some may not be there.
func (c *Checkpoint) Dead() []RowKey {
	dead := slices.Concat(c.dead...)
	slices.SortFunc(dead, RowKey.Compare)
	return dead
}

// LeasesPut answers the leases to write, by id.
func (c *Checkpoint) LeasesPut() []Lease {
	var put []Lease
	for _, id := range slices.Sorted(maps.Keys(c.leases)) {
		if l, ok := c.View.Lease(id); ok {
			put = append(put, l)
		}
	}
	return put
}

// LeasesDeleted answers the leases to delete, by id. Some may not be there.
func (c *Checkpoint) LeasesDeleted() []LeaseID {
	var gone []LeaseID
	for _, id := range slices.Sorted(maps.Keys(c.leases)) {
		if _, ok := c.View.Lease(id); !ok {
			gone = append(gone, id)
		}
	}
	return gone
}

// Auth answers what to write of users and roles.
func (c *Checkpoint) Auth() auth.Delta { return c.View.auth.Since(c.auth) }

// Empty tells that there is nothing to write but the index.
func (c *Checkpoint) Empty() bool {
	return c.puts.n == 0 && len(c.dead) == 0 && len(c.leases) == 0 && !c.MetaChanged && c.View.auth == c.auth
}

// rowList is a list of rows in chunks, so that the longest is not copied to
// become longer.
type rowList [][]RowKey

func (l *rowList) append(k RowKey) {
	last := len(*l) - 1
	if last < 0 || len((*l)[last]) == cap((*l)[last]) {
		*l = append(*l, make([]RowKey, 0, pendingChunk))
		last++
	}
	(*l)[last] = append((*l)[last], k)
}

// versionList is a list of versions in chunks, in the order of revisions.
type versionList struct {
	chunks [][]*Version
	n      int
}

func (l *versionList) append(v *Version) {
	last := len(l.chunks) - 1
	if last < 0 || len(l.chunks[last]) == cap(l.chunks[last]) {
		l.chunks = append(l.chunks, make([]*Version, 0, pendingChunk))
		last++
	}
	l.chunks[last] = append(l.chunks[last], v)
	l.n++
}

func (l *versionList) len() int { return len(l.chunks) }

// stays: a checkpoint has to write the version though it may be dead.
func (v *Version) stays() bool { return v.Tombstone() && v.flags&flagRowsBefore != 0 }

// sweep drops the dead versions of a chunk and answers how many it looked at.
func (l *versionList) sweep(i int) int {
	before := len(l.chunks[i])
	l.chunks[i] = slices.DeleteFunc(l.chunks[i], func(v *Version) bool { return v.flags&flagDead != 0 && !v.stays() })
	l.n -= before - len(l.chunks[i])
	return before
}

// sweepAll drops the dead versions of all chunks.
func (l *versionList) sweepAll() {
	for i := range l.chunks {
		l.sweep(i)
	}
	l.dropEmpty()
}

// dropEmpty drops the chunks that sweep has emptied.
func (l *versionList) dropEmpty() {
	l.chunks = slices.DeleteFunc(l.chunks, func(c []*Version) bool { return len(c) == 0 })
}

// join answers the versions of l and then those of o.
func (l versionList) join(o versionList) versionList {
	return versionList{chunks: append(l.chunks, o.chunks...), n: l.n + o.n}
}

func (l versionList) all() iter.Seq[*Version] {
	return func(yield func(*Version) bool) {
		for _, c := range l.chunks {
			for _, v := range c {
				if !yield(v) {
					return
				}
			}
		}
	}
}
