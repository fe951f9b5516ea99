package mvcc

import (
	"bytes"
	"cmp"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// IsReadOnlyTxn tells whether both branches of a txn only read. Such a txn is
// a linearizable read and needs no entry in the log. (A nested txn makes it a
// writing one, as in etcd.)
func IsReadOnlyTxn(r *pb.TxnRequest) bool {
	for _, ops := range [2][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			if op.GetRequestRange() == nil {
				return false
			}
		}
	}
	return true
}

// applyTxn runs a txn in etcd's three steps: all compares, those of nested
// txns too, against the state before it; then all checks of the branches that
// will run; then the operations, which cannot fail any more.
func (s *State) applyTxn(r *pb.TxnRequest) (*TxnResult, error) {
	var err error
	if s.path, err = s.reader().choose(s.path[:0], r); err != nil {
		return nil, err
	}
	if _, err := s.checkTxnState(r, s.path); err != nil {
		return nil, err
	}
	res, _ := s.runTxn(r, s.path)
	return res, nil
}

// choose appends the outcome of the txn's compares and, in the order of the
// operations of the branch taken, those of the txns in it.
func (r reader) choose(path []bool, t *pb.TxnRequest) ([]bool, error) {
	ok, err := r.compareAll(t.Compare)
	path = append(path, ok)
	for _, op := range branch(t, ok) {
		if nested := op.GetRequestTxn(); nested != nil && err == nil {
			path, err = r.choose(path, nested)
		}
	}
	return path, err
}

func branch(t *pb.TxnRequest, ok bool) []*pb.RequestOp {
	if ok {
		return t.Success
	}
	return t.Failure
}

// checkTxnState checks what the operations on the path rely on. It answers the
// rest of the path.
func (s *State) checkTxnState(t *pb.TxnRequest, path []bool) (rest []bool, err error) {
	ops := branch(t, path[0])
	path = path[1:]
	for _, op := range ops {
		switch o := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			err = s.reader().checkRevision(o.RequestRange.Revision)
		case *pb.RequestOp_RequestPut:
			err = s.checkPutState(o.RequestPut)
		case *pb.RequestOp_RequestTxn:
			path, err = s.checkTxnState(o.RequestTxn, path)
		}
		if err != nil {
			return nil, err
		}
	}
	return path, nil
}

// runTxn runs the operations on the path. It answers the rest of the path.
func (s *State) runTxn(t *pb.TxnRequest, path []bool) (res *TxnResult, rest []bool) {
	ops := branch(t, path[0])
	res = newTxnResult(path[0], len(ops))
	path = path[1:]
	for i, op := range ops {
		out := &res.Ops[i]
		switch o := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			// Checked before; an entry may have moved the head revision by
			// one since, which only makes more revisions readable.
			var err error
			if out.Range, err = s.reader().rangeKeys(o.RequestRange); err != nil {
				s.lost = err
			}
		case *pb.RequestOp_RequestPut:
			out.Put = s.put(o.RequestPut)
		case *pb.RequestOp_RequestDeleteRange:
			out.Delete = s.deleteRange(o.RequestDeleteRange)
		case *pb.RequestOp_RequestTxn:
			out.Txn, path = s.runTxn(o.RequestTxn, path)
			continue
		}
		out.Revision = s.headRevision()
	}
	return res, path
}

// newTxnResult is one allocation for what apiservers send, a branch of one
// operation.
func newTxnResult(succeeded bool, ops int) *TxnResult {
	if ops != 1 {
		return &TxnResult{Succeeded: succeeded, Ops: make([]OpResult, ops)}
	}
	r := &struct {
		TxnResult
		one [1]OpResult
	}{}
	r.Succeeded, r.Ops = succeeded, r.one[:]
	return &r.TxnResult
}

func (r reader) compareAll(cs []*pb.Compare) (bool, error) {
	for _, c := range cs {
		if ok, err := r.compare(c); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

// compare evaluates one compare. Every live key of its range must match; where
// there is none, all is zero, except that a value never matches.
func (r reader) compare(c *pb.Compare) (ok bool, err error) {
	ok = true
	some := false
	r.visitLive(spanOf(c.Key, c.RangeEnd), func(v *Version) bool {
		some = true
		var value []byte
		if c.Target == pb.Compare_VALUE {
			if value, err = r.value(v); err != nil {
				ok = false
				return false
			}
		}
		ok = compareVersion(c, v, value)
		return ok
	})
	if some {
		return ok, err
	}
	if c.Target == pb.Compare_VALUE {
		return false, nil
	}
	return compareVersion(c, &Version{}, nil), nil
}

func compareVersion(c *pb.Compare, v *Version, value []byte) bool {
	var d int
	switch c.Target {
	case pb.Compare_VALUE:
		d = bytes.Compare(value, c.GetValue())
	case pb.Compare_CREATE:
		d = cmp.Compare(int64(v.create), c.GetCreateRevision())
	case pb.Compare_MOD:
		d = cmp.Compare(int64(v.mod), c.GetModRevision())
	case pb.Compare_VERSION:
		d = cmp.Compare(v.num, c.GetVersion())
	case pb.Compare_LEASE:
		d = cmp.Compare(int64(v.lease), c.GetLease())
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return d == 0
	case pb.Compare_NOT_EQUAL:
		return d != 0
	case pb.Compare_GREATER:
		return d > 0
	case pb.Compare_LESS:
		return d < 0
	}
	return true // an unknown result, as in etcd
}
