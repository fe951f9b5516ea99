package raftstore

import (
	"errors"
	"fmt"
	"math"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kubeshim/shim/pkg/raftstore/membership"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/wal"
)

// heldEntries are the committed entries behind a checkpoint, from the first reading of the log, which is before the rows are loaded. If they
// are more than bytesMax none is held, and they are read once more to be applied.
type heldEntries struct {
	bytesMax  int
	entries   []*raftpb.Entry
	bytes     int           // of all
	n         int           // of all
	compacted mvcc.Revision // the newest revision that one of all asks to compact to; 0: none does
}

func (h *heldEntries) take(e *raftpb.Entry) error {
	h.n++
	if h.bytes += entrySize(e); h.bytes <= h.bytesMax {
		h.entries = append(h.entries, e)
	} else {
		h.entries = nil
	}
	if e.GetType() == raftpb.EntryNormal {
		if to, ok := mvcc.CompactionOf(e.GetData()); ok {
			h.compacted = max(h.compacted, to)
		}
	}
	return nil
}

// catchUp applies what is known to be committed, and gives raft the rest.
func (o *opening) catchUp() (*raftLog, uint64, error) {
	s, a, r := o.s, o.s.apply, o.replay
	a.cluster = membership.NewCluster(types.ID(s.id.cluster), a.cluster.Members(), a.cluster.Removed())
	s.soleVoter.Store(s.alone(a.cluster))
	commit := max(r.hard.GetCommit(), r.base.index)
	if last := r.last(); commit > last {
		return nil, 0, &CorruptError{File: s.cfg.dirs().wal(), Offset: -1,
			Reason: fmt.Sprintf("the log ends at entry %d, though entries up to %d are committed", last, commit)}
	}
	for _, l := range a.state.Publish().Leases() {
		s.leases.granted(l.ID, l.TTL, l.Remaining, s.cfg.Now())
	}
	log := s.log.log
	log.baseIndex, log.baseTerm = r.base.index, r.base.term
	if err := o.applyAll(&commit); err != nil {
		return nil, 0, err
	}
	view := a.state.Publish()
	if o.ahead > 0 && view.Compacted() < o.ahead {
		return nil, 0, errNotCompacted
	}
	a.compacted = view.Compacted()
	s.view.Store(view)
	s.lookAtAlarms(view)
	s.cluster.Store(a.cluster)
	s.applied.Store(commit)
	s.committed.Store(commit)
	s.metrics.published(view)

	log.append(r.entries)
	log.confState = a.cluster.ConfState()
	if !raft.IsEmptyHardState(r.hard) {
		log.hardState = &raftpb.HardState{Term: new(r.hard.GetTerm()), Vote: new(r.hard.GetVote()), Commit: new(commit)}
		s.log.hardState, s.log.written = log.hardState, r.hard
	}
	s.log.mark = mark{index: o.content.Index, term: o.content.Term, conf: a.cluster.ConfState()}
	s.log.segments = r.segments
	s.cfg.OnEvent(Opened{MemberID: types.ID(s.id.member), ClusterID: types.ID(s.id.cluster), New: o.boot != nil,
		Checkpoint: o.content.Index, Replayed: o.applied, Revision: view.Revision(), Index: commit, Hash: view.Hash(), Took: time.Since(o.began)})
	return log, commit, nil
}

// applyAll applies the committed entries, and those that a forced cluster takes for committed, which moves commit.
func (o *opening) applyAll(commit *uint64) (err error) {
	s, r := o.s, o.replay
	s.cfg.Loading.begin(loadingEntries, int64(o.held.n))
	r.take = o.apply
	if o.held.bytes > o.held.bytesMax {
		err = o.readAgain()
	} else {
		for i, e := range o.held.entries {
			if err = o.apply(e); err != nil {
				break
			}
			o.held.entries[i] = nil
		}
	}
	if err == nil && s.cfg.ForceNewCluster {
		if *commit, err = o.forceNewCluster(*commit); err == nil {
			err = r.handOn(*commit)
		}
	}
	if err == nil {
		s.cfg.Loading.begin(loadingLeader, 0)
		o.tidy(*commit)
	}
	return err
}

// readAgain applies the committed entries as it reads them from the log, which Open has made durable and nobody has written to since.
func (o *opening) readAgain() error {
	s, first := o.s, o.replay
	r := newReplay(first.base)
	r.take = o.apply
	err := wal.Scan(s.cfg.FS, s.cfg.dirs().wal(), func(pos wal.Position, rec wal.Record) error {
		if err := r.record(pos, rec); err != nil {
			return err
		}
		if pos == first.at {
			return errAllRead
		}
		return nil
	})
	if err == nil || errors.Is(err, errAllRead) {
		err = r.finish(s.cfg.dirs(), s.cfg.DBPath)
	}
	if err == nil && (r.taken != first.taken || r.end != first.end || o.applied != o.held.n) {
		err = &CorruptError{File: s.cfg.dirs().wal(), Offset: -1, Reason: fmt.Sprintf(
			"it was read twice, and had entries up to %d, %d of them committed, and then up to %d and %d", first.end, o.held.n, r.end, o.applied)}
	}
	return err
}

// errAllRead ends the second reading of the log.
var errAllRead = errors.New("the log is read")

// apply applies an entry, and keeps it for members that lag.
func (o *opening) apply(e *raftpb.Entry) error {
	s := o.s
	if res := s.apply.entry(e, nil); s.apply.unreadable(res) {
		return res.Err
	}
	s.log.log.append([]*raftpb.Entry{e})
	o.applied++
	o.untidy += entrySize(e)
	if o.applied%loadingCounted == 0 {
		s.cfg.Loading.add(loadingCounted, s.cfg.OnEvent)
	}
	if o.untidy >= replayedMax {
		o.tidy(e.GetIndex())
	}
	return nil
}

// tidy lets go of what nothing asks for any more, as of the last entry that was applied.
func (o *opening) tidy(applied uint64) {
	s, a := o.s, o.s.apply
	keep := s.cfg.SnapshotCatchupEntries
	if s.soleVoter.Load() {
		keep = 0
	}
	s.log.log.dropApplied(applied, keep, s.bounds.catchup)
	for !a.state.CompactStep(math.MaxInt32) {
	}
	a.compacting, o.untidy = false, 0
}
