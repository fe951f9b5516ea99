package raftstore

import (
	"slices"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
)

// Removed is closed when the process has to end because this member was removed from the cluster: a second after it learned of it, so that
// what it has to say to the others still reaches them. The data dir does not open again.
func (s *Store) Removed() <-chan struct{} { return s.removed }

// leave notes that this member is none any more, be it by its own log or by the word of another member.
func (s *Store) leave() {
	s.leaveOnce.Do(func() {
		s.left.Store(true)
		s.cfg.OnEvent(SelfRemoved{})
		time.AfterFunc(removedDelay, func() { close(s.removed) })
	})
}

// membersChanged follows a configuration change. It is called by who holds the applier, and by Open.
func (a *applier) membersChanged() {
	self := types.ID(a.s.id.member)
	m, _ := a.cluster.Member(self)
	a.s.learner.Store(m.IsLearner)
	a.s.metrics.learnerIs(m.IsLearner)
	if a.s.node != nil && a.expelled() { // not during replay
		a.s.leave()
	}
}

// expelled: this member was removed.
func (a *applier) expelled() bool {
	return slices.Contains(a.cluster.Removed(), types.ID(a.s.id.member))
}

// IsLearner tells whether this member is one that has no vote.
func (s *Store) IsLearner() bool { return s.learner.Load() }
