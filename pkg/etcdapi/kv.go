package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

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
			{MethodName: "Put", Handler: rawHandler(s, pb.KV_Put_FullMethodName, s.kvPut)},
			{MethodName: "DeleteRange", Handler: rawHandler(s, pb.KV_DeleteRange_FullMethodName, s.kvDeleteRange)},
			{MethodName: "Txn", Handler: rawHandler(s, pb.KV_Txn_FullMethodName, s.kvTxn)},
			{MethodName: "Compact", Handler: unaryHandler(s, pb.KV_Compact_FullMethodName, s.kvCompact)},
		},
		Streams: []grpc.StreamDesc{
			{StreamName: "RangeStream", Handler: s.kvRangeStream, ServerStreams: true},
		},
		Metadata: pb.KV_ServiceDesc.Metadata,
	}
}

type methodHandler = func(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error)

// message is a pointer to M that is a proto message.
type message[M any] interface {
	*M
	proto.Message
}

// unaryHandler makes a handler of a method that wants the decoded request.
func unaryHandler[M any, P message[M]](s *Server, full string, fn func(context.Context, P) (any, error)) methodHandler {
	info := &grpc.UnaryServerInfo{Server: s, FullMethod: full}
	call := func(ctx context.Context, req any) (any, error) { return fn(ctx, req.(P)) }
	return func(_ any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		req := P(new(M))
		if err := dec(req); err != nil {
			return nil, err
		}
		if interceptor == nil {
			return call(ctx, req)
		}
		return interceptor(ctx, req, info, call)
	}
}

// rawHandler makes a handler of a method that also wants the bytes of the
// request. The bytes are valid until fn returns.
func rawHandler[M any, P message[M]](s *Server, full string, fn func(context.Context, P, []byte) (any, error)) methodHandler {
	info := &grpc.UnaryServerInfo{Server: s, FullMethod: full}
	call := func(ctx context.Context, req any) (any, error) {
		r := req.(*rawRequest)
		return fn(ctx, r.msg.(P), r.body())
	}
	return func(_ any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		req := &rawRequest{msg: P(new(M))}
		defer req.free()
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
