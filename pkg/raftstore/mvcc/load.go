package mvcc

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/auth"
)

// Row is one row of etcd's key bucket. The bytes are copied: see Loader.Rows.
type Row struct{ Key, Value []byte }

// Loader is what a checkpoint holds.
type Loader struct {
	Index, Term uint64
	Hash        uint64 // View.Hash of the checkpoint
	// Revision is the current revision; 0 takes the highest the rows name
	// (always right for what shim or etcd have written).
	Revision Revision
	// CompactScheduled and CompactFinished are as in Checkpoint:
	// NeverCompacted, not 0, where the file has none.
	CompactScheduled, CompactFinished Revision

	// CompactAhead is a compacted revision that the caller knows to become the
	// state's before anybody reads it: of a compaction in the log behind the
	// checkpoint. What that makes dead is left out, too. 0: none.
	CompactAhead Revision

	// Rows are in the order of revisions, one part behind the other. The parts are
	// read from the last to the first, Readers at a time, each on one goroutine.
	// The bytes of a row have to stay until LoadBatchRows more rows of its part, or
	// rows with values of LoadBatchBytes, were yielded; those of the last ones for
	// good.
	Rows     []iter.Seq2[Row, error]
	Readers  int // 0: as many as there are parts
	RowsHint int // at least how many in all, 0 if unknown
	// RowsEvicted is how many rows, from the first on, are loaded without their
	// values, which stay in Options.Rows: those of the oldest revisions.
	RowsEvicted int

	Leases         []Lease
	Alarms         []*pb.AlarmMember
	ClusterVersion string
	Downgrade      Downgrade
	Auth           *auth.State // nil: as in an empty state
}

// Load rebuilds the state of a checkpoint, of ours or of etcd's. It is O(n log
// n) in the rows that are not dead. Rows that the compaction has made dead may be
// among them; they are left out, for little more than the reading of their bytes,
// and the next checkpoint deletes them. It panics with what reading a part has
// panicked with.
func Load(l Loader, o Options) (*State, error) {
	s := New(o)
	s.index, s.term, s.hash = l.Index, l.Term, l.Hash
	s.compacted = max(l.CompactScheduled, l.CompactFinished)
	s.latest.compacted.Store(int64(s.compacted))
	for i := range l.Leases {
		lease := l.Leases[i]
		lease.TTL = max(lease.TTL, s.opt.LeaseTTLMin)
		s.leases.Set(&lease)
	}
	s.meta = meta{clusterVersion: l.ClusterVersion, downgrade: l.Downgrade, alarms: slices.Clone(l.Alarms)}
	slices.SortFunc(s.meta.alarms, compareAlarms)
	if l.Auth != nil {
		s.auth, s.folded, s.pending.auth = l.Auth, l.Auth, l.Auth
	}
	parts, err := s.loadRows(l)
	if err != nil {
		return nil, err
	}
	s.revision = max(s.revision, s.compacted, l.Revision)
	s.pending.begun, s.resident.persisted = s.revision, s.revision
	s.loadIndex(parts)
	s.startRemoval()
	s.removeLoaded()
	return s, nil
}

// loadRows answers the versions of each part.
func (s *State) loadRows(l Loader) ([][]keyed, error) {
	parts := make([]loadPart, len(l.Rows))
	newest := newNewestKeys(max(s.compacted, l.CompactAhead), l.RowsHint)
	for i := range parts {
		parts[i].newest = newest
		parts[i].evicted = l.RowsEvicted - i*(l.RowsHint/len(l.Rows)) // parts are of about the same size
	}
	var reading sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(len(parts)))
	for range cmp.Or(min(l.Readers, len(parts)), len(parts)) {
		reading.Go(func() {
			for i := left.Add(-1); i >= 0; i = left.Add(-1) {
				parts[i].read(l.Rows[i])
			}
		})
	}
	reading.Wait()
	read := make([][]keyed, 0, len(parts))
	last := noRow
	for _, p := range parts {
		if p.panicked != nil {
			panic(p.panicked)
		}
		if p.err != nil {
			return nil, p.err
		}
		if p.rows == 0 {
			continue
		}
		if err := last.before(p.first); err != nil {
			return nil, err
		}
		last = p.last
		read = append(read, p.versions.chunks...)
		for _, k := range p.dead {
			s.pending.dead.append(k)
		}
	}
	s.revision = max(s.revision, last.Main)
	return read, nil
}

// loadPart is one part of the rows.
type loadPart struct {
	newest   *newestKeys // of all parts
	versions keyedArena
	keys     []byte   // copies of keys, and room for more
	dead     []RowKey // rows without a version
	rows     int      // read
	evicted  int      // how many of the first rows leave their values
	first    RowKey
	last     RowKey
	err      error
	panicked any
}

// read is run by one goroutine.
func (p *loadPart) read(rows iter.Seq2[Row, error]) {
	defer func() { p.panicked = recover() }()
	p.last = noRow
	batch, size := make([]Row, 0, LoadBatchRows), 0
	for row, err := range rows {
		if err != nil {
			if p.take(batch); p.err == nil {
				p.err = fmt.Errorf("read row: %w", err)
			}
			return
		}
		batch, size = append(batch, row), size+len(row.Value)
		if len(batch) == LoadBatchRows || size >= LoadBatchBytes {
			p.take(batch)
			batch, size = batch[:0], 0
		}
		if p.err != nil {
			return
		}
	}
	p.take(batch)
}

