package etcdapi

import (
	"bytes"
	"context"
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/watchcache"
)

// Lock and Election are recipes of several calls. Here are those calls, made
// inside the process with the caller's context: the handlers of the services
// check, write and answer, and only the transport is left out.

// cleanup is the context of what is still done for a caller that has gone.
func cleanup(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), recipeCleanupMax)
}

// local calls a verb of KV, whose request is an M.
func local[M any, P interface {
	*M
	rawRequest
}](ctx context.Context, s *Server, verb func(*Server, context.Context, *M) (any, error), req, resp proto.Message) error {
	body, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	m := P(new(M))
	m.keep(mem.SliceBuffer(body))
	defer m.release()
	if err := m.receive(body); err != nil {
		return err
	}
	answer, err := verb(s, ctx, (*M)(m))
	if err != nil {
		return err
	}
	c := newCodec()
	wire, err := c.Marshal(answer)
	if err != nil {
		return err
	}
	defer wire.Free()
	return c.Unmarshal(wire, resp)
}

func (s *Server) localTxn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	resp := new(pb.TxnResponse)
	return resp, local(ctx, s, (*Server).kvTxn, r, resp)
}

func (s *Server) localRange(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	resp := new(pb.RangeResponse)
	return resp, local(ctx, s, (*Server).kvRange, r, resp)
}

func (s *Server) localDelete(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	resp := new(pb.DeleteRangeResponse)
	return resp, local(ctx, s, (*Server).kvDeleteRange, r, resp)
}

// recipeLease is the lease of a call: a new one if it names none. Nobody keeps
// that alive.
func (s *Server) recipeLease(ctx context.Context, id int64) (int64, error) {
	if id != 0 {
		return id, nil
	}
	resp, err := leaseServer{Server: s}.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: recipeLeaseSeconds})
	return resp.GetID(), err
}

// localWatch is a watch inside the process. What it shows was readable to the
// caller a moment before: it follows a range that was just read.
type localWatch struct {
	*watchcache.Stream
	s *Server
}

func (s *Server) watchLocal(key, end []byte, from int64) localWatch {
	w := localWatch{s.hub.NewStream(), s}
	w.Create(watchcache.CreateRequest{Key: key, RangeEnd: end, StartRevision: mvcc.Revision(from)})
	return w
}

// next waits for events. An error says that there will be no more.
func (w localWatch) next(ctx context.Context) (*pb.ResponseHeader, []*mvccpb.Event, error) {
	for {
		b, err := w.Next(ctx)
		switch {
		case errors.Is(err, watchcache.ErrStopped):
			return nil, nil, rpctypes.ErrGRPCStopped
		case err != nil:
			return nil, nil, err
		case b.CompactRevision != 0:
			return nil, nil, rpctypes.ErrGRPCCompacted
		case b.Err != nil:
			return nil, nil, status.Error(codes.FailedPrecondition, cancelReason(b.Err))
		case b.Kind != watchcache.BatchEvents:
			continue
		}
		var wire []byte
		for _, e := range b.Events {
			wire = e.AppendTo(wire)
		}
		var r pb.WatchResponse // of which the events are encoded
		if err := proto.Unmarshal(wire, &r); err != nil {
			return nil, nil, err
		}
		return w.s.headerAt(b.Revision), r.Events, nil
	}
}

// awaitOlder waits until no key below prefix is as old as revision created, or
// older. It watches the youngest of those, so that few are woken by one end.
func (s *Server) awaitOlder(ctx context.Context, prefix []byte, created int64) error {
	youngest := &pb.RangeRequest{
		Key: prefix, RangeEnd: prefixEnd(prefix), Limit: 1, MaxCreateRevision: created,
		SortTarget: pb.RangeRequest_CREATE, SortOrder: pb.RangeRequest_DESCEND,
	}
	for {
		got, err := s.localRange(ctx, youngest)
		if err != nil || len(got.Kvs) == 0 {
			return err
		}
		if err := s.awaitDelete(ctx, got.Kvs[0].Key, got.Header.Revision); err != nil {
			return err
		}
	}
}

// awaitDelete waits for the first delete of key from revision rev on.
func (s *Server) awaitDelete(ctx context.Context, key []byte, rev int64) error {
	w := s.watchLocal(key, nil, rev)
	defer w.Close()
	for {
		_, events, err := w.next(ctx)
		if err != nil {
			return err
		}
		for _, e := range events {
			if e.Type == mvccpb.Event_DELETE {
				return nil
			}
		}
	}
}

// oldestOf asks for the key below prefix that was created first.
func oldestOf(prefix []byte) *pb.RangeRequest {
	return &pb.RangeRequest{Key: prefix, RangeEnd: prefixEnd(prefix), Limit: 1, SortTarget: pb.RangeRequest_CREATE}
}

// prefixEnd is the range end of all keys that begin with prefix, which ends with
// a slash.
func prefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	end[len(end)-1]++
	return end
}

// createdAt holds if key was created at rev; 0: if it is not there.
func createdAt(key []byte, rev int64) *pb.Compare {
	return &pb.Compare{Key: key, Target: pb.Compare_CREATE, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: rev}}
}

func putOp(key, value []byte, lease int64) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value, Lease: lease}}}
}

func rangeOp(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func deleteOp(key []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}}}
}

// recipeError is the error of a recipe as etcd's client library hands it on, on
// which the recipes run there: the text of the call that failed, without its
// code, or the end of the context.
func recipeError(ctx context.Context, err error) error {
	err = rpctypes.Error(err)
	var known rpctypes.EtcdError
	if errors.As(err, &known) {
		return err
	}
	if code := codeOf(err); ctx.Err() != nil && (code == codes.Canceled || code == codes.DeadlineExceeded) {
		return ctx.Err()
	}
	return err
}
