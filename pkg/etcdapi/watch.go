package etcdapi

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/watchcache"
)

// registerWatch adds etcdserverpb.Watch, with a handler of our own: the generated
// one can only send messages, and watches send bytes they share.
func (s *Server) registerWatch(g *grpc.Server) {
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: pb.Watch_ServiceDesc.ServiceName,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			{StreamName: "Watch", Handler: s.watch, ServerStreams: true, ClientStreams: true},
		},
		Metadata: pb.Watch_ServiceDesc.Metadata,
	}, s)
}

// watch serves one Watch stream: this goroutine sends, a second one receives. The
// client closing its side does not end the watches, as in etcd.
func (s *Server) watch(_ any, stream grpc.ServerStream) error {
	ws := s.hub.NewStream()
	defer ws.Close()
	ctx := stream.Context()

	spans := s.tracer.watches(ctx)
	defer spans.end()
	received := make(chan error, 1)
	go func() {
		err := s.receiveWatch(stream, ws, spans)
		if errors.Is(err, io.EOF) {
			return
		}
		received <- err
		ws.Close()
	}()
	stop := watchTicks(ws, s.watchProgressInterval())
	defer stop()
	sound := s.store.Sound()
	defer context.AfterFunc(sound, ws.Close)()

	err := s.sendWatch(ctx, stream, ws, spans)
	switch {
	case errors.Is(err, watchcache.ErrStopped):
		return rpctypes.ErrGRPCStopped
	case sound.Err() != nil:
		return toGRPC(context.Cause(sound))
	case errors.Is(err, watchcache.ErrClosed):
		err = <-received
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx) // "no leader", if that is why it ended
	}
	if errors.Is(err, context.Canceled) {
		return rpctypes.ErrGRPCWatchCanceled
	}
	return err
}

// receiveWatch turns the client's requests into calls of ws until the stream ends.
func (s *Server) receiveWatch(stream grpc.ServerStream, ws *watchcache.Stream, spans *watchSpans) error {
	for {
		req := new(pb.WatchRequest)
		if err := stream.RecvMsg(req); err != nil {
			return err
		}
		switch r := req.RequestUnion.(type) {
		case *pb.WatchRequest_CreateRequest:
			if r.CreateRequest != nil {
				spans.create(r.CreateRequest)
				s.createWatch(stream.Context(), ws, r.CreateRequest)
			}
		case *pb.WatchRequest_CancelRequest:
			if r.CancelRequest != nil {
				ws.Cancel(r.CancelRequest.WatchId)
			}
		case *pb.WatchRequest_ProgressRequest:
			if r.ProgressRequest != nil {
				ws.RequestProgress()
			}
		default: // a request of a later version: etcd ignores it too
		}
	}
}

// createWatch makes a watch, if its client may read all of its range now. What
// changes about that later changes nothing for the watch, as in etcd.
func (s *Server) createWatch(ctx context.Context, ws *watchcache.Stream, r *pb.WatchCreateRequest) {
	if v := s.store.View(); r.StartRevision >= 0 && v.Auth().Enabled() {
		if len(r.Key) == 0 {
			r.Key = []byte{0}
		}
		c, err := s.identify(ctx, v)
		if err == nil {
			err = c.view.Auth().CheckRange(c.Info, r.Key, r.RangeEnd)
		}
		if err != nil {
			ws.Refuse(toGRPC(err))
			return
		}
	}
	ws.Create(createRequest(r))
}

func createRequest(r *pb.WatchCreateRequest) watchcache.CreateRequest {
	req := watchcache.CreateRequest{
		ID: r.WatchId, Key: r.Key, RangeEnd: r.RangeEnd,
		StartRevision: mvcc.Revision(r.StartRevision),
		PrevKV:        r.PrevKv, Fragment: r.Fragment, ProgressNotify: r.ProgressNotify,
	}
	for _, f := range r.Filters {
		switch f {
		case pb.WatchCreateRequest_NOPUT:
			req.NoPut = true
		case pb.WatchCreateRequest_NODELETE:
			req.NoDelete = true
		}
	}
	return req
}

// sendWatch sends what ws has until it is closed or the stream fails. It waits for
// the client's flow control here, holding nothing that others need.
func (s *Server) sendWatch(ctx context.Context, stream grpc.ServerStream, ws *watchcache.Stream, spans *watchSpans) error {
	fragmentBytes := s.opts.MaxRequestBytes + grpcOverheadBytes
	for {
		b, err := ws.Next(ctx)
		if err != nil {
			return err
		}
		r := watchResponse{header: s.wireHeader(b.Revision), batch: &b, events: b.Events}
		limit := maxSendBytes
		if b.Fragment {
			limit = fragmentBytes
		}
		if err := r.send(stream, limit); err != nil {
			return err
		}
		spans.sent(&b)
	}
}

// watchProgressInterval is the interval of one stream, with its jitter.
func (s *Server) watchProgressInterval() time.Duration {
	d := max(s.opts.WatchProgressNotifyInterval, watchProgressIntervalMin)
	return d + rand.N(d/10)
}

// watchTicks ticks ws each d until stop is called or ws is closed. It needs no
// goroutine.
func watchTicks(ws *watchcache.Stream, d time.Duration) (stop func()) {
	ready := make(chan struct{})
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		<-ready
		if ws.Tick() {
			t.Reset(d)
		}
	})
	close(ready)
	return func() { t.Stop() }
}
