package raftstore

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// TestEntriesBehindInstall: entries that come while a snapshot is being installed, as from a leader that was elected meanwhile, are answered behind
// it: raft takes what it is told of its log in its order.
func TestEntriesBehindInstall(t *testing.T) { synctest.Test(t, testEntriesBehindInstall) }

func testEntriesBehindInstall(t *testing.T) {
	c := newCluster(t, 3, fewEntries)
	i := fallBehind(t, c)
	leader := c.leader()
	next := 3 - leader - i
	c.net.setDrop(func(m *raftpb.Message) bool { return m.GetType() == raftpb.MsgSnap })
	s := c.start(i)
	goOn := make(chan struct{})
	go func() { _ = s.checkpoint.call(t.Context(), func() error { <-goOn; return nil }) }()
	synctest.Wait()
	c.net.heal()
	await(t, "a snapshot in the log", func() bool { last, _ := s.log.log.LastIndex(); return last >= c.stores[leader].applied.Load() })
	if err := c.stores[leader].MoveLeader(t.Context(), c.stores[next].id.member); err != nil {
		t.Fatal(err)
	}
	for j := range 5 {
		put(t, c.stores[next], fmt.Sprintf("behind%d", j), "")
	}
	time.Sleep(time.Second) // of heartbeats
	close(goOn)
	c.converge()
	if !c.members[i].saw("installed a snapshot") {
		t.Error("no snapshot was installed")
	}
	put(t, s, "last", "")
}
