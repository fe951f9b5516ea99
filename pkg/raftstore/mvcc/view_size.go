package mvcc

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// keyOnlySize is about what a key takes in an answer without values, in bytes.
const keyOnlySize = 100

// SizeHint is about how many bytes answer a range: the number of its keys now,
// its limit at most, times the mean size of a live key's row. O(log n). What a
// single key takes is not told: 0.
func (v *View) SizeHint(r *pb.RangeRequest) int64 {
	total := v.KeyCount()
	if r.GetCountOnly() || len(r.GetRangeEnd()) == 0 || total == 0 {
		return 0
	}
	keys := v.countLive(spanOf(r.GetKey(), r.GetRangeEnd()))
	if limit := r.GetLimit(); limit > 0 {
		keys = min(keys, limit)
	}
	if r.GetKeysOnly() {
		return keys * keyOnlySize
	}
	return keys * (v.liveSize / total)
}

// TxnSizeHint is the same of a txn that only reads: the larger of its branches.
func (v *View) TxnSizeHint(r *pb.TxnRequest) int64 {
	return max(v.opsSizeHint(r.GetSuccess()), v.opsSizeHint(r.GetFailure()))
}

func (v *View) opsSizeHint(ops []*pb.RequestOp) int64 {
	n := int64(0)
	for _, op := range ops {
		switch {
		case op.GetRequestRange() != nil:
			n += v.SizeHint(op.GetRequestRange())
		case op.GetRequestTxn() != nil:
			n += v.TxnSizeHint(op.GetRequestTxn())
		}
	}
	return n
}
