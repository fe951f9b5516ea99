package mvcc

import (
	"cmp"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Entry is one committed entry of the log.
type Entry struct {
	Index, Term uint64
	// Request is what the entry asks for; nil for an empty entry or a
	// configuration change, which only advance the index.
	Request *pb.InternalRaftRequest
}

// Result is what applying an entry came to.
type Result struct {
	// Revision is the header revision of the answer.
	Revision Revision
	// Err is one of the sentinels of this package. The state is then
	// unchanged, its index aside.
	Err error
	// Response is a *RangeResult, *PutResult, *DeleteResult, *TxnResult,
	// *CompactResult, *LeaseGrantResult, *LeaseRevokeResult,
	// *LeaseCheckpointResult, *AlarmResult, *AuthenticateResult, auth.Status,
	// auth.Names or auth.Permissions; nil on error and for requests without an
	// answer of their own.
	Response any
	// Events are the changes of this entry, in sub order. The slice is the
	// caller's.
	Events []Event
}

// PutResult answers a put. Prev is what the key was before, if it was asked
// for.
type PutResult struct{ Prev *Version }

// DeleteResult answers a delete. Prev are the deleted versions in the order of
// their keys, if they were asked for.
type DeleteResult struct {
	Deleted int64
	Prev    []*Version
}

// TxnResult answers a txn: the operations of the branch that was taken.
type TxnResult struct {
	Succeeded bool
	Ops       []OpResult
}

// OpResult answers one operation of a txn: exactly one of the pointers is set.
// Revision is that of the operation's own header; etcd leaves it at 0 in the
// header of a nested txn.
type OpResult struct {
	Range    *RangeResult
	Put      *PutResult
	Delete   *DeleteResult
	Txn      *TxnResult
	Revision Revision
}

// CompactResult answers a compaction. Revision is what was compacted at.
type CompactResult struct{ Revision Revision }

// Apply applies one entry. The entry's index must follow the last one's. It
// never fails half-way: an error leaves all but index and hash as it was. Only
// a *ReadError is another matter: a version that has left memory cannot be read,
// and the state must not be used any more.
func (s *State) Apply(e Entry) Result {
	if e.Index <= s.index {
		panic(fmt.Sprintf("mvcc: apply index %d after %d", e.Index, s.index))
	}
	s.index, s.term = e.Index, e.Term
	s.changes = nil
	var res Result
	if e.Request != nil {
		res.Response, res.Err = s.dispatch(e)
	}
	if lost := unreadable(cmp.Or(s.lost, res.Err)); lost != nil {
		s.lost, res.Err = lost, lost
	}
	if len(s.changes) > 0 {
		s.revision++
		res.Events = s.changes
		s.changes = nil
	}
	if res.Err != nil {
		res.Response = nil
	}
	res.Revision = s.revision
	s.fold(e, res)
	return res
}

// unreadable is a *ReadError if err is about a version that cannot be read. What
// the state holds is never dead, so none of its rows is gone by rights.
func unreadable(err error) error {
	var lost *ReadError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &lost):
		return lost
	case errors.Is(err, ErrRowGone):
		return &ReadError{Err: err}
	}
	return nil
}

// dispatch does what the request says. It is etcd's order of the cases.
func (s *State) dispatch(e Entry) (any, error) {
	r := e.Request
	if err := s.refuse(r); err != nil {
		return nil, err
	}
	switch {
	case r.ClusterVersionSet != nil, r.ClusterMemberAttrSet != nil, r.DowngradeInfoSet != nil, r.DowngradeVersionTest != nil:
		s.applyCluster(r)
		return nil, nil
	case r.Range != nil:
		return s.applyRange(r.Range)
	case r.Put != nil:
		return s.applyPut(r.Put)
	case r.DeleteRange != nil:
		return s.deleteRange(r.DeleteRange), nil
	case r.Txn != nil:
		return s.applyTxn(r.Txn)
	case r.Compaction != nil:
		return s.applyCompact(r.Compaction)
	case r.LeaseGrant != nil:
		return s.applyLeaseGrant(r.LeaseGrant)
	case r.LeaseRevoke != nil:
		return s.applyLeaseRevoke(e)
	case r.LeaseCheckpoint != nil:
		return s.applyLeaseCheckpoint(e)
	case r.Alarm != nil:
		return s.applyAlarm(r.Alarm)
	}
	return s.applyAuth(e)
}

// applyRange answers a range that came through the log (etcd lets it).
func (s *State) applyRange(r *pb.RangeRequest) (*RangeResult, error) {
	return s.reader().rangeKeys(r)
}

// applyCluster takes what is said of the cluster. Member attributes belong to
// the membership and are not kept here.
func (s *State) applyCluster(r *pb.InternalRaftRequest) {
	switch {
	case r.ClusterVersionSet != nil:
		s.meta.clusterVersion = r.ClusterVersionSet.GetVer()
	case r.DowngradeInfoSet != nil:
		d := Downgrade{Enabled: r.DowngradeInfoSet.GetEnabled()}
		if d.Enabled {
			d.Target = r.DowngradeInfoSet.GetVer()
		}
		s.meta.downgrade = d
	default:
		return
	}
	s.pending.meta = true
}

// reader reads the state as it is, changes of the entry under way included.
func (s *State) reader() reader {
	return reader{keys: s.keys, revision: s.headRevision(), compacted: s.compacted, latest: s.latest}
}

// headRevision is the revision a read sees: one more than the current one as
// soon as the entry under way has changed something.
func (s *State) headRevision() Revision {
	if len(s.changes) > 0 {
		return s.revision + 1
	}
	return s.revision
}

// write makes v the newest version of its key and records the change. prev is
// the newest version before it, or nil.
func (s *State) write(v, prev *Version) {
	if prev != nil {
		v.prev.Store(prev)
		if !prev.Tombstone() {
			s.liveSize -= prev.RowSize()
			if prev.lease != 0 && prev.lease != v.lease {
				s.detach(prev)
			}
		}
		s.compact.superseded.push(v)
	}
	size := v.RowSize()
	s.size += size
	if v.Tombstone() {
		s.compact.tombstones.push(v)
	} else {
		s.liveSize += size
		if v.lease != 0 {
			s.attached.Set(v)
		}
	}
	s.resident.wrote(v, prev)
	s.keys.Set(v)
	s.history.append(v)
	s.pending.add(v, prev)
	s.changes = append(s.changes, Event{Version: v, Prev: prevOf(v)})
}
