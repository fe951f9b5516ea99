package etcdapi

import (
	"context"

	"github.com/coreos/go-semver/semver"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/membershippb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Downgrade validates, enables and cancels a downgrade of the cluster version.
// The store follows an enabled one within seconds, as etcd does.
func (s maintenanceServer) Downgrade(ctx context.Context, r *pb.DowngradeRequest) (*pb.DowngradeResponse, error) {
	if err := s.requireAdmin(ctx); err != nil {
		return nil, err
	}
	var err error
	switch r.Action {
	case pb.DowngradeRequest_VALIDATE:
		err = s.validateDowngrade(ctx, r.Version)
	case pb.DowngradeRequest_ENABLE:
		err = s.enableDowngrade(ctx, r.Version)
	case pb.DowngradeRequest_CANCEL:
		err = s.cancelDowngrade(ctx)
	default:
		err = status.Error(codes.Unknown, "etcdserver: unknown method")
	}
	if err != nil {
		return nil, err
	}
	cv, err := s.clusterVersion()
	if err != nil {
		return nil, err
	}
	return &pb.DowngradeResponse{Header: s.headerNow(), Version: twoPartVersion(cv)}, nil
}

func (s maintenanceServer) enableDowngrade(ctx context.Context, target string) error {
	if err := s.validateDowngrade(ctx, target); err != nil {
		return err
	}
	v, err := parseTargetVersion(target)
	if err != nil {
		return err
	}
	return s.setDowngrade(ctx, &membershippb.DowngradeInfoSetRequest{Enabled: true, Ver: v.String()})
}

// cancelDowngrade ends one that is under way. With none, etcd logs that there is
// nothing to cancel and answers as if there had been.
func (s maintenanceServer) cancelDowngrade(ctx context.Context) error {
	if _, err := s.readView(ctx, false); err != nil || !s.store.Status().Downgrade.Enabled {
		return err
	}
	return s.setDowngrade(ctx, &membershippb.DowngradeInfoSetRequest{})
}

func (s maintenanceServer) setDowngrade(ctx context.Context, r *membershippb.DowngradeInfoSetRequest) error {
	w := write{raft: pb.InternalRaftRequest{DowngradeInfoSet: r}}
	return s.propose(ctx, mvcc.KindDowngradeInfo, &w, nil)
}

// validateDowngrade checks that target is one minor version below the cluster's.
func (s maintenanceServer) validateDowngrade(ctx context.Context, target string) error {
	want, err := parseTargetVersion(target)
	if err != nil {
		return err
	}
	cv, err := s.clusterVersion()
	if err != nil {
		return err
	}
	if _, err := s.readView(ctx, false); err != nil {
		return err
	}
	if cv.Minor == 0 || !want.Equal(semver.Version{Major: cv.Major, Minor: cv.Minor - 1}) {
		return rpctypes.ErrGRPCInvalidDowngradeTargetVersion
	}
	if s.store.Status().Downgrade.Enabled {
		return rpctypes.ErrGRPCDowngradeInProcess
	}
	return nil
}

func (s maintenanceServer) clusterVersion() (semver.Version, error) {
	cv, err := semver.NewVersion(s.store.Status().ClusterVersion)
	if err != nil {
		return semver.Version{}, rpctypes.ErrGRPCClusterVersionUnavailable
	}
	return *cv, nil
}

// parseTargetVersion accepts major.minor and major.minor.patch; the patch is dropped.
func parseTargetVersion(s string) (semver.Version, error) {
	v, err := semver.NewVersion(s)
	if err != nil {
		if v, err = semver.NewVersion(s + ".0"); err != nil {
			return semver.Version{}, rpctypes.ErrGRPCWrongDowngradeVersionFormat
		}
	}
	return semver.Version{Major: v.Major, Minor: v.Minor}, nil
}

func twoPartVersion(v semver.Version) string {
	full := semver.Version{Major: v.Major, Minor: v.Minor}.String()
	return full[:len(full)-len(".0")]
}
