package raftstore

import (
	"fmt"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/raftstore/membership"
	"github.com/kubeshim/shim/pkg/raftstore/wal"
)

// forceNewCluster is --force-new-cluster: entries that are not known to be committed are forgotten, and behind the committed ones come the
// configuration changes that leave this member alone, durable and committed by decree. A crash before the hard state is written leaves them
// uncommitted; the flag then has to be given again. It answers the commit index.
func (o *opening) forceNewCluster(commit uint64) (uint64, error) {
	s, r := o.s, o.replay
	cluster := s.apply.cluster
	committed := r.entries[:commit-r.base.index]
	for _, e := range committed {
		if e.GetType() != raftpb.EntryConfChange {
			continue
		}
		cc := &raftpb.ConfChange{}
		if err := proto.Unmarshal(e.GetData(), cc); err != nil {
			return 0, fmt.Errorf("decode configuration change %d: %w", e.GetIndex(), err)
		}
		if next, err := cluster.Apply(cc); err == nil {
			cluster = next
		}
	}
	self, ok := cluster.Member(types.ID(s.id.member))
	if !ok { // removed, or not yet there: Open or raft decide
		return commit, nil
	}
	changes, err := membership.ForceNewCluster(cluster.ConfState(), self)
	if err != nil || len(changes) == 0 {
		return commit, err
	}
	term := max(r.hard.GetTerm(), 1)
	entries := make([]*raftpb.Entry, 0, len(changes))
	records := make([]wal.Record, 0, len(changes)+1)
	for i, cc := range changes {
		data, err := proto.Marshal(cc)
		if err != nil {
			return 0, fmt.Errorf("marshal configuration change: %w", err)
		}
		e := &raftpb.Entry{Type: raftpb.EntryConfChange.Enum(), Term: new(term), Index: new(commit + 1 + uint64(i)), Data: data}
		entries = append(entries, e)
		records = append(records, wal.Record{Type: recordEntry, Data: append(entryHeader(nil, e), data...)})
	}
	last := commit + uint64(len(entries))
	s.log.mark = mark{index: o.content.Index, term: o.content.Term, conf: s.apply.cluster.ConfState()} // for the header of a segment
	s.log.written = r.hard
	r.hard = &raftpb.HardState{Term: new(term), Vote: new(r.hard.GetVote()), Commit: new(last)}
	pos, err := o.wal.Append(append(records, hardStateRecord(r.hard))...)
	if err == nil {
		err = o.wal.Sync()
	}
	if err != nil {
		return 0, fmt.Errorf("force a new cluster: %w", err)
	}
	r.segments.add(pos.Segment, commit+1)
	r.entries = append(committed[:len(committed):len(committed)], entries...)
	s.cfg.OnEvent(ClusterForced{Removed: len(cluster.Members()) - 1, Index: last})
	return last, nil
}
