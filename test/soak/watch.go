package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/kubeshim/shim/test/internal/measure"
	"github.com/kubeshim/shim/test/soak/ledger"
)

// progressEvery is how often a watcher asks for a progress notification, as
// apiservers do while a list waits for their cache.
const progressEvery = 250 * time.Millisecond

// sink takes what a watch is told.
type sink interface {
	next() int64 // where it goes on
	take(r *pb.WatchResponse)
	promised(rev int64)
}

// watcher keeps one watch open over as many streams as it takes.
type watcher struct {
	conn  *grpc.ClientConn
	api   *api
	name  string
	key   []byte
	end   []byte
	prev  bool
	sink  sink
	known atomic.Int64 // the newest promise
}

type witness struct{ *ledger.Witness }

func (w witness) next() int64              { return w.Last() + 1 }
func (w witness) take(r *pb.WatchResponse) { w.Take(r.Events, time.Now()) }
func (w witness) promised(int64)           {}

type follower struct{ *ledger.Follower }

func (f follower) next() int64              { return f.Next() }
func (f follower) take(r *pb.WatchResponse) { f.Take(r.Events) }
func (f follower) promised(rev int64)       { f.Promised(rev) }

// watchers are the witness and those that apiservers have, each with a
// connection of its own.
type watchers struct {
	all  []*watcher
	done sync.WaitGroup
	stop context.CancelFunc
}

func startWatchers(ctx context.Context, addr string, a *api) (*watchers, error) {
	ctx, stop := context.WithCancel(ctx)
	ws := &watchers{stop: stop}
	everything := &watcher{name: "everything", key: []byte{0}, end: []byte{0}, sink: witness{a.book.Witness()}}
	ws.all = append(ws.all, everything)
	for i := range apiservers {
		for _, resource := range resources[:3] {
			prefix := "/registry/" + resource + "/"
			f := &ledger.Follower{Name: fmt.Sprintf("apiserver %d, %s", i, resource), Prefix: prefix, From: 2, Prev: true}
			a.book.Follow(f)
			ws.all = append(ws.all, &watcher{name: f.Name, key: []byte(prefix), end: measure.PrefixEnd(prefix), prev: true, sink: follower{f}})
		}
	}
	for _, w := range ws.all {
		conn, err := dial(addr)
		if err != nil {
			stop()
			return nil, err
		}
		w.conn, w.api = conn, a
		ws.done.Go(func() {
			defer conn.Close()
			for ctx.Err() == nil {
				w.session(ctx)
				pause(ctx, 20*time.Millisecond)
			}
		})
	}
	return ws, nil
}

// await waits until all were promised a revision.
func (ws *watchers) await(ctx context.Context, rev int64) error {
	for _, w := range ws.all {
		for w.known.Load() < rev {
			if !pause(ctx, 10*time.Millisecond) {
				return fmt.Errorf("watch %s has no promise of revision %d, only of %d", w.name, rev, w.known.Load())
			}
		}
	}
	return nil
}

// close ends the watches; what they got is the ledger's then.
func (ws *watchers) close() {
	ws.stop()
	ws.done.Wait()
}

// session is the life of one stream.
func (w *watcher) session(ctx context.Context) {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "hasleader", "true"))
	defer cancel()
	stream, err := openWatch(ctx, w.conn, w.key, w.end, w.sink.next(), w.prev)
	if err != nil {
		if ctx.Err() == nil {
			w.api.failed("watch "+w.name, err)
		}
		return
	}
	asked := make(chan struct{})
	defer func() { cancel(); <-asked }()
	go func() {
		defer close(asked)
		ask(ctx, stream)
	}()
	for {
		r, err := stream.Recv()
		switch {
		case err != nil:
			if ctx.Err() == nil {
				w.api.failed("watch "+w.name, err)
			}
			return
		case r.Canceled:
			w.api.book.Problem("watch %s was cancelled: %s, compacted %d", w.name, r.CancelReason, r.CompactRevision)
			return
		case len(r.Events) > 0:
			w.sink.take(r)
		default:
			w.sink.promised(r.Header.Revision)
			w.known.Store(r.Header.Revision)
		}
	}
}

// openWatch makes a stream with one watch, as an apiserver's.
func openWatch(ctx context.Context, conn *grpc.ClientConn, key, end []byte, from int64, prev bool) (pb.Watch_WatchClient, error) {
	stream, err := pb.NewWatchClient(conn).Watch(ctx, grpc.WaitForReady(true))
	if err != nil {
		return nil, err
	}
	create := &pb.WatchCreateRequest{Key: key, RangeEnd: end, StartRevision: from, PrevKv: prev, ProgressNotify: true}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		return nil, err
	}
	r, err := stream.Recv()
	if err == nil && (!r.Created || r.Canceled) {
		err = fmt.Errorf("a watch was answered with %v", r)
	}
	return stream, err
}

// ask asks for progress until the stream ends.
func ask(ctx context.Context, stream pb.Watch_WatchClient) {
	req := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
	for pause(ctx, progressEvery) && stream.Send(req) == nil {
	}
}
