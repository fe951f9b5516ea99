package raftstore

import (
	"context"
	"errors"
	"slices"

	"go.etcd.io/etcd/api/v3/membershippb"
	"go.etcd.io/etcd/client/pkg/v3/types"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// publishSelf tells all members the name and the client URLs of this one, unless they know.
func (s *Store) publishSelf(ctx context.Context) error {
	if s.toldSelf() {
		return nil
	}
	return s.proposeOwn(ctx, Command{Kind: mvcc.KindMemberAttr, Request: &pb.InternalRaftRequest{
		ClusterMemberAttrSet: &membershippb.ClusterMemberAttrSetRequest{Member_ID: s.id.member,
			MemberAttributes: &membershippb.Attributes{Name: s.cfg.Name, ClientUrls: s.cfg.ClientURLs}}}})
}

// toldSelf tells whether all members know, by what this one has applied.
func (s *Store) toldSelf() bool {
	m, ok := s.cluster.Load().Member(types.ID(s.id.member))
	return ok && m.Name == s.cfg.Name && slices.Equal(m.ClientURLs, s.cfg.ClientURLs)
}

// publish is the goroutine that does so where there are several voters, as soon as a leader can be reached.
func (s *Store) publish() {
	err := s.publishAfterRead()
	close(s.published)
	for err != nil {
		if s.pause(s.ctx, publishRetryInterval) != nil {
			return
		}
		err = s.publishAfterRead()
	}
}

// publishAfterRead looks at what all members know, and not at what this one knew when it was stopped: it may have told them something else
// right before. Where this one knows of nothing that was told it tells them at once: a read would wait until it has caught up.
func (s *Store) publishAfterRead() error {
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.requestTimeout())
	defer cancel()
	if _, err := s.awaitLeader(ctx); err != nil { // a read that finds none is asked for again after a while only
		return err
	}
	for s.toldSelf() {
		_, err := s.ReadView(ctx)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrLeaderChanged) { // which comes as often as leaders change
			return err
		}
	}
	return s.publishSelf(ctx)
}

// Published is closed once all members know the name and the client URLs of this one, or could not be told in the time of a request: that
// goes on in the background, as it must not keep the operator of a cluster with full disks out. A server is ready only then, as etcd's.
func (s *Store) Published() <-chan struct{} { return s.published }
