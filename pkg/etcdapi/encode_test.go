package etcdapi

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// world is a state machine driven by a test.
type world struct {
	t     testing.TB
	state *mvcc.State
	index uint64
	rand  *rand.Rand
}

func newWorld(t testing.TB, seed uint64) *world {
	t.Logf("seed %d", seed)
	return &world{t: t, state: mvcc.New(mvcc.Options{}), rand: rand.New(rand.NewPCG(seed, 0))}
}

func (w *world) apply(r *pb.InternalRaftRequest) mvcc.Result {
	w.index++
	return w.state.Apply(mvcc.Entry{Index: w.index, Term: 2, Request: r})
}

func (w *world) key() []byte { return fmt.Appendf(nil, "/registry/pods/%02d", w.rand.IntN(40)) }

// value is empty, small, or around the sizes at which the encoder changes its way.
func (w *world) value() []byte {
	sizes := []int{0, 1, 100, encodeShareBytesMin - 60, encodeShareBytesMin, 3000, encodeChunkBytes + 7}
	return bytes.Repeat([]byte{byte(w.rand.IntN(256))}, sizes[w.rand.IntN(len(sizes))])
}

func (w *world) rangeRequest() *pb.RangeRequest {
	r := &pb.RangeRequest{Key: w.key()}
	switch w.rand.IntN(4) {
	case 0:
		r.RangeEnd = w.key()
	case 1:
		r.RangeEnd = []byte{0}
	case 2:
		r.Key, r.RangeEnd = []byte("/registry/"), []byte("/registry0")
	}
	r.Limit = int64(w.rand.IntN(3) * w.rand.IntN(20))
	r.KeysOnly = w.rand.IntN(3) == 0
	r.CountOnly = w.rand.IntN(5) == 0
	if w.rand.IntN(3) == 0 {
		r.SortTarget = pb.RangeRequest_SortTarget(w.rand.IntN(5))
		r.SortOrder = pb.RangeRequest_SortOrder(w.rand.IntN(3))
	}
	return r
}

func (w *world) putRequest() *pb.PutRequest {
	return &pb.PutRequest{Key: w.key(), Value: w.value(), PrevKv: w.rand.IntN(2) == 0, Lease: int64(w.rand.IntN(2))}
}

func (w *world) txnRequest(depth int) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	if w.rand.IntN(2) == 0 {
		t.Compare = []*pb.Compare{{Key: w.key(), Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{Version: 1}}}
	}
	t.Success, t.Failure = w.ops(depth), w.ops(depth)
	return t
}

func (w *world) ops(depth int) []*pb.RequestOp {
	var ops []*pb.RequestOp
	for range w.rand.IntN(4) {
		switch n := w.rand.IntN(4); {
		case n == 0:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: w.putRequest()}})
		case n == 1:
			d := &pb.DeleteRangeRequest{Key: w.key(), RangeEnd: w.key(), PrevKv: w.rand.IntN(2) == 0}
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: d}})
		case n == 2 && depth > 0:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: w.txnRequest(depth - 1)}})
		default:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: w.rangeRequest()}})
		}
	}
	return ops
}

// encoded takes the two results of an encoder that has to succeed.
func encoded(t testing.TB) func(*reply, error) *reply { return mustOf[*reply](t) }

// The messages that results stand for, built the plain way.

func kvMessage(t testing.TB, v *mvcc.Version, keysOnly, lease bool) *mvccpb.KeyValue {
	kv := &mvccpb.KeyValue{}
	if err := proto.Unmarshal(v.KV(), kv); err != nil {
		t.Fatal(err)
	}
	if keysOnly {
		kv.Value = nil
		if !lease {
			kv.Lease = 0
		}
	}
	return kv
}

func kvMessages(t testing.TB, vs []*mvcc.Version, keysOnly, lease bool) []*mvccpb.KeyValue {
	var kvs []*mvccpb.KeyValue
	for _, v := range vs {
		kvs = append(kvs, kvMessage(t, v, keysOnly, lease))
	}
	return kvs
}

func rangeMessage(t testing.TB, h *pb.ResponseHeader, res *mvcc.RangeResult) *pb.RangeResponse {
	return &pb.RangeResponse{
		Header: h, Kvs: kvMessages(t, res.Versions, res.KeysOnly, res.KeysLease), More: res.More, Count: res.Count,
	}
}

func putMessage(t testing.TB, h *pb.ResponseHeader, res *mvcc.PutResult) *pb.PutResponse {
	m := &pb.PutResponse{Header: h}
	if res.Prev != nil {
		m.PrevKv = kvMessage(t, res.Prev, false, false)
	}
	return m
}

func deleteMessage(t testing.TB, h *pb.ResponseHeader, res *mvcc.DeleteResult) *pb.DeleteRangeResponse {
	return &pb.DeleteRangeResponse{Header: h, Deleted: res.Deleted, PrevKvs: kvMessages(t, res.Prev, false, false)}
}

