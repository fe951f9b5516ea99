package etcdapi

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/raftstore"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// mustOf takes the two results of a call that has to succeed.
func mustOf[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// wantHeader checks a header against the store's own account of itself.
func (ts *testServer) wantHeader(t testing.TB, what string, h *pb.ResponseHeader, rev int64) {
	t.Helper()
	want := &pb.ResponseHeader{
		ClusterId: ts.store.ClusterID(), MemberId: ts.store.MemberID(), Revision: rev, RaftTerm: ts.store.Status().Term,
	}
	if want.ClusterId == 0 || want.MemberId == 0 || want.RaftTerm == 0 {
		t.Fatalf("store says %v", want)
	}
	if !proto.Equal(h, want) {
		t.Errorf("%s: header %v, want %v", what, h, want)
	}
}

func TestHeaders(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	kv := pb.NewKVClient(ts.conn(t))

	rr := mustOf[*pb.RangeResponse](t)(kv.Range(ctx, &pb.RangeRequest{Key: []byte("a")}))
	ts.wantHeader(t, "empty range", rr.Header, 1)
	put := mustOf[*pb.PutResponse](t)(kv.Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("1")}))
	ts.wantHeader(t, "put", put.Header, 2)
	mustOf[*pb.PutResponse](t)(kv.Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("2")}))
	rr = mustOf[*pb.RangeResponse](t)(kv.Range(ctx, &pb.RangeRequest{Key: []byte("a"), Revision: 2}))
	ts.wantHeader(t, "range of the past", rr.Header, 3)
	if string(rr.Kvs[0].Value) != "1" {
		t.Errorf("range of the past: %v", rr.Kvs)
	}
	none := mustOf[*pb.DeleteRangeResponse](t)(kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("none")}))
	ts.wantHeader(t, "delete of nothing", none.Header, 3)
	del := mustOf[*pb.DeleteRangeResponse](t)(kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("a"), PrevKv: true}))
	ts.wantHeader(t, "delete", del.Header, 4)
	if del.Deleted != 1 || string(del.PrevKvs[0].Value) != "2" {
		t.Errorf("delete: %v", del)
	}
	txn := mustOf[*pb.TxnResponse](t)(kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("b")}}},
		{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("b")}}},
	}}))
	ts.wantHeader(t, "txn", txn.Header, 5)
	for _, op := range txn.Responses {
		var h *pb.ResponseHeader
		if r := op.GetResponseRange(); r != nil {
			h = r.Header
		} else {
			h = op.GetResponsePut().Header
		}
		if !proto.Equal(h, &pb.ResponseHeader{Revision: 5}) {
			t.Errorf("header in txn: %v", h)
		}
	}
	compact := mustOf[*pb.CompactionResponse](t)(kv.Compact(ctx, &pb.CompactionRequest{Revision: 4, Physical: true}))
	ts.wantHeader(t, "compact", compact.Header, 5)
}

