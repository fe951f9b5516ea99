package raftstore

import (
	"go.etcd.io/etcd/api/v3/membershippb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/backend"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// The cluster version is what all members can do, and the storage version, which names the schema of the database, follows it. With
// one member it is this program's version, unless the cluster was told to go down to the version before: then it is that one, so that
// the member of that version accepts the data (etcd's version.Monitor). The schemas of 3.7 and 3.6 do not differ.

// clusterVersionWanted is what the cluster version should be.
func clusterVersionWanted(d mvcc.Downgrade) string {
	if d.Enabled {
		return d.Target
	}
	return backend.StorageVersion
}

func clusterVersionSet(version string) Command {
	return Command{Kind: mvcc.KindClusterVersion, Request: &pb.InternalRaftRequest{
		ClusterVersionSet: &membershippb.ClusterVersionSetRequest{Ver: version}}}
}

// followVersion proposes the cluster version that is wanted, if it is another one. It waits for nothing: what gets lost is proposed
// the next time.
func (s *Store) followVersion() {
	view := s.View()
	s.metrics.clusterVersionIs(view.ClusterVersion())
	wanted := clusterVersionWanted(view.Downgrade())
	if wanted == view.ClusterVersion() {
		return
	}
	cmd := clusterVersionSet(wanted)
	body, err := marshalBody(cmd)
	if err != nil {
		panic("marshal cluster version: " + err.Error())
	}
	s.proposeUnwatched(mvcc.Frame(nil, s.nextID(), cmd.Kind, body))
}
