package raftstore

import (
	"context"
	"io"

	"go.etcd.io/raft/v3/raftpb"
)

// sendSnapshot sends the state to a member that needs entries which are gone. Raft names an index that is applied; what is sent is a
// checkpoint made at the moment it is opened, and the message then says its index, which is that one or a later one. So nothing has to
// be kept between the two.
func (s *Store) sendSnapshot(m *raftpb.Message) {
	s.peers.SendSnapshot(m, func(ctx context.Context) (io.ReadCloser, int64, error) {
		at, size, rc, err := s.stream(ctx, "snapshot", nil)
		if err != nil {
			return nil, 0, err
		}
		m.Snapshot = &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(at.index), Term: new(at.term), ConfState: at.conf}}
		return rc, size, nil
	})
}
