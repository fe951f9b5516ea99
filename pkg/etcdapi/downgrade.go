package etcdapi

import (
	"context"

	"github.com/coreos/go-semver/semver"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Downgrade validates a downgrade of the cluster version as etcd does, and says
// so where it cannot follow: the data is written in one schema only.
func (s maintenanceServer) Downgrade(ctx context.Context, r *pb.DowngradeRequest) (*pb.DowngradeResponse, error) {
	var err error
	switch r.Action {
	case pb.DowngradeRequest_VALIDATE:
		err = s.validateDowngrade(ctx, r.Version)
	case pb.DowngradeRequest_ENABLE:
		if err = s.validateDowngrade(ctx, r.Version); err == nil {
			err = status.Errorf(codes.Unimplemented, "shim: downgrading the cluster to %s is not supported", r.Version)
		}
	case pb.DowngradeRequest_CANCEL:
		// With no downgrade under way etcd logs that there is nothing to cancel and
		// answers as if there had been.
		_, err = s.readView(ctx, false)
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
