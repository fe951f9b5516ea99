package membership

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3/raftpb"
)

// Refusals of a configuration change, with etcd's texts.
var (
	ErrIDRemoved        = errors.New("membership: ID removed")
	ErrIDExists         = errors.New("membership: ID exists")
	ErrIDNotFound       = errors.New("membership: ID not found")
	ErrPeerURLExists    = errors.New("membership: peerURL exists")
	ErrMemberNotLearner = errors.New("membership: can only promote a learner member")
	ErrTooManyLearners  = errors.New("membership: too many learner members in cluster")
)

// Cluster is the membership at one applied index. It is immutable.
type Cluster struct {
	ID types.ID

	members map[types.ID]Member
	removed map[types.ID]bool
}

// NewCluster holds what a checkpoint or a bootstrap says.
func NewCluster(id types.ID, members []Member, removed []types.ID) *Cluster {
	c := &Cluster{ID: id, members: make(map[types.ID]Member, len(members)), removed: make(map[types.ID]bool, len(removed))}
	for _, m := range members {
		c.members[m.ID] = m.clone()
	}
	for _, id := range removed {
		c.removed[id] = true
	}
	return c
}

// Members are all members by ascending ID.
func (c *Cluster) Members() []Member {
	out := make([]Member, 0, len(c.members))
	for _, id := range slices.Sorted(maps.Keys(c.members)) {
		out = append(out, c.members[id].clone())
	}
	return out
}

// Member is the member with this ID.
func (c *Cluster) Member(id types.ID) (Member, bool) {
	m, ok := c.members[id]
	return m.clone(), ok
}

// Removed are the IDs that were members once, ascending.
func (c *Cluster) Removed() []types.ID { return slices.Sorted(maps.Keys(c.removed)) }

// ConfState is raft's view of the members.
func (c *Cluster) ConfState() *raftpb.ConfState {
	cs := &raftpb.ConfState{AutoLeave: new(false)}
	for _, id := range slices.Sorted(maps.Keys(c.members)) {
		if c.members[id].IsLearner {
			cs.Learners = append(cs.Learners, uint64(id))
		} else {
			cs.Voters = append(cs.Voters, uint64(id))
		}
	}
	return cs
}

// Apply is the cluster after a committed change. When err is not nil the change was refused: the cluster stays as it is and raft
// must not be told of the change either.
func (c *Cluster) Apply(cc *raftpb.ConfChange) (*Cluster, error) {
	id := types.ID(cc.GetNodeId())
	if c.removed[id] {
		return c, ErrIDRemoved
	}
	var change ChangeContext
	if len(cc.GetContext()) > 0 {
		if err := json.Unmarshal(cc.GetContext(), &change); err != nil {
			return c, fmt.Errorf("decode member of configuration change: %w", err)
		}
	}
	have, exists := c.members[id]
	next := &Cluster{ID: c.ID, members: maps.Clone(c.members), removed: c.removed}
	switch t := cc.GetType(); t {
	case raftpb.ConfChangeAddNode, raftpb.ConfChangeAddLearnerNode:
		if change.IsPromote {
			return c.promote(next, have, exists)
		}
		if exists {
			return c, ErrIDExists
		}
		if c.urlTaken(id, change.PeerURLs) {
			return c, ErrPeerURLExists
		}
		if t == raftpb.ConfChangeAddLearnerNode {
			if err := c.checkLearners(change.LearnersMax, 1); err != nil {
				return c, err
			}
		}
		m := change.Member.clone()
		m.ID, m.IsLearner = id, t == raftpb.ConfChangeAddLearnerNode
		next.members[id] = m
	case raftpb.ConfChangeRemoveNode:
		if !exists {
			return c, ErrIDNotFound
		}
		if voters := c.Voters(); len(voters) == 1 && voters[0].ID == id { // raft does not survive it; who proposed it may have seen another
			return c, ErrNotEnoughStartedMembers
		}
		delete(next.members, id)
		next.removed = maps.Clone(c.removed)
		next.removed[id] = true
	case raftpb.ConfChangeUpdateNode:
		if !exists {
			return c, ErrIDNotFound
		}
		if c.urlTaken(id, change.PeerURLs) {
			return c, ErrPeerURLExists
		}
		have.PeerURLs = slices.Clone(change.PeerURLs)
		next.members[id] = have
	default:
		return c, fmt.Errorf("unknown configuration change %v", t)
	}
	return next, nil
}

func (c *Cluster) promote(next *Cluster, have Member, exists bool) (*Cluster, error) {
	if !exists {
		return c, ErrIDNotFound
	}
	if !have.IsLearner {
		return c, ErrMemberNotLearner
	}
	have.IsLearner = false
	next.members[have.ID] = have
	return next, nil
}

func (c *Cluster) urlTaken(by types.ID, urls []string) bool {
	for id, m := range c.members {
		if id == by {
			continue
		}
		for _, u := range urls {
			if slices.Contains(m.PeerURLs, u) {
				return true
			}
		}
	}
	return false
}

// ApplyAttributes is the cluster after a member published its name and client URLs. An unknown or removed member changes nothing.
func (c *Cluster) ApplyAttributes(id types.ID, name string, clientURLs []string) *Cluster {
	m, ok := c.members[id]
	if !ok {
		return c
	}
	m.Name, m.ClientURLs = name, slices.Clone(clientURLs)
	next := &Cluster{ID: c.ID, members: maps.Clone(c.members), removed: c.removed}
	next.members[id] = m
	return next
}
