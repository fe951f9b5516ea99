package watchcache

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// world is a store and its hub, driven as the apply goroutine drives them, and the
// dumb twin: the list of everything that ever happened.
type world struct {
	t     testing.TB
	state *mvcc.State
	view  atomic.Pointer[mvcc.View]
	hub   *Hub
	index uint64

	mu      sync.Mutex
	happens []happening
	cur     map[string]*mvccpb.KeyValue
}

// happening is one event, as a client that saw everything would have it.
type happening struct {
	typ  mvccpb.Event_EventType
	kv   *mvccpb.KeyValue
	prev *mvccpb.KeyValue
}

func newWorld(t testing.TB, o Options) *world {
	w := &world{t: t, state: mvcc.New(mvcc.Options{}), cur: map[string]*mvccpb.KeyValue{}}
	w.view.Store(w.state.Publish())
	w.hub = New(o, Env{View: w.view.Load})
	return w
}

func (w *world) apply(reqs ...*pb.InternalRaftRequest) {
	events := w.applyUnseen(reqs...)
	w.hub.Append(w.view.Load(), events)
	w.state.CompactStep(64)
}

// applyUnseen publishes the state and leaves the hub without the events, as after a
// snapshot from elsewhere.
func (w *world) applyUnseen(reqs ...*pb.InternalRaftRequest) []mvcc.Event {
	var events []mvcc.Event
	for _, r := range reqs {
		w.index++
		res := w.state.Apply(mvcc.Entry{Index: w.index, Term: 1, Request: r})
		if res.Err != nil {
			w.t.Fatalf("apply %v: %v", r, res.Err)
		}
		events = append(events, res.Events...)
	}
	w.record(events)
	w.view.Store(w.state.Publish())
	return events
}

// record keeps the twin, decoding what the store encoded.
func (w *world) record(events []mvcc.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ev := range events {
		kv := new(mvccpb.KeyValue)
		if err := proto.Unmarshal(ev.Version.KV(), kv); err != nil {
			w.t.Fatal(err)
		}
		h := happening{kv: kv, prev: w.cur[string(kv.Key)]}
		if ev.Version.Tombstone() {
			h.typ = mvccpb.Event_DELETE
			delete(w.cur, string(kv.Key))
		} else {
			w.cur[string(kv.Key)] = kv
		}
		w.happens = append(w.happens, h)
	}
}

func putReq(key, value string) *pb.InternalRaftRequest {
	return &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}}
}

func delReq(key string) *pb.InternalRaftRequest {
	return &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}
}

func compactReq(rev mvcc.Revision) *pb.InternalRaftRequest {
	return &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: int64(rev)}}
}

// txnReq puts all keys in one revision.
func txnReq(value string, keys ...string) *pb.InternalRaftRequest {
	txn := &pb.TxnRequest{}
	for _, k := range keys {
		txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: []byte(k), Value: []byte(value)},
		}})
	}
	return &pb.InternalRaftRequest{Txn: txn}
}

// decodeFrames reads the event fields of a WatchResponse.
func decodeFrames(frames []*Frame) ([]*mvccpb.Event, error) {
	var evs []*mvccpb.Event
	for _, frame := range frames {
		f := frame.AppendTo(nil)
		if len(f) != frame.Len() {
			return nil, fmt.Errorf("frame of %d bytes says %d", len(f), frame.Len())
		}
		num, typ, n := protowire.ConsumeTag(f)
		if num != 11 || typ != protowire.BytesType {
			return nil, fmt.Errorf("frame begins with field %d type %d", num, typ)
		}
		body, m := protowire.ConsumeBytes(f[n:])
		if m < 0 || n+m != len(f) {
			return nil, fmt.Errorf("frame of %d bytes holds %d", len(f), n+m)
		}
		ev := new(mvccpb.Event)
		if err := proto.Unmarshal(body, ev); err != nil {
			return nil, err
		}
		evs = append(evs, ev)
	}
	return evs, nil
}

// mustNext is Next of a stream that has something to say.
func mustNext(t testing.TB, s *Stream) Batch {
	t.Helper()
	b, err := s.Next(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return b
}