// TestRefusals checks code and text of everything a client can ask wrongly, and
// that nothing is changed by it.
func TestRefusals(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	kv := pb.NewKVClient(ts.conn(t))
	for range 5 {
		mustOf[*pb.PutResponse](t)(kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}))
	}
	mustOf[*pb.CompactionResponse](t)(kv.Compact(ctx, &pb.CompactionRequest{Revision: 4}))
	before := ts.store.View().Revision()

	put := func(r *pb.PutRequest) error { _, err := kv.Put(ctx, r); return err }
	get := func(r *pb.RangeRequest) error { _, err := kv.Range(ctx, r); return err }
	txn := func(r *pb.TxnRequest) error { _, err := kv.Txn(ctx, r); return err }
	compact := func(rev int64) error { _, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: rev}); return err }
	putOp := func(k string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(k)}}}
	}
	var many []*pb.RequestOp
	for i := range maxTxnOpsDefault + 1 {
		many = append(many, putOp(fmt.Sprint(i)))
	}
	_, delErr := kv.DeleteRange(ctx, &pb.DeleteRangeRequest{})
	for _, c := range []struct {
		what      string
		got, want error
	}{
		{"put without key", put(&pb.PutRequest{}), rpctypes.ErrGRPCEmptyKey},
		{"get without key", get(&pb.RangeRequest{}), rpctypes.ErrGRPCEmptyKey},
		{"delete without key", delErr, rpctypes.ErrGRPCEmptyKey},
		{"txn with an empty key", txn(&pb.TxnRequest{Success: []*pb.RequestOp{putOp("")}}), rpctypes.ErrGRPCEmptyKey},
		{"value provided", put(&pb.PutRequest{Key: []byte("k"), Value: []byte("v"), IgnoreValue: true}), rpctypes.ErrGRPCValueProvided},
		{"lease provided", put(&pb.PutRequest{Key: []byte("k"), Lease: 1, IgnoreLease: true}), rpctypes.ErrGRPCLeaseProvided},
		{"ignore value of nothing", put(&pb.PutRequest{Key: []byte("n"), IgnoreValue: true}), rpctypes.ErrGRPCKeyNotFound},
		{"unknown lease", put(&pb.PutRequest{Key: []byte("k"), Lease: 4711}), rpctypes.ErrGRPCLeaseNotFound},
		{"sort order", get(&pb.RangeRequest{Key: []byte("k"), SortOrder: 7}), rpctypes.ErrGRPCInvalidSortOption},
		{"sort target", get(&pb.RangeRequest{Key: []byte("k"), SortTarget: 7}), rpctypes.ErrGRPCInvalidSortOption},
		{"future revision", get(&pb.RangeRequest{Key: []byte("k"), Revision: 100}), rpctypes.ErrGRPCFutureRev},
		{"compacted revision", get(&pb.RangeRequest{Key: []byte("k"), Revision: 3}), rpctypes.ErrGRPCCompacted},
		{"compact again", compact(4), rpctypes.ErrGRPCCompacted},
		{"compact the future", compact(100), rpctypes.ErrGRPCFutureRev},
		{"too many ops", txn(&pb.TxnRequest{Success: many}), rpctypes.ErrGRPCTooManyOps},
		{"duplicate key", txn(&pb.TxnRequest{Success: []*pb.RequestOp{putOp("a"), putOp("a")}}), rpctypes.ErrGRPCDuplicateKey},
		{"empty op", txn(&pb.TxnRequest{Success: []*pb.RequestOp{{}}}), rpctypes.ErrGRPCKeyNotFound},
		{"too large", put(&pb.PutRequest{Key: []byte("k"), Value: make([]byte, maxRequestBytesDefault)}), rpctypes.ErrGRPCRequestTooLarge},
	} {
		if status.Code(c.got) != status.Code(c.want) || status.Convert(c.got).Message() != status.Convert(c.want).Message() {
			t.Errorf("%s: got %v, want %v", c.what, c.got, c.want)
		}
	}
	huge := put(&pb.PutRequest{Key: []byte("k"), Value: make([]byte, maxRequestBytesDefault+grpcOverheadBytes)})
	if status.Code(huge) != codes.ResourceExhausted {
		t.Errorf("larger than the transport takes: %v", huge)
	}
	if err := get(&pb.RangeRequest{Key: []byte("k"), Revision: 4}); err != nil {
		t.Errorf("the compacted revision itself: %v", err)
	}
	if rev := ts.store.View().Revision(); rev != before {
		t.Errorf("refusals moved the revision from %d to %d", before, rev)
	}
}

// TestRequestLimit checks the last size that goes through.
func TestRequestLimit(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	value := bytes.Repeat([]byte("x"), maxRequestBytesDefault-1024)
	mustOf[*clientv3.PutResponse](t)(ts.cli.Put(ctx, "k", string(value)))
	got := mustOf[*clientv3.GetResponse](t)(ts.cli.Get(ctx, "k"))
	if !bytes.Equal(got.Kvs[0].Value, value) {
		t.Fatal("value differs")
	}
}

