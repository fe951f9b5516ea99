package raftstore

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

func TestChatter(t *testing.T) {
	var c chatter
	message := func(typ raftpb.MessageType, commit uint64) *raftpb.Message {
		return &raftpb.Message{Type: typ.Enum(), From: new(uint64(1)), To: new(uint64(2)), Commit: new(commit)}
	}
	app := func(commit uint64, entries int) *raftpb.Message {
		m := message(raftpb.MsgApp, commit)
		m.Entries = make([]*raftpb.Entry, entries)
		return m
	}
	ack := func(reject bool) {
		c.received(&raftpb.Message{Type: raftpb.MsgAppResp.Enum(), From: new(uint64(2)), To: new(uint64(1)), Reject: new(reject)})
	}
	left := func(what string, m *raftpb.Message, proposing, want bool) {
		t.Helper()
		if got := c.redundant(m, func() bool { return proposing }); got != want {
			t.Errorf("%s: redundant is %t", what, got)
		}
	}
	beat := func(commit uint64) *raftpb.Message { return message(raftpb.MsgHeartbeat, commit) }

	left("the first heartbeat", beat(0), false, false)
	left("entries", app(3, 1), true, false)
	left("a heartbeat while an append is not acknowledged", beat(3), false, false)
	ack(true)
	left("a heartbeat after a refusal", beat(3), false, false)
	ack(false)
	left("a heartbeat after an acknowledgement", beat(3), false, true)
	left("the next one", beat(3), false, false)

	left("a new commit index with proposals behind it", app(4, 0), true, true)
	ack(false)
	left("a heartbeat with a commit index that was not sent", beat(4), false, false)
	left("the same commit index, as raft repeats it, with nothing behind it", app(4, 0), false, false)
	left("an append that says nothing new: a probe", app(4, 0), true, false)
	ack(false)
	read := beat(4)
	read.Context = []byte("read")
	left("a heartbeat that confirms a read", read, false, false)
	left("the heartbeat beside it", beat(4), false, true)

	ack(false)
	c.forget(2)
	left("a heartbeat after the connection was lost", beat(4), false, false)
	left("entries", app(5, 1), false, false)
	ack(false)
	c.forgetAll()
	left("a heartbeat in another term", beat(5), false, false)
	left("a vote", message(raftpb.MsgVote, 0), true, false)
}
