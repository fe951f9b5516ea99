package conformance

import (
	"cmp"
	"context"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/test/conformance/script"
	"github.com/kubeshim/shim/test/internal/peers"
)

const (
	watchRounds    = 8  // of streams that are opened, used, and compared
	watchSteps     = 24 // in each
	watchStreams   = 2  // in each
	watchWait      = 20 * time.Second
	progressAgain  = 50 * time.Millisecond // etcd says nothing while a watch catches up
	requestBytes   = 1 << 18
	fragmentBytes  = requestBytes + 512<<10 // a response of a watch that asks for fragments is no larger, unless it is one event
	largeBytes     = 120_000
	watchIDUnknown = -1
)

var sideNames = [2]string{"etcd", "shim"}

// TestRandomWatches opens the same watches on etcd and shim, several on a stream,
// while both are written to and compacted: of keys and ranges, from the past, the
// future and what is compacted, with filters, prev_kv and fragments. It compares
// all that each watch says, in its order, and each answer to a request for progress.
//
// Nothing is compared before it has come: which events a watch is to see follows
// from those that a watch of everything has seen.
func TestRandomWatches(t *testing.T) {
	for _, seed := range seeds(1, 2, 3) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			w := &watchers{t: t, generator: newGenerator(seed)}
			for i, binary := range []string{peers.Path(t, "etcd"), shimPath(t)} {
				s, err := script.Start(binary, t.TempDir(), []string{fmt.Sprintf("--max-request-bytes=%d", requestBytes)})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(s.Kill)
				conn, err := grpc.NewClient(s.ClientAddress(), grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				w.sides[i] = conn
			}
			w.converse()
		})
	}
}

// watchers is two servers that hear the same.
type watchers struct {
	*generator
	t         *testing.T
	sides     [2]*grpc.ClientConn // etcd, shim
	all       [2]*watched         // a watch of everything
	streams   []*stream
	compacted int
	log       []string
}

// stream is a stream on both.
type stream struct {
	sides [2]*watched
	live  map[int64]*liveWatch // by ID
	over  map[int64]bool       // cancelled by a compaction; etcd keeps these until the client cancels them, too
}

func (w *watchers) openBoth() *stream {
	return &stream{sides: [2]*watched{w.open(0), w.open(1)}, live: map[int64]*liveWatch{}, over: map[int64]bool{}}
}

// ids are those that can be cancelled.
func (s *stream) ids() []int64 {
	ids := slices.AppendSeq(slices.Collect(maps.Keys(s.live)), maps.Keys(s.over))
	slices.Sort(ids)
	return ids
}

// liveWatch is a watch, the first revision it sees, and how many events others
// with its ID had before.
type liveWatch struct {
	*pb.WatchCreateRequest
	from   int64
	before [2]int
}

// watched is a stream on one, and what came on it.
type watched struct {
	pb.Watch_WatchClient
	got      chan *pb.WatchResponse
	control  []string
	events   map[int64][]string
	history  []*mvccpb.Event // of the watch of everything
	parts    map[int64]bool  // by ID: the last response was not all of it
	last     map[int64]int64 // by ID: the last revision of which all has come
	progress []int64
	asked    int // for progress, where there is some
}