// TestPages reads a list by pages while it changes: all pages show the revision
// of the first, from the kept View, and the same without it.
func TestPages(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	const keys = 300
	for i := range keys {
		mustOf[*clientv3.PutResponse](t)(ts.cli.Put(ctx, fmt.Sprintf("/p/%04d", i), "old"))
	}
	for _, pinned := range []bool{true, false} {
		seen, key, rev := 0, "/p/", int64(0)
		for {
			opts := []clientv3.OpOption{clientv3.WithRange("/p0"), clientv3.WithLimit(64), clientv3.WithRev(rev)}
			page := mustOf[*clientv3.GetResponse](t)(ts.cli.Get(ctx, key, opts...))
			for _, x := range page.Kvs {
				if want := fmt.Sprintf("/p/%04d", seen); string(x.Key) != want {
					t.Fatalf("key %s where %s was due", x.Key, want)
				}
				seen++
			}
			if want := int64(keys - seen + len(page.Kvs)); page.Count != want {
				t.Fatalf("count %d, want %d", page.Count, want)
			}
			if !page.More {
				break
			}
			if rev == 0 {
				rev = page.Header.Revision
			}
			if kept := ts.pins.get(mvcc.Revision(rev)) != nil; kept != pinned && seen > 64 {
				t.Fatalf("view kept: %v, want %v", kept, pinned)
			}
			if !pinned {
				ts.pins.drop()
			}
			key = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
			mustOf[*clientv3.DeleteResponse](t)(ts.cli.Delete(ctx, "/p/0200"))
			mustOf[*clientv3.PutResponse](t)(ts.cli.Put(ctx, "/p/0200", "new"))
			mustOf[*clientv3.PutResponse](t)(ts.cli.Put(ctx, "/p/0200a", "new"))
			mustOf[*clientv3.DeleteResponse](t)(ts.cli.Delete(ctx, "/p/0200a"))
		}
		if seen != keys {
			t.Fatalf("%d of %d keys seen", seen, keys)
		}
	}
}

// TestPageOfCompactedRevision checks that a kept View does not outlive its revision.
func TestPageOfCompactedRevision(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	for i := range 10 {
		mustOf[*clientv3.PutResponse](t)(ts.cli.Put(ctx, fmt.Sprint("k", i), "v"))
	}
	first := mustOf[*clientv3.GetResponse](t)(ts.cli.Get(ctx, "k", clientv3.WithPrefix(), clientv3.WithLimit(3)))
	rev := first.Header.Revision
	last := mustOf[*clientv3.PutResponse](t)(ts.cli.Put(ctx, "k0", "w"))
	mustOf[*clientv3.CompactResponse](t)(ts.cli.Compact(ctx, last.Header.Revision))
	if ts.pins.get(mvcc.Revision(rev)) == nil {
		t.Fatal("the view of the first page was not kept")
	}
	_, err := ts.cli.Get(ctx, "k", clientv3.WithPrefix(), clientv3.WithRev(rev))
	if !errors.Is(err, rpctypes.ErrCompacted) {
		t.Fatalf("page of a compacted revision: %v", err)
	}
}

