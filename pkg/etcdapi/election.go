package etcdapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
)

// The texts are etcd's.
var (
	errNotLeader        = errors.New("election: not leader")
	errNobodyLeads      = errors.New("election: no leader")
	errMissingLeaderKey = errors.New(`"leader" field must be provided`)
)

// electionServer answers v3electionpb.Election: the election of etcd's client
// library, run here. A candidate has a key NAME/LEASE with its proposal, and the
// oldest of them leads.
type electionServer struct {
	*Server
	v3electionpb.UnsafeElectionServer
}

// Campaign waits until the caller's lease leads. A lease that has a key already
// keeps it, with the new proposal.
func (s electionServer) Campaign(ctx context.Context, r *v3electionpb.CampaignRequest) (*v3electionpb.CampaignResponse, error) {
	resp, err := s.campaign(ctx, r)
	if err != nil {
		return nil, recipeError(ctx, err)
	}
	return resp, nil
}

func (s electionServer) campaign(ctx context.Context, r *v3electionpb.CampaignRequest) (*v3electionpb.CampaignResponse, error) {
	lease, err := s.recipeLease(ctx, r.Lease)
	if err != nil {
		return nil, err
	}
	prefix := append(r.Name[:len(r.Name):len(r.Name)], '/')
	leader := &v3electionpb.LeaderKey{Name: r.Name, Key: fmt.Appendf(prefix[:len(prefix):len(prefix)], "%x", lease), Lease: lease}
	resp, err := s.localTxn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{createdAt(leader.Key, 0)},
		Success: []*pb.RequestOp{putOp(leader.Key, r.Value, lease)},
		Failure: []*pb.RequestOp{rangeOp(&pb.RangeRequest{Key: leader.Key})},
	})
	if err != nil {
		return nil, err
	}
	leader.Rev = resp.Header.Revision
	if !resp.Succeeded {
		own := resp.Responses[0].GetResponseRange().Kvs[0]
		leader.Rev = own.CreateRevision
		if !bytes.Equal(own.Value, r.Value) {
			if _, err := s.proclaim(ctx, leader, r.Value); err != nil {
				_, _ = s.resign(ctx, leader)
				return nil, err
			}
		}
	}
	if err := s.awaitOlder(ctx, prefix, leader.Rev-1); err != nil {
		if ctx.Err() != nil {
			clean, cancel := cleanup(ctx)
			defer cancel()
			_, _ = s.resign(clean, leader) // or else its lease ends it
		}
		return nil, err
	}
	return &v3electionpb.CampaignResponse{Header: resp.Header, Leader: leader}, nil
}

// Proclaim changes the leader's proposal.
func (s electionServer) Proclaim(ctx context.Context, r *v3electionpb.ProclaimRequest) (*v3electionpb.ProclaimResponse, error) {
	header, err := s.asLeader(ctx, r.Leader, func(l *v3electionpb.LeaderKey) (*pb.ResponseHeader, error) { return s.proclaim(ctx, l, r.Value) })
	if err != nil {
		return nil, err
	}
	return &v3electionpb.ProclaimResponse{Header: header}, nil
}

// Resign gives the leadership up, or does nothing if it is lost already.
func (s electionServer) Resign(ctx context.Context, r *v3electionpb.ResignRequest) (*v3electionpb.ResignResponse, error) {
	header, err := s.asLeader(ctx, r.Leader, func(l *v3electionpb.LeaderKey) (*pb.ResponseHeader, error) { return s.resign(ctx, l) })
	if err != nil {
		return nil, err
	}
	return &v3electionpb.ResignResponse{Header: header}, nil
}

// asLeader runs what only a leader does. A leader without a lease gets one.
func (s electionServer) asLeader(ctx context.Context, l *v3electionpb.LeaderKey, do func(*v3electionpb.LeaderKey) (*pb.ResponseHeader, error)) (*pb.ResponseHeader, error) {
	if l == nil {
		return nil, errMissingLeaderKey
	}
	lease, err := s.recipeLease(ctx, l.Lease)
	if err != nil {
		return nil, recipeError(ctx, err)
	}
	header, err := do(&v3electionpb.LeaderKey{Key: l.Key, Rev: l.Rev, Lease: lease})
	if err != nil {
		return nil, recipeError(ctx, err)
	}
	return header, nil
}