// take makes the versions of some rows that are not dead, up to the first row that
// makes no sense.
func (p *loadPart) take(batch []Row) {
	var at [LoadBatchRows]RowKey
	for i, row := range batch {
		if at[i], p.err = p.next(row); p.err != nil {
			batch = batch[:i]
			break
		}
	}
	dead := p.newest.dead(batch, at[:])
	for i, row := range batch {
		if p.rows++; dead[i] {
			p.dead = append(p.dead, at[i])
			continue
		}
		v, err := parseRow(at[i], row.Value, p.rows <= p.evicted)
		if err != nil {
			p.err = err
			return
		}
		p.newest.add(p.versions.append(keyed{p.copyKey(v.Key()), v}))
	}
}

// copyKey copies a key beside the one before.
func (p *loadPart) copyKey(key []byte) string {
	if cap(p.keys)-len(p.keys) < len(key) {
		p.keys = make([]byte, 0, max(loadKeysChunk, len(key)))
	}
	from := len(p.keys)
	p.keys = append(p.keys, key...)
	return aliasString(p.keys[from:])
}

// next is the key of the row that follows the last one.
func (p *loadPart) next(row Row) (RowKey, error) {
	k, err := ParseRowKey(row.Key)
	if err == nil {
		err = p.last.before(k)
	}
	if err != nil {
		return k, err
	}
	if p.last == noRow {
		p.first = k
	}
	p.last = k
	return k, nil
}

// rowKeyOf is the key in the value of a row, where it stands in the first place, as
// everybody writes it.
func rowKeyOf(value []byte) (key []byte, ok bool) {
	if len(value) == 0 || value[0] != tagKey {
		return nil, false
	}
	n, size := binary.Uvarint(value[1:])
	if size <= 0 || n > uint64(len(value)-1-size) {
		return nil, false
	}
	return value[1+size : 1+size+int(n)], true
}

func parseRow(k RowKey, value []byte, evicted bool) (*Version, error) {
	if k.Tombstone {
		return parseTombstone(k, value)
	}
	return parsePut(k, value, evicted)
}

// noRow is before every row.
var noRow = RowKey{Main: -1}

// before is nil if o follows.
func (k RowKey) before(o RowKey) error {
	if k.less(o) {
		return nil
	}
	return fmt.Errorf("row %d.%d follows %d.%d", o.Main, o.Sub, k.Main, k.Sub)
}

// keyed is a version beside a copy of its key. The copies lie side by side, so
// that comparing them does not go through all of memory.
type keyed struct {
	key string
	v   *Version
}

func (a keyed) compare(b keyed) int {
	if c := strings.Compare(a.key, b.key); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(a.v.mod, b.v.mod), cmp.Compare(a.v.sub, b.v.sub))
}

// loadIndex links the versions of each key and builds the index from the
// newest ones.
func (s *State) loadIndex(parts [][]keyed) {
	byKey := sortKeyed(slices.Concat(parts...))
	newest := make([]*Version, 0, len(byKey))
	for i, r := range byKey {
		if i > 0 && byKey[i-1].key == r.key {
			r.v.prev.Store(byKey[i-1].v)
			newest[len(newest)-1] = r.v
		} else {
			newest = append(newest, r.v)
		}
	}
	for _, part := range parts {
		for _, r := range part {
			s.note(r.v)
		}
	}
	s.keys.Build(newest)
	var leased []*Version
	for _, v := range newest {
		if v.Tombstone() {
			continue
		}
		s.liveSize += v.RowSize()
		s.resident.loaded(v, false)
		// etcd ignores a lease that is not there, and so do we: the key then
		// keeps the number but hangs on nothing.
		if v.lease != 0 {
			if _, ok := s.leases.Get(v.lease); ok {
				leased = append(leased, v)
			}
		}
	}
	slices.SortFunc(leased, func(a, b *Version) int { return attachKeyOf(a).compare(attachKeyOf(b)) })
	s.attached.Build(leased)
}

// note takes a linked version into what is kept in the order of revisions.
func (s *State) note(v *Version) {
	s.size += v.RowSize()
	if v.mod >= s.compacted {
		s.history.append(v)
	}
	if v.Tombstone() {
		s.compact.tombstones.push(v)
	}
	if p := v.Prev(); p != nil {
		s.compact.superseded.push(v)
		s.resident.loaded(p, true)
	}
}

// sortKeyed sorts the halves at the same time and merges them.
func sortKeyed(rows []keyed) []keyed {
	low, high := rows[:len(rows)/2], rows[len(rows)/2:]
	var sorting sync.WaitGroup
	sorting.Go(func() { slices.SortFunc(low, keyed.compare) })
	slices.SortFunc(high, keyed.compare)
	sorting.Wait()
	merged := make([]keyed, 0, len(rows))
	for len(low) > 0 && len(high) > 0 {
		from := &low
		if high[0].compare(low[0]) < 0 {
			from = &high
		}
		merged = append(merged, (*from)[0])
		*from = (*from)[1:]
	}
	return append(append(merged, low...), high...)
}

// removeLoaded removes what the compaction had made dead before the
// checkpoint was written.
func (s *State) removeLoaded() {
	s.history.compact(s.compacted)
	for !s.CompactStep(1 << 20) {
	}
}
