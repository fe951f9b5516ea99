package etcdapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/watchcache"
)

// rawWatch is a Watch stream without clientv3 in between.
type rawWatch struct {
	t  *testing.T
	st pb.Watch_WatchClient
}

func (ts *testServer) rawWatch(t *testing.T, ctx context.Context) *rawWatch {
	t.Helper()
	st, err := pb.NewWatchClient(ts.conn(t)).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &rawWatch{t, st}
}

func (w *rawWatch) send(r *pb.WatchRequest) {
	w.t.Helper()
	if err := w.st.Send(r); err != nil {
		w.t.Fatal(err)
	}
}

func (w *rawWatch) create(c *pb.WatchCreateRequest) {
	w.t.Helper()
	w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: c}})
}

func (w *rawWatch) cancel(id int64) {
	w.t.Helper()
	w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
}

func (w *rawWatch) progress() {
	w.t.Helper()
	w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

func (w *rawWatch) recv() *pb.WatchResponse {
	w.t.Helper()
	r, err := w.st.Recv()
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// want receives a response equal to r, but for the ids of the header.
func (w *rawWatch) want(r *pb.WatchResponse) {
	w.t.Helper()
	got := w.recv()
	if got.Header.GetClusterId() == 0 || got.Header.GetMemberId() == 0 || got.Header.GetRaftTerm() == 0 {
		w.t.Fatalf("header %v is not filled", got.Header)
	}
	got.Header = &pb.ResponseHeader{Revision: got.Header.Revision}
	if !proto.Equal(got, r) {
		w.t.Fatalf("got  %v\nwant %v", got, r)
	}
}

func at(rev int64) *pb.ResponseHeader { return &pb.ResponseHeader{Revision: rev} }

func TestWatchAnswers(t *testing.T) {
	ts := startServer(t, Options{})
	ctx := within(t)
	put := func(k, v string) {
		t.Helper()
		if _, err := ts.cli.Put(ctx, k, v); err != nil {
			t.Fatal(err)
		}
	}
	put("a", "1") // 2
	put("a", "2") // 3
	w := ts.rawWatch(t, ctx)

	w.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 2, PrevKv: true})
	w.want(&pb.WatchResponse{Header: at(3), Created: true})
	kv := func(mod, version int64, v string) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Key: []byte("a"), Value: []byte(v), CreateRevision: 2, ModRevision: mod, Version: version}
	}
	w.want(&pb.WatchResponse{Header: at(3), Events: []*mvccpb.Event{
		{Kv: kv(2, 1, "1")}, {Kv: kv(3, 2, "2"), PrevKv: kv(2, 1, "1")},
	}})
	w.progress()
	w.want(&pb.WatchResponse{Header: at(3), WatchId: -1})
	if _, err := ts.cli.Delete(ctx, "a"); err != nil { // 4
		t.Fatal(err)
	}
	w.want(&pb.WatchResponse{Header: at(4), Events: []*mvccpb.Event{
		{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte("a"), ModRevision: 4}, PrevKv: kv(3, 2, "2")},
	}})

	w.create(&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")})
	w.want(&pb.WatchResponse{Header: at(4), WatchId: -1, Created: true, Canceled: true, CancelReason: "mvcc: watcher range is empty"})
	w.create(&pb.WatchCreateRequest{Key: []byte("b"), StartRevision: -1})
	w.want(&pb.WatchResponse{Header: at(4), WatchId: -1, Created: true, Canceled: true, CancelReason: rpctypes.ErrCompacted.Error()})
	w.create(&pb.WatchCreateRequest{Key: []byte("b"), WatchId: 7})
	w.want(&pb.WatchResponse{Header: at(4), WatchId: 7, Created: true})
	w.create(&pb.WatchCreateRequest{Key: []byte("b"), WatchId: 7})
	w.want(&pb.WatchResponse{Header: at(4), WatchId: -1, Created: true, Canceled: true,
		CancelReason: "mvcc: duplicate watch ID provided on the WatchStream"})
	w.cancel(99)
	w.cancel(7)
	w.want(&pb.WatchResponse{Header: at(4), WatchId: 7, Canceled: true})

	if _, err := ts.cli.Compact(ctx, 4); err != nil {
		t.Fatal(err)
	}
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 3})
	w.want(&pb.WatchResponse{Header: at(4), WatchId: 1, Created: true})
	w.want(&pb.WatchResponse{Header: at(0), WatchId: 1, Canceled: true, CompactRevision: 4})
}

