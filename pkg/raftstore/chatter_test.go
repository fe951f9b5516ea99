package raftstore

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
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

// TestChatterRepeats: of two equal acknowledgements the second is left out, if all that came in between is a commit index.
func TestChatterRepeats(t *testing.T) {
	var c chatter
	app := func(commit uint64, entries int) {
		c.received(&raftpb.Message{Type: raftpb.MsgApp.Enum(), From: new(uint64(1)), To: new(uint64(2)), Commit: new(commit), Entries: make([]*raftpb.Entry, entries)})
	}
	left := func(what string, index uint64, reject, want bool) {
		t.Helper()
		m := &raftpb.Message{Type: raftpb.MsgAppResp.Enum(), From: new(uint64(2)), To: new(uint64(1)), Index: new(index), Reject: new(reject)}
		if got := c.repeats(m); got != want {
			t.Errorf("%s: left out is %t", what, got)
		}
	}
	app(3, 0)
	left("the first acknowledgement", 5, false, false)
	app(4, 0)
	left("a refusal", 5, true, false)
	left("the same again, for a commit index", 5, false, true)
	left("once more, for nothing", 5, false, false)
	app(4, 0)
	left("a probe: the same commit index", 5, false, false)
	app(5, 1)
	left("an entry", 6, false, false)
	app(6, 0)
	left("another index", 7, false, false)
	app(7, 0)
	c.forget(1)
	left("after the connection was lost", 7, false, false)
	c.acknowledges([]*raftpb.Message{{Type: raftpb.MsgAppResp.Enum(), To: new(uint64(1)), Index: new(uint64(8))}})
	app(8, 0)
	left("what the log has acknowledged", 8, false, true)
}

// TestLateHeartbeats: a leader counts heartbeats that it could not send in time, as etcd does.
func TestLateHeartbeats(t *testing.T) {
	var b beats
	now := time.Unix(0, 0)
	for _, c := range []struct {
		id    uint64
		after time.Duration
		late  bool
	}{{1, 0, false}, {2, 0, false}, {1, 100, false}, {1, 200, false}, {2, 0, true}, {1, 201, true}, {1, 100, false}} {
		now = now.Add(c.after * time.Millisecond)
		if got := b.late(c.id, now, 100*time.Millisecond); got != c.late {
			t.Errorf("a heartbeat to %d after %d ms is late: %t", c.id, c.after, got)
		}
	}
	b.forgetAll()
	if b.late(1, now.Add(time.Hour), 100*time.Millisecond) {
		t.Error("the first heartbeat of a term is late")
	}
	synctest.Test(t, testLateHeartbeats)
}

func testLateHeartbeats(t *testing.T) {
	c := newCluster(t, 3)
	s, follower := c.stores[c.leader()], c.stores[c.follower()].id.member
	time.Sleep(time.Second)
	if n := testutil.ToFloat64(s.metrics.heartbeatFailures); n != 0 {
		t.Errorf("%v heartbeats were late", n)
	}
	s.node.mu.Lock()
	s.node.beats.last[follower] = time.Now().Add(-time.Second) // as if no turn had come
	s.node.mu.Unlock()
	time.Sleep(time.Second)
	if n := testutil.ToFloat64(s.metrics.heartbeatFailures); n != 1 {
		t.Errorf("%v heartbeats were late, not one", n)
	}
}
