package raftstore

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/kubeshim/shim/pkg/raftstore/membership"
)

// join finds out who this member is in a cluster that runs. Its log and its membership come from the leader.
func (o *opening) join() error {
	cfg := &o.s.cfg
	if cfg.FetchMembers == nil {
		return errors.New("a member that joins a cluster needs a way to ask for its members")
	}
	start, err := membership.Join(o.s.ctx, membership.Flags{Name: cfg.Name, InitialCluster: cfg.InitialCluster, Token: cfg.ClusterToken,
		PeerURLs: cfg.PeerURLs, LearnersMax: cfg.LearnersMax}, cfg.FetchMembers)
	if err != nil {
		return err
	}
	o.running = start.Running
	o.s.id = identity{member: uint64(start.Self.ID), cluster: uint64(start.ClusterID)}
	return nil
}

// checkNotStarted asks the others of a new cluster whether this member has served already. One that lost its data must not begin anew: it
// would have forgotten what it voted for and acknowledged. Who does not answer soon says nothing, as they may all be starting.
func (o *opening) checkNotStarted(start membership.Start) error {
	cfg := &o.s.cfg
	if cfg.FetchMembers == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(o.s.ctx, bootstrapTimeout)
	defer cancel()
	verdicts := make([]error, len(start.Members))
	var asked sync.WaitGroup
	for i, m := range start.Members {
		if m.ID == start.Self.ID {
			continue
		}
		asked.Go(func() {
			if _, running, err := cfg.FetchMembers(ctx, m.PeerURLs); err == nil {
				verdicts[i] = start.CheckNotStarted(running)
			}
		})
	}
	asked.Wait()
	if i := slices.IndexFunc(verdicts, func(err error) bool { return err != nil }); i >= 0 {
		return verdicts[i]
	}
	return nil
}