func TestWatchEndsAsEtcdEndsIt(t *testing.T) {
	ts := startServer(t, Options{})
	ctx, cancel := context.WithCancel(within(t))
	w := ts.rawWatch(t, ctx)
	w.create(&pb.WatchCreateRequest{Key: []byte("a")})
	w.recv()
	// The client closing its side does not end the watch.
	if err := w.st.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := ts.cli.Put(ctx, "a", "1"); err != nil {
		t.Fatal(err)
	}
	if r := w.recv(); len(r.Events) != 1 {
		t.Fatalf("got %v", r)
	}
	cancel()
	if _, err := w.st.Recv(); err == nil || errors.Is(err, io.EOF) {
		t.Fatalf("a cancelled stream: %v", err)
	}

	leader := metadata.AppendToOutgoingContext(within(t), rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
	w = ts.rawWatch(t, leader)
	w.create(&pb.WatchCreateRequest{Key: []byte("a")})
	w.recv()
	ts.hub.Close()
	if _, err := w.st.Recv(); rpctypes.ErrorDesc(err) != rpctypes.ErrorDesc(rpctypes.ErrGRPCStopped) {
		t.Fatalf("a stream of a closed hub: %v", err)
	}
}

func TestWatchFragments(t *testing.T) {
	ts := startServer(t, Options{MaxRequestBytes: 64 * 1024})
	ctx := within(t)
	w := ts.rawWatch(t, ctx)
	w.create(&pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), Fragment: true, PrevKv: true})
	w.recv()
	// One revision of about 2 * 100 * 8 kB: keys with large previous versions, deleted.
	const keys = 100
	for i := range keys {
		if _, err := ts.cli.Put(ctx, fmt.Sprintf("k%03d", i), strings.Repeat("v", 16*1024)); err != nil {
			t.Fatal(err)
		}
	}
	for got := 0; got < keys; {
		got += len(w.recv().Events)
	}
	if _, err := ts.cli.Delete(ctx, "k", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	var sizes []int
	for got := 0; ; {
		r := w.recv()
		got += len(r.Events)
		sizes = append(sizes, proto.Size(r))
		if !r.Fragment {
			if got != keys {
				t.Fatalf("%d events in %d messages", got, len(sizes))
			}
			break
		}
	}
	if len(sizes) < 2 || slices.Max(sizes) >= 64*1024+grpcOverheadBytes {
		t.Fatalf("messages of %d bytes", sizes)
	}
}

func TestWatchProgressNotify(t *testing.T) {
	ts := startServer(t, Options{WatchProgressNotifyInterval: watchProgressIntervalMin})
	ctx := within(t)
	w := ts.rawWatch(t, ctx)
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true, WatchId: 3})
	w.recv()
	w.want(&pb.WatchResponse{Header: at(1), WatchId: 3})
	if _, err := ts.cli.Put(ctx, "b", "1"); err != nil {
		t.Fatal(err)
	}
	for r := w.recv(); r.Header.Revision != 2; r = w.recv() {
		if r.WatchId != 3 || len(r.Events) != 0 {
			t.Fatalf("got %v", r)
		}
	}
}

// TestWatchThroughClient: clientv3 sees every change of many keys once, in order.
func TestWatchThroughClient(t *testing.T) {
	ts := startServer(t, Options{})
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	const writes = 500
	var chans []clientv3.WatchChan
	for range 8 {
		chans = append(chans, ts.cli.Watch(ctx, "/registry/", clientv3.WithPrefix(), clientv3.WithRev(2), clientv3.WithPrevKV()))
	}
	go func() {
		for i := range writes {
			if _, err := ts.cli.Put(ctx, fmt.Sprintf("/registry/pods/ns/%d", i%10), fmt.Sprint(i)); err != nil {
				t.Error(err)
				cancel()
				return
			}
		}
	}()
	for _, ch := range chans {
		next := int64(2)
		for next < writes+2 {
			r, ok := <-ch
			if !ok || r.Err() != nil {
				t.Fatalf("watch ended: %v", r.Err())
			}
			for _, ev := range r.Events {
				if ev.Kv.ModRevision != next || string(ev.Kv.Value) != fmt.Sprint(next-2) || (ev.PrevKv != nil) != (next-2 >= 10) {
					t.Fatalf("event %v, want revision %d", ev, next)
				}
				next++
			}
		}
	}
}

// deadStream is a stream whose client is silent until its context ends.
type deadStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s deadStream) Context() context.Context { return s.ctx }

func (s deadStream) RecvMsg(any) error {
	<-s.ctx.Done()
	return s.ctx.Err()
}

// TestWatchCause: a watch ends with what ended its context, also when interceptors
// have wrapped it.
func TestWatchCause(t *testing.T) {
	ts := startServer(t, Options{})
	for _, want := range []error{rpctypes.ErrGRPCNoLeader, rpctypes.ErrGRPCWatchCanceled} {
		ctx, cancel := context.WithCancelCause(context.Background())
		inner, stop := context.WithCancel(ctx)
		if want == rpctypes.ErrGRPCNoLeader {
			cancel(want)
		} else {
			cancel(nil)
		}
		if err := ts.watch(nil, deadStream{ctx: inner}); !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
		stop()
	}
	if ts.hub.Stats().Streams != 0 {
		t.Fatal("a stream is left")
	}
}

