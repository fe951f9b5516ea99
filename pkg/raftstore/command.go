package raftstore

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/auth"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Command is a write on its way into the log.
type Command struct {
	// Kind says which member of InternalRaftRequest it is.
	Kind mvcc.Kind
	// Request is the decoded form, which is applied if the call still waits. Nothing refers to it, or to bytes in it, once Propose has
	// returned; until then it must not change. Its Header is the store's.
	Request *pb.InternalRaftRequest
	// Body is the wire encoding of the member, as it arrived. It is copied; the caller may reuse it after Propose.
	// Nil: it is marshalled from Request.
	Body []byte
	// Trace takes what the command has waited for. Nil: nobody wants to know.
	Trace *Trace
	// Auth is who asks, which counts where the command is applied while auth is enabled. The zero Info, nobody, is not in the log.
	Auth auth.Info
}

// Tokens is the table of the simple tokens that users have been given. It is told of tokens in the order of the log by who applies, before the
// View of the entry is published, and not of entries that Open replays: no token outlives a restart. It must not block.
type Tokens interface {
	// Assign makes a token valid that the entry at the index has given to a user: what comes with it is to be answered from a View that
	// holds this index.
	Assign(username, token string, index uint64)
	// Invalidate makes the tokens of a user invalid, who was deleted or has another password.
	Invalidate(username string)
	// InvalidateAll makes all tokens invalid: auth was disabled, or a snapshot has brought other users and roles.
	InvalidateAll()
}

// noTokens is the table of a store that nobody asks for tokens.
type noTokens struct{}

func (noTokens) Assign(string, string, uint64) {}
func (noTokens) Invalidate(string)             {}
func (noTokens) InvalidateAll()                {}