func (w *watchers) open(i int) *watched {
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	s, err := pb.NewWatchClient(w.sides[i]).Watch(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	x := &watched{Watch_WatchClient: s, got: make(chan *pb.WatchResponse, 1), events: map[int64][]string{}, parts: map[int64]bool{}, last: map[int64]int64{}}
	go func() {
		defer close(x.got)
		for {
			r, err := s.Recv()
			if err != nil {
				return
			}
			select {
			case x.got <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	return x
}

func (w *watchers) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\n%s\nrun again with -seed %d", fmt.Sprintf(format, args...), strings.Join(w.log, "\n"), w.seed)
}

func (w *watchers) logf(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

// await takes responses until there is what was waited for. again is called now
// and then meanwhile.
func (w *watchers) await(x *watched, what string, done func() bool, again func()) {
	w.t.Helper()
	late := time.NewTimer(watchWait)
	defer late.Stop()
	tick := time.NewTicker(progressAgain)
	defer tick.Stop()
	for !done() {
		select {
		case r, ok := <-x.got:
			if !ok {
				w.fatalf("%s: the stream ended", what)
			}
			w.take(x, r)
		case <-tick.C:
			if again != nil {
				again()
			}
		case <-late.C:
			w.fatalf("%s: nothing came within %v; had %v", what, watchWait, x.control)
		}
	}
}

// take notes a response.
func (w *watchers) take(x *watched, r *pb.WatchResponse) {
	h := r.GetHeader()
	if h.GetClusterId() == 0 || h.GetMemberId() == 0 || h.GetRaftTerm() == 0 {
		w.fatalf("incomplete header: %v", r)
	}
	for id, more := range x.parts {
		if more && id != r.WatchId {
			w.fatalf("watch %d goes on within a response of watch %d", r.WatchId, id)
		}
	}
	x.parts[r.WatchId] = r.Fragment
	if len(r.Events) == 0 {
		if !r.Created && !r.Canceled && r.CompactRevision == 0 {
			if r.WatchId != watchIDUnknown {
				w.fatalf("%v", r)
			}
			x.progress = append(x.progress, h.GetRevision())
			return
		}
		if r.Created {
			delete(x.last, r.WatchId)
		}
		x.control = append(x.control, fmt.Sprintf("watch %d: revision %d, created %t, canceled %t, compacted %d, %q, fragment %t",
			r.WatchId, h.GetRevision(), r.Created, r.Canceled, r.CompactRevision, r.CancelReason, r.Fragment))
		return
	}
	if r.Created || r.Canceled || r.CompactRevision != 0 {
		w.fatalf("events came with a change of watch %d", r.WatchId)
	}
	if r.Fragment && proto.Size(r) > fragmentBytes && len(r.Events) > 1 {
		w.fatalf("a fragment of %d bytes", proto.Size(r))
	}
	if first := r.Events[0].Kv.ModRevision; first <= x.last[r.WatchId] {
		w.fatalf("watch %d: revision %d comes in parts, or again", r.WatchId, first)
	}
	if !r.Fragment {
		x.last[r.WatchId] = r.Events[len(r.Events)-1].Kv.ModRevision
	}
	for _, e := range r.Events {
		if e.Kv.ModRevision > h.GetRevision() {
			w.fatalf("header %d is below event %v", h.GetRevision(), e)
		}
		x.events[r.WatchId] = append(x.events[r.WatchId], eventText(e))
	}
	if x == w.all[0] || x == w.all[1] {
		x.history = append(x.history, r.Events...)
	}
}

func eventText(e *mvccpb.Event) string {
	return fmt.Sprintf("%v %s before %s", e.Type, versionText(e.Kv), versionText(e.PrevKv))
}

func versionText(kv *mvccpb.KeyValue) string {
	if kv == nil {
		return "nothing"
	}
	return fmt.Sprintf("%q=%d:%08x lease %d created %d modified %d version %d", kv.Key, len(kv.Value), crc32.ChecksumIEEE(kv.Value),
		kv.Lease, kv.CreateRevision, kv.ModRevision, kv.Version)
}

func (w *watchers) converse() {
	all := w.openBoth()
	w.all = all.sides
	w.create(all, &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true})
	w.write()
	w.write()
	w.compact(w.revision)
	for range watchRounds {
		w.log = nil
		for range watchStreams {
			w.streams = append(w.streams, w.openBoth())
		}
		for range watchSteps {
			w.step()
		}
		for _, s := range w.streams {
			w.catchUp(s)
			for _, id := range s.ids() {
				w.cancel(s, id)
			}
			w.compare(s)
		}
		w.streams = nil
	}
	w.compare(all)
}

// step does one thing.
func (w *watchers) step() {
	s := pick(w.generator, w.streams...)
	switch n := w.r.IntN(20); {
	case n < 7:
		w.create(s, w.request())
	case n < 9:
		id := pick(w.generator, append(s.ids(), 77, math.MinInt64)...)
		w.catchUp(s)
		w.cancel(s, id)
	case n < 10:
		w.logf("an empty request")
		for _, x := range s.sides {
			if err := x.Send(&pb.WatchRequest{}); err != nil {
				w.fatalf("%v", err)
			}
		}
	case n < 12:
		w.askProgress(s)
	case n < 13:
		if c := w.compacted + 1 + w.r.IntN(4); c <= w.revision && w.allCaughtUp() {
			w.compact(c)
		}
	default:
		w.write()
	}
}

// request is a watch of any kind.
func (w *watchers) request() *pb.WatchCreateRequest {
	rev, compacted := int64(w.revision), int64(w.compacted)
	c := &pb.WatchCreateRequest{
		Key:      []byte(pick(w.generator, "a", "a", "b", "b", "c", "a\x00", "\x00", "\xff", "")),
		RangeEnd: []byte(pick(w.generator, "", "", "\x00", "\x00", "b", "c", "z", "\xff", "a\x00", "a")),
		PrevKv:   w.oneIn(2), Fragment: w.oneIn(3), ProgressNotify: w.oneIn(3),
		WatchId: pick[int64](w.generator, 0, 0, 0, 0, 1, 2, 3, -1, -2, math.MaxInt64, math.MinInt64),
		StartRevision: pick[int64](w.generator, 0, 0, 0, -1, math.MinInt64, math.MaxInt64, 1, rev, rev+1, rev+2, rev-1, rev-3, rev-10,
			compacted, compacted+1, compacted-1, 1+w.r.Int64N(rev)),
	}
	for range w.r.IntN(3) {
		c.Filters = append(c.Filters, pb.WatchCreateRequest_FilterType(w.r.IntN(3)))
	}
	return c
}

// create creates a watch, and waits until it is, or is refused.
func (w *watchers) create(s *stream, c *pb.WatchCreateRequest) {
	w.logf("at %d create %v", w.revision, c)
	want := 1
	if c.StartRevision != 0 && c.StartRevision < int64(w.compacted) {
		want = 2 // it is created, and cancelled when it looks for what it has to send
	}
	before := [2]int{len(s.sides[0].control), len(s.sides[1].control)}
	for i, x := range s.sides {
		if err := x.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: c}}); err != nil {
			w.fatalf("%v", err)
		}
		w.await(x, "create on "+sideNames[i], func() bool {
			n := len(x.control) - before[i]
			return n >= want || n == 1 && strings.Contains(x.control[before[i]], "canceled true")
		}, nil)
	}
	e, o := s.sides[0].control[before[0]:], s.sides[1].control[before[1]:]
	if !slices.Equal(e, o) {
		w.fatalf("etcd: %v\nshim: %v", e, o)
	}
	var id int64
	if _, err := fmt.Sscanf(e[0], "watch %d:", &id); err != nil {
		w.fatalf("%v", err)
	}
	switch {
	case len(e) == 2:
		s.over[id] = true
	case !strings.Contains(e[0], "canceled true"):
		s.live[id] = &liveWatch{c, cmp.Or(c.StartRevision, int64(w.revision)+1), [2]int{len(s.sides[0].events[id]), len(s.sides[1].events[id])}}
	}
}

