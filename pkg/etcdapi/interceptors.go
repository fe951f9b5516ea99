package etcdapi

import (
	"context"
	"time"
	"unicode/utf8"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kubeshim/shim/pkg/etcdapi/grpcmetrics"
)

// call is a unary call under way.
type call struct {
	m     *grpcmetrics.Method
	start time.Duration // since epoch
}

// epoch is what call.start counts from; a duration takes less stack than a time.
var epoch = time.Now()

// interceptUnary is the one interceptor of unary calls: counters, slow calls, the
// client's version, and hasleader. (KV's go through unaryHandler.)
func (s *Server) interceptUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	c := s.begin(info.FullMethod)
	err := s.admit(ctx, req)
	var resp any
	if err == nil {
		resp, err = handler(ctx, req)
	}
	if took := s.end(c, err); took > s.slowMin {
		s.slow(ctx, info.FullMethod, req, resp, took, err)
	}
	return resp, err
}

func (s *Server) begin(method string) call {
	m := s.metrics.Method(method)
	m.Started()
	m.Received()
	return call{m: m, start: time.Since(epoch)}
}

//go:noinline
func (s *Server) end(c call, err error) time.Duration {
	took := time.Since(epoch) - c.start
	c.m.Sent() // an error, too: see countedStream
	c.m.Handled(codeOf(err), took)
	return took
}

// admit refuses what a learner does not answer, and calls of clients that send
// nonsense, or that want a leader while there is none.
func (s *Server) admit(ctx context.Context, req any) error {
	if s.store.IsLearner() && !learnerAnswers(req) {
		return rpctypes.ErrGRPCNotSupportedForLearner
	}
	version, err := clientVersion(ctx)
	if err != nil {
		return err
	}
	s.metrics.UnaryClient(version)
	if wantsLeader(ctx) && !s.store.HasLeader() {
		return rpctypes.ErrGRPCNoLeader
	}
	return nil
}

// interceptStream does the same for streams. A stream that asked for a leader is
// also ended when the leader is lost for longer than an election takes.
func (s *Server) interceptStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	m := s.metrics.Method(info.FullMethod)
	m.Started()
	var start time.Time
	if m.Timed() {
		start = time.Now()
	}
	err := s.admitStream(info.FullMethod)
	if err == nil {
		err = s.handleStream(srv, &countedStream{ServerStream: ss, m: m}, handler)
	}
	m.Handled(codeOf(err), since(m, start))
	return err
}

// learnerAnswers says whether a learner answers a unary call: what it knows by
// itself, and reads of keys that may be stale.
func learnerAnswers(req any) bool {
	switch r := req.(type) {
	case *pb.StatusRequest:
		return true
	case *rangeRequest:
		return r.GetSerializable()
	}
	return false
}

// admitStream refuses the streams that a learner does not serve, which is all but
// backups, and new watches of data that is known to be wrong.
func (s *Server) admitStream(method string) error {
	if s.store.IsLearner() && method != pb.Maintenance_Snapshot_FullMethodName {
		return rpctypes.ErrGRPCNotSupportedForLearner
	}
	if method == pb.Watch_Watch_FullMethodName && s.store.Corrupt() {
		return rpctypes.ErrGRPCCorrupt
	}
	return nil
}

func (s *Server) handleStream(srv any, ss *countedStream, handler grpc.StreamHandler) error {
	ctx := ss.Context()
	version, err := clientVersion(ctx)
	if err != nil {
		return err
	}
	s.metrics.StreamClient(version)
	if !wantsLeader(ctx) {
		return handler(srv, ss)
	}
	if !s.store.HasLeader() {
		return rpctypes.ErrGRPCNoLeader
	}
	lctx := newLeaderContext(ctx, s.store.LeaderLost())
	defer lctx.stop()
	return handler(srv, &leaderStream{ServerStream: ss, ctx: lctx})
}

// clientVersion is the API version the client says it has, "unknown" if it does not.
func clientVersion(ctx context.Context) (string, error) {
	vs := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataClientAPIVersionKey)
	if len(vs) == 0 {
		return "unknown", nil
	}
	if !utf8.ValidString(vs[0]) {
		return "", rpctypes.ErrGRPCInvalidClientAPIVersion
	}
	return vs[0], nil
}

func wantsLeader(ctx context.Context) bool {
	vs := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataRequireLeaderKey)
	return len(vs) > 0 && vs[0] == rpctypes.MetadataHasLeader
}

// codeOf is the status code gRPC will give an error of a handler.
func codeOf(err error) codes.Code {
	if err == nil {
		return codes.OK
	}
	if st, ok := status.FromError(err); ok {
		return st.Code()
	}
	return status.FromContextError(err).Code()
}

func since(m *grpcmetrics.Method, start time.Time) time.Duration {
	if !m.Timed() {
		return 0
	}
	return time.Since(start)
}

// countedStream counts the messages of a stream. As in etcd, whose interceptor
// counts whatever the outcome is, an end of the stream is one more.
type countedStream struct {
	grpc.ServerStream
	m *grpcmetrics.Method
}

func (s *countedStream) RecvMsg(v any) error {
	err := s.ServerStream.RecvMsg(v)
	s.m.Received()
	return err
}

func (s *countedStream) SendMsg(v any) error {
	err := s.ServerStream.SendMsg(v)
	s.m.Sent()
	return err
}

// leaderStream is a stream whose context ends with the leader.
type leaderStream struct {
	grpc.ServerStream
	ctx *leaderContext
}

func (s *leaderStream) Context() context.Context { return s.ctx }

// leaderContext is the context of a stream that requires a leader. When lost is
// closed first, Err is etcd's "no leader" status instead of Canceled: handlers
// answer with the error of their context.
type leaderContext struct {
	context.Context
	cancel context.CancelCauseFunc
	gone   chan struct{}
}

func newLeaderContext(parent context.Context, lost <-chan struct{}) *leaderContext {
	ctx, cancel := context.WithCancelCause(parent)
	c := &leaderContext{Context: ctx, cancel: cancel, gone: make(chan struct{})}
	go func() {
		defer close(c.gone)
		select {
		case <-lost:
			cancel(rpctypes.ErrGRPCNoLeader)
		case <-ctx.Done():
		}
	}()
	return c
}

func (c *leaderContext) stop() {
	c.cancel(nil)
	<-c.gone
}

// Err implements context.Context.
func (c *leaderContext) Err() error {
	if context.Cause(c.Context) == rpctypes.ErrGRPCNoLeader {
		return rpctypes.ErrGRPCNoLeader
	}
	return c.Context.Err()
}
