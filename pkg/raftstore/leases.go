package raftstore

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// lookAtLeases proposes what the lease clock says is due, and the cluster version that is. It waits for no proposal: what gets lost is
// named again.
func (k *ticker) lookAtLeases(now time.Time) {
	s, lead := k.s, k.s.lead.Load()
	if lead.leader != s.id.member {
		return
	}
	if expired := s.leases.expired(now, leaseRevokeBatchMax); len(expired) > 0 {
		for _, id := range expired {
			s.proposeUnwatched(mvcc.FrameLeaseExpiry(nil, s.nextID(), id, lead.term))
		}
		s.metrics.leasesExpired(len(expired))
		s.cfg.OnEvent(LeasesExpired{Count: len(expired)})
	}
	if now.Sub(k.versioned) >= versionInterval || s.View().ClusterVersion() == "" {
		k.versioned = now
		s.followVersion()
	}
	if now.Sub(k.checkpointed) < s.cfg.LeaseCheckpointInterval || s.spaceLow.Load() {
		return
	}
	k.checkpointed = now
	for _, batch := range s.leases.checkpoints(now, s.cfg.LeaseCheckpointInterval) {
		body, err := marshalBody(leaseCheckpoint(batch))
		if err != nil {
			panic(fmt.Sprintf("marshal lease checkpoint: %v", err))
		}
		s.proposeUnwatched(mvcc.Frame(nil, s.nextID(), mvcc.KindLeaseCheckpoint, body))
	}
}

// proposeUnwatched puts an entry into the log that nobody waits for. It may be lost.
func (s *Store) proposeUnwatched(data []byte) {
	s.node.proposals.put(proposal{data: data})
}

func leaseCheckpoint(batch []*pb.LeaseCheckpoint) Command {
	return Command{Kind: mvcc.KindLeaseCheckpoint,
		Request: &pb.InternalRaftRequest{LeaseCheckpoint: &pb.LeaseCheckpointRequest{Checkpoints: batch}}}
}

// LeaseRenew gives a lease its whole time again and answers that time in seconds. The error is mvcc.ErrLeaseNotFound, also for a lease
// whose time is over: the call then waits until it is revoked, since until then its keys are there. ErrNotLeader: the clock runs
// elsewhere.
func (s *Store) LeaseRenew(ctx context.Context, id mvcc.LeaseID) (ttl int64, err error) {
	if s.closing.Load() {
		return 0, ErrStopped
	}
	l := s.leases.lookup(id, s.cfg.Now())
	switch {
	case !l.leading:
		return 0, ErrNotLeader
	case !l.found:
		return 0, mvcc.ErrLeaseNotFound
	}
	if l.expired {
		select {
		case <-l.revoked:
			return 0, mvcc.ErrLeaseNotFound
		case <-l.demoted:
			return 0, ErrNotLeader
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-s.stop:
			return 0, ErrStopped
		}
	}
	if l.checkpointed {
		if err := s.proposeOwn(ctx, leaseCheckpoint([]*pb.LeaseCheckpoint{{ID: int64(id)}})); err != nil {
			return 0, err
		}
	}
	if !s.leases.renew(id, s.cfg.Now()) {
		return 0, mvcc.ErrLeaseNotFound
	}
	s.metrics.leaseRenewed()
	return l.ttl, nil
}

// LeaseRemaining is how long a lease still has, below zero once it is over and not yet revoked. False: unknown, or this member does
// not lead.
func (s *Store) LeaseRemaining(id mvcc.LeaseID) (time.Duration, bool) {
	return s.leases.timeLeft(id, s.cfg.Now())
}

// checkpointLeases writes the remaining time of all leases to the log, for the next start.
func (s *Store) checkpointLeases(ctx context.Context) {
	for _, batch := range s.leases.checkpoints(s.cfg.Now(), 0) {
		if err := s.proposeOwn(ctx, leaseCheckpoint(batch)); err != nil {
			return // the leases then start over, which is what a crash does too
		}
	}
}
