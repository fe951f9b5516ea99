package raftstore

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Command is a write on its way into the log.
type Command struct {
	// Kind says which member of InternalRaftRequest it is.
	Kind mvcc.Kind
	// Request is the decoded form, which is applied if the call still waits. Nothing refers to it, or to bytes in it, once Propose has
	// returned; until then it must not change.
	Request *pb.InternalRaftRequest
	// Body is the wire encoding of the member, as it arrived. It is copied; the caller may reuse it after Propose.
	// Nil: it is marshalled from Request.
	Body []byte
	// Trace takes what the command has waited for. Nil: nobody wants to know.
	Trace *Trace
}
