package membership

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3/raftpb"
)

// Refusals of a change before it is proposed, with etcd's texts.
var (
	ErrNotEnoughStartedMembers = errors.New("etcdserver: re-configuration failed due to not enough started members")
	ErrUnhealthy               = errors.New("etcdserver: unhealthy cluster")
	ErrLearnerNotReady         = errors.New("etcdserver: can only promote a learner member which is in sync with leader")
)

// Peers is what the member that was asked for a change knows about its connections to the others.
type Peers struct {
	Self types.ID
	// Active says whether there is a connection to a member at all.
	Active func(types.ID) bool
	// Healthy says whether the connection has been there for a while: five seconds in etcd.
	Healthy func(types.ID) bool
}

// MayAdd is --strict-reconfig-check for a new member: the members that have started must be a majority with it, and enough of the
// voters connected. The only member of a cluster may always get company.
func (c *Cluster) MayAdd(learner bool, p Peers) error {
	if !learner && !c.readyToAdd() {
		return ErrNotEnoughStartedMembers
	}
	voters := c.Voters()
	if len(voters) > 1 && healthy(voters, p) < quorum(len(voters)+1) {
		return ErrUnhealthy
	}
	return nil
}

// MayRemove is --strict-reconfig-check for a removal: of those that stay, a majority must have started, and be connected. A learner
// may always go, and so may a voter that is not there anyway.
func (c *Cluster) MayRemove(id types.ID, p Peers) error {
	if m, ok := c.members[id]; ok && m.IsLearner {
		return nil
	}
	if !c.readyToRemove(id) {
		return ErrNotEnoughStartedMembers
	}
	if id != p.Self && !p.Active(id) {
		return nil
	}
	voters := c.Voters()
	if healthy(voters, p)-1 < quorum(len(voters)-1) {
		return ErrUnhealthy
	}
	return nil
}

// MayPromote is --strict-reconfig-check for a promotion. That the learner has caught up is asked in any case, and before; see
// LearnerReady.
func (c *Cluster) MayPromote() error {
	started := 1 // the learner counts, and as started
	voters := c.Voters()
	for _, m := range voters {
		if m.IsStarted() {
			started++
		}
	}
	if started < quorum(len(voters)+1) {
		return ErrNotEnoughStartedMembers
	}
	return nil
}

// LearnerReady says whether a learner has enough of the leader's log to become a voter: 90 % of the entries, as in etcd. Both are
// the last index known to be in the member's log, raft's Match.
func LearnerReady(learner, leader uint64) bool {
	return leader == 0 || float64(learner)/float64(leader) >= learnerReadyShare
}

// CheckLearners refuses a cluster with more learners than limit; 0 is LearnersMaxDefault, below it is none.
func (c *Cluster) CheckLearners(limit int) error { return c.checkLearners(limit, 0) }

func (c *Cluster) checkLearners(limit, more int) error {
	if limit == 0 {
		limit = LearnersMaxDefault
	}
	for _, m := range c.members {
		if m.IsLearner {
			more++
		}
	}
	if more > max(limit, 0) {
		return ErrTooManyLearners
	}
	return nil
}

// Voters are the members that are no learners, by ascending ID.
func (c *Cluster) Voters() []Member {
	var out []Member
	for _, m := range c.Members() {
		if !m.IsLearner {
			out = append(out, m)
		}
	}
	return out
}

// readyToAdd lets one member that runs alone add a second before that has started: raft needs both from then on, which is how a
// cluster grows from a backup.
func (c *Cluster) readyToAdd() bool {
	started, voters := 0, c.Voters()
	for _, m := range voters {
		if m.IsStarted() {
			started++
		}
	}
	return len(voters) == 1 && started == 1 || started >= quorum(len(voters)+1)
}

func (c *Cluster) readyToRemove(id types.ID) bool {
	started, rest := 0, 0
	for _, m := range c.Voters() {
		if m.ID == id {
			continue
		}
		rest++
		if m.IsStarted() {
			started++
		}
	}
	return started >= quorum(rest)
}

func healthy(members []Member, p Peers) int {
	n := 0
	for _, m := range members {
		if m.ID == p.Self || p.Healthy(m.ID) {
			n++
		}
	}
	return n
}

func quorum(n int) int { return n/2 + 1 }

// ForceNewCluster is --force-new-cluster: the changes that, appended to the log and committed, leave self as the only member. conf
// is raft's configuration at the end of the log. Self is made a voter first, as raft must never be without one; then all others
// leave. Their IDs stay removed, so none of them can come back into the new cluster with its old data.
func ForceNewCluster(conf *raftpb.ConfState, self Member) ([]*raftpb.ConfChange, error) {
	var changes []*raftpb.ConfChange
	voter, learner := false, false
	var others []types.ID
	for _, ids := range [][]uint64{conf.GetVoters(), conf.GetLearners(), conf.GetVotersOutgoing(), conf.GetLearnersNext()} {
		for _, id := range ids {
			others = append(others, types.ID(id))
		}
	}
	for _, id := range conf.GetVoters() {
		voter = voter || types.ID(id) == self.ID
	}
	for _, id := range conf.GetLearners() {
		learner = learner || types.ID(id) == self.ID
	}
	if !voter {
		m := self.clone()
		m.IsLearner = false
		if len(m.PeerURLs) == 0 {
			m.PeerURLs = []string{"http://localhost:2380"}
		}
		change, err := NewChange(raftpb.ConfChangeAddNode, ChangeContext{Member: m, IsPromote: learner})
		if err != nil {
			return nil, err
		}
		changes = append(changes, change)
	}
	slices.Sort(others)
	for _, id := range slices.Compact(others) {
		if id == self.ID {
			continue
		}
		changes = append(changes, &raftpb.ConfChange{Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: new(uint64(id))})
	}
	return changes, nil
}

// String is the cluster in etcd's words.
func (c *Cluster) String() string {
	var members, removed []string
	for _, m := range c.Members() {
		members = append(members, fmt.Sprintf("&{ID:%s RaftAttributes:{PeerURLs:%v IsLearner:%v} Attributes:{Name:%s ClientURLs:%v}}",
			m.ID, m.PeerURLs, m.IsLearner, m.Name, m.ClientURLs))
	}
	for _, id := range c.Removed() {
		removed = append(removed, id.String())
	}
	return fmt.Sprintf("{ClusterID:%s Members:%v RemovedMemberIDs:%v}", c.ID, members, removed)
}
