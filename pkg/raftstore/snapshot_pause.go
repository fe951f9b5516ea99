package raftstore

import (
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kubeshim/shim/pkg/compact"
)

// snapshotPauses leave a member alone for a while that could not take its snapshot, as its disk is full, for instance. Raft would send the
// next one with the next heartbeat. It is not told of the failure until the pause is over, and sends nothing in between; heartbeats go on. A
// pause is over after its time, which grows with each failure, when the member is connected anew, or when it acknowledges entries.
// It belongs to the node. What it knows is of one term of this member as the leader.
type snapshotPauses struct{ peers map[uint64]*snapshotPause }

// snapshotPause is of one member, from its first failure to its next success.
type snapshotPause struct {
	failures int // in a row
	failed   time.Time
	waiting  bool // raft was not told yet
}

// failed begins a pause.
func (p *snapshotPauses) failed(id uint64, now time.Time) {
	of := p.peers[id]
	if of == nil {
		if p.peers == nil {
			p.peers = make(map[uint64]*snapshotPause)
		}
		of = new(snapshotPause)
		p.peers[id] = of
	}
	of.failures, of.failed, of.waiting = of.failures+1, now, true
}

// end forgets the failures of a member. It says whether raft waits for the last of them.
func (p *snapshotPauses) end(id uint64) (waiting bool) {
	of := p.peers[id]
	delete(p.peers, id)
	return of != nil && of.waiting
}

func (p *snapshotPauses) endAll() { clear(p.peers) }

// over calls tell for each member whose pause is over. activeSince is since when a member is connected.
func (p *snapshotPauses) over(now time.Time, activeSince func(id uint64) time.Time, tell func(id uint64)) {
	for id, of := range p.peers {
		pause := compact.RetryPause(of.failures, snapshotPauseMin, snapshotPauseMax)
		if of.waiting && (now.Sub(of.failed) >= pause || activeSince(id).After(of.failed)) {
			of.waiting = false
			tell(id)
		}
	}
}

// snapshotSent notes how a snapshot ended.
func (n *node) snapshotSent(id uint64, ok bool) {
	if !ok {
		n.snapshots.failed(id, n.s.cfg.Now())
		return
	}
	n.snapshots.end(id)
	n.raft.ReportSnapshot(id, raft.SnapshotFinish)
}

// endPauses lets raft send snapshots to those who were left alone for long enough.
func (n *node) endPauses() {
	if len(n.snapshots.peers) == 0 {
		return
	}
	n.snapshots.over(n.s.cfg.Now(), n.s.peers.ActiveSince, func(id uint64) { n.raft.ReportSnapshot(id, raft.SnapshotFailure) })
}

// endPause is for a member that acknowledges entries: it can write.
func (n *node) endPause(m *raftpb.Message) {
	if len(n.snapshots.peers) > 0 && m.GetType() == raftpb.MsgAppResp && !m.GetReject() && n.snapshots.end(m.GetFrom()) {
		n.raft.ReportSnapshot(m.GetFrom(), raft.SnapshotFailure)
	}
}
