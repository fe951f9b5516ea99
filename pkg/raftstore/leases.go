package raftstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

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
	if s.View().Term() != lead.term {
		return // what a former leader has acknowledged may not be applied yet, renewals too
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
	s.leases.checkpoints(now, s.cfg.LeaseCheckpointInterval, func(batch []*pb.LeaseCheckpoint) {
		cmd := leaseCheckpoint(batch, lead.term)
		body, err := marshalBody(cmd)
		if err != nil {
			panic(fmt.Sprintf("marshal lease checkpoint: %v", err))
		}
		s.proposeUnwatched(mvcc.AppendTermOf(mvcc.Frame(nil, s.nextID(), cmd.Kind, body), cmd.Request))
	})
}

// proposeUnwatched puts an entry into the log that nobody waits for. It may be lost.
func (s *Store) proposeUnwatched(data []byte) {
	s.node.proposals.put(proposal{data: data})
}

// leaseCheckpoint counts in a term only: the next leader may have renewed what the one before has proposed to shorten.
func leaseCheckpoint(batch []*pb.LeaseCheckpoint, term uint64) Command {
	return Command{Kind: mvcc.KindLeaseCheckpoint, Request: mvcc.LeaseCheckpointRequest(batch, term)}
}

// leaseClear has the log forget the remaining time of a lease that is renewed. That is right in any term.
func leaseClear(id mvcc.LeaseID) Command {
	return leaseCheckpoint([]*pb.LeaseCheckpoint{{ID: int64(id)}}, 0)
}

// LeaseRenew gives a lease its whole time again and answers that time in seconds. The clock runs at the leader: other members ask it, and
// again while none answers. The error is mvcc.ErrLeaseNotFound, also for a lease whose time is over: the call then waits until it is revoked,
// since until then its keys are there; else one of ErrTimeout, ErrNoLeader, ErrStopped and the context's.
func (s *Store) LeaseRenew(ctx context.Context, id mvcc.LeaseID) (ttl int64, err error) {
	if s.closing.Load() {
		return 0, ErrStopped
	}
	request, err := proto.Marshal(&pb.LeaseKeepAliveRequest{ID: int64(id)})
	if err != nil {
		return 0, fmt.Errorf("marshal renewal: %w", err)
	}
	err = s.atLeader(ctx, leaderCall{
		here: func(ctx context.Context) (err error) { ttl, err = s.renewLease(ctx, id); return err },
		name: callLeaseRenew, request: request,
		take: func(answer []byte) error {
			var resp pb.LeaseKeepAliveResponse
			err := proto.Unmarshal(answer, &resp)
			ttl = resp.GetTTL()
			return err
		},
		final: []error{mvcc.ErrLeaseNotFound},
	})
	return ttl, err
}

func (s *Store) answerLeaseRenew(ctx context.Context, request []byte) ([]byte, error) {
	var r pb.LeaseKeepAliveRequest
	if err := proto.Unmarshal(request, &r); err != nil {
		return nil, status.Error(codes.InvalidArgument, "malformed renewal")
	}
	ttl, err := s.renewLease(ctx, mvcc.LeaseID(r.GetID()))
	if err != nil {
		return nil, err
	}
	return proto.Marshal(&pb.LeaseKeepAliveResponse{ID: r.GetID(), TTL: ttl})
}

// confirmLead is nil when this member led at some time during the call and has applied all that was committed before. A leader that was
// deposed must not renew: its successor counts from its own election on, which may have been before.
func (s *Store) confirmLead(ctx context.Context) error {
	if s.lead.Load().leader != s.id.member {
		return ErrNotLeader
	}
	_, err := s.ReadView(ctx)
	if errors.Is(err, ErrLeaderChanged) || errors.Is(err, ErrNoLeader) || s.lead.Load().leader != s.id.member {
		return ErrNotLeader
	}
	return err
}

// renewLease is LeaseRenew on the leader, and ErrNotLeader elsewhere.
func (s *Store) renewLease(ctx context.Context, id mvcc.LeaseID) (ttl int64, err error) {
	if err := s.confirmLead(ctx); err != nil {
		return 0, err
	}
	for {
		l := s.leases.renew(id, s.cfg.Now())
		switch {
		case !l.leading:
			return 0, ErrNotLeader
		case !l.found:
			return 0, mvcc.ErrLeaseNotFound
		case l.expired:
			return 0, s.awaitEnd(ctx, l)
		case l.checkpointed: // its time may end meanwhile
			if err := s.proposeOwn(ctx, leaseClear(id)); err != nil {
				return 0, err
			}
		default:
			s.metrics.leaseRenewed()
			return l.ttl, nil
		}
	}
}

