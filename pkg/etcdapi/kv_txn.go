package etcdapi

import (
	"context"
	"errors"
	"runtime"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/auth"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// kvTxn is KV.Txn. A txn that only reads is answered from a View; one that has a
// write in either branch goes through the log, whatever its compares say.
func (s *Server) kvTxn(ctx context.Context, req *txnRequest) (any, error) {
	r := &req.TxnRequest
	if err := mvcc.CheckTxn(r, max(0, s.opts.MaxTxnOps)); err != nil {
		return nil, toGRPC(err)
	}
	if mvcc.IsReadOnlyTxn(r) {
		return s.readTxn(ctx, r)
	}
	req.raft.Txn = r
	if err := s.propose(ctx, mvcc.KindTxn, &req.write, req.body()); err != nil {
		return nil, err
	}
	h, res := s.wireHeader(req.res.Revision), req.res.Response.(*mvcc.TxnResult)
	a, err := encodeTxn(h, res, nil)
	if errors.Is(err, errEvicted) {
		a, err = s.answerApplied(ctx, func(rows *coldRows) (*reply, error) { return encodeTxn(h, res, rows) })
	}
	if err == nil {
		s.earned(ctx, a)
	}
	return a, toGRPC(err)
}

func (s *Server) readTxn(ctx context.Context, r *pb.TxnRequest) (any, error) {
	mayRead := func(v *mvcc.View, i auth.Info) error { return v.CheckTxn(i, r) }
	if err := s.permitList(ctx, serializableTxn(r), mayRead); err != nil {
		return nil, err
	}
	began := time.Since(epoch)
	a, err := s.list(ctx, s.store.View().TxnSizeHint(r), func() (*reply, error) { return s.readTxnReply(ctx, r) })
	s.requests.readTxns.Took(time.Since(epoch)-began, err == nil)
	return a, err
}

// readTxnReply answers a txn that only reads from a View of now.
func (s *Server) readTxnReply(ctx context.Context, r *pb.TxnRequest) (*reply, error) {
	for {
		v, err := s.keysView(ctx, serializableTxn(r))
		if err != nil {
			return nil, err
		}
		if v, err = s.permit(ctx, v, func(v *mvcc.View, i auth.Info) error { return v.CheckTxn(i, r) }); err != nil {
			return nil, err
		}
		a, err := s.answerTxn(ctx, v, r)
		if !errors.Is(err, mvcc.ErrOvertaken) {
			return a, toGRPC(err)
		}
		runtime.Gosched() // the compaction is applied and may not be published yet
	}
}

// answerTxn answers a txn that only reads. mvcc.ErrOvertaken: it is to be
// answered from a newer View.
func (s *Server) answerTxn(ctx context.Context, v *mvcc.View, r *pb.TxnRequest) (*reply, error) {
	res, err := v.Txn(r)
	if err != nil {
		return nil, err
	}
	s.store.CountRanges(len(r.GetCompare()) + len(res.Ops))
	h := s.wireHeader(v.Revision())
	a, err := encodeTxn(h, res, nil)
	if errors.Is(err, errEvicted) {
		a, err = s.answerFrom(ctx, v, oldestRead(v, r), func(rows *coldRows) (*reply, error) { return encodeTxn(h, res, rows) })
	}
	return a, err
}

// oldestRead is the oldest revision that one of the ranges of a txn is of.
func oldestRead(v *mvcc.View, r *pb.TxnRequest) mvcc.Revision {
	oldest := v.Revision()
	for _, ops := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range ops {
			if rev := mvcc.Revision(op.GetRequestRange().GetRevision()); rev > 0 {
				oldest = min(oldest, rev)
			}
		}
	}
	return oldest
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
