package etcdapi

import (
	"context"
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// kvCompact is KV.Compact. It returns once the compaction is decided, when
// nothing below it can be read any more; with physical set, once its versions
// are gone from memory and disk, also when somebody else has compacted them.
// The header tells the current revision.
func (s *Server) kvCompact(ctx context.Context, r *pb.CompactionRequest) (any, error) {
	if err := s.requireAdmin(ctx); err != nil {
		return nil, err
	}
	w := write{raft: pb.InternalRaftRequest{Compaction: r}}
	err := s.propose(ctx, mvcc.KindCompaction, &w, nil)
	if r.GetPhysical() && (err == nil || errors.Is(err, rpctypes.ErrGRPCCompacted)) {
		if err := s.store.CompactWait(ctx, mvcc.Revision(r.GetRevision())); err != nil {
			return nil, toGRPC(err)
		}
	}
	if err != nil {
		return nil, err
	}
	return &pb.CompactionResponse{Header: s.headerNow()}, nil
}
