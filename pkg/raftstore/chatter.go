package raftstore

import "go.etcd.io/raft/v3/raftpb"

// chatter leaves out what tells other members nothing: in a quiet cluster each message costs more than what it says. What it counts on may
// have been lost with a connection, so it forgets a member that was unreachable, and all of them with each change of leader or term; then,
// or at the latest after one tick more, raft's own repetition goes out. It belongs to the node.
type chatter struct{ peers map[uint64]*heard }

// heard is what a member knows from this one as its leader.
type heard struct {
	commit uint64 // the highest index it was sent
	acked  bool   // it has acknowledged an append since the last heartbeat that was due: its clock began anew, as ours for it
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
	if m.GetType() == raftpb.MsgAppResp && !m.GetReject() {
		c.of(m.GetFrom()).acked = true
	}
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
