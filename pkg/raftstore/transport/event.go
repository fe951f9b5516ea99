package transport

import (
	"fmt"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3/raftpb"
)

// Event is something worth a line in a log. The types below are all there are.
type Event interface{ String() string }

// Connected: messages reach the peer.
type Connected struct {
	Peer    types.ID
	URL     string
	Version string // of the peer
}

func (e Connected) String() string {
	return fmt.Sprintf("connected to peer %s (%s) at %s", e.Peer, e.Version, e.URL)
}

// Disconnected: a link was lost.
type Disconnected struct {
	Peer  types.ID
	URL   string
	Err   error
	Lived time.Duration
}

func (e Disconnected) String() string {
	return fmt.Sprintf("lost peer %s at %s after %v: %v", e.Peer, e.URL, e.Lived.Round(time.Millisecond), e.Err)
}

// DialFailed: no URL of the peer led to it. It is told once per reason.
type DialFailed struct {
	Peer types.ID
	Err  error
}

func (e DialFailed) String() string {
	return fmt.Sprintf("cannot connect to peer %s: %v", e.Peer, e.Err)
}

// Refused: a stream that somebody opened to this member was refused, or ended. Who goes on trying is told of rarely.
type Refused struct {
	From    types.ID // as claimed
	Cluster types.ID // as claimed
	Err     error
	Untold  int // refusals of the same kind since the last one that was told
}

func (e Refused) String() string {
	if e.Untold > 0 {
		return fmt.Sprintf("refused member %s of cluster %s: %v (and %d times before)", e.From, e.Cluster, e.Err, e.Untold)
	}
	return fmt.Sprintf("refused member %s of cluster %s: %v", e.From, e.Cluster, e.Err)
}

// MessageTooLarge: a message is larger than any member takes, and was dropped. The peer cannot get on without it.
type MessageTooLarge struct {
	Peer  types.ID
	Type  raftpb.MessageType
	Bytes int
}

func (e MessageTooLarge) String() string {
	return fmt.Sprintf("dropped %v of %d bytes to peer %s: too large", e.Type, e.Bytes, e.Peer)
}

// SnapshotDone: a snapshot was sent or received, or was not.
type SnapshotDone struct {
	Peer     types.ID
	Received bool // false: sent
	Index    uint64
	Bytes    int64
	Took     time.Duration
	Err      error
}

func (e SnapshotDone) String() string {
	verb := "sent snapshot to"
	if e.Received {
		verb = "received snapshot from"
	}
	if e.Err != nil {
		return fmt.Sprintf("%s peer %s at index %d: failed after %v: %v", verb, e.Peer, e.Index, e.Took.Round(time.Millisecond), e.Err)
	}
	return fmt.Sprintf("%s peer %s at index %d: %d bytes in %v", verb, e.Peer, e.Index, e.Bytes, e.Took.Round(time.Millisecond))
}