// cancel cancels a watch, and waits until it is. Of a watch that is not there
// nothing is said.
func (w *watchers) cancel(s *stream, id int64) {
	w.logf("cancel %d", id)
	isKnown := s.live[id] != nil || s.over[id]
	delete(s.live, id)
	delete(s.over, id)
	for _, x := range s.sides {
		if err := x.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}); err != nil {
			w.fatalf("%v", err)
		}
		if n := len(x.control); isKnown {
			w.await(x, "cancel", func() bool { return len(x.control) > n }, nil)
		}
	}
}

// write is a txn of puts and deletes, of which some are large.
func (w *watchers) write() {
	req := &pb.TxnRequest{}
	used := map[string]bool{}
	for range 1 + w.r.IntN(4) {
		k := pick(w.generator, "a", "a", "b", "b", "c", "a\x00", "\x00", "\xff")
		if used[k] {
			continue
		}
		used[k] = true
		value := fmt.Sprint(len(w.log))
		if len(req.Success) < 2 && w.oneIn(2) {
			value = strings.Repeat(value[:1], largeBytes)
		}
		op := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(k), Value: []byte(value)}}}
		if w.oneIn(3) {
			op = &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(k)}}}
		}
		req.Success = append(req.Success, op)
	}
	var revs [2]int64
	for i, conn := range w.sides {
		resp, err := pb.NewKVClient(conn).Txn(context.Background(), req)
		if err != nil {
			w.fatalf("%v", err)
		}
		revs[i] = resp.Header.Revision
	}
	if revs[0] != revs[1] {
		w.fatalf("revision %d on etcd, %d on shim", revs[0], revs[1])
	}
	w.revision = int(revs[0])
	w.logf("%d: %d operations", w.revision, len(req.Success))
	for _, x := range w.all {
		w.await(x, "the watch of everything", func() bool {
			n := len(x.history)
			return revs[0] == 1 || n > 0 && x.history[n-1].Kv.ModRevision == revs[0]
		}, nil)
	}
}

