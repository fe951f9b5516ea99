package etcdapi

import (
	"context"
	"errors"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// kvDeleteRange is KV.DeleteRange.
func (s *Server) kvDeleteRange(ctx context.Context, r *deleteRequest) (any, error) {
	if err := mvcc.CheckDelete(&r.DeleteRangeRequest); err != nil {
		return nil, toGRPC(err)
	}
	r.raft.DeleteRange = &r.DeleteRangeRequest
	if err := s.propose(ctx, mvcc.KindDeleteRange, &r.write, r.body()); err != nil {
		return nil, err
	}
	h, res := s.wireHeader(r.res.Revision), r.res.Response.(*mvcc.DeleteResult)
	a, err := encodeDelete(h, res, nil)
	if errors.Is(err, errEvicted) {
		a, err = s.answerApplied(ctx, func(rows *coldRows) (*reply, error) { return encodeDelete(h, res, rows) })
	}
	if err == nil {
		s.earned(ctx, a)
	}
	return a, toGRPC(err)
}
