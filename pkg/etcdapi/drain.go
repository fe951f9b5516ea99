package etcdapi

import (
	"context"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// endlessCalls are the calls that no client ever ends because it is done, or that
// wait for somebody else. A graceful stop would wait for them in vain. (Snapshot
// is a stream, too, but one with an end.)
var endlessCalls = map[string]bool{
	"/etcdserverpb.Watch/Watch":          true,
	"/etcdserverpb.Lease/LeaseKeepAlive": true,
	"/grpc.health.v1.Health/Watch":       true,
	"/v3electionpb.Election/Observe":     true,
	"/v3electionpb.Election/Campaign":    true,
	"/v3lockpb.Lock/Lock":                true,
}

// Drain ends the endless calls of a server that is about to stop. Their
// clients get Unavailable, on which etcd's client goes to another member or
// comes back and resumes its watches; a plain cancellation would end them.
type Drain struct {
	ctx   context.Context
	begin context.CancelFunc
}

// NewDrain returns a Drain whose Options belong into the gRPC server's options.
func NewDrain() *Drain {
	d := &Drain{}
	d.ctx, d.begin = context.WithCancel(context.Background())
	return d
}

// Begin ends the calls, and those that begin from now on.
func (d *Drain) Begin() { d.begin() }

// Options put Intercept and InterceptUnary before the handlers.
func (d *Drain) Options() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainStreamInterceptor(d.Intercept), grpc.ChainUnaryInterceptor(d.InterceptUnary)}
}

// Intercept is a grpc.StreamServerInterceptor.
func (d *Drain) Intercept(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if !endlessCalls[info.FullMethod] {
		return handler(srv, ss)
	}
	ctx, stop := d.context(ss.Context())
	defer stop()
	return d.errorOf(handler(srv, &drainedStream{ServerStream: ss, ctx: ctx}))
}

// InterceptUnary is a grpc.UnaryServerInterceptor.
func (d *Drain) InterceptUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if !endlessCalls[info.FullMethod] {
		return handler(ctx, req)
	}
	ctx, stop := d.context(ctx)
	defer stop()
	resp, err := handler(ctx, req)
	return resp, d.errorOf(err)
}

// context is one that also ends with the Drain.
func (d *Drain) context(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(d.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// errorOf is what a call says that ended with err.
func (d *Drain) errorOf(err error) error {
	if d.ctx.Err() != nil && err != nil {
		return rpctypes.ErrGRPCStopped
	}
	return err
}

// drainedStream is a stream whose context also ends with the Drain.
type drainedStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s *drainedStream) Context() context.Context { return s.ctx }
