package mvcc

import (
	"errors"
	"strconv"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/auth"
)

// AuthenticateResult answers Authenticate.
type AuthenticateResult struct {
	// Token is the simple token, which the request has brought the beginning of
	// and the index of the entry completes; "" without one.
	Token string
	// AuthRevision is the auth revision that the user is known at.
	AuthRevision uint64
}

// applyAuth applies what is about users and roles.
func (s *State) applyAuth(e Entry) (any, error) {
	next, answer, err := s.auth.Apply(infoOf(e.Request), e.Request)
	s.auth = next
	switch a := e.Request.Authenticate; {
	case errors.Is(err, auth.ErrNotAuth):
		return nil, ErrUnsupported
	case err != nil:
		return nil, err
	case a != nil:
		res := &AuthenticateResult{AuthRevision: s.auth.Revision()}
		if a.SimpleToken != "" {
			res.Token = a.SimpleToken + "." + strconv.FormatUint(e.Index, 10)
		}
		return res, nil
	}
	return answer, nil
}

// permit tells whether who asks may do what a request does to keys.
func (s *State) permit(r *pb.InternalRaftRequest) error {
	g, i := guard{s.auth, s.leases, s.attached}, infoOf(r)
	switch {
	case r.Range != nil:
		return s.auth.CheckRange(i, r.Range.Key, r.Range.RangeEnd)
	case r.Put != nil:
		return g.put(i, r.Put)
	case r.DeleteRange != nil:
		return g.deleteRange(i, r.DeleteRange)
	case r.Txn != nil:
		return g.txn(i, r.Txn)
	case r.LeaseRevoke != nil:
		if _, expired := decisionTerm(r); expired {
			return nil
		}
		return g.lease(i, LeaseID(r.LeaseRevoke.ID))
	}
	return nil
}

// CheckTxn tells whether i may run a txn: its compares and the operations of both
// branches, whichever would be taken. Errors as auth.State.CheckPut.
func (v *View) CheckTxn(i auth.Info, t *pb.TxnRequest) error {
	if !v.auth.Enabled() {
		return nil
	}
	return guard{v.auth, v.leases, v.attached}.txn(i, t)
}

// guard checks requests in etcd's order, so that who may not do several things
// is told of the first.
type guard struct {
	*auth.State
	leases   *leaseTree
	attached *attachTree
}

func (g guard) put(i auth.Info, p *pb.PutRequest) error {
	if err := g.CheckPut(i, p.Key); err != nil {
		return err
	}
	if err := g.lease(i, LeaseID(p.Lease)); err != nil {
		return err
	}
	if p.PrevKv {
		return g.CheckRange(i, p.Key, nil)
	}
	return nil
}

func (g guard) deleteRange(i auth.Info, d *pb.DeleteRangeRequest) error {
	if err := g.CheckDeleteRange(i, d.Key, d.RangeEnd); err != nil {
		return err
	}
	if d.PrevKv {
		return g.CheckRange(i, d.Key, d.RangeEnd)
	}
	return nil
}

// lease tells whether i may write all keys of a lease, which its end deletes.
func (g guard) lease(i auth.Info, id LeaseID) (err error) {
	if _, ok := g.leases.Get(id); !ok || g.CheckAdmin(i) == nil {
		return nil
	}
	visitAttached(g.attached, id, func(v *Version) bool {
		err = g.CheckPut(i, v.Key())
		return err == nil
	})
	return err
}

func (g guard) txn(i auth.Info, t *pb.TxnRequest) error {
	for _, c := range t.Compare {
		if err := g.CheckRange(i, c.Key, c.RangeEnd); err != nil {
			return err
		}
	}
	for _, ops := range [2][]*pb.RequestOp{t.Success, t.Failure} {
		for _, op := range ops {
			if err := g.op(i, op); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g guard) op(i auth.Info, op *pb.RequestOp) error {
	switch o := op.Request.(type) {
	case *pb.RequestOp_RequestRange:
		return g.CheckRange(i, o.RequestRange.Key, o.RequestRange.RangeEnd)
	case *pb.RequestOp_RequestPut:
		return g.put(i, o.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		return g.deleteRange(i, o.RequestDeleteRange)
	case *pb.RequestOp_RequestTxn:
		return g.txn(i, o.RequestTxn)
	}
	return nil
}
