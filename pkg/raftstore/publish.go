package raftstore

import (
	"context"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/membershippb"
	"go.etcd.io/etcd/client/pkg/v3/types"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// publishSelf tells all members the name and the client URLs of this one, unless they know.
func (s *Store) publishSelf(ctx context.Context) error {
	m, ok := s.cluster.Load().Member(types.ID(s.id.member))
	if ok && m.Name == s.cfg.Name && slices.Equal(m.ClientURLs, s.cfg.ClientURLs) {
		return nil
	}
	return s.proposeOwn(ctx, Command{Kind: mvcc.KindMemberAttr, Request: &pb.InternalRaftRequest{
		ClusterMemberAttrSet: &membershippb.ClusterMemberAttrSetRequest{Member_ID: s.id.member,
			MemberAttributes: &membershippb.Attributes{Name: s.cfg.Name, ClientUrls: s.cfg.ClientURLs}}}})
}

// publish is the goroutine that does so where there are several voters, as soon as a leader can be reached.
func (s *Store) publish() {
	for s.publishSelf(s.ctx) != nil {
		select {
		case <-time.After(publishRetryInterval):
		case <-s.stop:
			return
		}
	}
}
