package etcdapi

import (
	"context"
	"errors"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// kvPut is KV.Put.
func (s *Server) kvPut(ctx context.Context, r *putRequest) (any, error) {
	if err := mvcc.CheckPut(&r.PutRequest); err != nil {
		return nil, toGRPC(err)
	}
	r.raft.Put = &r.PutRequest
	if err := s.propose(ctx, mvcc.KindPut, &r.write, r.body()); err != nil {
		return nil, err
	}
	h, res := s.wireHeader(r.res.Revision), r.res.Response.(*mvcc.PutResult)
	a, err := encodePut(h, res, nil)
	if errors.Is(err, errEvicted) {
		a, err = s.answerApplied(ctx, func(rows *coldRows) (*reply, error) { return encodePut(h, res, rows) })
	}
	return a, toGRPC(err)
}
