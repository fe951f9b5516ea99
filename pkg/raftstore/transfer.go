package raftstore

import (
	"context"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3"
)

// MoveLeader gives the leadership to another voting member, and returns once that one leads. The error is ErrNotLeader,
// ErrBadTransferee, ErrTransferTimeout, ErrStopped or the context's.
func (s *Store) MoveLeader(ctx context.Context, id uint64) error {
	if s.lead.Load().leader != s.id.member {
		return ErrNotLeader
	}
	if m, ok := s.cluster.Load().Member(types.ID(id)); !ok || m.IsLearner {
		return ErrBadTransferee
	}
	if id == s.id.member {
		return nil
	}
	return s.transferTo(ctx, id)
}

func (s *Store) transferTo(ctx context.Context, id uint64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.requestTimeout(), ErrTransferTimeout)
	defer cancel()
	s.node.inbox.put(nodeInput{do: func(rn *raft.RawNode) { rn.TransferLeader(id) }})
	for {
		changed := s.leadChanged()
		if s.lead.Load().leader == id {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.stop:
			return ErrStopped
		}
	}
}

// HandOver prepares for a stop: what is left of leases goes to the log, and if this member leads others, the one of them that has been
// connected for longest is to lead. Calls that come meanwhile are served.
func (s *Store) HandOver(ctx context.Context) error {
	if s.Err() != nil || s.left.Load() || s.lead.Load().leader != s.id.member {
		return nil
	}
	if !s.spaceLow.Load() {
		s.checkpointLeases(ctx)
	}
	id := s.longestConnected()
	if id == raft.None {
		return nil
	}
	return s.transferTo(ctx, id)
}

// longestConnected is the other voter that has been reachable for longest, or none.
func (s *Store) longestConnected() (id uint64) {
	var longest time.Time
	for _, m := range s.cluster.Load().Voters() {
		if uint64(m.ID) == s.id.member {
			continue
		}
		if since := s.peers.ActiveSince(uint64(m.ID)); !since.IsZero() && (id == raft.None || since.Before(longest)) {
			id, longest = uint64(m.ID), since
		}
	}
	return id
}

// leadChanged gives a channel that is closed with the next change of leader or term.
func (s *Store) leadChanged() <-chan struct{} {
	s.leadMu.Lock()
	defer s.leadMu.Unlock()
	return s.leadNext
}

func (s *Store) setLead(l *leadership) {
	s.lead.Store(l)
	s.leadMu.Lock()
	defer s.leadMu.Unlock()
	close(s.leadNext)
	s.leadNext = make(chan struct{})
}
