package raftstore

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// TestReadIndexOfFormerStart: the answer to what a member asked before it was started anew says nothing to those who ask now, whatever number it has.
func TestReadIndexOfFormerStart(t *testing.T) { synctest.Test(t, testReadIndexOfFormerStart) }

func testReadIndexOfFormerStart(t *testing.T) {
	c := newCluster(t, 3)
	i := c.follower()
	leader := c.leader()
	id := c.stores[i].id.member
	var answer atomic.Pointer[raftpb.Message]
	keep := func(m *raftpb.Message) bool {
		if m.GetTo() != id || m.GetType() != raftpb.MsgReadIndexResp {
			return false
		}
		answer.CompareAndSwap(nil, proto.Clone(m).(*raftpb.Message))
		return true
	}
	c.net.setDrop(keep)
	go func() { _, _ = c.stores[i].ReadView(t.Context()) }()
	await(t, "an answer that is late", func() bool { return answer.Load() != nil })
	c.kill(i)
	s := c.start(i)
	c.leader()
	s.node.mu.Lock()
	s.reads.request = 1 // a start counts from a random number on
	s.node.mu.Unlock()

	c.net.setDrop(func(m *raftpb.Message) bool { return keep(m) || m.GetTo() == id && m.GetType() == raftpb.MsgApp })
	put(t, c.stores[leader], "new", "")
	read := make(chan bool, 1)
	go func() {
		v, err := s.ReadView(t.Context())
		read <- err == nil && v.Get([]byte("new")) != nil
	}()
	asked := func() bool {
		s.node.mu.Lock()
		defer s.node.mu.Unlock()
		return len(s.reads.asked) > 0
	}
	await(t, "a read that asks", asked)
	if err := (peerHandler{s}).Message(answer.Load(), nil); err != nil {
		t.Fatal(err)
	}
	(peerHandler{s}).Delivered()
	time.Sleep(10 * time.Millisecond)
	c.net.heal()
	if !<-read {
		t.Error("a read does not see what was acknowledged before it")
	}
}
