package raftstore

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubeshim/shim/pkg/raftstore/membership"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// The names of the calls between members, for what etcd's members ask each other by HTTP.
const (
	callLeaseRenew = "lease.renew" // pb.LeaseKeepAliveRequest -> pb.LeaseKeepAliveResponse
	callLeaseLeft  = "lease.left"  // pb.LeaseTimeToLiveRequest -> pb.LeaseTimeToLiveResponse
	callPromote    = "promote"     // ID as a little endian u64 -> JSON of the members
	callHashes     = "hashes"      // nothing -> see encodeHashes
	callRows       = "rows"        // see rowsRequest -> see rowsHash
)

// callErrors are the verdicts that a call carries from one member to the other: the caller gets the value back. All other errors say
// that the call failed, and not what would have come of it.
var callErrors = []error{
	ErrNotLeader, ErrLeaderChanged, mvcc.ErrLeaseNotFound, membership.ErrLearnerNotReady, membership.ErrIDNotFound, membership.ErrIDRemoved,
	membership.ErrMemberNotLearner, membership.ErrNotEnoughStartedMembers,
}

// verdictCode is the status code of callErrors on the wire.
const verdictCode = codes.FailedPrecondition

// answer answers a call of another member. It is what the transport's Handler.Call comes to.
func (s *Store) answer(ctx context.Context, name string, request []byte) (answer []byte, err error) {
	switch name {
	case callLeaseRenew:
		answer, err = s.answerLeaseRenew(ctx, request)
	case callLeaseLeft:
		answer, err = s.answerLeaseLeft(ctx, request)
	case callPromote:
		answer, err = s.answerPromote(ctx, request)
	case callHashes:
		answer = encodeHashes(s.hashes.above(0))
	case callRows:
		answer, err = s.answerRows(ctx, request)
	default:
		return nil, status.Errorf(codes.Unimplemented, "unknown call %q", name)
	}
	for _, verdict := range callErrors {
		if errors.Is(err, verdict) {
			return nil, status.Error(verdictCode, verdict.Error())
		}
	}
	return answer, err
}

// ask calls another member.
func (s *Store) ask(ctx context.Context, id uint64, name string, request []byte) ([]byte, error) {
	answer, err := s.peers.Call(ctx, id, name, request)
	if st, ok := status.FromError(err); ok && st.Code() == verdictCode {
		for _, verdict := range callErrors {
			if st.Message() == verdict.Error() {
				return nil, verdict
			}
		}
	}
	return answer, err
}

// leaderCall is something that only the leader can do.
type leaderCall struct {
	// here does it on this member, if it leads; ErrNotLeader if it does not after all.
	here func(context.Context) error
	// name and request ask another leader for it, and take is given its answer.
	name    string
	request []byte
	take    func(answer []byte) error
	// final are the refusals that another attempt would meet again.
	final []error
}

// atLeader has the leader do it: this member or another one, and again if another one did not answer or does not lead any more. It gives up
// after etcd's request timeout with ErrTimeout, with ErrNoLeader if there was no leader to ask then.
func (s *Store) atLeader(ctx context.Context, c leaderCall) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.requestTimeout())
	defer cancel()
	for {
		leader, err := s.awaitLeader(ctx)
		if err != nil {
			return err
		}
		if leader == s.id.member {
			err = c.here(ctx)
			if !errors.Is(err, ErrNotLeader) {
				return timedOut(ctx, err)
			}
		} else {
			var answer []byte
			if answer, err = s.ask(ctx, leader, c.name, c.request); err == nil {
				return c.take(answer)
			}
			for _, verdict := range c.final {
				if errors.Is(err, verdict) {
					return err
				}
			}
		}
		if err := s.pause(ctx, callRetryInterval); err != nil {
			return timedOut(ctx, err)
		}
	}
}

// pause waits before another attempt.
func (s *Store) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stop:
		return ErrStopped
	}
}

// timedOut names the end of the time for a request as etcd does.
func timedOut(ctx context.Context, err error) error {
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) && errors.Is(err, context.DeadlineExceeded) {
		return ErrTimeout
	}
	return err
}

// awaitLeader is the leader's ID. Without one it waits, and answers ErrNoLeader when ctx ends first.
func (s *Store) awaitLeader(ctx context.Context) (uint64, error) {
	for {
		changed := s.leadChanged()
		if leader := s.lead.Load().leader; leader != 0 {
			return leader, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, ErrNoLeader
		case <-s.stop:
			return 0, ErrStopped
		}
	}
}
