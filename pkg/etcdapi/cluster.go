package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// clusterServer answers etcdserverpb.Cluster. The member list is there; changing
// it is not.
type clusterServer struct {
	*Server
	pb.UnsafeClusterServer
}

var errMembershipFixed = status.Error(codes.Unimplemented, "shim: changing the members of a cluster is not supported yet")

// MemberList lists the members; linearizable if asked for. Its header has no
// revision, as etcd's.
func (s clusterServer) MemberList(ctx context.Context, r *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	if r.Linearizable {
		if _, err := s.readView(ctx, false); err != nil {
			return nil, err
		}
	}
	members := s.store.Members()
	resp := &pb.MemberListResponse{Header: s.headerAt(0), Members: make([]*pb.Member, len(members))}
	for i, m := range members {
		resp.Members[i] = &pb.Member{
			ID:         uint64(m.ID),
			Name:       m.Name,
			PeerURLs:   m.PeerURLs,
			ClientURLs: m.ClientURLs,
			IsLearner:  m.IsLearner,
		}
	}
	return resp, nil
}

// MemberAdd is not there yet.
func (s clusterServer) MemberAdd(context.Context, *pb.MemberAddRequest) (*pb.MemberAddResponse, error) {
	return nil, errMembershipFixed
}

// MemberRemove is not there yet.
func (s clusterServer) MemberRemove(context.Context, *pb.MemberRemoveRequest) (*pb.MemberRemoveResponse, error) {
	return nil, errMembershipFixed
}

// MemberUpdate is not there yet.
func (s clusterServer) MemberUpdate(context.Context, *pb.MemberUpdateRequest) (*pb.MemberUpdateResponse, error) {
	return nil, errMembershipFixed
}

// MemberPromote is not there yet.
func (s clusterServer) MemberPromote(context.Context, *pb.MemberPromoteRequest) (*pb.MemberPromoteResponse, error) {
	return nil, errMembershipFixed
}
