package mvcc

import (
	"bytes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// CheckRange checks the shape of a range. Errors: ErrEmptyKey,
// ErrInvalidSortOption.
func CheckRange(r *pb.RangeRequest) error {
	if len(r.GetKey()) == 0 {
		return ErrEmptyKey
	}
	if _, ok := pb.RangeRequest_SortOrder_name[int32(r.SortOrder)]; !ok {
		return ErrInvalidSortOption
	}
	if _, ok := pb.RangeRequest_SortTarget_name[int32(r.SortTarget)]; !ok {
		return ErrInvalidSortOption
	}
	return nil
}

// CheckPut checks the shape of a put. Errors: ErrEmptyKey, ErrValueProvided,
// ErrLeaseProvided.
func CheckPut(r *pb.PutRequest) error {
	switch {
	case len(r.GetKey()) == 0:
		return ErrEmptyKey
	case r.IgnoreValue && len(r.Value) != 0:
		return ErrValueProvided
	case r.IgnoreLease && r.Lease != 0:
		return ErrLeaseProvided
	}
	return nil
}

// CheckDelete checks the shape of a delete. Errors: ErrEmptyKey.
func CheckDelete(r *pb.DeleteRangeRequest) error {
	if len(r.GetKey()) == 0 {
		return ErrEmptyKey
	}
	return nil
}

// CheckTxn checks the shape of a txn and of what is in it. The longest of its
// compares, success and failure operations may have maxTxnOps entries; a txn
// in it may have what is left of that. Errors: those of the other checks,
// ErrTooManyOps, ErrKeyNotFound for an operation without a request,
// ErrDuplicateKey.
func CheckTxn(r *pb.TxnRequest, maxTxnOps int) error {
	if err := checkTxnOps(r, maxTxnOps); err != nil {
		return err
	}
	if !mayOverlap(r) {
		return nil
	}
	if _, _, err := checkIntervals(r.Success); err != nil {
		return err
	}
	_, _, err := checkIntervals(r.Failure)
	return err
}

func checkTxnOps(r *pb.TxnRequest, maxTxnOps int) error {
	ops := max(len(r.GetCompare()), len(r.GetSuccess()), len(r.GetFailure()))
	if ops > maxTxnOps {
		return ErrTooManyOps
	}
	for _, c := range r.GetCompare() {
		if len(c.GetKey()) == 0 {
			return ErrEmptyKey
		}
	}
	for _, branch := range [2][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range branch {
			if err := checkOp(op, maxTxnOps-ops); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkOp(op *pb.RequestOp, maxTxnOps int) error {
	switch o := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return CheckRange(o.RequestRange)
	case *pb.RequestOp_RequestPut:
		return CheckPut(o.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		return CheckDelete(o.RequestDeleteRange)
	case *pb.RequestOp_RequestTxn:
		return checkTxnOps(o.RequestTxn, maxTxnOps)
	}
	return ErrKeyNotFound
}

// mayOverlap is false for the usual txn with at most one operation a branch,
// which has nothing to overlap with.
func mayOverlap(r *pb.TxnRequest) bool {
	for _, branch := range [2][]*pb.RequestOp{r.Success, r.Failure} {
		if len(branch) > 1 {
			return true
		}
		if len(branch) == 1 && branch[0].GetRequestTxn() != nil {
			return true
		}
	}
	return false
}

// interval is a set of keys that is deleted. end nil: the one key.
type interval struct{ key, end []byte }

// covers is how etcd's interval tree sees it. It knows nothing of "\0" as an
// end: such a delete covers nothing, and a txn with a put behind it passes.
func (i interval) covers(key string) bool {
	if i.end == nil {
		return string(i.key) == key
	}
	return string(i.key) <= key && key < string(i.end)
}

func covered(dels []interval, key string) bool {
	for _, d := range dels {
		if d.covers(key) {
			return true
		}
	}
	return false
}

type keySet map[string]struct{}

// checkIntervals checks that no operation of a branch puts a key that another
// one puts or deletes, txns in it included, and answers what the branch puts
// and deletes. The two branches of one txn may touch the same key, as only one
// of them runs. What a txn in it deletes is held only against the puts of the
// branch itself and of the txns behind it (as in etcd).
func checkIntervals(ops []*pb.RequestOp) (puts keySet, dels []interval, err error) {
	for _, op := range ops {
		if d := op.GetRequestDeleteRange(); d != nil {
			i := interval{key: d.Key}
			if len(d.RangeEnd) != 0 {
				i.end = bytes.Clone(d.RangeEnd)
			}
			dels = append(dels, i)
		}
	}
	puts = make(keySet)
	for _, op := range ops {
		t := op.GetRequestTxn()
		if t == nil {
			continue
		}
		if dels, err = checkNested(t, puts, dels); err != nil {
			return nil, nil, err
		}
	}
	for _, op := range ops {
		p := op.GetRequestPut()
		if p == nil {
			continue
		}
		key := string(p.Key)
		if _, twice := puts[key]; twice || covered(dels, key) {
			return nil, nil, ErrDuplicateKey
		}
		puts[key] = struct{}{}
	}
	return puts, dels, nil
}

// checkNested checks one txn of a branch against what the branch has so far,
// and adds to it.
func checkNested(t *pb.TxnRequest, puts keySet, dels []interval) ([]interval, error) {
	thenPuts, thenDels, err := checkIntervals(t.Success)
	if err != nil {
		return nil, err
	}
	elsePuts, elseDels, err := checkIntervals(t.Failure)
	if err != nil {
		return nil, err
	}
	for key := range thenPuts {
		if _, twice := puts[key]; twice || covered(dels, key) {
			return nil, ErrDuplicateKey
		}
		puts[key] = struct{}{}
	}
	for key := range elsePuts {
		_, twice := puts[key]
		_, exclusive := thenPuts[key]
		if twice && !exclusive || covered(dels, key) {
			return nil, ErrDuplicateKey
		}
		puts[key] = struct{}{}
	}
	return append(append(dels, thenDels...), elseDels...), nil
}