// awaitEnd waits until a lease that is over is revoked, or is no longer this member's to revoke.
func (s *Store) awaitEnd(ctx context.Context, l leaseRenewal) error {
	select {
	case <-l.revoked:
		return mvcc.ErrLeaseNotFound
	case <-l.demoted:
		return ErrNotLeader
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stop:
		return ErrStopped
	}
}

// LeaseLeft is what there is to know about a lease.
type LeaseLeft struct {
	Left    time.Duration // below zero once it is over and not yet revoked
	Granted int64         // seconds
	Keys    [][]byte      // if they were asked for
}

// LeaseTimeToLive asks the leader's clock, as LeaseRenew does, and with the same errors.
func (s *Store) LeaseTimeToLive(ctx context.Context, id mvcc.LeaseID, keys bool) (left LeaseLeft, err error) {
	request, err := proto.Marshal(&pb.LeaseTimeToLiveRequest{ID: int64(id), Keys: keys})
	if err != nil {
		return LeaseLeft{}, fmt.Errorf("marshal lease: %w", err)
	}
	err = s.atLeader(ctx, leaderCall{
		here: func(ctx context.Context) (err error) { left, err = s.leaseLeft(ctx, id, keys); return err },
		name: callLeaseLeft, request: request,
		take: func(answer []byte) error {
			var resp pb.LeaseTimeToLiveResponse
			err := proto.Unmarshal(answer, &resp)
			left = LeaseLeft{Left: time.Duration(resp.GetTTL()) * time.Second, Granted: resp.GetGrantedTTL(), Keys: resp.GetKeys()}
			return err
		},
		final: []error{mvcc.ErrLeaseNotFound},
	})
	return left, err
}

// leaseLeft is LeaseTimeToLive on the leader, and ErrNotLeader elsewhere.
func (s *Store) leaseLeft(ctx context.Context, id mvcc.LeaseID, keys bool) (LeaseLeft, error) {
	if err := s.confirmLead(ctx); err != nil {
		return LeaseLeft{}, err
	}
	v := s.View()
	lease, ok := v.Lease(id)
	if !ok {
		return LeaseLeft{}, mvcc.ErrLeaseNotFound
	}
	left, ok := s.leases.timeLeft(id, s.cfg.Now())
	switch {
	case ok:
	case s.lead.Load().leader != s.id.member:
		return LeaseLeft{}, ErrNotLeader
	default: // revoked since
		return LeaseLeft{}, mvcc.ErrLeaseNotFound
	}
	l := LeaseLeft{Left: left, Granted: max(lease.TTL, s.leases.ttlMin)}
	if keys {
		l.Keys = v.LeaseKeys(id)
	}
	return l, nil
}

func (s *Store) answerLeaseLeft(ctx context.Context, request []byte) ([]byte, error) {
	var r pb.LeaseTimeToLiveRequest
	if err := proto.Unmarshal(request, &r); err != nil {
		return nil, status.Error(codes.InvalidArgument, "malformed question for a lease")
	}
	l, err := s.leaseLeft(ctx, mvcc.LeaseID(r.GetID()), r.GetKeys())
	if err != nil {
		return nil, err
	}
	return proto.Marshal(&pb.LeaseTimeToLiveResponse{ID: r.GetID(), TTL: int64(l.Left / time.Second), GrantedTTL: l.Granted, Keys: l.Keys})
}

// LeaseRemaining is how long a lease still has, below zero once it is over and not yet revoked. False: unknown, or this member does
// not lead.
func (s *Store) LeaseRemaining(id mvcc.LeaseID) (time.Duration, bool) {
	return s.leases.timeLeft(id, s.cfg.Now())
}

// checkpointLeases writes the remaining time of all leases to the log, for the next leader or the next start. Nothing is renewed here from
// then on.
func (s *Store) checkpointLeases(ctx context.Context) {
	term := s.lead.Load().term
	for _, batch := range s.leases.settle(s.cfg.Now()) {
		if err := s.proposeOwn(ctx, leaseCheckpoint(batch, term)); err != nil {
			return // the leases then start over, which is what a crash does too
		}
	}
}
