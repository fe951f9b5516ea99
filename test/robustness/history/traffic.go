package history

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

const (
	trafficKeys = 10
	PairKeys    = "m/" // a and b are only ever written together
	leasedKeys  = "l/"

	// retryPause is between a failure and what is tried next.
	retryPause = 10 * time.Millisecond
)

func pause(ctx context.Context, d time.Duration) {
	if d == 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Op is one call: what was asked, what was answered (nil: nobody knows whether it took effect), and when.
type Op struct {
	Client            int
	Request, Response proto.Message
	Call, Return      int64 // nanoseconds of one clock; Return is 1<<62 when there was no answer
}

// Revision is that of the answer's header.
func (o *Op) Revision() int64 {
	return o.Response.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader().GetRevision()
}

// Recording is what all clients saw.
type Recording struct {
	began   time.Time
	Answers atomic.Int64 // so far

	mu      sync.Mutex
	ops     []*Op // writes and reads of keys
	revoked []*Op // leases
	leaseOf map[string]int64
}

// NewRecording starts the clock.
func NewRecording() *Recording { return &Recording{began: time.Now(), leaseOf: make(map[string]int64)} }

func (r *Recording) now() int64 { return time.Since(r.began).Nanoseconds() }

// Ops are all calls on keys so far.
func (r *Recording) Ops() []*Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*Op(nil), r.ops...)
}

// Client makes one call after another on a connection of its own.
type Client struct {
	id     int
	rec    *Recording
	kv     pb.KVClient
	lease  pb.LeaseClient
	rng    *rand.Rand
	writes int
	leases []int64
	o      ClientOptions
}

// ClientOptions say how a client goes about it.
type ClientOptions struct {
	Seed uint64
	// Timeout ends a call whose outcome is then unknown; default 60 s.
	Timeout time.Duration
	// Safe is up to where may be compacted: what all watchers have seen. Nil: no compactions.
	Safe func() int64
	// Stale makes one read in so many serializable, which a member may answer alone; 0: none.
	Stale int
	// Think is the pause between two calls; default none.
	Think time.Duration
}

// NewClient is a client of the member that conn leads to.
func NewClient(id int, rec *Recording, conn *grpc.ClientConn, o ClientOptions) *Client {
	if o.Timeout == 0 {
		o.Timeout = 60 * time.Second
	}
	return &Client{id: id, rec: rec, kv: pb.NewKVClient(conn), lease: pb.NewLeaseClient(conn), rng: rand.New(rand.NewPCG(o.Seed, uint64(id))), o: o}
}

// Run goes on until stop is done. A call under way is finished.
func (c *Client) Run(stop context.Context) {
	for stop.Err() == nil {
		pause(stop, c.o.Think)
		key := fmt.Sprintf("k/%d", c.rng.IntN(trafficKeys))
		switch n := c.rng.IntN(100); {
		case n < 35:
			c.Call(&pb.PutRequest{Key: []byte(key), Value: c.value(), PrevKv: n%2 == 0})
		case n < 55:
			c.guarded(key)
		case n < 67:
			c.Call(&pb.DeleteRangeRequest{Key: []byte(key), PrevKv: true})
		case n < 77:
			c.Call(&pb.RangeRequest{Key: []byte(key), Serializable: c.o.Stale > 0 && c.rng.IntN(c.o.Stale) == 0})
		case n < 82:
			c.Call(&pb.RangeRequest{Key: []byte("k/"), RangeEnd: []byte("k0"), Limit: int64(c.rng.IntN(4))})
		case n < 84:
			c.Call(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true})
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
func (c *Client) value() []byte {
	c.writes++
	return fmt.Appendf(nil, "%d-%d-%0*d", c.id, c.writes, 1+c.rng.IntN(300), 0)
}

// call is one attempt that waits for a server to be there.
func (c *Client) call(do func(context.Context) (proto.Message, error)) (*Op, error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.o.Timeout)
	defer cancel()
	o := &Op{Client: c.id, Call: c.rec.now()}
	resp, err := do(ctx)
	o.Return = c.rec.now()
	if err != nil {
		pause(ctx, retryPause)
		return o, err
	}
	o.Response = resp
	c.rec.Answers.Add(1)
	return o, nil
}

// Call makes one call and records it.
func (c *Client) Call(req proto.Message) *Op {
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
	o.Request = req
	c.rec.mu.Lock()
	defer c.rec.mu.Unlock()
	c.rec.ops = append(c.rec.ops, o)
	return o
}

// guarded is what an apiserver does: read, and write if nothing has changed since.
func (c *Client) guarded(key string) {
	read := c.Call(&pb.RangeRequest{Key: []byte(key)})
	if read.Response == nil {
		return
	}
	var rev int64
	if kvs := read.Response.(*pb.RangeResponse).Kvs; len(kvs) > 0 {
		rev = kvs[0].ModRevision
	}
	success := PutOp(key, c.value())
	if c.rng.IntN(5) == 0 {
		success = &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}}
	}
	c.Call(&pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte(key), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: rev}}},
		Success: []*pb.RequestOp{success},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}}},
	})
}

// PutOp is a put within a transaction.
func PutOp(key string, value []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: value}}}
}

// pair writes or deletes two keys in one revision.
func (c *Client) pair() {
	if c.rng.IntN(4) == 0 {
		c.Call(&pb.DeleteRangeRequest{Key: []byte(PairKeys), RangeEnd: []byte("m0"), PrevKv: true})
		return
	}
	v := c.value()
	c.Call(&pb.TxnRequest{Success: []*pb.RequestOp{PutOp(PairKeys+"a", v), PutOp(PairKeys+"b", v)}})
}

// leased puts a key that hangs on a lease, or revokes the oldest lease.
func (c *Client) leased() {
	if len(c.leases) < 3 {
		o, err := c.call(func(ctx context.Context) (proto.Message, error) {
			return c.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 3600}, grpc.WaitForReady(true))
		})
		if err != nil {
			return
		}
		id := o.Response.(*pb.LeaseGrantResponse).ID
		c.leases = append(c.leases, id)
		for i := range 2 {
			key := fmt.Sprintf("%s%x-%d", leasedKeys, uint64(id), i)
			c.rec.mu.Lock()
			c.rec.leaseOf[key] = id
			c.rec.mu.Unlock()
			c.Call(&pb.PutRequest{Key: []byte(key), Value: c.value(), Lease: id})
		}
		return
	}
	req := &pb.LeaseRevokeRequest{ID: c.leases[0]}
	c.leases = c.leases[1:]
	o, _ := c.call(func(ctx context.Context) (proto.Message, error) {
		return c.lease.LeaseRevoke(ctx, req, grpc.WaitForReady(true))
	})
	o.Request = req
	c.rec.mu.Lock()
	defer c.rec.mu.Unlock()
	c.rec.revoked = append(c.rec.revoked, o)
}

// compact forgets what all watchers have seen.
func (c *Client) compact() {
	if c.o.Safe == nil {
		return
	}
	rev := c.o.Safe()
	if rev < 2 {
		return
	}
	_, _ = c.call(func(ctx context.Context) (proto.Message, error) { // compacted already: somebody else was faster
		return c.kv.Compact(ctx, &pb.CompactionRequest{Revision: rev, Physical: c.rng.IntN(3) == 0}, grpc.WaitForReady(true))
	})
}
