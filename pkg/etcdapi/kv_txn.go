package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// kvTxn is KV.Txn. A txn that only reads is answered from a View; one that has a
// write in either branch goes through the log, whatever its compares say.
func (s *Server) kvTxn(ctx context.Context, req *txnRequest) (any, error) {
	r := &req.TxnRequest
	if err := mvcc.CheckTxn(r, s.opts.MaxTxnOps); err != nil {
		return nil, toGRPC(err)
	}
	if mvcc.IsReadOnlyTxn(r) {
		return s.readTxn(ctx, r)
	}
	req.raft.Txn = r
	if err := s.propose(ctx, mvcc.KindTxn, &req.write, req.body()); err != nil {
		return nil, err
	}
	return encodeTxn(s.wireHeader(req.res.Revision), req.res.Response.(*mvcc.TxnResult)), nil
}

func (s *Server) readTxn(ctx context.Context, r *pb.TxnRequest) (any, error) {
	v, err := s.keysView(ctx, serializableTxn(r))
	if err != nil {
		return nil, err
	}
	res, err := v.Txn(r)
	if err != nil {
		return nil, toGRPC(err)
	}
	s.store.CountRanges(len(r.GetCompare()) + len(res.Ops))
	return encodeTxn(s.wireHeader(v.Revision()), res), nil
}

// serializableTxn reports whether every range of both branches may be stale. It
// is true for a txn without operations, as in etcd.
func serializableTxn(r *pb.TxnRequest) bool {
	for _, ops := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range ops {
			if !op.GetRequestRange().GetSerializable() {
				return false
			}
		}
	}
	return true
}
