package raftstore

import (
	"sync"
	"testing"
	"testing/synctest"

	"go.etcd.io/raft/v3/raftpb"
)

// TestLeaderDiskHangs: a leader whose disk hangs has another one lead within a few election timeouts, and comes back when the disk does.
func TestLeaderDiskHangs(t *testing.T) { synctest.Test(t, testLeaderDiskHangs) }

func testLeaderDiskHangs(t *testing.T) {
	gates := make([]*gate, 3)
	c := newCluster(t, 3, func(i int, cfg *Config) {
		h := &harness{fs: cfg.FS}
		gates[i] = gated(h)
		cfg.FS = h.fs
	})
	old := c.leader()
	put(t, c.stores[old], "a", "1")
	open := gates[old].close()
	defer func() { open() }()
	answered := make(chan error, 1)
	go func() { _, err := tryPut(c.stores[old], "a", "2", 0); answered <- err }()
	next := old
	await(t, "another leader", func() bool {
		for i, s := range c.stores {
			if i != old && s.lead.Load().leader == s.id.member {
				next = i
			}
		}
		return next != old
	})
	if !c.members[old].saw("the disk of the log hangs") {
		t.Error("the leader did not give the leadership away")
	}
	put(t, c.stores[next], "b", "1")
	open()
	open = func() {}
	<-answered
	c.converge()
	if got := get(t, c.stores[old], "b"); got != "1" {
		t.Errorf("b = %s on the member whose disk hung", got)
	}
}

// TestAnswersAfterFsync: while a follower's disk hangs it neither acknowledges entries nor votes (I2).
func TestAnswersAfterFsync(t *testing.T) { synctest.Test(t, testAnswersAfterFsync) }

func testAnswersAfterFsync(t *testing.T) {
	gates := make([]*gate, 3)
	c := newCluster(t, 3, func(i int, cfg *Config) {
		h := &harness{fs: cfg.FS}
		gates[i] = gated(h)
		cfg.FS = h.fs
	})
	leader, i := c.leader(), c.follower()
	c.converge()
	id := c.stores[i].id.member
	last := c.stores[i].View().Index()
	open := gates[i].close()
	var mu sync.Mutex
	hung, wrong := true, ""
	c.net.setDrop(func(m *raftpb.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		if hung && m.GetFrom() == id && !m.GetReject() &&
			(m.GetType() == raftpb.MsgAppResp && m.GetIndex() > last || m.GetType() == raftpb.MsgVoteResp) {
			wrong = m.String()
		}
		return false
	})
	for range 5 {
		put(t, c.stores[leader], "a", "1")
	}
	last2 := c.stores[leader].View().Index()
	mu.Lock()
	hung = false
	if wrong != "" {
		t.Errorf("sent before the fsync: %s", wrong)
	}
	mu.Unlock()
	open()
	await(t, "the follower's catching up", func() bool { return c.stores[i].View().Index() >= last2 })
	c.converge()
}
