package etcdapi

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
)

// errLockExpired answers a Lock whose key went with its lease. The text is etcd's.
var errLockExpired = errors.New("mutex: session is expired")

// lockServer answers v3lockpb.Lock: the mutex of etcd's client library, run here.
// Who waits has a key NAME/LEASE, and the oldest of them holds the lock.
type lockServer struct {
	*Server
	v3lockpb.UnsafeLockServer
}

// Lock waits until the caller's lease holds the lock, and answers with the key
// that stands for that. A lease that holds it already gets it at once.
func (s lockServer) Lock(ctx context.Context, r *v3lockpb.LockRequest) (*v3lockpb.LockResponse, error) {
	header, key, err := s.lock(ctx, r)
	if err != nil {
		return nil, recipeError(ctx, err)
	}
	return &v3lockpb.LockResponse{Header: header, Key: key}, nil
}

func (s lockServer) lock(ctx context.Context, r *v3lockpb.LockRequest) (*pb.ResponseHeader, []byte, error) {
	lease, err := s.recipeLease(ctx, r.Lease)
	if err != nil {
		return nil, nil, err
	}
	prefix := append(r.Name[:len(r.Name):len(r.Name)], '/')
	key := fmt.Appendf(prefix[:len(prefix):len(prefix)], "%x", lease)
	resp, err := s.localTxn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{createdAt(key, 0)},
		Success: []*pb.RequestOp{putOp(key, nil, lease), rangeOp(oldestOf(prefix))},
		Failure: []*pb.RequestOp{rangeOp(&pb.RangeRequest{Key: key}), rangeOp(oldestOf(prefix))},
	})
	if err != nil {
		return nil, nil, err
	}
	own := resp.Header.Revision
	if !resp.Succeeded {
		own = resp.Responses[0].GetResponseRange().Kvs[0].CreateRevision
	}
	oldest := resp.Responses[1].GetResponseRange().Kvs
	if len(oldest) == 0 || oldest[0].CreateRevision == own {
		return resp.Header, key, nil
	}
	header, err := s.awaitLock(ctx, prefix, key, own)
	if err != nil && !errors.Is(err, errLockExpired) {
		clean, cancel := cleanup(ctx)
		defer cancel()
		_, _ = s.localDelete(clean, &pb.DeleteRangeRequest{Key: key}) // or else its lease ends it
	}
	return header, key, err
}

// awaitLock waits for those before key, which was created at own, and looks
// whether key is still there then.
func (s lockServer) awaitLock(ctx context.Context, prefix, key []byte, own int64) (*pb.ResponseHeader, error) {
	if err := s.awaitOlder(ctx, prefix, own-1); err != nil {
		return nil, err
	}
	got, err := s.localRange(ctx, &pb.RangeRequest{Key: key})
	if err != nil {
		return nil, err
	}
	if len(got.Kvs) == 0 {
		return nil, errLockExpired
	}
	return got.Header, nil
}

// Unlock deletes the key that Lock answered with.
func (s lockServer) Unlock(ctx context.Context, r *v3lockpb.UnlockRequest) (*v3lockpb.UnlockResponse, error) {
	resp, err := s.localDelete(ctx, &pb.DeleteRangeRequest{Key: r.Key})
	if err != nil {
		return nil, recipeError(ctx, err)
	}
	return &v3lockpb.UnlockResponse{Header: resp.Header}, nil
}
