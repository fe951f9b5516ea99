package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// kvDeleteRange is KV.DeleteRange.
func (s *Server) kvDeleteRange(ctx context.Context, r *deleteRequest) (any, error) {
	if err := mvcc.CheckDelete(&r.DeleteRangeRequest); err != nil {
		return nil, toGRPC(err)
	}
	res, err := s.propose(ctx, mvcc.KindDeleteRange, &pb.InternalRaftRequest{DeleteRange: &r.DeleteRangeRequest}, r.body)
	if err != nil {
		return nil, err
	}
	return encodeDelete(s.wireHeader(res.Revision), res.Response.(*mvcc.DeleteResult)), nil
}
