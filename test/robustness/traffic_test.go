package robustness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

const (
	trafficKeys = 10
	pairKeys    = "m/" // a and b are only ever written together
	leasedKeys  = "l/"
)

// op is one call: what was asked, what was answered (nil: nobody knows whether it took effect), and when.
type op struct {
	client       int
	req, resp    proto.Message
	call, answer int64 // nanoseconds of one clock
}

// revision is that of the answer's header.
func (o *op) revision() int64 {
	return o.resp.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader().GetRevision()
}

// recording is what all clients saw. Operations of writes and reads are in ops; leases says which keys a revocation takes away.
type recording struct {
	began   time.Time
	answers atomic.Int64

	mu      sync.Mutex
	ops     []*op
	revoked []*op // of leases
	leaseOf map[string]int64
}

func newRecording() *recording { return &recording{began: time.Now(), leaseOf: make(map[string]int64)} }

func (r *recording) now() int64 { return time.Since(r.began).Nanoseconds() }

// awaitAnswers waits until there are n more.
func (r *recording) awaitAnswers(t *testing.T, n int64) {
	t.Helper()
	goal := r.answers.Load() + n
	await(t, "answers", func() bool { return r.answers.Load() >= goal })
}

// trafficClient makes one call after another on a connection of its own.
type trafficClient struct {
	id       int
	rec      *recording
	kv       pb.KVClient
	lease    pb.LeaseClient
	rng      *rand.Rand
	writes   int
	leases   []int64
	safe     func() int64 // up to where may be compacted
	rejected func(error)  // an error that says that nothing happened, and why it should not be
}

func newTrafficClient(id int, rec *recording, conn *grpc.ClientConn, seed uint64, safe func() int64) *trafficClient {
	return &trafficClient{id: id, rec: rec, kv: pb.NewKVClient(conn), lease: pb.NewLeaseClient(conn),
		rng: rand.New(rand.NewPCG(seed, uint64(id))), safe: safe}
}

// run goes on until stop is done. A call under way is finished.
func (c *trafficClient) run(stop context.Context) {
	for stop.Err() == nil {
		key := fmt.Sprintf("k/%d", c.rng.IntN(trafficKeys))
		switch n := c.rng.IntN(100); {
		case n < 35:
			c.record(&pb.PutRequest{Key: []byte(key), Value: c.value(), PrevKv: n%2 == 0})
		case n < 55:
			c.guarded(key)
		case n < 67:
			c.record(&pb.DeleteRangeRequest{Key: []byte(key), PrevKv: true})
		case n < 77:
			c.record(&pb.RangeRequest{Key: []byte(key)})
		case n < 82:
			c.record(&pb.RangeRequest{Key: []byte("k/"), RangeEnd: []byte("k0"), Limit: int64(c.rng.IntN(4))})
		case n < 84:
			c.record(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true})
		case n < 90:
			c.pair()
		case n < 97:
			c.leased()
		default:
			c.compact()
		}
	}
}

// value is unlike any other.
func (c *trafficClient) value() []byte {
	c.writes++
	return fmt.Appendf(nil, "%d-%d-%0*d", c.id, c.writes, 1+c.rng.IntN(300), 0)
}

// call is one attempt that waits for a server to be there.
func (c *trafficClient) call(do func(context.Context) (proto.Message, error)) (*op, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	o := &op{client: c.id, call: c.rec.now()}
	resp, err := do(ctx)
	o.answer = c.rec.now()
	if err == nil {
		o.resp = resp
		c.rec.answers.Add(1)
	}
	return o, err
}

func (c *trafficClient) record(req proto.Message) *op {
	o, _ := c.call(func(ctx context.Context) (proto.Message, error) {
		switch r := req.(type) {
		case *pb.PutRequest:
			return c.kv.Put(ctx, r, grpc.WaitForReady(true))
		case *pb.DeleteRangeRequest:
			return c.kv.DeleteRange(ctx, r, grpc.WaitForReady(true))
		case *pb.TxnRequest:
			return c.kv.Txn(ctx, r, grpc.WaitForReady(true))
		}
		return c.kv.Range(ctx, req.(*pb.RangeRequest), grpc.WaitForReady(true))
	})
	o.req = req
	c.rec.mu.Lock()
	defer c.rec.mu.Unlock()
	c.rec.ops = append(c.rec.ops, o)
	return o
}

// guarded is what an apiserver does: read, and write if nothing has changed since.
func (c *trafficClient) guarded(key string) {
	read := c.record(&pb.RangeRequest{Key: []byte(key)})
	if read.resp == nil {
		return
	}
	var rev int64
	if kvs := read.resp.(*pb.RangeResponse).Kvs; len(kvs) > 0 {
		rev = kvs[0].ModRevision
	}
	success := putOp(key, c.value())
	if c.rng.IntN(5) == 0 {
		success = &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}}
	}
	c.record(&pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte(key), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: rev}}},
		Success: []*pb.RequestOp{success},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}}},
	})
}

func putOp(key string, value []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: value}}}
}

// pair writes or deletes two keys in one revision.
func (c *trafficClient) pair() {
	if c.rng.IntN(4) == 0 {
		c.record(&pb.DeleteRangeRequest{Key: []byte(pairKeys), RangeEnd: []byte("m0"), PrevKv: true})
		return
	}
	v := c.value()
	c.record(&pb.TxnRequest{Success: []*pb.RequestOp{putOp(pairKeys+"a", v), putOp(pairKeys+"b", v)}})
}

// leased puts a key that hangs on a lease, or revokes the oldest lease.
func (c *trafficClient) leased() {
	if len(c.leases) < 3 {
		o, err := c.call(func(ctx context.Context) (proto.Message, error) {
			return c.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 3600}, grpc.WaitForReady(true))
		})
		if err != nil {
			return
		}
		id := o.resp.(*pb.LeaseGrantResponse).ID
		c.leases = append(c.leases, id)
		for i := range 2 {
			key := fmt.Sprintf("%s%x-%d", leasedKeys, uint64(id), i)
			c.rec.mu.Lock()
			c.rec.leaseOf[key] = id
			c.rec.mu.Unlock()
			c.record(&pb.PutRequest{Key: []byte(key), Value: c.value(), Lease: id})
		}
		return
	}
	req := &pb.LeaseRevokeRequest{ID: c.leases[0]}
	c.leases = c.leases[1:]
	o, _ := c.call(func(ctx context.Context) (proto.Message, error) {
		return c.lease.LeaseRevoke(ctx, req, grpc.WaitForReady(true))
	})
	o.req = req
	c.rec.mu.Lock()
	defer c.rec.mu.Unlock()
	c.rec.revoked = append(c.rec.revoked, o)
}

// compact forgets what all watchers have seen.
func (c *trafficClient) compact() {
	rev := c.safe()
	if rev < 2 {
		return
	}
	_, _ = c.call(func(ctx context.Context) (proto.Message, error) { // compacted already: somebody else was faster
		return c.kv.Compact(ctx, &pb.CompactionRequest{Revision: rev, Physical: c.rng.IntN(3) == 0}, grpc.WaitForReady(true))
	})
}
