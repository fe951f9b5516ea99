package etcdapi

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// SlowCall is a unary call that took longer than Options.SlowCallMin, with what
// etcd tells of it: counts and sizes are -1 for calls that are not of KV, and
// values are left out of Content.
type SlowCall struct {
	Method        string
	Start         time.Time
	Took          time.Duration
	Remote        string
	RequestCount  int64 // operations that write
	RequestSize   int   // bytes
	ResponseCount int64 // keys
	ResponseSize  int   // bytes
	Content       string
}

// SlowRead is a range, or a txn that only reads, that took longer than
// Options.SlowReadMin, in the words of etcd's log.
type SlowRead struct {
	Took                      time.Duration
	Prefix, Request, Response string
	Err                       error
}

// slowMin is how long a call may take before slow looks at it.
func (o *Options) slowMin() time.Duration {
	least := time.Duration(math.MaxInt64)
	if o.OnSlowRead != nil {
		least = o.SlowReadMin
	}
	if o.OnSlowCall != nil {
		least = min(least, o.SlowCallMin)
	}
	return least
}

// slow tells of a call that took long. req and resp are as the handler had them.
func (s *Server) slow(ctx context.Context, method string, req, resp any, took time.Duration, err error) {
	if s.opts.OnSlowRead != nil && took > s.opts.SlowReadMin {
		if r, ok := slowRead(req, resp); ok {
			s.store.CountSlowRead()
			r.Took, r.Err = took, err
			s.opts.OnSlowRead(r)
		}
	}
	if s.opts.OnSlowCall == nil || took <= s.opts.SlowCallMin {
		return
	}
	c := SlowCall{Method: method, Start: time.Now().Add(-took), Took: took, Remote: "No remote client info."}
	if p, ok := peer.FromContext(ctx); ok {
		c.Remote = p.Addr.String()
	}
	c.describe(req, resp)
	s.opts.OnSlowCall(c)
}

func slowRead(req, resp any) (SlowRead, bool) {
	a, answered := resp.(*reply)
	switch r := req.(type) {
	case *rangeRequest:
		x := SlowRead{Prefix: "read-only range ", Request: r.RangeRequest.String()}
		if answered && a != nil {
			x.Response = fmt.Sprintf("range_response_count:%d size:%d", a.kvs, a.bufs.Len())
		}
		return x, true
	case *txnRequest:
		if !mvcc.IsReadOnlyTxn(&r.TxnRequest) {
			return SlowRead{}, false
		}
		x := SlowRead{Prefix: "read-only txn ", Request: pb.NewLoggableTxnRequest(&r.TxnRequest).String()}
		if answered && a != nil {
			x.Response = fmt.Sprintf("size:%d", a.bufs.Len())
			if a.partBytes() == 0 { // nobody encodes a list for the log
				x.Response = describeReads(a.txn(), a.bufs.Len())
			}
		}
		return x, true
	}
	return SlowRead{}, false
}

// describeReads is the answer to a txn that only reads.
func describeReads(r *pb.TxnResponse, size int) string {
	var counts []string
	for _, op := range r.GetResponses() {
		if op := op.GetResponseRange(); op != nil {
			counts = append(counts, fmt.Sprintf("range_response_count:%d", len(op.GetKvs())))
		}
	}
	return fmt.Sprintf("responses:<%s> size:%d", strings.Join(counts, " "), size)
}

// txn is the answer to a txn as a message.
func (r *reply) txn() *pb.TxnResponse {
	buf := r.bufs.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	t := &pb.TxnResponse{}
	if err := proto.Unmarshal(buf.ReadOnlyData(), t); err != nil {
		return nil // a row that could not be read is in it: the connection is about to be closed
	}
	return t
}

// succeeded tells which branch an answer to a txn is of: it stands before what
// the operations have answered.
func (r *reply) succeeded() bool {
	if len(r.bufs) == 0 {
		return false
	}
	b := r.bufs[0].ReadOnlyData()
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 || number > txnSucceeded {
			return false
		}
		if number == txnSucceeded {
			v, m := protowire.ConsumeVarint(b[n:])
			return m > 0 && v != 0
		}
		m := protowire.ConsumeFieldValue(number, typ, b[n:])
		if m < 0 {
			return false
		}
		b = b[n+m:]
	}
	return false
}

// describe says of the calls of KV what etcd says of them.
func (c *SlowCall) describe(req, resp any) {
	a, _ := resp.(*reply)
	if a != nil {
		c.ResponseCount, c.ResponseSize = int64(a.count), a.bufs.Len()
	}
	switch r := req.(type) {
	case *rangeRequest:
		c.RequestSize, c.Content = proto.Size(&r.RangeRequest), r.RangeRequest.String()
	case *putRequest:
		c.RequestCount, c.RequestSize = 1, proto.Size(&r.PutRequest)
		c.Content = fmt.Sprint(pb.NewLoggablePutRequest(&r.PutRequest))
	case *deleteRequest:
		c.RequestSize, c.Content = proto.Size(&r.DeleteRangeRequest), r.DeleteRangeRequest.String()
	case *txnRequest:
		c.Content = pb.NewLoggableTxnRequest(&r.TxnRequest).String()
		if a == nil {
			return
		}
		ops := r.GetFailure()
		if a.succeeded() {
			ops = r.GetSuccess()
		}
		c.RequestCount = int64(len(ops))
		for _, op := range ops {
			c.RequestSize += proto.Size(op)
		}
	default:
		c.RequestCount, c.RequestSize, c.ResponseCount, c.ResponseSize = -1, -1, -1, -1
	}
}
