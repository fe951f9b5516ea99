package history

import (
	"context"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// WatchSpec is what a watcher asks for.
type WatchSpec struct {
	Name      string
	Key, End  string
	From      int64 // 0: from now on
	Prev      bool
	Fragment  bool
	Notify    bool
	NoPut     bool
	NoDelete  bool
	ClientsID int64 // a watch ID of the client's choice
}

func (s WatchSpec) matches(e *mvccpb.Event) bool {
	if s.NoPut && e.Type == mvccpb.Event_PUT || s.NoDelete && e.Type == mvccpb.Event_DELETE {
		return false
	}
	k, end := string(e.Kv.Key), s.End
	switch end {
	case "":
		return k == s.Key
	case "\x00":
		return k >= s.Key
	}
	return k >= s.Key && k < end
}

// watchItem is one response that a watcher got.
type watchItem struct {
	session  int   // of the stream
	from     int64 // of created: what was asked for
	created  bool
	progress bool
	fragment bool  // more of the same revision follow
	rev      int64 // of the header
	events   []*mvccpb.Event
}

// Watcher keeps all that it got, over all streams.
type Watcher struct {
	Spec WatchSpec
	// EndsEarly: it went before the end, so that it need not have been promised the last revision.
	EndsEarly bool

	mu    sync.Mutex
	items []watchItem
	next  int64 // where to go on, as clientv3 counts
}

// Position is where the watch would go on.
func (w *Watcher) Position() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.next
}

// Promised is the newest progress.
func (w *Watcher) Promised() (rev int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, it := range w.items {
		if it.progress {
			rev = max(rev, it.rev)
		}
	}
	return rev
}

func (w *Watcher) add(it watchItem) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.items = append(w.items, it)
	switch {
	case it.created:
		if w.next == 0 {
			w.next = it.rev
		}
	case len(it.events) == 0:
		w.next = max(w.next, it.rev+1)
	case !it.fragment:
		w.next = it.events[len(it.events)-1].Kv.ModRevision + 1
	}
	if len(it.events) > 0 && it.fragment { // the revision is not complete: ask for it again
		w.next = it.events[len(it.events)-1].Kv.ModRevision
	}
}

// WatchClient is one stream with some watchers, made anew whenever it breaks.
type WatchClient struct {
	Watchers []*Watcher
	// RequireLeader has the member end the stream when it has had no leader for a while, as apiservers do. It must not change once Run is called.
	RequireLeader bool

	api     pb.WatchClient
	problem func(string, ...any)
}

// NewWatchClient watches the member that conn leads to; problem is told of answers that no watch should get.
func NewWatchClient(conn *grpc.ClientConn, problem func(string, ...any), specs ...WatchSpec) *WatchClient {
	c := &WatchClient{api: pb.NewWatchClient(conn), problem: problem}
	for _, s := range specs {
		c.Watchers = append(c.Watchers, &Watcher{Spec: s, next: s.From})
	}
	return c
}

// Run goes on until ctx is done.
func (c *WatchClient) Run(ctx context.Context) {
	for session := 0; ctx.Err() == nil; session++ {
		c.session(ctx, session)
		pause(ctx, retryPause)
	}
}

// session is the life of one stream.
func (c *WatchClient) session(ctx context.Context, session int) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if c.RequireLeader {
		ctx = metadata.AppendToOutgoingContext(ctx, rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
	}
	stream, err := c.api.Watch(ctx, grpc.WaitForReady(true))
	if err != nil {
		return
	}
	froms := make([]int64, len(c.Watchers))
	for i, w := range c.Watchers {
		froms[i] = w.Position()
		if stream.Send(w.Spec.Request(froms[i])) != nil {
			return
		}
	}
	asked := make(chan struct{})
	defer func() { cancel(); <-asked }()
	go func() {
		defer close(asked)
		askForProgress(ctx, stream)
	}()
	byID := make(map[int64]*Watcher)
	created := 0
	for {
		r, err := stream.Recv()
		if err != nil {
			return
		}
		switch w := byID[r.WatchId]; {
		case r.Created:
			if created == len(c.Watchers) || r.Canceled {
				c.problem("a watch was answered with %v", r)
				return
			}
			w = c.Watchers[created]
			w.add(watchItem{session: session, from: froms[created], created: true, rev: r.Header.Revision})
			byID[r.WatchId] = w
			created++
		case r.Canceled:
			c.problem("watch %d from %d was cancelled: %s (compacted %d)", r.WatchId, froms, r.CancelReason, r.CompactRevision)
			return
		case r.WatchId == -1: // progress of the whole stream
			for _, w := range byID {
				w.add(watchItem{session: session, progress: true, rev: r.Header.Revision})
			}
		case w == nil:
			c.problem("response for unknown watch %d", r.WatchId)
			return
		default:
			w.add(watchItem{session: session, progress: len(r.Events) == 0, fragment: r.Fragment, rev: r.Header.Revision, events: slices.Clone(r.Events)})
		}
	}
}

// askForProgress asks now and then, as apiservers do.
func askForProgress(ctx context.Context, stream pb.Watch_WatchClient) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		req := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
		if stream.Send(req) != nil {
			return
		}
	}
}

// Request asks for the watch from a revision on.
func (s WatchSpec) Request(from int64) *pb.WatchRequest {
	r := &pb.WatchCreateRequest{Key: []byte(s.Key), RangeEnd: []byte(s.End), StartRevision: from, PrevKv: s.Prev,
		Fragment: s.Fragment, ProgressNotify: s.Notify, WatchId: s.ClientsID}
	if s.NoPut {
		r.Filters = append(r.Filters, pb.WatchCreateRequest_NOPUT)
	}
	if s.NoDelete {
		r.Filters = append(r.Filters, pb.WatchCreateRequest_NODELETE)
	}
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}
}