func txnMessage(t testing.TB, h *pb.ResponseHeader, res *mvcc.TxnResult) *pb.TxnResponse {
	m := &pb.TxnResponse{Header: h, Succeeded: res.Succeeded}
	for _, op := range res.Ops {
		oh := &pb.ResponseHeader{Revision: int64(op.Revision)}
		r := &pb.ResponseOp{}
		switch {
		case op.Range != nil:
			r.Response = &pb.ResponseOp_ResponseRange{ResponseRange: rangeMessage(t, oh, op.Range)}
		case op.Put != nil:
			r.Response = &pb.ResponseOp_ResponsePut{ResponsePut: putMessage(t, oh, op.Put)}
		case op.Delete != nil:
			r.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: deleteMessage(t, oh, op.Delete)}
		case op.Txn != nil:
			r.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: txnMessage(t, oh, op.Txn)}
		}
		m.Responses = append(m.Responses, r)
	}
	return m
}

// wantEncoding checks a reply against the message it stands for, byte by byte
// and as a message, and frees it.
func wantEncoding(t testing.TB, r *reply, want proto.Message) {
	t.Helper()
	bufs, err := newCodec().Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	got := bufs.Materialize()
	bufs.Free()
	wantBytes, err := proto.MarshalOptions{Deterministic: true}.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(got, wantBytes) {
		return
	}
	parsed := want.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(got, parsed); err != nil {
		t.Fatalf("encoding does not parse: %v", err)
	}
	t.Fatalf("encoding differs from the message:\n got %v\nwant %v", parsed, want)
}

// TestEncodeEqualsProto runs random commands and compares the encoding of each
// result with that of the message it stands for.
func TestEncodeEqualsProto(t *testing.T) {
	w := newWorld(t, rand.Uint64())
	w.apply(&pb.InternalRaftRequest{LeaseGrant: &pb.LeaseGrantRequest{ID: 1, TTL: 100}})
	info := newHeaderInfo(1<<63+17, 42)
	nested := 0
	for range 1500 {
		switch w.rand.IntN(4) {
		case 0:
			res := w.apply(&pb.InternalRaftRequest{Put: w.putRequest()})
			h := wireHeader{prefix: info.prefix, rev: res.Revision, term: 2}
			wantEncoding(t, encoded(t)(encodePut(h, res.Response.(*mvcc.PutResult), nil)),
				putMessage(t, info.message(res.Revision, 2), res.Response.(*mvcc.PutResult)))
		case 1:
			r := &pb.DeleteRangeRequest{Key: w.key(), RangeEnd: w.key(), PrevKv: w.rand.IntN(2) == 0}
			res := w.apply(&pb.InternalRaftRequest{DeleteRange: r})
			h := wireHeader{prefix: info.prefix, rev: res.Revision, term: 2}
			wantEncoding(t, encoded(t)(encodeDelete(h, res.Response.(*mvcc.DeleteResult), nil)),
				deleteMessage(t, info.message(res.Revision, 2), res.Response.(*mvcc.DeleteResult)))
		case 2:
			r := w.txnRequest(2)
			if mvcc.CheckTxn(r, maxTxnOpsDefault) != nil || mvcc.IsReadOnlyTxn(r) {
				continue
			}
			res := w.apply(&pb.InternalRaftRequest{Txn: r})
			txn := res.Response.(*mvcc.TxnResult)
			for _, op := range txn.Ops {
				if op.Txn != nil {
					nested++
				}
			}
			h := wireHeader{prefix: info.prefix, rev: res.Revision, term: 2}
			wantEncoding(t, encoded(t)(encodeTxn(h, txn, nil)), txnMessage(t, info.message(res.Revision, 2), txn))
		case 3:
			w.checkReads(info)
		}
	}
	if nested == 0 {
		t.Fatal("no nested txn was tried")
	}
}

func (w *world) checkReads(info headerInfo) {
	v, r := w.state.Publish(), w.rangeRequest()
	res, err := v.Range(r)
	if err != nil {
		w.t.Fatal(err)
	}
	h := wireHeader{prefix: info.prefix, rev: v.Revision(), term: 2}
	wantEncoding(w.t, encoded(w.t)(encodeRange(h, res, nil)), rangeMessage(w.t, info.message(v.Revision(), 2), res))
	if r.SortTarget != pb.RangeRequest_KEY || !mvcc.DefaultOrder(r) {
		return // etcd sorts within each chunk if only a target is given
	}
	merged := &pb.RangeResponse{}
	for page, err := range v.Pages(r, 4096) {
		if err != nil {
			w.t.Fatal(err)
		}
		want := &pb.RangeResponse{Kvs: kvMessages(w.t, page.Versions, page.KeysOnly, page.KeysLease)}
		if page.Last {
			want = rangeMessage(w.t, info.message(v.Revision(), 2), &page.RangeResult)
		}
		wantEncoding(w.t, encoded(w.t)(encodeStreamChunk(h, page, nil)), &pb.RangeStreamResponse{RangeResponse: want})
		proto.Merge(merged, want)
	}
	if want := rangeMessage(w.t, info.message(v.Revision(), 2), res); !proto.Equal(merged, want) {
		w.t.Fatalf("merged chunks of %v:\n got %v\nwant %v", r, merged, want)
	}
}

