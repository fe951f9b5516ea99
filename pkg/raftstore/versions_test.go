package raftstore

import (
	"context"
	"testing"

	"go.etcd.io/etcd/api/v3/membershippb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// TestDowngrade: the cluster version, and the storage version with it, follow a downgrade that was enabled and one that was
// cancelled, and stay what they are over a restart.
func TestDowngrade(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	versions := func(want string) func() bool {
		return func() bool {
			st := s.Status()
			return st.ClusterVersion == want && st.StorageVersion == want
		}
	}
	set := func(r *membershippb.DowngradeInfoSetRequest) {
		t.Helper()
		if _, err := s.Propose(context.Background(), Command{Kind: mvcc.KindDowngradeInfo,
			Request: &pb.InternalRaftRequest{DowngradeInfoSet: r}}); err != nil {
			t.Fatal(err)
		}
	}
	follow := func(want string) {
		t.Helper()
		await(t, "version "+want, func() bool {
			h.pass(versionInterval)
			return versions(want)()
		})
	}
	await(t, "the first version", versions("3.7.0"))
	set(&membershippb.DowngradeInfoSetRequest{Enabled: true, Ver: "3.6.0"})
	follow("3.6.0")
	closeStore(t, s)
	s = h.open()
	if st := s.Status(); !versions("3.6.0")() || !st.Downgrade.Enabled || st.Downgrade.TargetVersion != "3.6.0" {
		t.Fatalf("after a restart: %+v", st)
	}
	_, name, rc, err := s.Backup(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	rc.Close()
	if name != "3.6.0" {
		t.Errorf("a backup is of version %s", name)
	}
	set(&membershippb.DowngradeInfoSetRequest{})
	follow("3.7.0")
	if st := s.Status(); st.Downgrade.Enabled {
		t.Errorf("after the end of it: %+v", st)
	}
	closeStore(t, s)
}
