package etcdapi

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/request"
)

// rawRequest is a request that keeps the buffer it came in beside the decoded
// message, which may alias it. Neither is modified, and both are used again after
// the call: nothing that outlives it may point into them.
type rawRequest interface {
	// receive decodes body.
	receive(body []byte) error
	// keep takes over a reference to the buffer that body is in.
	keep(buf mem.Buffer)
	// release gives the reference up. Message and bytes are invalid then.
	release()
}

// received is the buffer of a rawRequest.
type received struct{ buf mem.Buffer }

func (r *received) keep(buf mem.Buffer) { r.buf = buf }

func (r *received) release() {
	if r.buf != nil { // nil: gRPC failed before it had a message
		r.buf.Free()
		r.buf = nil
	}
}

// body is the request as it arrived.
func (r *received) body() []byte { return r.buf.ReadOnlyData() }

type rangeRequest struct {
	pb.RangeRequest
	received
}

func (r *rangeRequest) receive(body []byte) error {
	if request.Range(body, &r.RangeRequest) {
		return nil
	}
	return proto.Unmarshal(body, &r.RangeRequest)
}

type putRequest struct {
	pb.PutRequest
	received
	write
}

func (r *putRequest) receive(body []byte) error {
	if request.Put(body, &r.PutRequest) {
		return nil
	}
	return proto.Unmarshal(body, &r.PutRequest)
}

type deleteRequest struct {
	pb.DeleteRangeRequest
	received
	write
}

func (r *deleteRequest) receive(body []byte) error {
	if request.DeleteRange(body, &r.DeleteRangeRequest) {
		return nil
	}
	return proto.Unmarshal(body, &r.DeleteRangeRequest)
}

// txnRequest has room for what apiservers send.
type txnRequest struct {
	request.Txn
	received
	write
}

func (t *txnRequest) receive(body []byte) error {
	if t.Decode(body) {
		return nil
	}
	return proto.Unmarshal(body, &t.TxnRequest)
}
