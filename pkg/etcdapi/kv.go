package etcdapi

import (
	"context"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"github.com/kubeshim/shim/pkg/raftstore"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// kvService describes etcdserverpb.KV with handlers of our own: those of the
// generated code can neither keep the bytes of a request nor answer with bytes.
func (s *Server) kvService() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: pb.KV_ServiceDesc.ServiceName,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			{MethodName: "Range", Handler: unaryHandler(s, pb.KV_Range_FullMethodName, traced(s, "range", rangeAttributes, (*Server).kvRange))},
			{MethodName: "Put", Handler: unaryHandler(s, pb.KV_Put_FullMethodName, traced(s, "put", putAttributes, (*Server).kvPut))},
			{MethodName: "DeleteRange", Handler: unaryHandler(s, pb.KV_DeleteRange_FullMethodName, traced(s, "delete_range", deleteAttributes, (*Server).kvDeleteRange))},
			{MethodName: "Txn", Handler: unaryHandler(s, pb.KV_Txn_FullMethodName, traced(s, "txn", txnAttributes, (*Server).kvTxn))},
			{MethodName: "Compact", Handler: unaryHandler(s, pb.KV_Compact_FullMethodName, traced(s, "compact", compactAttributes, (*Server).kvCompact))},
		},
		Streams: []grpc.StreamDesc{
			{StreamName: "RangeStream", Handler: s.kvRangeStream, ServerStreams: true},
		},
		Metadata: pb.KV_ServiceDesc.Metadata,
	}
}

type methodHandler = func(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error)

// unaryHandler makes a handler of a method whose request is an M: a proto message
// or a rawRequest. It does what interceptUnary does, but not by way of gRPC's
// interceptors: the frames of those make a call outgrow its stack, see doc.go.
//
// Requests are used again. Nothing refers to them after the call: answers share
// versions, not requests, and the store is done with a command when it has
// answered (see raftstore.Command).
func unaryHandler[M any](s *Server, full string, fn func(*Server, context.Context, *M) (any, error)) methodHandler {
	pool := sync.Pool{New: func() any { return new([1]M) }} // an array, as clear takes no message
	return func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		room := pool.Get().(*[1]M)
		req := &room[0]
		var resp any
		err := dec(req)
		if err == nil {
			c := s.begin(full)
			if err = s.admit(ctx, req); err == nil {
				resp, err = fn(s, ctx, req)
			}
			if took := s.end(c, err); took > s.slowMin {
				s.slow(ctx, full, req, resp, took, err)
			}
		}
		if raw, ok := any(req).(rawRequest); ok {
			raw.release()
		}
		clear(room[:])
		pool.Put(room)
		return resp, err
	}
}

// write is a command on its way through the log, and what became of it. It is
// part of the requests that write, which are on the heap anyway.
type write struct {
	raft pb.InternalRaftRequest
	cmd  raftstore.Command
	res  mvcc.Result
}

// propose sends w through the log, with who asks for it if auth is on. The
// refusals of the state machine are errors, too.
func (s *Server) propose(ctx context.Context, kind mvcc.Kind, w *write, body []byte) error {
	if s.store.View().Auth().Enabled() {
		if err := s.sign(ctx, w); err != nil {
			return err
		}
	}
	return s.proposeUnsigned(ctx, kind, w, body)
}

// proposeUnsigned is propose for a w that is signed, or for nobody's command.
func (s *Server) proposeUnsigned(ctx context.Context, kind mvcc.Kind, w *write, body []byte) error {
	w.cmd.Kind, w.cmd.Request, w.cmd.Body = kind, &w.raft, body
	if s.tracer != nil {
		w.cmd.Trace = s.tracer.storeTrace(ctx)
	}
	began := time.Since(epoch)
	err := s.store.ProposeTo(ctx, &w.cmd, &w.res)
	s.requests.propose(kind, time.Since(epoch)-began, err)
	if err != nil {
		return proposeError(err)
	}
	return nil
}

// readView is the View a read is answered from.
func (s *Server) readView(ctx context.Context, serializable bool) (*mvcc.View, error) {
	if serializable {
		return s.store.View(), nil
	}
	v, err := s.store.ReadView(ctx)
	if err != nil {
		return nil, toGRPC(err)
	}
	return v, nil
}

// keysView is readView for reads of keys: a member that is known to have other
// data than the rest does not show them.
func (s *Server) keysView(ctx context.Context, serializable bool) (*mvcc.View, error) {
	v, err := s.readView(ctx, serializable)
	if err == nil && len(v.Alarms()) > 0 && s.store.Corrupt() {
		return nil, rpctypes.ErrGRPCCorrupt
	}
	return v, err
}
