package raftstore

import (
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// chatter leaves out what tells other members nothing: in a quiet cluster each message costs more than what it says. What it counts on may
// have been lost with a connection, so it forgets a member that was unreachable, and all of them with each change of leader or term; then,
// or at the latest after one tick more, raft's own repetition goes out. It belongs to the node.
type chatter struct{ peers map[uint64]*heard }

// heard is what was said between a member and this one.
type heard struct {
	// To a follower.
	commit uint64 // the highest index it was sent
	acked  bool   // it has acknowledged an append since the last heartbeat that was due: its clock began anew, as ours for it
	// To the leader.
	learned uint64 // the highest commit index that it has sent
	newer   bool   // the last append from it had that index, and nothing else
	told    uint64 // the index that it was sent the last acknowledgement of
}

func (c *chatter) of(id uint64) *heard {
	h := c.peers[id]
	if h == nil {
		if c.peers == nil {
			c.peers = map[uint64]*heard{}
		}
		h = new(heard)
		c.peers[id] = h
	}
	return h
}

func (c *chatter) forget(id uint64) { delete(c.peers, id) }
func (c *chatter) forgetAll()       { clear(c.peers) }

// received notes what came from another member.
func (c *chatter) received(m *raftpb.Message) {
	switch m.GetType() {
	case raftpb.MsgAppResp:
		if !m.GetReject() {
			c.of(m.GetFrom()).acked = true
		}
	case raftpb.MsgApp:
		h := c.of(m.GetFrom())
		h.newer = len(m.GetEntries()) == 0 && m.GetCommit() > h.learned
		h.learned = max(h.learned, m.GetCommit())
	}
}

// acknowledges notes what the leader will be told.
func (c *chatter) acknowledges(responses []*raftpb.Message) {
	for _, m := range responses {
		if m.GetType() == raftpb.MsgAppResp && !m.GetReject() {
			c.of(m.GetTo()).told = m.GetIndex()
		}
	}
}

// repeats is true of an acknowledgement that need not be sent: what came was a commit index alone, which no leader waits for, and the leader was
// told the same before. A leader that lost track (probes, as the connection was lost) sends an append again with its next heartbeat, with no
// newer commit index, and that one is answered.
func (c *chatter) repeats(m *raftpb.Message) bool {
	if m.GetType() != raftpb.MsgAppResp || m.GetReject() {
		return false
	}
	h := c.of(m.GetTo())
	if h.newer && h.told == m.GetIndex() {
		h.newer = false
		return true
	}
	h.told = m.GetIndex()
	return false
}

// redundant is true of a message that need not be sent. proposing says that entries will be proposed in this turn, which go to the same
// members and carry the commit index.
func (c *chatter) redundant(m *raftpb.Message, proposing func() bool) bool {
	switch m.GetType() {
	case raftpb.MsgApp:
		h := c.of(m.GetTo())
		if len(m.GetEntries()) == 0 && m.GetCommit() > h.commit && proposing() {
			return true
		}
		h.commit = max(h.commit, m.GetCommit())
	case raftpb.MsgHeartbeat:
		if len(m.GetContext()) > 0 { // it confirms a read
			return false
		}
		h := c.of(m.GetTo())
		acked := h.acked
		h.acked = false
		return acked && m.GetCommit() <= h.commit
	}
	return false
}

// beats is when the heartbeats to each member were last due here. It belongs to the node.
type beats struct{ last map[uint64]time.Time }

func (b *beats) forgetAll() { clear(b.last) }

// late notes a heartbeat, be it sent or redundant, and says whether it comes so long behind the one before that etcd takes the leader for
// overloaded: more than two intervals.
func (b *beats) late(id uint64, now time.Time, interval time.Duration) bool {
	last, ok := b.last[id]
	if b.last == nil {
		b.last = make(map[uint64]time.Time)
	}
	b.last[id] = now
	return ok && now.Sub(last) > 2*interval
}
