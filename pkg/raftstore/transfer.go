package raftstore

import (
	"context"
	"slices"
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

// HandOver prepares for a stop: what is left of leases goes to the log, and if this member leads others, one of them is to lead. The one
// that has been connected for longest is asked first; who does not take over within an election timeout, after which raft gives up, is
// followed by the next. Calls that come meanwhile are served.
func (s *Store) HandOver(ctx context.Context) error {
	if s.Err() != nil || s.left.Load() || s.lead.Load().leader != s.id.member {
		return nil
	}
	if !s.spaceLow.Load() {
		s.checkpointLeases(ctx)
		defer func() {
			if !s.closing.Load() && s.lead.Load().leader == s.id.member { // else it is for demote, which may come behind this
				s.leases.resume()
			}
		}()
	}
	var err error
	for _, id := range s.connected() {
		try, cancel := context.WithTimeoutCause(ctx, s.cfg.electionTimeout(), ErrTransferTimeout)
		err = s.transferTo(try, id)
		cancel()
		if err == nil || s.lead.Load().leader != s.id.member {
			return nil
		}
	}
	return err
}

// connected are the other voters that can be reached, those that could be for longest first.
func (s *Store) connected() (ids []uint64) {
	since := make(map[uint64]time.Time)
	for _, m := range s.cluster.Load().Voters() {
		id := uint64(m.ID)
		if at := s.peers.ActiveSince(id); id != s.id.member && !at.IsZero() {
			since[id] = at
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b uint64) int { return since[a].Compare(since[b]) })
	return ids
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
