package etcdapi

import (
	"context"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// endlessStreams are the calls that no client ever ends because it is done.
// A graceful stop would wait for them in vain. (Snapshot is a stream, too, but
// one with an end.)
var endlessStreams = map[string]bool{
	"/etcdserverpb.Watch/Watch":          true,
	"/etcdserverpb.Lease/LeaseKeepAlive": true,
	"/grpc.health.v1.Health/Watch":       true,
}

// Drain ends the endless streams of a server that is about to stop. Their
// clients get Unavailable, on which etcd's client goes to another member or
// comes back and resumes its watches; a plain cancellation would end them.
type Drain struct {
	ctx   context.Context
	begin context.CancelFunc
}

// NewDrain returns a Drain whose Intercept belongs into the gRPC server's
// options.
func NewDrain() *Drain {
	d := &Drain{}
	d.ctx, d.begin = context.WithCancel(context.Background())
	return d
}

// Begin ends the streams, and those that are opened from now on.
func (d *Drain) Begin() { d.begin() }

// Intercept is a grpc.StreamServerInterceptor.
func (d *Drain) Intercept(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if !endlessStreams[info.FullMethod] {
		return handler(srv, ss)
	}
	ctx, cancel := context.WithCancel(ss.Context())
	defer cancel()
	stop := context.AfterFunc(d.ctx, cancel)
	defer stop()
	err := handler(srv, &drainedStream{ServerStream: ss, ctx: ctx})
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
