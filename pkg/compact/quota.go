package compact

import (
	"fmt"
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Quota bounds the bytes a store may hold: 0 is DefaultQuotaBytes, negative is
// no bound (--quota-backend-bytes).
type Quota int64

// Bytes answers the bound; ok is false when there is none.
func (q Quota) Bytes() (n int64, ok bool) {
	switch {
	case q < 0:
		return 0, false
	case q == 0:
		return DefaultQuotaBytes, true
	}
	return int64(q), true
}

// Ceiling is the bound as a number: the largest there is when there is none.
func (q Quota) Ceiling() int64 {
	if n, ok := q.Bytes(); ok {
		return n
	}
	return math.MaxInt64
}

// Shown is the bound as etcd shows it: what was given, below 0 when there is none.
func (q Quota) Shown() int64 {
	if q < 0 {
		return int64(q)
	}
	return q.Ceiling()
}

// Suggested says whether the bound is within what etcd suggests.
func (q Quota) Suggested() bool { return q <= SuggestedQuotaBytesMax }

// QuotaDecision is an answer with the numbers it was made from.
type QuotaDecision struct {
	OK        bool
	Cost      int64 // bytes charged for the request
	Remaining int64 // bytes left before it; may be negative; 1 without a bound
}

// String is the decision as a part of a line of a log.
func (d QuotaDecision) String() string {
	verb := "refused"
	if d.OK {
		verb = "admitted"
	}
	return fmt.Sprintf("%s: cost %d, remaining %d", verb, d.Cost, d.Remaining)
}

// Admit says whether a request may go on when the store holds size bytes. A
// request that costs nothing always may; one that would fill the store to the
// last byte may not.
func (q Quota) Admit(size, cost int64) QuotaDecision {
	bound, ok := q.Bytes()
	if !ok {
		return QuotaDecision{OK: true, Cost: cost, Remaining: 1}
	}
	left := bound - size
	return QuotaDecision{OK: cost == 0 || cost < left, Cost: cost, Remaining: left}
}

// CostPut answers what a put is charged, in bytes.
func CostPut(r *pb.PutRequest) int64 {
	return putOverhead + int64(len(r.GetKey())) + int64(len(r.GetValue()))
}

// CostTxn answers what a txn is charged, in bytes: the sum of the puts of its
// dearer branch, with those of inner txns. Nesting is bounded by the decoder.
func CostTxn(r *pb.TxnRequest) int64 {
	return max(costOps(r.GetSuccess()), costOps(r.GetFailure()))
}

func costOps(ops []*pb.RequestOp) int64 {
	var sum int64
	for _, op := range ops {
		if put := op.GetRequestPut(); put != nil {
			sum += CostPut(put)
		} else if txn := op.GetRequestTxn(); txn != nil {
			sum += CostTxn(txn)
		}
	}
	return sum
}

// CostLeaseGrant answers what a lease is charged, in bytes.
func CostLeaseGrant() int64 { return leaseCharged }

// Cost answers what a request to the log is charged, in bytes.
func Cost(r *pb.InternalRaftRequest) int64 {
	switch {
	case r.GetPut() != nil:
		return CostPut(r.GetPut())
	case r.GetTxn() != nil:
		return CostTxn(r.GetTxn())
	case r.GetLeaseGrant() != nil:
		return CostLeaseGrant()
	}
	return 0
}
