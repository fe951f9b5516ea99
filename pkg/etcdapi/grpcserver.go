package etcdapi

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// NewGRPCServer returns a gRPC server with the services of s. extra options go
// last and so win: credentials, for example.
func (s *Server) NewGRPCServer(extra ...grpc.ServerOption) *grpc.Server {
	g := grpc.NewServer(append(s.ServerOptions(), extra...)...)
	s.Register(g)
	return g
}

// AnyPings is an extra option of the server on an address that has gRPC and HTTP
// over TLS. There etcd has net/http carry gRPC, which lets clients ping as they
// like: --grpc-keepalive-min-time is only heeded in plain text, and where HTTP has
// an address of its own.
func AnyPings() grpc.ServerOption {
	return grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 1, PermitWithoutStream: true})
}

// ServerOptions is the one place where the transport is tuned.
//
//   - The receive limit leaves etcd's margin over the largest command, so that a
//     command that is a little too large gets etcd's error and not the
//     transport's. What is sent has no limit: a list is one message.
//   - Pings of clients are tolerated as etcd tolerates them, but not on idle
//     connections (clientv3 does not send those unless told to). AnyPings is for
//     where etcd tolerates all.
//   - The write buffer is shared: most of an apiserver's connections are idle.
//   - The windows have a fixed size: one write at a time costs 286 instead of 303
//     µs of CPU without gRPC's pings (mean of four runs, taken in turns).
//   - The unary interceptor is not for KV, whose handlers do the same themselves;
//     interceptors among the extra options do not see those calls.
//   - A call waits for its handler when the server stops, so that a graceful
//     stop ends with nothing under way.
func (s *Server) ServerOptions() []grpc.ServerOption {
	o := &s.opts
	opts := []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec()),
		grpc.UnaryInterceptor(s.interceptUnary),
		grpc.StreamInterceptor(s.interceptStream),
		grpc.MaxRecvMsgSize(o.MaxRequestBytes + grpcOverheadBytes),
		grpc.MaxSendMsgSize(maxSendBytes),
		grpc.MaxConcurrentStreams(o.MaxConcurrentStreams),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime:             o.KeepAliveMinTime,
			PermitWithoutStream: false,
		}),
		grpc.ReadBufferSize(o.ReadBufferBytes),
		grpc.WriteBufferSize(o.WriteBufferBytes),
		grpc.SharedWriteBuffer(true),
		grpc.InitialWindowSize(windowBytes),
		grpc.InitialConnWindowSize(windowBytes),
		grpc.NumStreamWorkers(o.StreamWorkers),
		grpc.WaitForHandlers(true),
	}
	if o.TracerProvider != nil {
		opts = append(opts, statsHandler(o.TracerProvider))
	}
	if o.KeepAliveInterval > 0 && o.KeepAliveTimeout > 0 {
		opts = append(opts, grpc.KeepaliveParams(keepalive.ServerParameters{
			Time:    o.KeepAliveInterval,
			Timeout: o.KeepAliveTimeout,
		}))
	}
	return opts
}
