// Package discovery finds out which members a new cluster starts with, when --initial-cluster does not say: from DNS SRV records
// (SRV), or from a discovery service (Join), which is any etcd that all members can reach. Both answer in the form of
// --initial-cluster, name=URL,...; what that means is package membership's business.
//
// # The discovery service
//
// Whoever wants a cluster chooses a token and writes its size. Members write themselves, and wait until there are as many as the
// size. The keys are those of etcd's v3 discovery, so members of both kinds find each other:
//
//	/_etcd/registry/TOKEN/_config/size       the number of members, decimal
//	/_etcd/registry/TOKEN/members/MEMBERID   name=URL,name=URL...
//
// MEMBERID is the ID, in hex, of a member with these URLs and the token: a member that starts again finds itself. When more members
// come than the size allows, the first ones by create revision are the cluster; the others fail.
//
// # Data flow
//
// Join reads the size and the members, writes its own key, reads again, and then alternates between watching the members' prefix
// and reading it, until the cluster is full. A watch says only that it is time to read again, so a broken or compacted watch costs
// a read and nothing else. Calls that fail are repeated for ever, with pauses of 2, 4, ... 256 s; only an answer that says the
// token is bad ends it (ErrSizeNotFound, ErrBadSizeKey, ErrFullCluster), or the context.
//
// The service is reached by the calls' raw gRPC stubs; etcd's client library would do it too, with 480 kB more of a binary.
//
// # Goroutines
//
// None but gRPC's own; both functions block.
//
// # Invariants
//
//  1. All members that come back from Join with the same token have the same answer.
//  2. Nothing is written before the size was read and the token found to have room.
//
// # Limits
//
// A call waits for RequestTimeout at most; see Options. Waiting for other members has no limit but the context.
package discovery