func (s electionServer) proclaim(ctx context.Context, l *v3electionpb.LeaderKey, value []byte) (*pb.ResponseHeader, error) {
	resp, err := s.localTxn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{createdAt(l.Key, l.Rev)},
		Success: []*pb.RequestOp{putOp(l.Key, value, l.Lease)},
	})
	if err == nil && !resp.Succeeded {
		err = errNotLeader
	}
	return resp.GetHeader(), err
}

func (s electionServer) resign(ctx context.Context, l *v3electionpb.LeaderKey) (*pb.ResponseHeader, error) {
	resp, err := s.localTxn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{createdAt(l.Key, l.Rev)},
		Success: []*pb.RequestOp{deleteOp(l.Key)},
	})
	return resp.GetHeader(), err
}

// Leader tells who leads.
func (s electionServer) Leader(ctx context.Context, r *v3electionpb.LeaderRequest) (*v3electionpb.LeaderResponse, error) {
	got, err := s.localRange(ctx, oldestOf(append(r.Name[:len(r.Name):len(r.Name)], '/')))
	if err != nil {
		return nil, recipeError(ctx, err)
	}
	if len(got.Kvs) == 0 {
		return nil, errNobodyLeads
	}
	return &v3electionpb.LeaderResponse{Header: got.Header, Kv: got.Kvs[0]}, nil
}

// Observe tells each leader and each of its proposals. As in etcd the stream ends
// without an error when a call fails, or when it has fallen behind a compaction.
func (s electionServer) Observe(r *v3electionpb.LeaderRequest, stream v3electionpb.Election_ObserveServer) error {
	ctx, prefix := stream.Context(), append(r.Name[:len(r.Name):len(r.Name)], '/')
	for ctx.Err() == nil {
		header, kv, err := s.awaitLeader(ctx, prefix)
		if err != nil {
			break
		}
		if err := stream.Send(&v3electionpb.LeaderResponse{Header: header, Kv: kv}); err != nil {
			return err
		}
		var failed sendError
		if err := s.followLeader(ctx, kv.Key, header.Revision+1, stream); errors.As(err, &failed) {
			return failed.error
		} else if err != nil {
			break
		}
	}
	return context.Cause(ctx) // "no leader", if that is why it ended
}

// awaitLeader is the leader, or the first to come.
func (s electionServer) awaitLeader(ctx context.Context, prefix []byte) (*pb.ResponseHeader, *mvccpb.KeyValue, error) {
	got, err := s.localRange(ctx, oldestOf(prefix))
	if err != nil {
		return nil, nil, err
	}
	if len(got.Kvs) > 0 {
		return got.Header, got.Kvs[0], nil
	}
	w := s.watchLocal(prefix, prefixEnd(prefix), got.Header.Revision)
	defer w.Close()
	for {
		header, events, err := w.next(ctx)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range events {
			if e.Type == mvccpb.Event_PUT {
				header.Revision = e.Kv.ModRevision // others may follow in the same batch
				return header, e.Kv, nil
			}
		}
	}
}

// followLeader sends the leader's proposals until its key is deleted.
func (s electionServer) followLeader(ctx context.Context, key []byte, from int64, stream v3electionpb.Election_ObserveServer) error {
	w := s.watchLocal(key, nil, from)
	defer w.Close()
	for {
		header, events, err := w.next(ctx)
		if err != nil {
			return err
		}
		for _, e := range events {
			if e.Type == mvccpb.Event_DELETE {
				return nil
			}
			if err := stream.Send(&v3electionpb.LeaderResponse{Header: header, Kv: e.Kv}); err != nil {
				return sendError{err}
			}
		}
	}
}

// sendError is an error of the stream, as opposed to one of a call.
type sendError struct{ error }
