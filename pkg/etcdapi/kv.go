package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
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
			{MethodName: "Range", Handler: unaryHandler(s, pb.KV_Range_FullMethodName, s.kvRange)},
			{MethodName: "Put", Handler: unaryHandler(s, pb.KV_Put_FullMethodName, s.kvPut)},
			{MethodName: "DeleteRange", Handler: unaryHandler(s, pb.KV_DeleteRange_FullMethodName, s.kvDeleteRange)},
			{MethodName: "Txn", Handler: unaryHandler(s, pb.KV_Txn_FullMethodName, s.kvTxn)},
			{MethodName: "Compact", Handler: unaryHandler(s, pb.KV_Compact_FullMethodName, s.kvCompact)},
		},
		Streams: []grpc.StreamDesc{
			{StreamName: "RangeStream", Handler: s.kvRangeStream, ServerStreams: true},
		},
		Metadata: pb.KV_ServiceDesc.Metadata,
	}
}

type methodHandler = func(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error)

// unaryHandler makes a handler of a method whose request is an M: a proto message
// or a rawRequest.
func unaryHandler[M any](s *Server, full string, fn func(context.Context, *M) (any, error)) methodHandler {
	info := &grpc.UnaryServerInfo{Server: s, FullMethod: full}
	call := func(ctx context.Context, req any) (any, error) { return fn(ctx, req.(*M)) }
	return func(_ any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		req := new(M)
		if err := dec(req); err != nil {
			return nil, err
		}
		if interceptor == nil {
			return call(ctx, req)
		}
		return interceptor(ctx, req, info, call)
	}
}

// propose sends a command through the log and returns its result, the refusals
// of the state machine as gRPC errors.
func (s *Server) propose(ctx context.Context, kind mvcc.Kind, req *pb.InternalRaftRequest, body []byte) (mvcc.Result, error) {
	res, err := s.store.Propose(ctx, raftstore.Command{Kind: kind, Request: req, Body: body})
	if err == nil {
		err = res.Err
	}
	if err != nil {
		return mvcc.Result{}, proposeError(err)
	}
	return res, nil
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
