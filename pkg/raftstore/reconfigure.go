package raftstore

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubeshim/shim/pkg/raftstore/membership"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// The members of the cluster change by one configuration change at a time, which goes through the log like any command. The checks
// before it are etcd's, in its order; whether it is valid is decided again when it is applied, on all members alike. The errors are those of
// package membership, and those of Propose.

// AddMember adds a member that will be reached at the URLs, and answers it and all members. It is not there yet: as a voter it
// counts into the quorum from now on.
func (s *Store) AddMember(ctx context.Context, peerURLs []string, learner bool) (membership.Member, []membership.Member, error) {
	now := s.cfg.Now()
	m := membership.NewMember("", peerURLs, "", &now)
	m.IsLearner = learner
	if !s.cfg.LaxReconfiguration {
		if err := s.cluster.Load().MayAdd(learner, s.reachable()); err != nil {
			return membership.Member{}, nil, err
		}
	}
	kind := raftpb.ConfChangeAddNode
	if learner {
		kind = raftpb.ConfChangeAddLearnerNode
	}
	all, err := s.reconfigure(ctx, kind, membership.ChangeContext{Member: m, LearnersMax: s.cfg.LearnersMax})
	return m, all, err
}

// RemoveMember removes a member for good: its ID never comes back.
func (s *Store) RemoveMember(ctx context.Context, id uint64) ([]membership.Member, error) {
	cluster := s.cluster.Load()
	if !s.cfg.LaxReconfiguration {
		if err := cluster.MayRemove(types.ID(id), s.reachable()); err != nil {
			return nil, err
		}
	}
	// Without any voter there would be nobody to commit even the removal; raft does not survive to be asked for it.
	if voters := cluster.Voters(); len(voters) == 1 && uint64(voters[0].ID) == id {
		return nil, membership.ErrNotEnoughStartedMembers
	}
	return s.reconfigure(ctx, raftpb.ConfChangeRemoveNode, membership.ChangeContext{Member: membership.Member{ID: types.ID(id)}})
}

// UpdateMember gives a member other peer URLs.
func (s *Store) UpdateMember(ctx context.Context, id uint64, peerURLs []string) ([]membership.Member, error) {
	return s.reconfigure(ctx, raftpb.ConfChangeUpdateNode, membership.ChangeContext{Member: membership.Member{ID: types.ID(id), PeerURLs: peerURLs}})
}

// PromoteMember makes a learner a voter. Only the leader knows how far it is: other members ask it.
func (s *Store) PromoteMember(ctx context.Context, id uint64) (all []membership.Member, err error) {
	err = s.atLeader(ctx, leaderCall{
		here: func(ctx context.Context) (err error) { all, err = s.promote(ctx, id); return err },
		name: callPromote, request: binary.LittleEndian.AppendUint64(nil, id),
		take:  func(answer []byte) (err error) { all, err = membership.DecodeMembers(answer); return err },
		final: []error{membership.ErrLearnerNotReady, membership.ErrIDNotFound, membership.ErrMemberNotLearner},
	})
	return all, err
}

func (s *Store) answerPromote(ctx context.Context, request []byte) ([]byte, error) {
	if len(request) != 8 {
		return nil, status.Error(codes.InvalidArgument, "malformed ID")
	}
	all, err := s.promote(ctx, binary.LittleEndian.Uint64(request))
	if err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// promote is PromoteMember on the leader, and ErrNotLeader elsewhere.
func (s *Store) promote(ctx context.Context, id uint64) (all []membership.Member, err error) {
	if err = s.learnerReady(ctx, id); err == nil && !s.cfg.LaxReconfiguration {
		err = s.cluster.Load().MayPromote()
	}
	if err == nil {
		all, err = s.reconfigure(ctx, raftpb.ConfChangeAddNode, membership.ChangeContext{Member: membership.Member{ID: types.ID(id)}, IsPromote: true})
	}
	if !errors.Is(err, ErrNotLeader) {
		s.metrics.promoted(err)
	}
	return all, err
}

// learnerReady asks raft how much of the log a member has. That it is a learner is asked when the change is applied.
func (s *Store) learnerReady(ctx context.Context, id uint64) error {
	var st raft.Status
	if err := s.onNode(ctx, func(rn *raft.RawNode) { st = rn.Status() }); err != nil {
		return err
	}
	if st.RaftState != raft.StateLeader {
		return ErrNotLeader
	}
	progress, ok := st.Progress[id]
	if !ok {
		return membership.ErrIDNotFound
	}
	if !membership.LearnerReady(progress.Match, st.Progress[s.id.member].Match) {
		return membership.ErrLearnerNotReady
	}
	return nil
}

// reachable is what this member knows of its connections.
func (s *Store) reachable() membership.Peers {
	now := s.cfg.Now()
	return membership.Peers{
		Self:    types.ID(s.id.member),
		Active:  func(id types.ID) bool { return !s.peers.ActiveSince(uint64(id)).IsZero() },
		Healthy: func(id types.ID) bool { return s.connectedSince(id, now.Add(-healthInterval)) },
	}
}

// reconfigure proposes a change and answers the members it has led to. Without a leader it waits for one, as etcd's proposals of this
// kind do.
func (s *Store) reconfigure(ctx context.Context, kind raftpb.ConfChangeType, change membership.ChangeContext) ([]membership.Member, error) {
	if s.closing.Load() {
		return nil, ErrStopped
	}
	cc, err := membership.NewChange(kind, change)
	if err != nil {
		return nil, err
	}
	if kind == raftpb.ConfChangeRemoveNode {
		cc.Context = nil
	}
	w := s.waiters.get()
	w.id, w.deadline = s.nextID(), s.clock.Load()+int64(s.cfg.requestTimeout())
	cc.Id = new(w.id)
	s.waiters.add(w)
	if err := s.proposeChange(ctx, cc); err != nil {
		if s.waiters.remove(w.id) {
			s.waiters.put(w)
			return nil, err
		}
		<-w.done // swept meanwhile
		s.waiters.put(w)
		return nil, err
	}
	if err = s.await(ctx, w); err == nil {
		err = w.outcome.err
	}
	var res mvcc.Result
	if err == nil {
		res, err = w.outcome.result, w.outcome.result.Err
	}
	s.waiters.put(w)
	if err != nil {
		return nil, err
	}
	return res.Response.([]membership.Member), nil
}

// proposeChange gives a change to raft. It tries again while raft drops it, as it does without a leader and while leadership is handed over.
func (s *Store) proposeChange(ctx context.Context, cc *raftpb.ConfChange) error {
	for {
		var dropped error
		if err := s.onNode(ctx, func(rn *raft.RawNode) { dropped = rn.ProposeConfChange(cc) }); err != nil {
			return err
		}
		if !errors.Is(dropped, raft.ErrProposalDropped) {
			return dropped
		}
		if err := s.pause(ctx, callRetryInterval); err != nil {
			return err
		}
	}
}

// onNode does something with the raft state machine in a turn of the node's, and waits for it. When the error is not nil, it may be done later
// or not at all.
func (s *Store) onNode(ctx context.Context, do func(*raft.RawNode)) error {
	if s.nodeCalls.Add(1) > nodeCallsMax {
		s.nodeCalls.Add(-1)
		return ErrTooManyRequests
	}
	done := make(chan struct{})
	s.node.inbox.put(nodeInput{do: func(rn *raft.RawNode) { do(rn); s.nodeCalls.Add(-1); close(done) }})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stop:
		return ErrStopped
	}
}
