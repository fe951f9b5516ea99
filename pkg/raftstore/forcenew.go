package raftstore

import (
	"fmt"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/raftstore/membership"
	"github.com/kubeshim/shim/pkg/raftstore/wal"
)

// forceNewCluster is --force-new-cluster, when what is known to be committed is applied: all else that is in the log counts as committed too, and
// behind it come the configuration changes that leave this member alone, durable and committed by decree. Who could say otherwise is gone. Among
// the entries that are not known to be committed here are ones that were acknowledged to clients (a commit index goes to the disk with the next
// entries only); of the others nobody was told what became of them. A crash before the hard state is written leaves all that as it was; the flag
// then has to be given again. It answers the commit index.
func (o *opening) forceNewCluster(commit uint64) (uint64, error) {
	s, r := o.s, o.replay
	cluster := s.apply.cluster
	for _, e := range r.entries {
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
		e := &raftpb.Entry{Type: raftpb.EntryConfChange.Enum(), Term: new(term), Index: new(r.last() + 1 + uint64(i)), Data: data}
		entries = append(entries, e)
		records = append(records, wal.Record{Type: recordEntry, Data: append(entryHeader(nil, e), data...)})
	}
	first, last := r.last()+1, r.last()+uint64(len(entries))
	s.log.mark = mark{index: o.content.Index, term: o.content.Term, conf: o.conf} // for the header of a segment
	s.log.written = r.hard
	r.hard = &raftpb.HardState{Term: new(term), Vote: new(r.hard.GetVote()), Commit: new(last)}
	pos, err := o.wal.Append(append(records, hardStateRecord(r.hard))...)
	if err == nil {
		err = o.wal.Sync()
	}
	if err != nil {
		return 0, fmt.Errorf("force a new cluster: %w", err)
	}
	r.segments.add(pos.Segment, first)
	r.entries, r.end = append(r.entries, entries...), last
	s.cfg.OnEvent(ClusterForced{Removed: len(cluster.Members()) - 1, Index: last})
	return last, nil
}
