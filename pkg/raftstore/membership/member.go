package membership

import (
	"crypto/sha1"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3/raftpb"
)

// Member is one member of the cluster. The JSON form is etcd's.
type Member struct {
	ID         types.ID `json:"id"`
	PeerURLs   []string `json:"peerURLs"`
	IsLearner  bool     `json:"isLearner,omitempty"`
	Name       string   `json:"name,omitempty"` // empty until the member has started and published itself
	ClientURLs []string `json:"clientURLs,omitempty"`
}

// ChangeContext is the context of a configuration change in the log.
type ChangeContext struct {
	Member
	// IsPromote: the change turns a learner into a voter; raft uses the same change for both.
	IsPromote bool `json:"isPromote"`
	// LearnersMax is the --max-learners of the member that proposes a learner; 0: LearnersMaxDefault, below it: none. It is in the log, and not
	// taken from each member's own flags as etcd does, so that all members and all replays come to the same verdict.
	LearnersMax int `json:"learnersMax,omitempty"`
}

// NewChange is a configuration change for the log, for all kinds but removals, which have no context.
func NewChange(t raftpb.ConfChangeType, context ChangeContext) (*raftpb.ConfChange, error) {
	b, err := json.Marshal(context)
	if err != nil {
		return nil, fmt.Errorf("marshal member: %w", err)
	}
	return &raftpb.ConfChange{Type: t.Enum(), NodeId: new(uint64(context.ID)), Context: b}, nil
}

// IsStarted says whether the member was ever there: it publishes its name once it serves.
func (m Member) IsStarted() bool { return m.Name != "" }

// NewMember computes the ID of a member. added is nil for members named at bootstrap.
func NewMember(name string, peerURLs []string, token string, added *time.Time) Member {
	sorted := slices.Sorted(slices.Values(peerURLs))
	seed := strings.Join(sorted, "") + token
	if added != nil {
		seed += strconv.FormatInt(added.Unix(), 10)
	}
	sum := sha1.Sum([]byte(seed))
	return Member{ID: types.ID(binary.BigEndian.Uint64(sum[:8])), Name: name, PeerURLs: sorted}
}

// ClusterID computes the cluster's ID from the IDs of its first members.
func ClusterID(members []Member) types.ID {
	ids := make([]uint64, 0, len(members))
	for _, m := range members {
		ids = append(ids, uint64(m.ID))
	}
	slices.Sort(ids)
	var seed []byte
	for _, id := range ids {
		seed = binary.BigEndian.AppendUint64(seed, id)
	}
	sum := sha1.Sum(seed)
	return types.ID(binary.BigEndian.Uint64(sum[:8]))
}

func (m Member) clone() Member {
	m.PeerURLs = slices.Clone(m.PeerURLs)
	m.ClientURLs = slices.Clone(m.ClientURLs)
	return m
}
