package mvcc

import (
	"cmp"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// AlarmResult answers an alarm request. The members are never changed.
type AlarmResult struct{ Alarms []*pb.AlarmMember }

// refuse applies the alarms, and then the permissions of who asks. NOSPACE
// refuses what grows the live keys, by what the state knows, so that all members
// and every replay decide alike; CORRUPT refuses nearly all. Who may not do
// something is told of no space where etcd says so without a look at the keys.
func (s *State) refuse(r *pb.InternalRaftRequest) error {
	var denied error
	if s.auth.Enabled() {
		denied = s.permit(r)
	}
	if len(s.meta.alarms) == 0 {
		return denied
	}
	if s.meta.raised(pb.AlarmType_CORRUPT) {
		switch {
		case r.Range != nil, r.Put != nil, r.DeleteRange != nil, r.Txn != nil,
			r.Compaction != nil, r.LeaseGrant != nil, r.LeaseRevoke != nil:
			return ErrCorrupt
		}
	}
	if s.meta.raised(pb.AlarmType_NOSPACE) {
		if denied != nil && MayGrow(r) {
			return ErrNoSpace
		}
		if n, err := s.reader().growth(r); n > 0 || err != nil {
			return cmp.Or(err, ErrNoSpace)
		}
	}
	return denied
}

// MayGrow tells whether a request can need space at all: a put, a txn with a
// put in either branch, a new lease. View.Growth tells whether it does.
func MayGrow(r *pb.InternalRaftRequest) bool {
	switch {
	case r.Range != nil:
		return false
	case r.Put != nil:
		return true
	case r.DeleteRange != nil:
		return false
	case r.Txn != nil:
		return txnPuts(r.Txn)
	case r.Compaction != nil:
		return false
	}
	return r.LeaseGrant != nil
}

func txnPuts(t *pb.TxnRequest) bool {
	for _, ops := range [2][]*pb.RequestOp{t.Success, t.Failure} {
		for _, op := range ops {
			if op.GetRequestPut() != nil {
				return true
			}
			if nested := op.GetRequestTxn(); nested != nil && txnPuts(nested) {
				return true
			}
		}
	}
	return false
}

func (m *meta) raised(t pb.AlarmType) bool {
	return slices.ContainsFunc(m.alarms, func(a *pb.AlarmMember) bool { return a.Alarm == t })
}

func (s *State) applyAlarm(r *pb.AlarmRequest) (*AlarmResult, error) {
	res := &AlarmResult{}
	switch r.Action {
	case pb.AlarmRequest_GET:
		for _, a := range s.meta.alarms {
			if r.Alarm == pb.AlarmType_NONE || r.Alarm == a.Alarm {
				res.Alarms = append(res.Alarms, a)
			}
		}
	case pb.AlarmRequest_ACTIVATE:
		if r.Alarm != pb.AlarmType_NONE {
			res.Alarms = append(res.Alarms, s.raise(r.MemberID, r.Alarm))
		}
	case pb.AlarmRequest_DEACTIVATE:
		if a := s.lower(r.MemberID, r.Alarm); a != nil {
			res.Alarms = append(res.Alarms, a)
		}
	default:
		return nil, ErrUnsupported
	}
	return res, nil
}

// raise sets an alarm, if it is not set yet, and answers it.
func (s *State) raise(member uint64, t pb.AlarmType) *pb.AlarmMember {
	i, ok := s.meta.findAlarm(member, t)
	if !ok {
		a := &pb.AlarmMember{MemberID: member, Alarm: t}
		s.meta.alarms = slices.Insert(slices.Clone(s.meta.alarms), i, a)
		s.pending.meta = true
	}
	return s.meta.alarms[i]
}

// lower takes an alarm back and answers it, or nil if it was not set.
func (s *State) lower(member uint64, t pb.AlarmType) *pb.AlarmMember {
	i, ok := s.meta.findAlarm(member, t)
	if !ok {
		return nil
	}
	a := s.meta.alarms[i]
	s.meta.alarms = slices.Delete(slices.Clone(s.meta.alarms), i, i+1)
	s.pending.meta = true
	return a
}

func (m *meta) findAlarm(member uint64, t pb.AlarmType) (int, bool) {
	return slices.BinarySearchFunc(m.alarms, &pb.AlarmMember{MemberID: member, Alarm: t}, compareAlarms)
}

func compareAlarms(a, b *pb.AlarmMember) int {
	return cmp.Or(cmp.Compare(a.Alarm, b.Alarm), cmp.Compare(a.MemberID, b.MemberID))
}
