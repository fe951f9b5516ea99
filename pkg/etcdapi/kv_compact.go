package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// kvCompact is KV.Compact. It returns once the compaction is decided, when
// nothing below it can be read any more; with physical set, once its versions
// are gone from memory and disk. The header tells the current revision.
func (s *Server) kvCompact(ctx context.Context, r *pb.CompactionRequest) (any, error) {
	w := write{raft: pb.InternalRaftRequest{Compaction: r}}
	if err := s.propose(ctx, mvcc.KindCompaction, &w, nil); err != nil {
		return nil, err
	}
	if r.GetPhysical() {
		if err := s.store.CompactWait(ctx, mvcc.Revision(r.GetRevision())); err != nil {
			return nil, toGRPC(err)
		}
	}
	return &pb.CompactionResponse{Header: s.headerNow()}, nil
}
