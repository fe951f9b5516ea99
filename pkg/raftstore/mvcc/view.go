package mvcc

import (
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/auth"
)

// View is the state at one applied index. It never changes and may be used by
// any goroutine for as long as it is held.
//
// A read at the view's own revision needs nothing but the view and stays exact
// forever. A read at an older one follows Version.Prev, which compaction cuts:
// it is checked against the newest compacted revision before and after, and
// answers ErrCompacted if compaction has overtaken it.
type View struct {
	reader
	index, term uint64
	hash        uint64
	leases      *leaseTree
	attached    *attachTree
	history     historyView
	meta        meta
	auth        *auth.State
	size        int64
	liveSize    int64
	pending     PendingRows
	residency   Residency
}

// Index is the index of the last entry applied.
func (v *View) Index() uint64 { return v.index }

// Term is the term of the last entry applied.
func (v *View) Term() uint64 { return v.term }

// Revision is the current main revision.
func (v *View) Revision() Revision { return v.revision }

// Compacted is the highest compacted revision, -1 if there never was one. It
// is the oldest revision that can be read.
func (v *View) Compacted() Revision { return v.compacted }

// Pending is what the next checkpoint would have to write.
func (v *View) Pending() PendingRows { return v.pending }

// Hash is the rolling hash of all that was applied.
func (v *View) Hash() uint64 { return v.hash }

// Lease answers a lease.
func (v *View) Lease(id LeaseID) (Lease, bool) {
	l, ok := v.leases.Get(id)
	if !ok {
		return Lease{}, false
	}
	return *l, true
}

// Leases answers all leases by ascending id.
func (v *View) Leases() []Lease {
	all := make([]Lease, 0, v.leases.Len())
	v.leases.AscendFirst(func(l *Lease) bool {
		all = append(all, *l)
		return true
	})
	return all
}

// LeaseKeys answers the keys attached to a lease, sorted. They are not to be
// modified.
func (v *View) LeaseKeys(id LeaseID) [][]byte {
	var keys [][]byte
	visitAttached(v.attached, id, func(x *Version) bool {
		keys = append(keys, x.Key())
		return true
	})
	return keys
}

// Auth is users, roles and permissions.
func (v *View) Auth() *auth.State { return v.auth }

// Alarms answers the alarms that are raised, by type and member. Not to be
// modified.
func (v *View) Alarms() []*pb.AlarmMember { return v.meta.alarms }

// ClusterVersion is the version the cluster has agreed on, "" if none yet.
func (v *View) ClusterVersion() string { return v.meta.clusterVersion }

// Downgrade is the downgrade the cluster allows.
func (v *View) Downgrade() Downgrade { return v.meta.downgrade }

// Size is the number of bytes of all rows as they would be in bbolt, those
// included that compaction has not come to yet.
func (v *View) Size() int64 { return v.size }

// LiveSize is the part of Size that the newest versions of the live keys take.
// It is the sum of their RowSize.
func (v *View) LiveSize() int64 { return v.liveSize }

// QuotaSize is what a quota counts: LiveSize, and 64 bytes for each lease.
func (v *View) QuotaSize() int64 { return v.liveSize + int64(v.leases.Len())*leaseRowSize }

// KeyCount is the number of live keys.
func (v *View) KeyCount() int64 { return int64(v.keys.Weight()) }

// Get answers the live version of a key, or nil.
func (v *View) Get(key []byte) *Version {
	x, ok := v.keys.Get(key)
	if !ok || x.Tombstone() {
		return nil
	}
	return x
}

// Rows begins to read what the view shows at a revision (0: its own) and has
// left memory. ErrOvertaken: a compaction has passed the revision.
//
// Rows are removed from the file after the compacted revision has become known
// to all views. So if it is not beyond the revision once the reader has frozen
// the file, the reader finds all that is visible.
func (v *View) Rows(rev Revision) (RowReader, error) {
	r, err := v.latest.rows.Begin()
	if err != nil {
		return nil, err
	}
	if v.passed(rev) {
		r.Close()
		return nil, ErrOvertaken
	}
	return r, nil
}

// passed tells whether a compaction has passed a revision, 0 for the view's own:
// what was visible at it may be gone from the file.
func (v *View) passed(rev Revision) bool {
	return int64(v.readRevision(int64(rev))) < v.latest.compacted.Load()
}

// rowError says why a version could not be read that is visible at a revision.
func (v *View) rowError(rev Revision, err error) error {
	switch {
	case !errors.Is(err, ErrRowGone):
		return err
	case v.passed(rev):
		return ErrOvertaken
	}
	return &ReadError{Err: err}
}

// overtaken tells whether a later compaction has made a revision unreadable.
func (v *View) overtaken(rev Revision) bool {
	return rev < v.revision && int64(rev) < v.latest.compacted.Load()
}

// Txn runs a txn that only reads (IsReadOnlyTxn). The checks of CheckTxn are
// the caller's.
func (v *View) Txn(t *pb.TxnRequest) (*TxnResult, error) {
	ok, err := v.compareAll(t.Compare)
	if err != nil {
		return nil, v.rowError(0, err)
	}
	ops := branch(t, ok)
	for _, op := range ops {
		r := op.GetRequestRange()
		if r == nil {
			return nil, ErrUnsupported
		}
		if err := v.checkRevision(r.Revision); err != nil {
			return nil, err
		}
	}
	res := &TxnResult{Succeeded: ok, Ops: make([]OpResult, len(ops))}
	for i, op := range ops {
		rr, err := v.Range(op.GetRequestRange())
		if err != nil {
			return nil, err
		}
		res.Ops[i] = OpResult{Range: rr, Revision: rr.Revision}
	}
	return res, nil
}
