package mvcc

import (
	"bytes"
	"cmp"
	"encoding/binary"

	"google.golang.org/protobuf/encoding/protowire"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// LeaseID names a lease; 0 is none.
type LeaseID int64

// Lease is one lease. Immutable: a checkpoint of its remaining time replaces
// it. When it expires is not known here; that is the clock's business.
type Lease struct {
	ID        LeaseID
	TTL       int64 // seconds
	Remaining int64 // seconds, as of its last checkpoint; 0: all of TTL
}

func (l *Lease) id() LeaseID { return l.ID }
func (l *Lease) weight() int { return 1 }

// LeaseGrantResult answers a grant. TTL is the effective one, in seconds.
type LeaseGrantResult struct {
	ID  LeaseID
	TTL int64
}

// LeaseRevokeResult answers a revoke.
type LeaseRevokeResult struct{ ID LeaseID }

// LeaseCheckpointResult answers a lease checkpoint: the leases it found, as
// they are now.
type LeaseCheckpointResult struct{ Leases []Lease }

// attachKey orders the attached keys.
type attachKey struct {
	lease LeaseID
	key   []byte
}

func (a attachKey) compare(b attachKey) int {
	return cmp.Or(cmp.Compare(a.lease, b.lease), bytes.Compare(a.key, b.key))
}

func attachKeyOf(v *Version) attachKey { return attachKey{lease: v.lease, key: v.Key()} }

// detach forgets that a version is attached to its lease.
func (s *State) detach(v *Version) { s.attached.Delete(attachKeyOf(v)) }

// visitAttached calls fn for the versions attached to a lease in the order of
// their keys.
func visitAttached(t *attachTree, id LeaseID, fn func(*Version) bool) {
	t.Ascend(attachKey{lease: id}, func(v *Version) bool {
		return v.lease == id && fn(v)
	})
}

func (s *State) applyLeaseGrant(r *pb.LeaseGrantRequest) (*LeaseGrantResult, error) {
	id := LeaseID(r.ID)
	if id == 0 {
		return nil, ErrLeaseNotFound // the server picks an id before it proposes
	}
	if r.TTL > leaseTTLMax {
		return nil, ErrLeaseTTLTooLarge
	}
	if _, ok := s.leases.Get(id); ok {
		return nil, ErrLeaseExists
	}
	l := &Lease{ID: id, TTL: max(r.TTL, s.opt.LeaseTTLMin)}
	s.leases.Set(l)
	s.pending.leases[id] = struct{}{}
	return &LeaseGrantResult{ID: id, TTL: l.TTL}, nil
}

// applyLeaseRevoke deletes a lease and, in one revision, the keys attached to
// it. An expiry counts only in the term it was decided in: a leader that was
// deposed must not take leases away that its successor has extended.
func (s *State) applyLeaseRevoke(e Entry) (*LeaseRevokeResult, error) {
	if term, ok := decisionTerm(e.Request); ok && term != e.Term {
		return nil, ErrStaleExpiry
	}
	id := LeaseID(e.Request.LeaseRevoke.ID)
	if _, ok := s.leases.Get(id); !ok {
		return nil, ErrLeaseNotFound
	}
	var victims []*Version
	visitAttached(s.attached, id, func(v *Version) bool {
		victims = append(victims, v)
		return true
	})
	for _, v := range victims {
		s.delete(v)
	}
	s.leases.Delete(id)
	s.pending.leases[id] = struct{}{}
	return &LeaseRevokeResult{ID: id}, nil
}

// applyLeaseCheckpoint notes the remaining time of leases; unknown ones are
// passed over. What names a term counts in that one only: the next leader may
// have renewed a lease that the one before has found idle.
func (s *State) applyLeaseCheckpoint(e Entry) (*LeaseCheckpointResult, error) {
	if term, ok := decisionTerm(e.Request); ok && term != e.Term {
		return nil, ErrStaleExpiry
	}
	res := &LeaseCheckpointResult{}
	for _, c := range e.Request.LeaseCheckpoint.Checkpoints {
		id := LeaseID(c.ID)
		old, ok := s.leases.Get(id)
		if !ok {
			continue
		}
		l := &Lease{ID: id, TTL: old.TTL, Remaining: c.Remaining_TTL}
		s.leases.Set(l)
		s.pending.leases[id] = struct{}{}
		res.Leases = append(res.Leases, *l)
	}
	return res, nil
}

// LeaseCheckpointRequest says what is left of leases, as the lease clock knew it
// in a term; 0: in any.
func LeaseCheckpointRequest(left []*pb.LeaseCheckpoint, term uint64) *pb.InternalRaftRequest {
	r := &pb.InternalRaftRequest{LeaseCheckpoint: &pb.LeaseCheckpointRequest{Checkpoints: left}}
	if term > 0 {
		r.ProtoReflect().SetUnknown(appendTerm(nil, term))
	}
	return r
}

// AppendTermOf appends to the payload of an entry the term that the request
// names, if it does.
func AppendTermOf(dst []byte, r *pb.InternalRaftRequest) []byte {
	return append(dst, r.ProtoReflect().GetUnknown()...)
}

func appendTerm(dst []byte, term uint64) []byte {
	dst = protowire.AppendTag(dst, fieldDecisionTerm, protowire.VarintType)
	return binary.AppendUvarint(dst, term)
}

// decisionTerm answers the term that an expiry or a checkpoint was decided in.
func decisionTerm(r *pb.InternalRaftRequest) (term uint64, ok bool) {
	for b := []byte(r.ProtoReflect().GetUnknown()); len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return 0, false
		}
		b = b[n:]
		if num == fieldDecisionTerm && typ == protowire.VarintType {
			if term, n = protowire.ConsumeVarint(b); n < 0 {
				return 0, false
			}
			return term, true
		}
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return 0, false
		}
		b = b[n:]
	}
	return 0, false
}