// largeList is a world's list of keys with values of valueBytes, and its header.
func largeList(t *testing.T, keys, valueBytes int) (wireHeader, *mvcc.RangeResult) {
	w := newWorld(t, 1)
	for i := range keys {
		w.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: fmt.Appendf(nil, "k%05d", i), Value: make([]byte, valueBytes)}})
	}
	v := w.state.Publish()
	res, err := v.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if err != nil {
		t.Fatal(err)
	}
	return wireHeader{rev: v.Revision(), term: 1}, res
}

// TestEncodeLargeListAsItIsSent checks that a large list, of which the transport
// asks the length at once, takes a hundredth of its size until it is read, and
// that it is right when it is not sized first.
func TestEncodeLargeListAsItIsSent(t *testing.T) {
	h, res := largeList(t, encodeSizePassKeysMax+100, 3000)
	r := encoded(t)(encodeRange(h, res, nil))
	if got, want := r.bufs.Len(), sizeRange(h, res); got != want {
		t.Fatalf("encoded %d bytes, sized %d", got, want)
	}
	if most := sizeRange(h, res)/(encodeChunkBytes-3100) + 3; len(r.bufs) > most {
		t.Fatalf("%d buffers, want %d at most", len(r.bufs), most)
	}
	for _, b := range r.bufs {
		if c, ok := b.(*listChunk); ok && c.data != nil {
			t.Fatal("a chunk was encoded before it was read")
		} else if !ok && b.Len() > encodeListHeadBytes {
			t.Fatalf("%d bytes were encoded before they were read", b.Len())
		}
	}
	wantEncoding(t, r, rangeMessage(t, &pb.ResponseHeader{Revision: int64(res.Revision), RaftTerm: 1}, res))
}

// TestEncodeLargeValuesInList checks a list in which some values are too large
// for a chunk: those are the store's own bytes.
func TestEncodeLargeValuesInList(t *testing.T) {
	h, res := largeList(t, 5, encodeChunkBytes)
	_, few := largeList(t, 5, 10)
	res.Versions = []*mvcc.Version{few.Versions[0], few.Versions[1], res.Versions[2], few.Versions[3], res.Versions[4]}
	r := encoded(t)(encodeRange(h, res, nil))
	shared := 0
	for _, b := range r.bufs {
		if p := &b.ReadOnlyData()[0]; p == &res.Versions[2].KV()[0] || p == &res.Versions[4].KV()[0] {
			shared++
		}
	}
	if shared != 2 {
		t.Fatalf("%d large values are shared, want 2", shared)
	}
	wantEncoding(t, r, rangeMessage(t, &pb.ResponseHeader{Revision: int64(res.Revision), RaftTerm: 1}, res))
}

// TestListChunkIsGivenBack checks that the encoding goes with the last user and
// not before.
func TestListChunkIsGivenBack(t *testing.T) {
	h, res := largeList(t, 100, 3000)
	r := encoded(t)(encodeRange(h, res, nil))
	var c *listChunk
	for _, b := range r.bufs {
		if l, ok := b.(*listChunk); ok {
			c = l
			break
		}
	}
	if c == nil {
		t.Fatal("no chunk in a list of 300 kB")
	}
	c.Ref()
	before := c.ReadOnlyData()
	c.Free()
	if after := c.ReadOnlyData(); &before[0] != &after[0] {
		t.Fatal("a chunk in use was encoded anew")
	}
	c.Free()
	if c.data != nil {
		t.Fatal("a chunk that nobody uses holds its encoding")
	}
}

// TestEncodeSmallIsOneBuffer checks the shape of the usual answer.
func TestEncodeSmallIsOneBuffer(t *testing.T) {
	w := newWorld(t, 1)
	w.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 3000)}})
	v := w.state.Publish()
	res, err := v.Range(&pb.RangeRequest{Key: []byte("k")})
	if err != nil {
		t.Fatal(err)
	}
	r := encoded(t)(encodeRange(wireHeader{rev: v.Revision(), term: 1}, res, nil))
	if len(r.bufs) != 1 {
		t.Fatalf("%d buffers for one key", len(r.bufs))
	}
	r.bufs.Free()
}
