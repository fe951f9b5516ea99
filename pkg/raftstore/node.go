package raftstore

import (
	"errors"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// node is the goroutine that owns the raft state machine. It never touches a disk and never waits for one: what is to be written
// goes to the log goroutine, what is committed to the apply goroutine, and both answer through the inbox.
type node struct {
	s    *Store
	raft *raft.RawNode
	log  *raftLog

	wake      chan struct{}
	inbox     *mailbox[nodeInput]
	proposals *mailbox[proposal]

	// All below belongs to the goroutine.
	batch           []proposal
	entries         []*raftpb.Entry // of the batch; reused, see propose
	appendsInFlight int             // batches with entries at the log goroutine
	entriesInFlight int             // entries proposed here and not applied
	bytesInFlight   int             // their sizes
	campaigned      bool
	leaderless      int // ticks without a leader
	housekept       time.Time
	leasesChecked   time.Time
}

// nodeInput is one of: a message to step, appends that are done, something to do with the raft state machine.
type nodeInput struct {
	msg        *raftpb.Message
	appendDone bool
	do         func(*raft.RawNode)
}

// proposal is an entry on its way into the log.
type proposal struct {
	id   uint64 // of the waiter; 0: nobody waits
	data []byte
	pool *[]byte // what data is in, to go back to payloadPool; may be nil
}

func (p proposal) size() int { return len(p.data) + entryOverhead }

// leadership is what the node last knew about the leader.
type leadership struct{ leader, term uint64 }

func newNode(s *Store, log *raftLog, applied uint64) (*node, error) {
	rn, err := raft.NewRawNode(&raft.Config{
		ID:                       s.id.member,
		ElectionTick:             s.cfg.ElectionTicks,
		HeartbeatTick:            1,
		Storage:                  log,
		Applied:                  applied,
		AsyncStorageWrites:       true,
		MaxSizePerMsg:            messageBytesMax,
		MaxCommittedSizePerReady: committedBytesMax,
		MaxInflightMsgs:          inflightMsgsMax,
		CheckQuorum:              true,
		PreVote:                  true,
		Logger:                   raftLogger{onEvent: s.cfg.OnEvent},
	})
	if err != nil {
		return nil, err
	}
	wake := make(chan struct{}, 1)
	return &node{s: s, raft: rn, log: log, wake: wake,
		inbox:     newMailbox[nodeInput](0, wake), // bounded by what the node has in flight
		proposals: newMailbox[proposal](proposalsQueuedMax, wake),
	}, nil
}

// run is the event loop.
func (n *node) run(ticks <-chan time.Time) {
	for {
		n.propose()
		n.flush()
		if n.campaignAtOnce() {
			continue
		}
		select {
		case <-n.s.stop:
			return
		case <-n.wake:
		case <-ticks:
			n.tick()
		}
		inputs := n.inbox.take()
		for _, in := range inputs {
			n.input(in)
		}
		n.inbox.recycle(inputs)
	}
}

func (n *node) input(in nodeInput) {
	if in.do != nil {
		in.do(n.raft)
		return
	}
	if in.appendDone {
		n.appendsInFlight--
		return
	}
	// A message of a former term, or of a member that left, is of no interest; raft says so with an error.
	_ = n.raft.Step(in.msg)
	if in.msg.GetType() != raftpb.MsgStorageApplyResp {
		return
	}
	entries := in.msg.GetEntries()
	n.entriesInFlight = max(0, n.entriesInFlight-len(entries))
	for _, e := range entries {
		n.bytesInFlight -= len(e.GetData()) + entryOverhead
	}
	n.bytesInFlight = max(0, n.bytesInFlight)
	if applied := entries[len(entries)-1].GetIndex(); n.soleVoter() {
		n.log.drop(applied)
	} else if keep := n.s.cfg.SnapshotCatchupEntries; applied > keep {
		n.log.drop(applied - keep)
	}
}

// propose turns what waits in the queue into one step of raft. It holds back while there is no leader, and while enough is in
// flight: then proposals gather in the queue, and the next batch is larger.
func (n *node) propose() {
	if n.appendsInFlight >= appendsInFlightMax || n.entriesInFlight >= entriesInFlightMax || n.bytesInFlight >= bytesInFlightMax ||
		n.s.lead.Load().leader == 0 {
		return
	}
	n.batch = n.proposals.takeBatch(n.batch[:0], batchEntriesMax, batchBytesMax, proposal.size)
	if len(n.batch) == 0 {
		return
	}
	entries := n.entries[:0]
	for i, p := range n.batch {
		if i == len(n.entries) {
			n.entries = append(n.entries, &raftpb.Entry{Type: raftpb.EntryNormal.Enum()})
		}
		n.entries[i].Data = p.data
		entries = n.entries[:i+1]
	}
	err := n.raft.Step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: new(n.s.id.member), Entries: entries})
	if err == nil {
		n.entriesInFlight += len(entries)
		for _, p := range n.batch {
			n.bytesInFlight += p.size()
		}
	} else {
		if errors.Is(err, raft.ErrProposalDropped) {
			err = ErrNoLeader
		}
		for _, p := range n.batch {
			n.s.waiters.fail(p.id, err)
		}
	}
	n.reclaim(entries)
	clear(n.batch)
}

