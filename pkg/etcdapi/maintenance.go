package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/api/v3/version"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// maintenanceServer answers etcdserverpb.Maintenance; Snapshot and Downgrade
// have files of their own.
type maintenanceServer struct {
	*Server
	pb.UnsafeMaintenanceServer
}

// Status describes this member. The version is that of the etcd whose API this
// is: clients decide by it which features they use.
func (s maintenanceServer) Status(ctx context.Context, _ *pb.StatusRequest) (*pb.StatusResponse, error) {
	if err := s.requireUser(ctx); err != nil {
		return nil, err
	}
	st, v := s.store.Status(), s.store.View()
	resp := &pb.StatusResponse{
		Header:           s.header.message(v.Revision(), st.Term),
		Version:          version.Version,
		Leader:           st.Leader,
		RaftIndex:        st.Committed,
		RaftAppliedIndex: st.Applied,
		RaftTerm:         st.Term,
		DbSize:           st.DBSize,
		DbSizeInUse:      st.DBSizeInUse,
		DbSizeQuota:      st.QuotaBytes,
		IsLearner:        st.IsLearner,
		StorageVersion:   st.StorageVersion,
		DowngradeInfo:    &pb.DowngradeInfo{Enabled: st.Downgrade.Enabled, TargetVersion: st.Downgrade.TargetVersion},
		Errors:           st.Errors,
	}
	return resp, nil
}

// Alarm lists, raises or disarms alarms. Listing is a linearizable read.
func (s maintenanceServer) Alarm(ctx context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	if r.Action == pb.AlarmRequest_GET {
		if err := s.requireUser(ctx); err != nil {
			return nil, err
		}
		v, err := s.readView(ctx, false)
		if err != nil {
			return nil, err
		}
		return &pb.AlarmResponse{Header: s.headerAt(v.Revision()), Alarms: alarmsOf(v, r.Alarm)}, nil
	}
	if err := s.requireAdmin(ctx); err != nil {
		return nil, err
	}
	w := write{raft: pb.InternalRaftRequest{Alarm: r}}
	if err := s.propose(ctx, mvcc.KindAlarm, &w, nil); err != nil {
		return nil, err
	}
	resp := &pb.AlarmResponse{Header: s.headerAt(w.res.Revision)}
	if changed, ok := w.res.Response.(*mvcc.AlarmResult); ok {
		resp.Alarms = changed.Alarms
	}
	return resp, nil
}

// alarmsOf are the alarms of a type; NONE asks for all.
func alarmsOf(v *mvcc.View, t pb.AlarmType) []*pb.AlarmMember {
	var out []*pb.AlarmMember
	for _, a := range v.Alarms() {
		if t == pb.AlarmType_NONE || a.Alarm == t {
			out = append(out, a)
		}
	}
	return out
}

// Defragment rewrites the database file and answers when that is done. Reads and writes go on meanwhile. A call that ends before leaves it
// to go on, as in etcd.
func (s maintenanceServer) Defragment(ctx context.Context, _ *pb.DefragmentRequest) (*pb.DefragmentResponse, error) {
	if err := s.requireAdmin(ctx); err != nil {
		return nil, err
	}
	if err := s.store.Defragment(ctx); err != nil {
		return nil, toGRPC(err)
	}
	return &pb.DefragmentResponse{}, nil
}

// Hash is a checksum of the database file's content.
func (s maintenanceServer) Hash(ctx context.Context, _ *pb.HashRequest) (*pb.HashResponse, error) {
	if err := s.requireAdmin(ctx); err != nil {
		return nil, err
	}
	h, err := s.store.Hash(ctx)
	if err != nil {
		return nil, toGRPC(err)
	}
	return &pb.HashResponse{Header: s.headerNow(), Hash: h}, nil
}

// HashKV is a checksum of all versions up to a revision, equal on all members.
func (s maintenanceServer) HashKV(ctx context.Context, r *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	if err := s.requireAdmin(ctx); err != nil {
		return nil, err
	}
	v := s.store.View()
	h, compacted, at, err := v.HashKV(ctx, mvcc.Revision(r.Revision))
	if err != nil {
		return nil, toGRPC(err)
	}
	return &pb.HashKVResponse{
		Header:          s.headerAt(v.Revision()),
		Hash:            h,
		CompactRevision: int64(compacted),
		HashRevision:    int64(at),
	}, nil
}

// MoveLeader hands the leadership to another voting member.
func (s maintenanceServer) MoveLeader(ctx context.Context, r *pb.MoveLeaderRequest) (*pb.MoveLeaderResponse, error) {
	if err := s.requireAdmin(ctx); err != nil {
		return nil, err
	}
	if s.store.Status().Leader != s.store.MemberID() {
		return nil, rpctypes.ErrGRPCNotLeader
	}
	if err := s.store.MoveLeader(ctx, r.TargetID); err != nil {
		return nil, toGRPC(err)
	}
	return &pb.MoveLeaderResponse{}, nil
}
