package mvcc

import (
	"fmt"
	"iter"
	"slices"
	"strings"

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
	newest, err := s.loadRows(l)
	if err != nil {
		return nil, err
	}
	s.revision = max(s.revision, s.compacted, l.Revision)
	s.pending.begun = s.revision
	s.loadIndex(newest)
	s.startRemoval()
	s.removeLoaded()
	return s, nil
}

// loadRows links the versions of each key and answers the newest of each.
func (s *State) loadRows(l Loader) (map[string]*Version, error) {
	newest := make(map[string]*Version, l.RowsHint)
	last := RowKey{Main: -1}
	if l.Rows == nil {
		return newest, nil
	}
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
		s.loadVersion(newest, v)
	}
	s.revision = max(s.revision, last.Main)
	return newest, nil
}

func parseRow(k RowKey, value []byte) (*Version, error) {
	if k.Tombstone {
		return parseTombstone(k, value)
	}
	return parsePut(k, value)
}

// loadVersion takes in the next version by revision.
func (s *State) loadVersion(newest map[string]*Version, v *Version) {
	// The map's key aliases the version, which is immutable and lives as long.
	key := aliasString(v.Key())
	prev := newest[key]
	newest[key] = v
	s.size += v.rowSize()
	if prev != nil {
		v.prev.Store(prev)
		s.compact.superseded.push(v)
	}
	if v.Tombstone() {
		s.compact.tombstones.push(v)
	}
	if v.mod >= s.compacted {
		s.history.append(v)
	}
}

// loadIndex builds the index from the newest versions.
func (s *State) loadIndex(newest map[string]*Version) {
	// Keys are sorted beside the versions: a comparison then goes to one place
	// in memory and not to two.
	type keyed struct {
		key string
		v   *Version
	}
	byKey := make([]keyed, 0, len(newest))
	var leased []*Version
	for key, v := range newest {
		byKey = append(byKey, keyed{key, v})
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
	slices.SortFunc(byKey, func(a, b keyed) int { return strings.Compare(a.key, b.key) })
	sorted := make([]*Version, len(byKey))
	for i := range byKey {
		sorted[i] = byKey[i].v
	}
	s.keys.Build(sorted)
	slices.SortFunc(leased, func(a, b *Version) int { return attachKeyOf(a).compare(attachKeyOf(b)) })
	s.attached.Build(leased)
}

// removeLoaded removes what the compaction had made dead before the
// checkpoint was written.
func (s *State) removeLoaded() {
	s.history.compact(s.compacted)
	for !s.CompactStep(1 << 20) {
	}
}
