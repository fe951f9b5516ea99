package etcdapi

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// poisonPool spoils what is given back to it, so that who still reads it is found:
// by the wrong bytes, or by the race detector.
type poisonPool struct{}

func (poisonPool) Get(n int) *[]byte { b := make([]byte, n); return &b }

func (poisonPool) Put(b *[]byte) {
	for i := range *b {
		(*b)[i] = 0xA5
	}
}

// TestRequestsAreUsedAgain calls the handlers of KV with buffers that are spoiled
// when they are given back. Each client has keys of its own and knows what is in
// them, calls that it gave up aside.
func TestRequestsAreUsedAgain(t *testing.T) {
	ts := startServer(t, Options{})
	codec := newCodec()
	codec.pool = poisonPool{}
	methods := make(map[string]grpc.MethodDesc)
	for _, d := range ts.kvService().Methods {
		methods[d.MethodName] = d
	}
	ts.NewGRPCServer().Stop()
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			c := &reuseClient{t: t, ts: ts, codec: codec, methods: methods, rnd: rand.New(rand.NewPCG(1, uint64(n))), id: n, has: map[string][]byte{}}
			for range 300 {
				if t.Failed() {
					return
				}
				c.step()
			}
		})
	}
	wg.Wait()
	all, err := ts.cli.Get(context.Background(), "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if len(all.Kvs) == 0 {
		t.Error("there are no keys")
	}
	for _, kv := range all.Kvs {
		checkReuseValue(t, kv)
	}
}

// reuseValue begins with the key and repeats one byte.
func reuseValue(key string, r *rand.Rand) []byte {
	return append([]byte(key+"="), bytes.Repeat([]byte{byte('a' + r.IntN(26))}, 1500+r.IntN(4000))...)
}

func checkReuseValue(t *testing.T, kv *mvccpb.KeyValue) {
	rest, ok := bytes.CutPrefix(kv.Value, append(kv.Key, '='))
	if !ok || len(rest) == 0 || bytes.Count(rest, rest[:1]) != len(rest) {
		t.Errorf("key %q holds what was never put: %.40q", kv.Key, kv.Value)
	}
}

type reuseClient struct {
	t       *testing.T
	ts      *testServer
	codec   codec
	methods map[string]grpc.MethodDesc
	rnd     *rand.Rand
	id      int
	has     map[string][]byte // nil: unknown
}

// call hands the request over in one buffer of the pool, or in two.
func (c *reuseClient) call(ctx context.Context, method string, req, resp proto.Message) error {
	raw, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	cut := 0
	if c.rnd.IntN(2) == 0 {
		cut = c.rnd.IntN(len(raw))
	}
	var data mem.BufferSlice
	for _, part := range [][]byte{raw[:cut], raw[cut:]} {
		if len(part) > 0 {
			part = bytes.Clone(part)
			data = append(data, mem.NewBuffer(&part, poisonPool{}))
		}
	}
	dec := func(v any) error {
		defer data.Free()
		return c.codec.Unmarshal(data, v)
	}
	out, err := c.methods[method].Handler(c.ts.Server, ctx, dec, nil)
	if err != nil {
		return err
	}
	bufs, err := c.codec.Marshal(out)
	if err != nil {
		return err
	}
	defer bufs.Free()
	return proto.Unmarshal(bufs.Materialize(), resp)
}

func (c *reuseClient) step() {
	key := fmt.Sprintf("key-%d-%d", c.id, c.rnd.IntN(8))
	value := reuseValue(key, c.rnd)
	put := &pb.PutRequest{Key: []byte(key), Value: value, PrevKv: true}
	get := &pb.RangeRequest{Key: []byte(key)}
	ctx := context.Background()
	var err error
	switch c.rnd.IntN(5) {
	case 0:
		var resp pb.PutResponse
		err = c.call(ctx, "Put", put, &resp)
		c.expect(key, resp.PrevKv)
		c.has[key] = value
	case 1:
		var resp pb.DeleteRangeResponse
		err = c.call(ctx, "DeleteRange", &pb.DeleteRangeRequest{Key: []byte(key), PrevKv: true}, &resp)
		if resp.Deleted > 0 {
			c.expect(key, resp.PrevKvs[0])
		}
		delete(c.has, key)
	case 2:
		var resp pb.RangeResponse
		err = c.call(ctx, "Range", get, &resp)
		if len(resp.Kvs) > 0 {
			c.expect(key, resp.Kvs[0])
		}
	case 3: // given up, perhaps before the log has it, perhaps after the answer
		ctx, cancel := context.WithCancel(ctx)
		go cancel()
		if c.call(ctx, "Put", put, &pb.PutResponse{}) != nil {
			c.has[key] = nil
		} else {
			c.has[key] = value
		}
	default:
		err = c.createOrGet(key, put, get)
	}
	if err != nil {
		c.t.Error(err)
	}
}

// createOrGet is the transaction of an apiserver.
func (c *reuseClient) createOrGet(key string, put *pb.PutRequest, get *pb.RangeRequest) error {
	var resp pb.TxnResponse
	err := c.call(context.Background(), "Txn", &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte(key), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: put}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: get}}},
	}, &resp)
	switch {
	case err != nil:
	case resp.Succeeded:
		c.has[key] = put.Value
	default:
		c.expect(key, resp.Responses[0].GetResponseRange().Kvs[0])
	}
	return err
}

// expect checks what an answer holds of a key.
func (c *reuseClient) expect(key string, kv *mvccpb.KeyValue) {
	if kv == nil {
		if c.has[key] != nil {
			c.t.Errorf("key %q is gone", key)
		}
		return
	}
	checkReuseValue(c.t, kv)
	if want := c.has[key]; string(kv.Key) != key || want != nil && !bytes.Equal(kv.Value, want) {
		c.t.Errorf("key %q: %q holds %.40q, want %.40q", key, kv.Key, kv.Value, want)
	}
}