// TestRangeStream merges the chunks and compares with the unary answer.
func TestRangeStream(t *testing.T) {
	ts, ctx := startServer(t, Options{MaxRequestBytes: 64 * 1024}), within(t)
	kv := pb.NewKVClient(ts.conn(t))
	for i := range 200 {
		mustOf[*clientv3.PutResponse](t)(ts.cli.Put(ctx, fmt.Sprintf("k%03d", i), strings.Repeat("v", 10*i)))
	}
	for _, r := range []*pb.RangeRequest{
		{Key: []byte("k"), RangeEnd: []byte("l")},
		{Key: []byte("k"), RangeEnd: []byte("l"), Limit: 25},
		{Key: []byte("k"), RangeEnd: []byte("l"), Revision: 50},
		{Key: []byte("k"), RangeEnd: []byte("l"), KeysOnly: true},
		{Key: []byte("k"), RangeEnd: []byte("l"), CountOnly: true},
		{Key: []byte("x"), RangeEnd: []byte("y")},
		{Key: []byte("k007")},
	} {
		want := mustOf[*pb.RangeResponse](t)(kv.Range(ctx, r))
		stream, err := kv.RangeStream(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		got, chunks := &pb.RangeResponse{}, 0
		for {
			chunk, err := stream.Recv()
			if err != nil {
				if !strings.Contains(err.Error(), "EOF") {
					t.Fatal(err)
				}
				break
			}
			if got.Header != nil {
				t.Fatal("a chunk after the one with the header")
			}
			chunks++
			proto.Merge(got, chunk.RangeResponse)
		}
		if !proto.Equal(got, want) {
			t.Errorf("%v:\n got %v\nwant %v", r, got, want)
		}
		if r.Limit == 0 && len(want.Kvs) == 200 && chunks < 3 {
			t.Errorf("%v: only %d chunks", r, chunks)
		}
	}
	stream := mustOf[pb.KV_RangeStreamClient](t)(kv.RangeStream(ctx, &pb.RangeRequest{Key: []byte("k"), SortOrder: pb.RangeRequest_DESCEND}))
	if _, err := stream.Recv(); status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "custom sort orders") {
		t.Errorf("sorted stream: %v", err)
	}
	stream = mustOf[pb.KV_RangeStreamClient](t)(kv.RangeStream(ctx, &pb.RangeRequest{Key: []byte("k"), MinModRevision: 3}))
	if _, err := stream.Recv(); status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "revision filters") {
		t.Errorf("filtered stream: %v", err)
	}
}

// TestConcurrentIncrements lets clients count up one key by compare-and-put: no
// increment is lost, and revisions are dense.
func TestConcurrentIncrements(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	const clients, increments = 4, 50
	var wg sync.WaitGroup
	for range clients {
		cli := ts.client(t)
		wg.Add(1)
		go func() {
			defer wg.Done()
			for done := 0; done < increments; {
				got, err := cli.Get(ctx, "n")
				if err != nil {
					t.Error(err)
					return
				}
				mod := int64(0)
				if len(got.Kvs) > 0 {
					mod = got.Kvs[0].ModRevision
				}
				res, err := cli.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision("n"), "=", mod)).
					Then(clientv3.OpPut("n", "x")).Else(clientv3.OpGet("n")).Commit()
				if err != nil {
					t.Error(err)
					return
				}
				if res.Succeeded {
					done++
				} else if len(res.Responses[0].GetResponseRange().Kvs) != 1 {
					t.Error("a lost race shows no winner")
					return
				}
			}
		}()
	}
	wg.Wait()
	got := mustOf[*clientv3.GetResponse](t)(ts.cli.Get(ctx, "n"))
	if v := got.Kvs[0].Version; v != clients*increments {
		t.Errorf("version %d after %d increments", v, clients*increments)
	}
	if got.Header.Revision != 1+clients*increments {
		t.Errorf("revision %d after %d writes", got.Header.Revision, clients*increments)
	}
}

// TestLargeList lists more than fits any transport buffer as one message.
func TestLargeList(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	kv := pb.NewKVClient(ts.conn(t))
	const keys, size = 24, 1 << 20
	for i := range keys {
		mustOf[*pb.PutResponse](t)(kv.Put(ctx, &pb.PutRequest{Key: []byte{'k', byte(i)}, Value: bytes.Repeat([]byte{byte(i)}, size)}))
	}
	got := mustOf[*pb.RangeResponse](t)(kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")}))
	if len(got.Kvs) != keys {
		t.Fatalf("%d keys", len(got.Kvs))
	}
	for i, x := range got.Kvs {
		if !bytes.Equal(x.Value, bytes.Repeat([]byte{byte(i)}, size)) {
			t.Fatalf("value %d differs", i)
		}
	}
}

// TestStoppedStore checks what a client sees when the store is gone.
func TestStoppedStore(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	kv := pb.NewKVClient(ts.conn(t))
	if err := ts.store.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k")})
	if status.Convert(err).Message() != status.Convert(rpctypes.ErrGRPCStopped).Message() || status.Code(err) != codes.Unavailable {
		t.Fatalf("put after close: %v", err)
	}
	if !errors.Is(toGRPC(raftstore.ErrStopped), rpctypes.ErrGRPCStopped) {
		t.Fatal("table lost ErrStopped")
	}
}