// reclaim takes the entries and payloads of the batch back. A leader's raft clones what it appends; a follower's passes the entries
// on as they are, so then they are left to the garbage collector.
func (n *node) reclaim(entries []*raftpb.Entry) {
	if n.raft.BasicStatus().RaftState != raft.StateLeader {
		n.entries = nil
		return
	}
	for i, p := range n.batch {
		entries[i].Data = nil
		if p.pool != nil {
			*p.pool = p.data[:0]
			payloadPool.Put(p.pool)
		}
	}
}

// flush hands out what raft has ready.
func (n *node) flush() {
	for n.raft.HasReady() {
		rd := n.raft.Ready()
		if rd.HardState != nil && !raft.IsEmptyHardState(rd.HardState) {
			n.s.committed.Store(rd.GetCommit())
		}
		if rd.SoftState != nil || rd.HardState != nil {
			n.observeLeader()
		}
		for _, m := range rd.Messages {
			switch m.GetTo() {
			case raft.LocalAppendThread:
				if len(m.GetEntries()) > 0 {
					n.appendsInFlight++
				}
				n.s.log.inbox.put(logTask{msg: m})
			case raft.LocalApplyThread:
				n.s.apply.inbox.put(applyTask{msg: m})
			}
			// Messages to other members have nowhere to go yet.
		}
	}
}

// observeLeader publishes leader and term when one of them is new.
func (n *node) observeLeader() {
	st := n.raft.BasicStatus()
	was := n.s.lead.Load()
	now := &leadership{leader: st.Lead, term: st.GetTerm()}
	if *was == *now {
		return
	}
	n.s.lead.Store(now)
	self := now.leader == n.s.id.member
	if self {
		n.s.leases.promote(n.s.cfg.Now(), n.s.cfg.electionTimeout())
	} else {
		n.s.leases.demote()
	}
	if was.leader == now.leader {
		return
	}
	n.s.metrics.leaderChanged(now.leader, self)
	if now.leader != 0 {
		n.leaderless = 0
		n.s.regainLeader()
	}
	n.s.cfg.OnEvent(LeaderChanged{Leader: types.ID(now.leader), Term: now.term, Self: self})
}

// campaignAtOnce makes a sole voter the leader without waiting for an election timeout: there is nobody to wait for. It has to
// wait for the configuration changes of the bootstrap, though.
func (n *node) campaignAtOnce() bool {
	if n.campaigned || !n.soleVoter() {
		return false
	}
	st := n.raft.BasicStatus()
	if st.RaftState != raft.StateFollower || st.Applied < st.GetCommit() {
		return false
	}
	n.campaigned = true
	return n.raft.Campaign() == nil
}

func (n *node) soleVoter() bool { return n.s.soleVoter.Load() }

// tick is raft's clock, and everything that is done every so often is called from it.
func (n *node) tick() {
	n.raft.Tick()
	if n.s.lead.Load().leader == 0 {
		if n.leaderless++; n.leaderless == noLeaderTimeouts*n.s.cfg.ElectionTicks {
			n.s.loseLeader()
		}
	}
	now := n.s.cfg.Now()
	n.s.clock.Store(now.UnixNano())
	if now.Sub(n.leasesChecked) >= leaseCheckInterval {
		n.leasesChecked = now
		poke(n.s.leasePoke)
	}
	if now.Sub(n.housekept) >= housekeepingInterval {
		n.housekept = now
		if failed := n.s.waiters.sweep(now); failed > 0 {
			n.s.metrics.proposalsFailed(failed)
		}
		n.s.metrics.housekept(n.s.waiters.len(), n.s.committed.Load(), n.s.log.wal.Size())
		poke(n.s.checkpoint.poke)
	} else if n.s.log.wal.Size() >= n.s.checkpoint.burst.Load() {
		poke(n.s.checkpoint.poke)
	}
	if n.s.spaceLow.Load() {
		poke(n.s.log.wake)
	}
}

// poke wakes a goroutine that looks by itself for what to do.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
