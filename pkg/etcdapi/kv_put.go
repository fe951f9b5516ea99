package etcdapi

import (
	"context"

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
	return encodePut(s.wireHeader(r.res.Revision), r.res.Response.(*mvcc.PutResult)), nil
}
