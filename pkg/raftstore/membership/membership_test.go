package membership

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3/raftpb"
)

// The IDs that etcd 3.7.3 gives to members started with these flags.
func TestIDs(t *testing.T) {
	one := NewMember("default", []string{"http://localhost:2380"}, "etcd-cluster", nil)
	if got := one.ID.String(); got != "8e9e05c52164694d" {
		t.Errorf("default member has ID %s", got)
	}
	if got := ClusterID([]Member{one}).String(); got != "cdf818194e3a8c32" {
		t.Errorf("default cluster has ID %s", got)
	}
	a := NewMember("a", []string{"http://b:1", "http://a:1"}, "t", nil)
	b := NewMember("other name", []string{"http://a:1", "http://b:1"}, "t", nil)
	if a.ID != b.ID {
		t.Error("the ID depends on the name or on the order of the URLs")
	}
	now := time.Unix(1, 0)
	if c := NewMember("a", []string{"http://a:1", "http://b:1"}, "t", &now); c.ID == a.ID {
		t.Error("a member that is added has the ID of one that was there at bootstrap")
	}
}

func change(t raftpb.ConfChangeType, m Member, promote bool) *raftpb.ConfChange {
	cc, err := NewChange(t, ChangeContext{Member: m, IsPromote: promote})
	if err != nil {
		panic(err)
	}
	return cc
}

func TestApply(t *testing.T) {
	a := Member{ID: 1, Name: "a", PeerURLs: []string{"http://a:1"}}
	l := Member{ID: 2, PeerURLs: []string{"http://l:1"}, IsLearner: true}
	c := NewCluster(9, nil, nil)
	steps := []struct {
		cc   *raftpb.ConfChange
		want error
		conf string
	}{
		{change(raftpb.ConfChangeAddNode, a, false), nil, "voters [1] learners []"},
		{change(raftpb.ConfChangeAddNode, a, false), ErrIDExists, "voters [1] learners []"},
		{change(raftpb.ConfChangeAddNode, Member{ID: 3, PeerURLs: a.PeerURLs}, false), ErrPeerURLExists, "voters [1] learners []"},
		{change(raftpb.ConfChangeAddLearnerNode, l, false), nil, "voters [1] learners [2]"},
		{change(raftpb.ConfChangeAddLearnerNode, Member{ID: 4, PeerURLs: l.PeerURLs}, false), ErrPeerURLExists, "voters [1] learners [2]"},
		{change(raftpb.ConfChangeAddLearnerNode, Member{ID: 4, PeerURLs: []string{"http://m:1"}}, false), ErrTooManyLearners, "voters [1] learners [2]"},
		{change(raftpb.ConfChangeAddNode, Member{ID: 5}, true), ErrIDNotFound, "voters [1] learners [2]"},
		{change(raftpb.ConfChangeAddNode, a, true), ErrMemberNotLearner, "voters [1] learners [2]"},
		{change(raftpb.ConfChangeAddNode, l, true), nil, "voters [1 2] learners []"},
		{change(raftpb.ConfChangeUpdateNode, Member{ID: 2, PeerURLs: a.PeerURLs}, false), ErrPeerURLExists, "voters [1 2] learners []"},
		{change(raftpb.ConfChangeUpdateNode, Member{ID: 2, PeerURLs: []string{"http://x:1"}}, false), nil, "voters [1 2] learners []"},
		{change(raftpb.ConfChangeRemoveNode, l, false), nil, "voters [1] learners []"},
		{change(raftpb.ConfChangeAddNode, l, false), ErrIDRemoved, "voters [1] learners []"},
		{change(raftpb.ConfChangeRemoveNode, Member{ID: 7}, false), ErrIDNotFound, "voters [1] learners []"},
		{change(raftpb.ConfChangeRemoveNode, a, false), ErrNotEnoughStartedMembers, "voters [1] learners []"},
	}
	for i, s := range steps {
		before := describe(c)
		next, err := c.Apply(s.cc)
		if !errors.Is(err, s.want) || describe(next) != s.conf {
			t.Errorf("step %d: %v, %s; want %v, %s", i, err, describe(next), s.want, s.conf)
		}
		if describe(c) != before {
			t.Errorf("step %d changed a published cluster", i)
		}
		c = next
	}
	c = c.ApplyAttributes(1, "new", []string{"http://c:1"})
	if m, _ := c.Member(1); m.Name != "new" || len(m.ClientURLs) != 1 {
		t.Errorf("attributes %+v", m)
	}
	if got := c.ApplyAttributes(2, "x", nil); got != c {
		t.Error("attributes of a removed member changed the cluster")
	}
	if got := c.Removed(); len(got) != 1 || got[0] != types.ID(2) {
		t.Errorf("removed %v", got)
	}
}

func describe(c *Cluster) string {
	cs := c.ConfState()
	b, _ := json.Marshal(cs.GetVoters())
	l, _ := json.Marshal(cs.GetLearners())
	return strings.NewReplacer(",", " ", "null", "[]").Replace("voters " + string(b) + " learners " + string(l))
}

// The form that etcd writes into its log and database.
func TestJSON(t *testing.T) {
	m := Member{ID: 5, PeerURLs: []string{"http://a:1"}, Name: "a", ClientURLs: []string{"http://c:1"}}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"id":5,"peerURLs":["http://a:1"],"name":"a","clientURLs":["http://c:1"]}`; string(b) != want {
		t.Errorf("%s, want %s", b, want)
	}
}