func (w *watchers) compact(to int) {
	w.logf("compact %d", to)
	for _, conn := range w.sides {
		if _, err := pb.NewKVClient(conn).Compact(context.Background(), &pb.CompactionRequest{Revision: int64(to), Physical: true}); err != nil {
			w.fatalf("%v", err)
		}
	}
	w.compacted = to
}

// catchUp waits until each watch of a stream has sent what it has to.
func (w *watchers) catchUp(s *stream) {
	for id, c := range s.live {
		want := 0
		for _, e := range w.all[0].history {
			if c.sees(e) {
				want++
			}
		}
		for i, x := range s.sides {
			w.await(x, fmt.Sprintf("%d events of watch %d", want, id), func() bool { return len(x.events[id])-c.before[i] >= want }, nil)
		}
	}
}

// sees says whether an event is for a watch.
func (c *liveWatch) sees(e *mvccpb.Event) bool {
	key, end, k := string(c.Key), string(c.RangeEnd), string(e.Kv.Key)
	if key == "" {
		key = "\x00"
	}
	inside := k == key
	switch {
	case end == "\x00":
		inside = k >= key
	case end != "":
		inside = k >= key && k < end
	}
	filtered := slices.Contains(c.Filters, pb.WatchCreateRequest_NOPUT) && e.Type == mvccpb.Event_PUT ||
		slices.Contains(c.Filters, pb.WatchCreateRequest_NODELETE) && e.Type == mvccpb.Event_DELETE
	return inside && !filtered && e.Kv.ModRevision >= c.from
}

// waits says whether etcd tells of no progress: as it does where a watch begins
// in the future, or was cancelled by a compaction, and where there is none.
func (w *watchers) waits(s *stream) bool {
	for _, c := range s.live {
		if c.StartRevision > int64(w.revision) {
			return true
		}
	}
	return len(s.over) > 0 || len(s.live) == 0
}

// askProgress asks how far the stream is until it is told so. Where it is not to be
// told it asks as well, and compare sees that no answer has come.
func (w *watchers) askProgress(s *stream) {
	w.catchUp(s)
	waits := w.waits(s)
	w.logf("progress at %d, waits: %t", w.revision, waits)
	for i, x := range s.sides {
		ask := func() {
			if err := x.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}); err != nil {
				w.fatalf("%v", err)
			}
		}
		if ask(); waits {
			continue
		}
		before := x.asked // of as many answers some may come late
		x.asked++
		w.await(x, "progress of "+sideNames[i], func() bool { return len(x.progress) > before && x.progress[len(x.progress)-1] == int64(w.revision) },
			func() { ask(); x.asked++ })
	}
	if waits { // an answer that is refused comes behind that request, which finds the watches as they are now
		w.create(s, &pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")})
	}
}

// allCaughtUp waits until no watch is behind. It cannot tell of streams with one
// that begins in the future, and says no.
func (w *watchers) allCaughtUp() bool {
	for _, s := range w.streams {
		if len(s.live) > 0 && w.waits(s) {
			return false
		}
	}
	for _, s := range w.streams {
		if len(s.live) > 0 {
			w.askProgress(s)
		}
	}
	return true
}

// compare holds what came on the two sides of a stream against each other.
func (w *watchers) compare(s *stream) {
	var texts [2]string
	for i, x := range s.sides {
		var ids []int64
		for id := range x.events {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		if len(x.progress) > x.asked {
			w.fatalf("%s tells of progress at %v, and was asked %d times", sideNames[i], x.progress, x.asked)
		}
		texts[i] = strings.Join(x.control, "\n")
		for _, id := range ids {
			texts[i] += fmt.Sprintf("\nevents of %d\n  %s", id, strings.Join(x.events[id], "\n  "))
		}
	}
	if texts[0] != texts[1] {
		w.fatalf("etcd:\n%s\nshim:\n%s", texts[0], texts[1])
	}
	if testing.Verbose() {
		w.t.Logf("%s\n%s", strings.Join(w.log, "\n"), texts[0])
	}
}
