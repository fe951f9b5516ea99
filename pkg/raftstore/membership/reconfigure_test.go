package membership

import (
	"errors"
	"fmt"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3/raftpb"
)

// clusterOf has a member per letter, from ID 1 on: S a started voter, u an unstarted one, L a started learner.
func clusterOf(letters string) *Cluster {
	var members []Member
	for i, l := range letters {
		m := Member{ID: types.ID(i + 1), PeerURLs: []string{fmt.Sprintf("http://m:%d", i+1)}}
		if l != 'u' {
			m.Name = fmt.Sprintf("m%d", i+1)
		}
		m.IsLearner = l == 'L'
		members = append(members, m)
	}
	return NewCluster(1, members, nil)
}

// peers has a connection to a member for each + in its mark, seen from member 1; ~ is one that is new.
func peers(marks string) Peers {
	at := func(id types.ID) byte {
		if int(id) > len(marks) || id == 0 {
			return '-'
		}
		return marks[id-1]
	}
	return Peers{Self: 1,
		Active:  func(id types.ID) bool { return at(id) != '-' },
		Healthy: func(id types.ID) bool { return at(id) == '+' },
	}
}

// The tables follow etcd's own of the same functions (server/etcdserver/api/membership, TestIsReadyTo...), in another form.
func TestStrictReconfiguration(t *testing.T) {
	for _, c := range []struct {
		members, peers      string
		add, learner        error
		promote             error
		remove1, removeLast error
	}{
		{"S", "+", nil, nil, nil, ErrNotEnoughStartedMembers, ErrNotEnoughStartedMembers},
		{"SS", "++", nil, nil, nil, nil, nil},
		{"Su", "+-", ErrNotEnoughStartedMembers, ErrUnhealthy, nil, ErrNotEnoughStartedMembers, nil},
		{"SSS", "+++", nil, nil, nil, nil, nil},
		{"SSS", "++-", ErrUnhealthy, ErrUnhealthy, nil, ErrUnhealthy, nil},
		{"SSS", "++~", ErrUnhealthy, ErrUnhealthy, nil, ErrUnhealthy, ErrUnhealthy},
		{"SSu", "++-", ErrNotEnoughStartedMembers, ErrUnhealthy, nil, ErrNotEnoughStartedMembers, nil},
		{"Suu", "+--", ErrNotEnoughStartedMembers, ErrUnhealthy, ErrNotEnoughStartedMembers, ErrNotEnoughStartedMembers, ErrNotEnoughStartedMembers},
		{"SSSS", "++++", nil, nil, nil, nil, nil},
		{"SSSu", "+++-", nil, nil, nil, nil, nil},
		{"SSSSS", "+++--", ErrUnhealthy, ErrUnhealthy, nil, ErrUnhealthy, nil},
		{"SL", "++", nil, nil, nil, ErrNotEnoughStartedMembers, nil},
		{"uL", "-+", ErrNotEnoughStartedMembers, nil, ErrNotEnoughStartedMembers, ErrNotEnoughStartedMembers, nil},
	} {
		name := c.members + " " + c.peers
		k, p := clusterOf(c.members), peers(c.peers)
		check := func(what string, got, want error) {
			t.Helper()
			if !errors.Is(got, want) || (want == nil) != (got == nil) {
				t.Errorf("%s: %s: %v, want %v", name, what, got, want)
			}
		}
		check("add", k.MayAdd(false, p), c.add)
		check("add learner", k.MayAdd(true, p), c.learner)
		check("promote", k.MayPromote(), c.promote)
		check("remove first", k.MayRemove(1, p), c.remove1)
		check("remove last", k.MayRemove(types.ID(len(c.members)), p), c.removeLast)
	}
}

func TestLearnerReady(t *testing.T) {
	for _, c := range []struct {
		learner, leader uint64
		want            bool
	}{{0, 0, true}, {9, 10, true}, {8, 10, false}, {0, 1, false}, {900_000, 1_000_000, true}, {899_999, 1_000_000, false}} {
		if got := LearnerReady(c.learner, c.leader); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// The verdict about a learner depends on the log alone: what the proposing member allows is in the change.
func TestLearnersMax(t *testing.T) {
	c := clusterOf("SL")
	add := func(limit int) error {
		cc, err := NewChange(raftpb.ConfChangeAddLearnerNode, ChangeContext{
			Member: Member{ID: 9, PeerURLs: []string{"http://x:1"}, IsLearner: true}, LearnersMax: limit})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Apply(cc)
		return err
	}
	for limit, want := range map[int]error{0: ErrTooManyLearners, 1: ErrTooManyLearners, 2: nil} {
		if err := add(limit); !errors.Is(err, want) {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
	if err := c.CheckLearners(0); err != nil {
		t.Error(err)
	}
	c = clusterOf("S")
	if err := add(NoLearners); !errors.Is(err, ErrTooManyLearners) {
		t.Errorf("the first learner where there are none: %v", err)
	}
	if err := c.CheckLearners(NoLearners); err != nil {
		t.Error(err)
	}
	if err := clusterOf("SLL").CheckLearners(0); err == nil || err.Error() != "membership: too many learner members in cluster" {
		t.Error(err)
	}
}

func TestForceNewCluster(t *testing.T) {
	for _, c := range []struct {
		members string
		self    types.ID
		changes int
	}{{"SSS", 2, 2}, {"S", 1, 0}, {"SSL", 3, 3}, {"SL", 1, 1}, {"SS", 7, 3}} {
		k := clusterOf(c.members)
		self, ok := k.Member(c.self)
		if !ok {
			self = Member{ID: c.self, Name: "restored"}
		}
		changes, err := ForceNewCluster(k.ConfState(), self)
		if err != nil || len(changes) != c.changes {
			t.Errorf("%s: %v, %v", c.members, changes, err)
		}
		for _, cc := range changes {
			if k, err = k.Apply(cc); err != nil {
				t.Errorf("%s: %v: %v", c.members, cc, err)
			}
			if len(k.ConfState().Voters) == 0 {
				t.Errorf("%s: no voter after %v", c.members, cc)
			}
		}
		if conf := k.ConfState(); len(conf.Voters) != 1 || conf.Voters[0] != uint64(c.self) || len(conf.Learners) != 0 {
			t.Errorf("%s: %v", c.members, conf)
		}
		if m, _ := k.Member(c.self); len(m.PeerURLs) == 0 {
			t.Errorf("%s: the member has no URL", c.members)
		}
	}
}