// TestStreamsWithoutLeader: what asks for a leader ends with the loss of it, also in a server that can be drained.
func TestStreamsWithoutLeader(t *testing.T) {
	ts := startServer(t, Options{})
	for _, method := range []string{pb.Watch_Watch_FullMethodName, pb.Lease_LeaseKeepAlive_FullMethodName, v3electionpb.Election_Observe_FullMethodName} {
		handler := map[string]func(grpc.ServerStream) error{
			pb.Watch_Watch_FullMethodName: func(ss grpc.ServerStream) error { return ts.watch(nil, ss) },
			pb.Lease_LeaseKeepAlive_FullMethodName: func(ss grpc.ServerStream) error {
				return leaseServer{Server: ts.Server}.LeaseKeepAlive(&grpc.GenericServerStream[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse]{ServerStream: ss})
			},
			v3electionpb.Election_Observe_FullMethodName: func(ss grpc.ServerStream) error {
				return electionServer{Server: ts.Server}.Observe(&v3electionpb.LeaderRequest{Name: []byte("nobody")}, observed{ss})
			},
		}[method]
		lost := make(chan struct{})
		lctx := newLeaderContext(context.Background(), lost)
		ended := make(chan error, 1)
		go func() {
			ended <- NewDrain().Intercept(nil, deadStream{ctx: lctx}, &grpc.StreamServerInfo{FullMethod: method},
				func(_ any, ss grpc.ServerStream) error { return handler(ss) })
		}()
		close(lost)
		if err := <-ended; !errors.Is(err, rpctypes.ErrGRPCNoLeader) {
			t.Errorf("%s: %v", method, err)
		}
		lctx.stop()
	}
}

// observed is a stream of Observe that sends nothing.
type observed struct{ grpc.ServerStream }

func (observed) Send(*v3electionpb.LeaderResponse) error { return nil }

// captured is the server's side of a stream that keeps what is sent.
type captured struct {
	grpc.ServerStream
	got []*pb.WatchResponse
	raw [][]byte
}

func (c *captured) SendMsg(m any) error {
	bufs, err := newCodec().Marshal(m)
	if err != nil {
		return err
	}
	raw := bufs.Materialize()
	bufs.Free()
	r := new(pb.WatchResponse)
	c.raw = append(c.raw, raw)
	c.got = append(c.got, r)
	return proto.Unmarshal(raw, r)
}

// TestWatchEncoding: what is sent equals the encoding of the message, and is split
// where etcd's server splits it.
func TestWatchEncoding(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 5))
	info := newHeaderInfo(1<<63+5, 77)
	for range 500 {
		msg := &pb.WatchResponse{
			Header:  info.message(mvcc.Revision(r.Int64N(3)*1000), 3),
			WatchId: r.Int64N(4) - 1,
		}
		b := watchcache.Batch{WatchID: msg.WatchId, Revision: mvcc.Revision(msg.Header.Revision), Kind: watchcache.BatchProgress}
		switch r.IntN(4) {
		case 0:
			b.Kind, msg.Created = watchcache.BatchCreated, true
		case 1:
			b.Kind, b.Err = watchcache.BatchCreated, watchcache.ErrEmptyRange
			msg.Created, msg.Canceled, msg.CancelReason = true, true, b.Err.Error()
		case 2:
			b.Kind, b.CompactRevision = watchcache.BatchCancelled, mvcc.Revision(r.Int64N(2))
			msg.Canceled, msg.CompactRevision = true, int64(b.CompactRevision)
		case 3:
			b.Kind = watchcache.BatchEvents
			for range r.IntN(40) {
				ev := &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte("k"), Value: bytes.Repeat([]byte{'v'}, r.IntN(3000)), ModRevision: 4}}
				msg.Events = append(msg.Events, ev)
				body, err := proto.Marshal(ev)
				if err != nil {
					t.Fatal(err)
				}
				wire := protowire.AppendBytes(protowire.AppendTag(nil, 11, protowire.BytesType), body)
				b.Events = append(b.Events, watchcache.WholeFrame(wire))
			}
		}
		limit := 100 + r.IntN(60_000)
		want := &captured{}
		if err := etcdFragments(msg, limit, want.keep); err != nil {
			t.Fatal(err)
		}
		got := &captured{}
		w := watchResponse{header: wireHeader{prefix: info.prefix, rev: b.Revision, term: 3}, batch: &b, events: b.Events}
		if err := w.send(got, limit); err != nil {
			t.Fatal(err)
		}
		if len(got.got) != len(want.got) {
			t.Fatalf("%d messages, want %d (limit %d)", len(got.got), len(want.got), limit)
		}
		for i := range got.got {
			if !proto.Equal(got.got[i], want.got[i]) || !bytes.Equal(got.raw[i], want.raw[i]) {
				t.Fatalf("message %d: got %v want %v", i, got.got[i], want.got[i])
			}
		}
	}
}

