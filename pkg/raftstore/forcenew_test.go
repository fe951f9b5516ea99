package raftstore

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
)

// TestForceNewCluster: a member that has lost its quorum goes on alone, with all that was committed, and stays alone.
func TestForceNewCluster(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	put(t, s, "a", "1")
	self := s.MemberID()
	for i, url := range []string{"http://127.0.0.1:2", "http://127.0.0.1:3"} {
		if _, _, err := s.AddMember(context.Background(), []string{url}, i == 0); err != nil {
			t.Fatal(err)
		}
	}
	lost, cancel := context.WithCancel(context.Background())
	cancel()
	before, _ := s.log.log.LastIndex()
	if _, err := s.Propose(lost, putCommand("c", "unanswered")); err == nil {
		t.Fatal("a put without a quorum was answered")
	}
	await(t, "the put in the log", func() bool { last, _ := s.log.log.LastIndex(); return last > before })
	closeStore(t, s)
	forced := false
	h.adjust = func(c *Config) { c.ForceNewCluster = forced }
	for _, forced = range []bool{true, false, true} {
		s = h.open()
		if got := ids(s.Members()); !slices.Equal(got, []uint64{self}) {
			t.Fatalf("members %x", got)
		}
		if a, c := get(t, s, "a"), get(t, s, "c"); a != "1" || c != "unanswered" {
			t.Errorf("a = %q, c = %q", a, c)
		}
		put(t, s, "b", "2")
		closeStore(t, s)
	}
	if got := s.cluster.Load().Removed(); len(got) != 2 {
		t.Errorf("removed: %v", got)
	}
}

// TestForceNewClusterKeepsWhatWasAcknowledged: the commit index on the disk is behind the last write that a client was told of.
func TestForceNewClusterKeepsWhatWasAcknowledged(t *testing.T) {
	synctest.Test(t, testForceNewClusterKeepsWhatWasAcknowledged)
}

func testForceNewClusterKeepsWhatWasAcknowledged(t *testing.T) {
	c := newCluster(t, 3)
	leader := c.leader()
	put(t, c.stores[leader], "a", "1")
	for i := range c.stores {
		c.kill(i)
	}
	adjust := c.members[leader].adjust
	c.members[leader].adjust = func(cfg *Config) { adjust(cfg); cfg.ForceNewCluster = true }
	s := c.start(leader)
	if got := get(t, s, "a"); got != "1" {
		t.Errorf("a = %q", got)
	}
	put(t, s, "a", "2")
	if got := s.Members(); len(got) != 1 {
		t.Errorf("members %v", got)
	}
}
