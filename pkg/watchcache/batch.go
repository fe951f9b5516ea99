package watchcache

import "github.com/kubeshim/shim/pkg/raftstore/mvcc"

// BatchKind says what a Batch answers.
type BatchKind uint8

const (
	// BatchCreated answers Create. With Err set the watch was refused: it is
	// cancelled too, and WatchID is NoWatchID.
	BatchCreated BatchKind = iota + 1
	// BatchEvents carries Events, whole revisions in order.
	BatchEvents
	// BatchProgress promises that all events up to Revision were returned by Next:
	// of one watch, or of all of the stream when WatchID is NoWatchID.
	BatchProgress
	// BatchCancelled answers Cancel, or ends a watch whose next revision was
	// compacted (CompactRevision is then not 0, and Revision is, as etcd has it).
	BatchCancelled
)

// NoWatchID is the watch ID of answers which concern no watch, or all.
const NoWatchID int64 = -1

// Batch is one thing to tell the client.
type Batch struct {
	Kind            BatchKind
	WatchID         int64
	Revision        mvcc.Revision // for the header
	CompactRevision mvcc.Revision
	Err             error // mvcc.ErrCompacted, ErrEmptyRange or ErrDuplicateID
	Fragment        bool  // the client accepts the batch in several messages
	// Events are the fields of a WatchResponse that hold the events. The slice is
	// valid until the next call of Next, what it holds longer.
	Events []*Frame
}

// CreateRequest asks for a watch. Key, RangeEnd and ID are as on the wire: an
// empty key is "\x00", no range end is the one key, "\x00" is no bound, ID 0 lets
// the stream choose.
type CreateRequest struct {
	ID                               int64
	Key, RangeEnd                    []byte
	StartRevision                    mvcc.Revision // 0: after the current one
	PrevKV, Fragment, ProgressNotify bool
	NoPut, NoDelete                  bool
}
