package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/status"

	"github.com/kubeshim/shim/test/internal/measure"
	"github.com/kubeshim/shim/test/internal/member"
	"github.com/kubeshim/shim/test/soak/ledger"
)

// callTimeout ends a call of which nothing is heard any more.
const callTimeout = time.Minute

// api makes the calls that apiservers make, and writes into the book what it
// was told. Each resource has a connection of its own, as there.
type api struct {
	book *ledger.Ledger
	conn map[string]*grpc.ClientConn // by resource

	seed atomic.Uint64 // of the next value: no two are equal
	// outage: the server is being killed, so calls may fail.
	outage atomic.Bool
	// full: the quota may be reached, so growth may be refused.
	full atomic.Bool
}

func newAPI(addr string, book *ledger.Ledger) (*api, error) {
	a := &api{book: book, conn: make(map[string]*grpc.ClientConn)}
	for _, resource := range resources {
		c, err := dial(addr)
		if err != nil {
			return nil, err
		}
		a.conn[resource] = c
	}
	return a, nil
}

// dial makes a connection that comes back soon after a restart.
func dial(addr string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	return member.Dial(addr, append(opts, grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second,
		Backoff: backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1.5, MaxDelay: 50 * time.Millisecond}}))...)
}

func (a *api) close() {
	for _, c := range a.conn {
		c.Close()
	}
}

func (a *api) kv(resource string) pb.KVClient { return pb.NewKVClient(a.conn[resource]) }

func (a *api) value(size int) []byte { return measure.Payload(size, a.seed.Add(1)) }

// object is a key that one call at a time works on.
type object struct {
	key string
	mod int64 // 0: not there
	// stale: nobody knows what came of the last write.
	stale bool
	// expires: it has a lease, which may take it at any time.
	expires bool
}

// outcome is what came of a write.
type outcome int

const (
	acked   outcome = iota
	refused         // for want of space
	unknown
)

// put is a create, if the object is not there, or a guarded update.
func (a *api) put(ctx context.Context, resource string, o *object, value []byte, lease int64) outcome {
	put := &pb.PutRequest{Key: []byte(o.key), Value: value, Lease: lease}
	return a.guarded(ctx, resource, o, a.book.Put(o.key, value, lease), &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
}

// remove is a guarded deletion of an object that is there.
func (a *api) remove(ctx context.Context, resource string, o *object) outcome {
	op := &pb.DeleteRangeRequest{Key: []byte(o.key)}
	out := a.guarded(ctx, resource, o, a.book.Delete(o.key), &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: op}})
	switch out {
	case acked:
		o.mod = 0
	case refused:
		a.book.Problem("the deletion of %s was refused for want of space", o.key)
	}
	return out
}

// guarded is the txn of apiservers: the write, if the object is what it was.
func (a *api) guarded(ctx context.Context, resource string, o *object, w ledger.Write, op *pb.RequestOp) outcome {
	req := &pb.TxnRequest{
		Compare: []*pb.Compare{{Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, Key: []byte(o.key), TargetUnion: &pb.Compare_ModRevision{ModRevision: o.mod}}},
		Success: []*pb.RequestOp{op},
	}
	if o.mod != 0 {
		req.Failure = []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(o.key)}}}}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := a.kv(resource).Txn(ctx, req)
	switch {
	case err == nil && resp.Succeeded:
		o.mod = resp.Header.Revision
		w.Acked(o.mod)
		return acked
	case err == nil:
		w.Refused()
		if !o.expires {
			a.book.Problem("the guarded write of %s failed at revision %d, and nobody else writes it: %v", o.key, resp.Header.Revision, resp.Responses)
		}
		o.stale = true
		return unknown
	case noSpace(err):
		w.Refused()
		if !a.full.Load() {
			a.book.Problem("the write of %s was refused for want of space, and there is some", o.key)
		}
		return refused
	}
	if o.expires && errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
		w.Refused() // the lease was faster
		return refused
	}
	w.Unknown()
	o.stale = true
	a.failed("write of "+o.key, err)
	return unknown
}

// failed notes the error of a call, which nothing but a kill explains.
func (a *api) failed(what string, err error) {
	if !a.outage.Load() {
		a.book.Problem("%s: %v", what, err)
	}
}

func noSpace(err error) bool {
	s, _ := status.FromError(err)
	return s.Message() == rpctypes.ErrorDesc(rpctypes.ErrGRPCNoSpace)
}

// get is an apiserver's, and has the object be what it is.
func (a *api) get(ctx context.Context, resource string, o *object) error {
	newest := a.book.Newest()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := a.kv(resource).Range(ctx, &pb.RangeRequest{Key: []byte(o.key), Limit: 1})
	if err != nil {
		a.failed("get of "+o.key, err)
		return err
	}
	var kv *mvccpb.KeyValue
	mod := int64(0)
	if len(resp.Kvs) > 0 {
		kv = resp.Kvs[0]
		mod = kv.ModRevision
	}
	a.book.Read(o.key, kv, resp.Header.Revision, newest)
	o.mod, o.stale = mod, false
	return nil
}

// revision is the most frequent read of apiservers: a key that never exists.
func (a *api) revision(ctx context.Context, resource string) (int64, error) {
	newest := a.book.Newest()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := a.kv(resource).Range(ctx, &pb.RangeRequest{Key: []byte("/registry/" + resource), Limit: 1})
	if err != nil {
		a.failed("get of the revision", err)
		return 0, err
	}
	a.book.Answered("a get of the revision", resp.Header.Revision, newest)
	return resp.Header.Revision, nil
}

// pages lists a resource by pages, pinned to the revision of the first.
func (a *api) pages(ctx context.Context, resource string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	newest := a.book.Newest()
	prefix := "/registry/" + resource + "/"
	req := &pb.RangeRequest{Key: []byte(prefix), RangeEnd: measure.PrefixEnd(prefix), Limit: pageKeys}
	var d ledger.Digest
	for {
		resp, err := a.kv(resource).Range(ctx, req)
		if errors.Is(rpctypes.Error(err), rpctypes.ErrCompacted) && req.Revision != 0 {
			return nil // an apiserver begins anew
		}
		if err != nil {
			a.failed("list of "+prefix, err)
			return err
		}
		if req.Revision == 0 {
			req.Revision = resp.Header.Revision
			a.book.Answered("a list of "+prefix, req.Revision, newest)
		}
		for _, kv := range resp.Kvs {
			d.Add(kv)
		}
		if !resp.More {
			a.book.List(prefix, req.Revision, d)
			return nil
		}
		req.Key = append(resp.Kvs[len(resp.Kvs)-1].Key, 0)
	}
}

// grant makes a lease; 0 if there is no space for it.
func (a *api) grant(ctx context.Context, ttl time.Duration) int64 {
	at := time.Now()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := pb.NewLeaseClient(a.conn[events]).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: int64(ttl.Seconds())})
	if err != nil {
		if !noSpace(err) || !a.full.Load() {
			a.failed("grant of a lease", err)
		}
		return 0
	}
	a.book.Granted(resp.ID, time.Duration(resp.TTL)*time.Second, at)
	return resp.ID
}
