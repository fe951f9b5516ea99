package raftstore

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// TestSlowFsync: one that takes longer than a second is told of, and measured as all are.
func TestSlowFsync(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	defer closeStore(t, s)
	s.fsynced(slowFsync)
	s.fsynced(slowFsync + time.Millisecond)
	h.mu.Lock()
	defer h.mu.Unlock()
	var slow []Event
	for _, e := range h.structs {
		if _, ok := e.(SlowFsync); ok {
			slow = append(slow, e)
		}
	}
	if want := []Event{SlowFsync{Took: slowFsync + time.Millisecond, Expected: time.Second}}; !slices.Equal(slow, want) {
		t.Errorf("told of %v, want %v", slow, want)
	}
}

// TestSlowApply: with a threshold that everything exceeds each entry with a request is told of and counted, by the member that applies it.
func TestSlowApply(t *testing.T) {
	h := newHarness(t)
	var sizes []string
	h.adjust = func(c *Config) {
		c.SlowApply = -1
		onEvent := c.OnEvent
		c.OnEvent = func(e Event) {
			if x, ok := e.(SlowApply); ok && x.Request.ClusterMemberAttrSet == nil && x.Request.ClusterVersionSet == nil {
				sizes = append(sizes, x.ResponseText())
			}
			onEvent(e)
		}
	}
	s := h.open()
	before := testutil.ToFloat64(s.metrics.slowApplies)
	put(t, s, "a", "1")
	put(t, s, "a", "2")
	slow := testutil.ToFloat64(s.metrics.slowApplies)
	closeStore(t, s)
	want := []string{"size:4", "size:4"}
	if !slices.Equal(sizes, want) || slow != before+2 {
		t.Errorf("told of %q and counted %g, want %q", sizes, slow-before, want)
	}
}

// TestResponseSize compares with the size of the messages that etcd would make.
func TestResponseSize(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	defer closeStore(t, s)
	propose := func(kind mvcc.Kind, r *pb.InternalRaftRequest) mvcc.Result {
		t.Helper()
		res, err := s.Propose(context.Background(), Command{Kind: kind, Request: r})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	header := func(rev int64) *pb.ResponseHeader { return &pb.ResponseHeader{Revision: rev} }
	kv := func(key, value string, create, mod, version int64) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), CreateRevision: create, ModRevision: mod, Version: version}
	}
	put(t, s, "a", "first")
	for _, c := range []struct {
		got  mvcc.Result
		want proto.Message
	}{
		{propose(mvcc.KindPut, &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("a"), Value: []byte("second"), PrevKv: true}}),
			&pb.PutResponse{Header: header(3), PrevKv: kv("a", "first", 2, 2, 1)}},
		{propose(mvcc.KindTxn, &pb.InternalRaftRequest{Txn: &pb.TxnRequest{Success: []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), Limit: 1}}},
			{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("b"), Value: []byte("1")}}},
			{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("none"), PrevKv: true}}},
			{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{}}},
		}}}),
			&pb.TxnResponse{Header: header(4), Succeeded: true, Responses: []*pb.ResponseOp{
				{Response: &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{Header: header(4), Kvs: []*mvccpb.KeyValue{kv("a", "second", 2, 3, 2)}, Count: 1}}},
				{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{Header: header(4)}}},
				{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: &pb.DeleteRangeResponse{Header: header(4)}}},
				{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: &pb.TxnResponse{Header: header(0), Succeeded: true}}},
			}}},
		{propose(mvcc.KindDeleteRange, &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), PrevKv: true}}),
			&pb.DeleteRangeResponse{Header: header(5), Deleted: 2, PrevKvs: []*mvccpb.KeyValue{kv("a", "second", 2, 3, 2), kv("b", "1", 4, 4, 1)}}},
		{propose(mvcc.KindLeaseGrant, &pb.InternalRaftRequest{LeaseGrant: &pb.LeaseGrantRequest{ID: 77, TTL: 100}}),
			&pb.LeaseGrantResponse{Header: header(5), ID: 77, TTL: 100}},
	} {
		if got, want := responseSize(c.got), proto.Size(c.want); got != want {
			t.Errorf("%T: %d bytes, want %d", c.want, got, want)
		}
	}
}

// TestTracesOfABatch: commands that were written and applied together have the same times, and none of others'.
func TestTracesOfABatch(t *testing.T) {
	h := newHarness(t)
	h.adjust = func(c *Config) { c.Trace = true }
	s := h.open()
	defer closeStore(t, s)
	const writers = 50
	traces := make([]Trace, writers)
	waiting := make([]*waiter, 0, writers)
	s.node.mu.Lock() // what comes in meanwhile is one batch
	for i := range traces {
		w, err := s.submit(&Command{Kind: mvcc.KindPut, Trace: &traces[i],
			Request: &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}}})
		if err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, w)
	}
	s.node.mu.Unlock()
	for _, w := range waiting {
		if err := s.await(context.Background(), w); err != nil {
			t.Fatal(err)
		}
		s.waiters.put(w)
	}
	for i, got := range traces {
		first := traces[0]
		if got.Index != first.Index+uint64(i) || got.Fsync != first.Fsync || got.Apply != first.Apply || got.Term == 0 {
			t.Errorf("trace %d is %+v, the first %+v", i, got, first)
		}
		if got.Fsync.Entries != writers || got.Apply.Entries != writers || !got.Fsync.Ended.Before(got.Apply.Began) || got.Fsync.Began.IsZero() {
			t.Errorf("trace %d is %+v", i, got)
		}
	}
}