// TestWatchMessageShares: a message of some size has the events' own bytes, however
// many they are; a small one is a single buffer.
func TestWatchMessageShares(t *testing.T) {
	for _, n := range []int{1, watchMessagePieces - 1, watchMessagePieces, 100} {
		for _, size := range []int{watchShareBytesMin / n / 2, watchShareBytesMin} {
			b := watchcache.Batch{Kind: watchcache.BatchEvents, Revision: 9}
			for range n {
				b.Events = append(b.Events, watchcache.WholeFrame(bytes.Repeat([]byte{1}, size)))
			}
			r := watchResponse{header: wireHeader{rev: 9, term: 3}, batch: &b, events: b.Events}
			bufs := r.encode().bufs
			if n*size < watchShareBytesMin {
				if len(bufs) != 1 {
					t.Errorf("%d events of %d bytes: %d buffers", n, size, len(bufs))
				}
				continue
			}
			if len(bufs) != n+1 { // none of these is so short that it is copied
				t.Fatalf("%d events of %d bytes: %d buffers", n, size, len(bufs))
			}
			for i, e := range b.Events {
				if &bufs[i+1].ReadOnlyData()[0] != &e.Pieces()[0][0] {
					t.Fatalf("event %d of %d was copied", i, n)
				}
			}
		}
	}
}

// TestWatchMessageSharesVersions: of a long event what stands in the store is in the
// message as it is, and what is between is copied to what it follows.
func TestWatchMessageSharesVersions(t *testing.T) {
	state := mvcc.New(mvcc.Options{})
	view := state.Publish()
	hub := watchcache.New(watchcache.Options{}, watchcache.Env{View: func() *mvcc.View { return view }})
	ws := hub.NewStream()
	defer ws.Close()
	ws.Create(watchcache.CreateRequest{Key: []byte("k"), PrevKV: true})
	next := func() watchcache.Batch {
		b, err := ws.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	next()
	for i := range 3 {
		res := state.Apply(mvcc.Entry{Index: uint64(i + 1), Term: 1, Request: &pb.InternalRaftRequest{
			Put: &pb.PutRequest{Key: []byte("k"), Value: bytes.Repeat([]byte{'v'}, 5000)}}})
		view = state.Publish()
		hub.Append(view, res.Events)
		b := next()
		r := watchResponse{header: wireHeader{rev: 9, term: 3}, batch: &b, events: b.Events}
		bufs := r.encode().bufs
		versions := min(i+1, 2)
		if len(b.Events) != 1 || len(bufs) != 2*versions {
			t.Fatalf("event %d: %d events, %d buffers", i, len(b.Events), len(bufs))
		}
		wire := r.appendHead(nil)
		wire = b.Events[0].AppendTo(wire)
		if !bytes.Equal(bufs.Materialize(), wire) {
			t.Errorf("event %d: %q, want %q", i, bufs.Materialize(), wire)
		}
		for v := range versions {
			if &bufs[2*v+1].ReadOnlyData()[0] != &b.Events[0].Pieces()[2*v+1][0] {
				t.Errorf("event %d: version %d was copied", i, v)
			}
		}
	}
}

func (c *captured) keep(r *pb.WatchResponse) error {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	c.raw, c.got = append(c.raw, raw), append(c.got, r)
	return err
}

// etcdFragments is the rule of etcd 3.7.3, the slow way: grow a message event by
// event until its size reaches the limit, and leave the last one to the next.
func etcdFragments(r *pb.WatchResponse, limit int, send func(*pb.WatchResponse) error) error {
	if proto.Size(r) < limit || len(r.Events) < 2 {
		return send(r)
	}
	for rest := r.Events; len(rest) > 0; {
		cur := proto.CloneOf(r)
		cur.Events, cur.Fragment = nil, true
		for _, ev := range rest {
			cur.Events = append(cur.Events, ev)
			if len(cur.Events) > 1 && proto.Size(cur) >= limit {
				cur.Events = cur.Events[:len(cur.Events)-1]
				break
			}
		}
		rest = rest[len(cur.Events):]
		cur.Fragment = len(rest) > 0
		if err := send(cur); err != nil {
			return err
		}
	}
	return nil
}
