package robustness

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
)

// watchSpec is what a watcher asks for.
type watchSpec struct {
	name       string
	key, end   string
	from       int64 // 0: from now on
	prev       bool
	fragment   bool
	notify     bool
	noPut      bool
	noDelete   bool
	clientsID  int64 // a watch ID of the client's choice
	everything bool  // its events are the history
}

func (s watchSpec) matches(e *mvccpb.Event) bool {
	if s.noPut && e.Type == mvccpb.Event_PUT || s.noDelete && e.Type == mvccpb.Event_DELETE {
		return false
	}
	k, end := string(e.Kv.Key), s.end
	switch end {
	case "":
		return k == s.key
	case "\x00":
		return k >= s.key
	}
	return k >= s.key && k < end
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

// watcher keeps all that it got, over all streams.
type watcher struct {
	spec watchSpec

	mu    sync.Mutex
	items []watchItem
	next  int64 // where to go on, as clientv3 counts
}

func (w *watcher) position() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.next
}

// promised is the newest progress.
func (w *watcher) promised() (rev int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, it := range w.items {
		if it.progress {
			rev = max(rev, it.rev)
		}
	}
	return rev
}

func (w *watcher) add(it watchItem) {
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

// watchClient is one stream with some watchers, made anew whenever it breaks.
type watchClient struct {
	api      pb.WatchClient
	watchers []*watcher
	problem  func(string, ...any)
}

func newWatchClient(conn *grpc.ClientConn, problem func(string, ...any), specs ...watchSpec) *watchClient {
	c := &watchClient{api: pb.NewWatchClient(conn), problem: problem}
	for _, s := range specs {
		c.watchers = append(c.watchers, &watcher{spec: s, next: s.from})
	}
	return c
}

// run goes on until ctx is done.
func (c *watchClient) run(ctx context.Context) {
	for session := 0; ctx.Err() == nil; session++ {
		c.session(ctx, session)
	}
}

// session is the life of one stream.
func (c *watchClient) session(ctx context.Context, session int) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.api.Watch(ctx, grpc.WaitForReady(true))
	if err != nil {
		return
	}
	froms := make([]int64, len(c.watchers))
	for i, w := range c.watchers {
		froms[i] = w.position()
		if stream.Send(w.spec.request(froms[i])) != nil {
			return
		}
	}
	asked := make(chan struct{})
	defer func() { cancel(); <-asked }()
	go func() {
		defer close(asked)
		askForProgress(ctx, stream)
	}()
	byID := make(map[int64]*watcher)
	created := 0
	for {
		r, err := stream.Recv()
		if err != nil {
			return
		}
		switch w := byID[r.WatchId]; {
		case r.Created:
			if created == len(c.watchers) || r.Canceled {
				c.problem("a watch was answered with %v", r)
				return
			}
			w = c.watchers[created]
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

func (s watchSpec) request(from int64) *pb.WatchRequest {
	r := &pb.WatchCreateRequest{Key: []byte(s.key), RangeEnd: []byte(s.end), StartRevision: from, PrevKv: s.prev,
		Fragment: s.fragment, ProgressNotify: s.notify, WatchId: s.clientsID}
	if s.noPut {
		r.Filters = append(r.Filters, pb.WatchCreateRequest_NOPUT)
	}
	if s.noDelete {
		r.Filters = append(r.Filters, pb.WatchCreateRequest_NODELETE)
	}
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}
}

// check compares what the watcher got with the history: etcd's promises, by their names in its documentation.
func (w *watcher) check(h *history) (problems []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := &watchCheck{spec: w.spec, h: h}
	for i := range w.items {
		v.item(&w.items[i])
	}
	v.end()
	return v.problems
}

// watchCheck goes through the responses of one watcher. Since the events have to be exactly those of the history from the first
// revision on, in its order, over all streams, they are ordered, unique, reliable and resumable at once.
type watchCheck struct {
	spec     watchSpec
	h        *history
	problems []string

	begun    bool
	expected []*mvccpb.Event // those still to come
	last     int64           // mod revision of the last event
	open     bool            // the last response was a fragment
	progress int64           // the newest progress
	events   int
	session  int
	pieces   int // events of revision last that came in fragments so far, given again if the stream breaks here
}

func (v *watchCheck) problem(format string, args ...any) {
	if len(v.problems) < 10 {
		v.problems = append(v.problems, fmt.Sprintf("watch %s: ", v.spec.name)+fmt.Sprintf(format, args...))
	}
}

func (v *watchCheck) begin(from int64) {
	v.begun = true
	for _, e := range v.h.events {
		if e.Kv.ModRevision >= from && v.spec.matches(e) {
			v.expected = append(v.expected, e)
		}
	}
}

func (v *watchCheck) item(it *watchItem) {
	if it.session != v.session {
		v.session = it.session
		if v.open { // the revision was not complete when the stream broke, and is given again
			v.expected = slices.Concat(v.h.eventsAt(v.last, v.spec)[:v.pieces], v.expected)
			v.events -= v.pieces
			v.last, v.open, v.pieces = v.last-1, false, 0
		}
	}
	switch {
	case it.created:
		if !v.begun {
			from := it.from
			if from == 0 { // from now on: everything behind the revision that the header names
				from = it.rev + 1
			}
			v.begin(from)
		}
	case it.progress:
		v.atProgress(it.rev)
	default:
		v.atEvents(it)
	}
}

// atProgress: bookmarkable.
func (v *watchCheck) atProgress(rev int64) {
	if v.open {
		v.problem("progress %d between the fragments of revision %d", rev, v.last)
	}
	if len(v.expected) > 0 && v.expected[0].Kv.ModRevision <= rev {
		v.problem("progress %d came before the event of revision %d", rev, v.expected[0].Kv.ModRevision)
	}
	v.progress = max(v.progress, rev)
}

func (v *watchCheck) atEvents(it *watchItem) {
	if !v.begun {
		v.problem("events before the watch was created")
		return
	}
	first, last := it.events[0].Kv.ModRevision, it.events[len(it.events)-1].Kv.ModRevision
	switch {
	case v.open && first != v.last:
		v.problem("revision %d is not complete when revision %d begins", v.last, first)
	case !v.open && first <= v.last:
		v.problem("revision %d comes in a second response, not atomic", first)
	}
	if it.rev < last {
		v.problem("event of revision %d in a response of revision %d", last, it.rev)
	}
	if it.fragment && !v.spec.fragment {
		v.problem("revision %d is in fragments that nobody asked for", last)
	}
	for _, e := range it.events {
		v.event(e)
	}
	v.open = it.fragment
	if !v.open {
		v.pieces = 0
		if len(v.expected) > 0 && v.expected[0].Kv.ModRevision <= v.last {
			v.problem("a response ends in the middle of revision %d, not atomic", v.last)
		}
	}
}

func (v *watchCheck) event(e *mvccpb.Event) {
	rev := e.Kv.ModRevision
	if rev <= v.progress {
		v.problem("event of revision %d after progress %d", rev, v.progress)
	}
	if rev != v.last {
		v.pieces = 0
	}
	v.pieces++
	v.events++
	if rev < v.last {
		v.problem("revision %d after %d, not ordered", rev, v.last)
	}
	v.last = rev
	if len(v.expected) == 0 {
		v.problem("event of revision %d, key %q, that is not to come", rev, e.Kv.Key)
		return
	}
	want := v.expected[0]
	if want.Kv.ModRevision != rev {
		v.problem("event of revision %d (key %q), and the next one is revision %d (key %q)", rev, e.Kv.Key, want.Kv.ModRevision, want.Kv.Key)
		return
	}
	v.expected = v.expected[1:]
	if e.Type != want.Type || !equal(e.Kv, want.Kv) {
		v.problem("event %v instead of %v", e, want)
	}
	prev := v.h.before(rev, string(e.Kv.Key))
	if !v.spec.prev {
		prev = nil
	}
	if !equal(e.PrevKv, prev) {
		v.problem("event of revision %d, key %q, has previous %v, and it was %v", rev, e.Kv.Key, e.PrevKv, prev)
	}
}

func (v *watchCheck) end() {
	if len(v.expected) > 0 {
		v.problem("%d events are missing, from revision %d on (key %q)", len(v.expected), v.expected[0].Kv.ModRevision, v.expected[0].Kv.Key)
	}
	if v.progress < v.h.last() {
		v.problem("progress %d at the end, and the last revision is %d", v.progress, v.h.last())
	}
}
