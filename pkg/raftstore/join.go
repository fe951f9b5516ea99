package raftstore

import (
	"errors"

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
