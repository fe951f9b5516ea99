package etcdapi

import (
	"context"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/types"

	"github.com/kubeshim/shim/pkg/raftstore/membership"
)

// clusterServer answers etcdserverpb.Cluster. Its headers have no revision, as
// etcd's.
type clusterServer struct {
	*Server
	pb.UnsafeClusterServer
}

// MemberList lists the members; linearizable if asked for.
func (s clusterServer) MemberList(ctx context.Context, r *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	if r.Linearizable {
		if _, err := s.readView(ctx, false); err != nil {
			return nil, err
		}
	}
	if err := s.requireUser(ctx); err != nil {
		return nil, err
	}
	return &pb.MemberListResponse{Header: s.headerAt(0), Members: protoMembers(s.store.Members())}, nil
}

// MemberAdd adds a member, which is to be started afterwards.
func (s clusterServer) MemberAdd(ctx context.Context, r *pb.MemberAddRequest) (*pb.MemberAddResponse, error) {
	urls, err := types.NewURLs(r.PeerURLs)
	if err != nil {
		return nil, rpctypes.ErrGRPCMemberBadURLs
	}
	if err := s.requireAdmin(ctx); err != nil {
		return nil, err
	}
	m, all, err := s.store.AddMember(ctx, urls.StringSlice(), r.IsLearner)
	if err != nil {
		return nil, proposeError(err)
	}
	return &pb.MemberAddResponse{Header: s.headerAt(0), Member: protoMember(m), Members: protoMembers(all)}, nil
}

// MemberRemove removes a member for good.
func (s clusterServer) MemberRemove(ctx context.Context, r *pb.MemberRemoveRequest) (*pb.MemberRemoveResponse, error) {
	if err := s.requireAdmin(ctx); err != nil {
		return nil, err
	}
	all, err := s.store.RemoveMember(ctx, r.ID)
	if err != nil {
		return nil, proposeError(err)
	}
	return &pb.MemberRemoveResponse{Header: s.headerAt(0), Members: protoMembers(all)}, nil
}

// MemberUpdate gives a member other peer URLs. They have to be good ones: etcd
// does not look, and its members panic over bad ones of another member.
func (s clusterServer) MemberUpdate(ctx context.Context, r *pb.MemberUpdateRequest) (*pb.MemberUpdateResponse, error) {
	if err := s.requireAdmin(ctx); err != nil {
		return nil, err
	}
	if _, err := types.NewURLs(r.PeerURLs); err != nil {
		if !s.isMember(r.ID) {
			return nil, rpctypes.ErrGRPCMemberNotFound
		}
		return nil, rpctypes.ErrGRPCMemberBadURLs
	}
	all, err := s.store.UpdateMember(ctx, r.ID, r.PeerURLs)
	if err != nil {
		return nil, proposeError(err)
	}
	return &pb.MemberUpdateResponse{Header: s.headerAt(0), Members: protoMembers(all)}, nil
}

func (s clusterServer) isMember(id uint64) bool {
	return slices.ContainsFunc(s.store.Members(), func(m membership.Member) bool { return uint64(m.ID) == id })
}

// MemberPromote makes a learner that has caught up a voter.
func (s clusterServer) MemberPromote(ctx context.Context, r *pb.MemberPromoteRequest) (*pb.MemberPromoteResponse, error) {
	if err := s.requireAdmin(ctx); err != nil {
		return nil, err
	}
	all, err := s.store.PromoteMember(ctx, r.ID)
	if err != nil {
		return nil, proposeError(err)
	}
	return &pb.MemberPromoteResponse{Header: s.headerAt(0), Members: protoMembers(all)}, nil
}

func protoMembers(members []membership.Member) []*pb.Member {
	all := make([]*pb.Member, len(members))
	for i, m := range members {
		all[i] = protoMember(m)
	}
	return all
}

func protoMember(m membership.Member) *pb.Member {
	return &pb.Member{ID: uint64(m.ID), Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.IsLearner}
}
