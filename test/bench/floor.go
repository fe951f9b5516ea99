package main

import (
	"context"
	"math"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// floor answers with canned bytes: writes with a header, reads with objects of
// the data set's size. It keeps nothing but a count of the objects created,
// so that lists have the size that the client expects.
type floor struct {
	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer
	pods  atomic.Int64
	rev   atomic.Int64
	lists sync.Map // count -> canned, for whole lists and for pages

	mu      sync.Mutex
	streams map[chan canned]bool // guarded by mu
}

// canned is an encoded message that the codec sends as it is.
type canned []byte

type floorCodec struct{ proto encoding.CodecV2 }

func (c floorCodec) Name() string                             { return "proto" }
func (c floorCodec) Unmarshal(b mem.BufferSlice, v any) error { return c.proto.Unmarshal(b, v) }

func (c floorCodec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(canned); ok {
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return c.proto.Marshal(v)
}

// serveFloor runs the floor until it is told to end.
func serveFloor(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	f := &floor{streams: map[chan canned]bool{}}
	g := grpc.NewServer(grpc.ForceServerCodecV2(floorCodec{encoding.GetCodecV2("proto")}),
		grpc.MaxSendMsgSize(math.MaxInt32), grpc.MaxConcurrentStreams(math.MaxUint32))
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "etcdserverpb.KV", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			{MethodName: "Range", Handler: unary(f.doRange)},
			{MethodName: "Txn", Handler: unary(f.doTxn)},
		},
	}, f)
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "etcdserverpb.Watch", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Watch", Handler: f.doWatch, ServerStreams: true, ClientStreams: true}},
	}, f)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	go func() {
		<-stop
		g.Stop()
	}()
	return g.Serve(l)
}

func unary[T any](answer func(*T) canned) grpc.MethodHandler {
	return func(_ any, _ context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		req := new(T)
		if err := dec(req); err != nil {
			return nil, err
		}
		return answer(req), nil
	}
}

func (f *floor) doTxn(r *pb.TxnRequest) canned {
	rev := f.rev.Add(1)
	if len(r.Failure) == 0 && len(r.Success) == 1 && len(r.Success[0].GetRequestPut().GetValue()) == podBytes {
		f.pods.Add(1)
	}
	put := r.Success[0].GetRequestPut()
	f.fanOut(put, rev)
	return mustMarshal(&pb.TxnResponse{Header: header(rev), Succeeded: true, Responses: []*pb.ResponseOp{
		{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{Header: &pb.ResponseHeader{Revision: rev}}}}}})
}

func (f *floor) doRange(r *pb.RangeRequest) canned {
	switch {
	case r.CountOnly:
		return mustMarshal(&pb.RangeResponse{Header: header(f.rev.Load()), Count: f.pods.Load()})
	case len(r.RangeEnd) == 0:
		return f.objects(1, 0)
	}
	// A page's first key says how many are before it in the client's walk.
	n := f.pods.Load()
	if r.Limit == 0 || r.Limit >= n {
		return f.objects(n, 0)
	}
	page := int64(0)
	if len(r.Key) > len(podPrefix) {
		page = int64(r.Key[len(r.Key)-2]) | int64(r.Key[len(r.Key)-3])<<8
	}
	left := n - page*r.Limit
	return f.objects(min(left, r.Limit), page+1)
}

// objects is a canned answer of n objects; its last key carries the number of
// the page that comes next.
func (f *floor) objects(n, next int64) canned {
	type shape struct{ n, next, all int64 }
	key := shape{n, next, f.pods.Load()}
	if b, ok := f.lists.Load(key); ok {
		return b.(canned)
	}
	resp := &pb.RangeResponse{Header: header(f.rev.Load() + 1), Count: key.all, More: next > 0 && next*pageKeys < key.all}
	for i := range n {
		resp.Kvs = append(resp.Kvs, &mvccpb.KeyValue{Key: podKey(int(i)), Value: payload(podBytes, uint64(i)), CreateRevision: 1 + i, ModRevision: 1 + i, Version: 1})
	}
	if n > 0 && next > 0 {
		last := resp.Kvs[n-1]
		last.Key = append(last.Key[:len(last.Key):len(last.Key)], byte(next>>8), byte(next))
	}
	b := mustMarshal(resp)
	f.lists.Store(key, b)
	return b
}

// doWatch registers the stream; each put is sent to all of them, encoded once.
func (f *floor) doWatch(_ any, stream grpc.ServerStream) error {
	if err := stream.RecvMsg(new(pb.WatchRequest)); err != nil {
		return err
	}
	events := make(chan canned, 1<<16)
	f.mu.Lock()
	f.streams[events] = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.streams, events)
		f.mu.Unlock()
	}()
	if err := stream.SendMsg(mustMarshal(&pb.WatchResponse{Header: header(f.rev.Load()), Created: true})); err != nil {
		return err
	}
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case b := <-events:
			if err := stream.SendMsg(b); err != nil {
				return err
			}
		}
	}
}

func (f *floor) fanOut(put *pb.PutRequest, rev int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.streams) == 0 {
		return
	}
	kv := &mvccpb.KeyValue{Key: put.GetKey(), Value: put.GetValue(), ModRevision: rev, CreateRevision: 1, Version: 2}
	b := mustMarshal(&pb.WatchResponse{Header: header(rev), Events: []*mvccpb.Event{{Kv: kv, PrevKv: kv}}})
	for events := range f.streams {
		events <- b
	}
}

func header(rev int64) *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: 1 << 60, MemberId: 1 << 60, Revision: rev, RaftTerm: uint64(2)}
}

func mustMarshal(m proto.Message) canned {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// floorRows says which rows the floor can answer.
var floorRows = map[string]bool{"create": true, "update": true, "get": true, "count": true, "pages": true, "list": true, "watch": true, "idle": true}
