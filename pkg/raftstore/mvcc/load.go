package mvcc

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Row is one row of etcd's key bucket. The bytes are copied, so they may alias
// a mapped file.
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

	Rows     iter.Seq2[Row, error] // in the order of revisions
	RowsHint int                   // about how many, 0 if unknown

	Leases         []Lease
	Alarms         []*pb.AlarmMember
	ClusterVersion string
	Downgrade      Downgrade
}

// Load rebuilds the state of a checkpoint, of ours or of etcd's. It is O(n log
// n) in the rows. Rows that the compaction has made dead may be among them;
// they are left out, and the next checkpoint deletes them.
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
	rows, err := s.loadRows(l)
	if err != nil {
		return nil, err
	}
	s.revision = max(s.revision, s.compacted, l.Revision)
	s.pending.begun = s.revision
	s.loadIndex(rows)
	s.startRemoval()
	s.removeLoaded()
	return s, nil
}

// loadRows answers the versions in the order of revisions.
func (s *State) loadRows(l Loader) ([]keyed, error) {
	if l.Rows == nil {
		return nil, nil
	}
	rows := make([]keyed, 0, l.RowsHint)
	var keys []byte
	last := RowKey{Main: -1}
	for row, err := range l.Rows {
		if err != nil {
			return nil, fmt.Errorf("read row: %w", err)
		}
		k, err := ParseRowKey(row.Key)
		if err != nil {
			return nil, err
		}
		if !last.less(k) {
			return nil, fmt.Errorf("row %d.%d follows %d.%d", k.Main, k.Sub, last.Main, last.Sub)
		}
		last = k
		v, err := parseRow(k, row.Value)
		if err != nil {
			return nil, err
		}
		s.size += v.rowSize()
		if v.Tombstone() {
			s.compact.tombstones.push(v)
		}
		if v.mod >= s.compacted {
			s.history.append(v)
		}
		if cap(keys)-len(keys) < len(v.Key()) {
			keys = make([]byte, 0, max(loadKeysChunk, len(v.Key())))
		}
		from := len(keys)
		keys = append(keys, v.Key()...)
		rows = append(rows, keyed{aliasString(keys[from:]), v})
	}
	s.revision = max(s.revision, last.Main)
	return rows, nil
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

func parseRow(k RowKey, value []byte) (*Version, error) {
	if k.Tombstone {
		return parseTombstone(k, value)
	}
	return parsePut(k, value)
}

// loadIndex links the versions of each key and builds the index from the
// newest ones.
func (s *State) loadIndex(rows []keyed) {
	byKey := sortKeyed(slices.Clone(rows))
	newest := make([]*Version, 0, len(rows))
	for i, r := range byKey {
		if i > 0 && byKey[i-1].key == r.key {
			r.v.prev.Store(byKey[i-1].v)
			newest[len(newest)-1] = r.v
		} else {
			newest = append(newest, r.v)
		}
	}
	for _, r := range rows {
		if r.v.Prev() != nil {
			s.compact.superseded.push(r.v)
		}
	}
	s.keys.Build(newest)
	var leased []*Version
	for _, v := range newest {
		if v.Tombstone() {
			continue
		}
		s.liveSize += v.rowSize()
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
