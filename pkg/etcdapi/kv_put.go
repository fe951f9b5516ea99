package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// kvPut is KV.Put.
func (s *Server) kvPut(ctx context.Context, r *putRequest) (any, error) {
	if err := mvcc.CheckPut(&r.PutRequest); err != nil {
		return nil, toGRPC(err)
	}
	res, err := s.propose(ctx, mvcc.KindPut, &pb.InternalRaftRequest{Put: &r.PutRequest}, r.body)
	if err != nil {
		return nil, err
	}
	return encodePut(s.wireHeader(res.Revision), res.Response.(*mvcc.PutResult)), nil
}
