package main

import (
	"bytes"
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
	pods  atomic.Int64 // created so far
	size  atomic.Int64 // of the value of the last one created
	rev   atomic.Int64
	lists sync.Map // shape -> what is sent for it

	queued atomic.Int64 // messages in the queues of watch streams

	mu       sync.Mutex
	watchers map[string]map[floorWatcher]bool // key -> its watchers; guarded by mu
	ranges   map[floorWatcher]bool            // those of more than a key; guarded by mu
}

// canned is an encoded message that the codec sends as it is.
type canned []byte

// joined are canned messages that are sent as one.
type joined []canned

type floorCodec struct{ proto encoding.CodecV2 }

func (c floorCodec) Name() string                             { return "proto" }
func (c floorCodec) Unmarshal(b mem.BufferSlice, v any) error { return c.proto.Unmarshal(b, v) }

func (c floorCodec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(canned); ok {
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	if all, ok := v.(joined); ok {
		bufs := make(mem.BufferSlice, len(all))
		for i, b := range all {
			bufs[i] = mem.SliceBuffer(b)
		}
		return bufs, nil
	}
	return c.proto.Marshal(v)
}

// serveFloor runs the floor until it is told to end.
func serveFloor(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	f := &floor{watchers: map[string]map[floorWatcher]bool{}, ranges: map[floorWatcher]bool{}}
	g := grpc.NewServer(grpc.ForceServerCodecV2(floorCodec{encoding.GetCodecV2("proto")}),
		grpc.MaxSendMsgSize(math.MaxInt32), grpc.MaxConcurrentStreams(math.MaxUint32),
		// shim's windows; its buffers are grpc-go's defaults.
		grpc.InitialWindowSize(1<<20), grpc.InitialConnWindowSize(1<<20))
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "etcdserverpb.KV", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			{MethodName: "Range", Handler: unary(f.doRange)},
			{MethodName: "Txn", Handler: unary(f.doTxn)},
		},
		Streams: []grpc.StreamDesc{{StreamName: "RangeStream", Handler: f.doRangeStream, ServerStreams: true}},
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
	return g.Serve(floorListener{l, f})
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

// doTxn takes a transaction without Failure for creates, and counts the pods.
func (f *floor) doTxn(r *pb.TxnRequest) canned {
	rev := f.rev.Add(1)
	resp := &pb.TxnResponse{Header: header(rev), Succeeded: true}
	for _, op := range r.Success {
		put := op.GetRequestPut()
		if len(r.Failure) == 0 && bytes.HasPrefix(put.GetKey(), []byte(podPrefix)) {
			f.pods.Add(1)
			f.size.Store(int64(len(put.GetValue())))
		}
		f.fanOut(put, rev)
		resp.Responses = append(resp.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{
			ResponsePut: &pb.PutResponse{Header: &pb.ResponseHeader{Revision: rev}}}})
	}
	return mustMarshal(resp)
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
	return f.objects(min(n-page*r.Limit, r.Limit), page+1)
}

// shape is what the floor's lists differ in: their objects, the number of the
// page that comes next, and how many objects there are.
type shape struct{ n, next, all int64 }

// objects is a canned answer of n objects; its last key carries the number of
// the page that comes next.
func (f *floor) objects(n, next int64) canned {
	key := shape{n, next, f.pods.Load()}
	if b, ok := f.lists.Load(key); ok {
		return b.(canned)
	}
	resp := &pb.RangeResponse{Header: header(f.rev.Load() + 1), Count: key.all, More: next > 0 && next*pageKeys < key.all,
		Kvs: f.kvs(0, n)}
	if n > 0 && next > 0 {
		last := resp.Kvs[n-1]
		last.Key = append(last.Key[:len(last.Key):len(last.Key)], byte(next>>8), byte(next))
	}
	b := mustMarshal(resp)
	f.lists.Store(key, b)
	return b
}

func (f *floor) kvs(from, to int64) (kvs []*mvccpb.KeyValue) {
	for i := from; i < to; i++ {
		kvs = append(kvs, &mvccpb.KeyValue{Key: podKey(int(i)), Value: payload(int(f.size.Load()), uint64(i)),
			CreateRevision: 1 + i, ModRevision: 1 + i, Version: 1})
	}
	return kvs
}

// doRangeStream sends all pods in chunks of a page.
func (f *floor) doRangeStream(_ any, stream grpc.ServerStream) error {
	if err := stream.RecvMsg(new(pb.RangeRequest)); err != nil {
		return err
	}
	n := f.pods.Load()
	key := shape{n, -1, n}
	chunks, ok := f.lists.Load(key)
	if !ok {
		var all []canned
		for from := int64(0); from < n; from += pageKeys {
			part := &pb.RangeResponse{Kvs: f.kvs(from, min(from+pageKeys, n))}
			if from+pageKeys >= n {
				part.Header, part.Count = header(f.rev.Load()), n
			}
			all = append(all, mustMarshal(&pb.RangeStreamResponse{RangeResponse: part}))
		}
		chunks = all
		f.lists.Store(key, chunks)
	}
	for _, b := range chunks.([]canned) {
		if err := stream.SendMsg(b); err != nil {
			return err
		}
	}
	return nil
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
