package raftstore

import (
	"context"
	"slices"
	"testing"
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
	if _, err := s.Propose(lost, putCommand("a", "never committed")); err == nil {
		t.Fatal("a put without a quorum was answered")
	}
	closeStore(t, s)
	forced := false
	h.adjust = func(c *Config) { c.ForceNewCluster = forced }
	for _, forced = range []bool{true, false, true} {
		s = h.open()
		if got := ids(s.Members()); !slices.Equal(got, []uint64{self}) {
			t.Fatalf("members %x", got)
		}
		if got := get(t, s, "a"); got != "1" {
			t.Errorf("a = %q", got)
		}
		put(t, s, "b", "2")
		closeStore(t, s)
	}
	if got := s.cluster.Load().Removed(); len(got) != 2 {
		t.Errorf("removed: %v", got)
	}
}
