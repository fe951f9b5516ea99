package watchcache

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// TestStreams runs testdata/*.txt. Commands:
//
//	window events=N              a new store and hub with a window of N events
//	put|txn KEY... [value=V]     one revision; txn puts all keys
//	del KEY, compact rev=N
//	create s=NAME key=K [end=E] [rev=N] [id=N] [prev] [progress] [noput] [nodelete]
//	cancel s=NAME id=N, progress s=NAME, tick s=NAME
//	next s=NAME                  everything the stream has to say
//	stats
func TestStreams(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		r := &script{t: t, streams: map[string]*Stream{}}
		r.w = newWorld(t, Options{})
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return r.run(d) })
	})
}

type script struct {
	t       *testing.T
	w       *world
	streams map[string]*Stream
}

func (r *script) run(d *datadriven.TestData) string {
	var value string
	d.MaybeScanArgs(r.t, "value", &value)
	switch d.Cmd {
	case "window":
		var n int
		d.ScanArgs(r.t, "events", &n)
		r.w, r.streams = newWorld(r.t, Options{WindowEvents: n}), map[string]*Stream{}
		return ""
	case "put":
		r.w.apply(putReq(d.CmdArgs[0].Key, value))
	case "txn":
		var keys []string
		for _, a := range d.CmdArgs {
			if a.Key != "value" {
				keys = append(keys, a.Key)
			}
		}
		r.w.apply(txnReq(value, keys...))
	case "del":
		r.w.apply(delReq(d.CmdArgs[0].Key))
	case "compact":
		var rev int64
		d.ScanArgs(r.t, "rev", &rev)
		r.w.apply(compactReq(mvcc.Revision(rev)))
	case "stats":
		st := r.w.hub.Stats()
		var b strings.Builder
		fmt.Fprintf(&b, "streams=%d watchers=%d slow=%d events=%d pending=%d root=%d window=%d..(%d)\n",
			st.Streams, st.Watchers, st.Slow, st.Events, st.Pending, st.Root, st.WindowFrom, st.WindowEvents)
		for _, topic := range st.Topics {
			fmt.Fprintf(&b, "%s watchers=%d events=%d\n", topic.Prefix, topic.Watchers, topic.Events)
		}
		return b.String()
	default:
		return r.runStream(d)
	}
	return fmt.Sprintf("rev=%d", r.w.view.Load().Revision())
}

func (r *script) runStream(d *datadriven.TestData) string {
	var name string
	d.ScanArgs(r.t, "s", &name)
	s := r.streams[name]
	if s == nil {
		s = r.w.hub.NewStream()
		r.streams[name] = s
	}
	var id int64
	d.MaybeScanArgs(r.t, "id", &id)
	switch d.Cmd {
	case "create":
		var key, end string
		var rev int64
		d.MaybeScanArgs(r.t, "key", &key)
		d.MaybeScanArgs(r.t, "end", &end)
		d.MaybeScanArgs(r.t, "rev", &rev)
		s.Create(CreateRequest{
			ID: id, Key: []byte(key), RangeEnd: []byte(strings.ReplaceAll(end, "ZERO", "\x00")),
			StartRevision: mvcc.Revision(rev), PrevKV: d.HasArg("prev"), ProgressNotify: d.HasArg("progress"),
			NoPut: d.HasArg("noput"), NoDelete: d.HasArg("nodelete"),
		})
	case "cancel":
		s.Cancel(id)
	case "progress":
		s.RequestProgress()
	case "tick":
		s.Tick()
	case "close":
		s.Close()
	case "next":
		return r.next(s)
	default:
		r.t.Fatalf("unknown command %q", d.Cmd)
	}
	return ""
}

// next drains s, when the notifier is done.
func (r *script) next(s *Stream) string {
	h := r.w.hub
	for {
		h.mu.Lock()
		quiet := !h.notifying && h.notified.Load() == h.rev.Load()
		h.mu.Unlock()
		if quiet {
			break
		}
		runtime.Gosched()
	}
	var b strings.Builder
	for {
		batch, ok, err := s.step()
		if err != nil {
			fmt.Fprintf(&b, "error: %v\n", err)
		}
		if err != nil || !ok {
			return b.String()
		}
		writeBatch(r.t, &b, batch)
	}
}

func writeBatch(t *testing.T, b *strings.Builder, batch Batch) {
	names := map[BatchKind]string{
		BatchCreated: "created", BatchEvents: "events", BatchProgress: "progress", BatchCancelled: "cancelled",
	}
	fmt.Fprintf(b, "%s id=%d rev=%d", names[batch.Kind], batch.WatchID, batch.Revision)
	if batch.CompactRevision != 0 {
		fmt.Fprintf(b, " compacted=%d", batch.CompactRevision)
	}
	if batch.Err != nil {
		fmt.Fprintf(b, " refused: %v", batch.Err)
	}
	b.WriteByte('\n')
	evs, err := decodeFrames(batch.Events)
	if err != nil {
		t.Fatal(err)
	}
	for _, ev := range evs {
		if ev.Type == mvccpb.Event_DELETE {
			fmt.Fprintf(b, "  %d delete %s", ev.Kv.ModRevision, ev.Kv.Key)
		} else {
			fmt.Fprintf(b, "  %d put %s=%s version=%d", ev.Kv.ModRevision, ev.Kv.Key, ev.Kv.Value, ev.Kv.Version)
		}
		if ev.PrevKv != nil {
			fmt.Fprintf(b, " prev %d=%s", ev.PrevKv.ModRevision, ev.PrevKv.Value)
		}
		b.WriteByte('\n')
	}
}

// TestSlowStreamHoldsNothing: while one client does not read, writes, another
// client and its own later requests go on.
func TestSlowStreamHoldsNothing(t *testing.T) {
	w := newWorld(t, Options{WindowEvents: 10})
	slow, quick := w.hub.NewStream(), w.hub.NewStream()
	defer slow.Close()
	defer quick.Close()
	for _, s := range []*Stream{slow, quick} {
		s.Create(CreateRequest{RangeEnd: []byte{0}})
		if b := mustNext(t, s); b.Kind != BatchCreated {
			t.Fatalf("got %+v", b)
		}
	}
	const n = 200
	for i := range n {
		w.apply(putReq("k", fmt.Sprint(i)))
		for got := 0; got == 0; {
			got = len(mustNext(t, quick).Events)
		}
	}
	if st := w.hub.Stats(); st.WindowEvents != 10 {
		t.Fatalf("the window holds %d events", st.WindowEvents)
	}
	slow.RequestProgress()
	events := 0
	for {
		b := mustNext(t, slow)
		events += len(b.Events)
		if b.Kind == BatchProgress {
			if events != n || b.Revision != w.hub.Revision() {
				t.Fatalf("progress %d after %d events", b.Revision, events)
			}
			return
		}
	}
}

// TestProgressUnderWrites: a progress request is answered although writes never
// pause, and with the revision it was made at.
func TestProgressUnderWrites(t *testing.T) {
	w := newWorld(t, Options{})
	s := w.hub.NewStream()
	defer s.Close()
	for _, k := range []string{"a", "b"} {
		s.Create(CreateRequest{Key: []byte(k)})
		mustNext(t, s)
	}
	for i := range 100 {
		w.apply(putReq("a", "1"), putReq("b", "1"))
		s.RequestProgress()
		asked := w.hub.Revision()
		for {
			w.apply(putReq("a", "2"), putReq("b", "2")) // one more write for each read
			if b := mustNext(t, s); b.Kind == BatchProgress {
				if b.Revision < asked {
					t.Fatalf("request %d: progress %d, asked at %d", i, b.Revision, asked)
				}
				break
			} else if w.hub.Revision() > asked+100 {
				t.Fatalf("request %d at %d is not answered at %d", i, asked, w.hub.Revision())
			}
		}
	}
}

// TestCloseUnblocks: Close ends a Next that waits and a Create that has no room.
func TestCloseUnblocks(t *testing.T) {
	w := newWorld(t, Options{})
	waiting, full := w.hub.NewStream(), w.hub.NewStream()
	ended := make(chan error, 2)
	go func() {
		_, err := waiting.Next(context.Background())
		ended <- err
	}()
	go func() {
		for range controlQueueMax + 1 {
			full.Create(CreateRequest{Key: []byte("k")})
		}
		ended <- ErrStopped
	}()
	full.mu.Lock()
	for full.control.len() < controlQueueMax {
		full.mu.Unlock()
		runtime.Gosched()
		full.mu.Lock()
	}
	full.mu.Unlock()
	w.hub.Close()
	for range 2 {
		if err := <-ended; !errors.Is(err, ErrStopped) {
			t.Fatalf("ended with %v", err)
		}
	}
	late := w.hub.NewStream()
	if _, err := late.Next(context.Background()); !errors.Is(err, ErrStopped) {
		t.Fatalf("a stream of a closed hub: %v", err)
	}
	w.checkEmpty()
}

// TestNextEndsWithContext: with the cause, whether it ended before or meanwhile, and
// a later context works.
func TestNextEndsWithContext(t *testing.T) {
	w := newWorld(t, Options{})
	s := w.hub.NewStream()
	defer s.Close()
	cause := errors.New("no leader")
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := s.Next(ctx)
		ended <- err
	}()
	cancel(cause)
	if err := <-ended; !errors.Is(err, cause) {
		t.Fatalf("ended with %v", err)
	}
	if _, err := s.Next(ctx); !errors.Is(err, cause) {
		t.Fatalf("a context that had ended: %v", err)
	}
	s.Create(CreateRequest{Key: []byte("a")})
	if b := mustNext(t, s); b.Kind != BatchCreated {
		t.Fatalf("got %+v", b)
	}
}

// TestWaking: a sender is about to run from when an event woke it until it looks,
// and not while it waits for its client, or once its stream is closed.
func TestWaking(t *testing.T) {
	w := newWorld(t, Options{})
	parked, busy, closed := w.hub.NewStream(), w.hub.NewStream(), w.hub.NewStream()
	for _, s := range []*Stream{parked, busy, closed} {
		s.Create(CreateRequest{Key: []byte("a")})
		mustNext(t, s)
		if _, ok, _ := s.step(); ok {
			t.Fatal("there was something to send")
		}
		<-s.wakec // of Create
	}
	w.apply(putReq("a", "1"))
	for _, s := range []*Stream{parked, busy, closed} {
		<-s.wakec
	}
	if n := w.hub.waking.Load(); n != 3 {
		t.Fatalf("%d senders wake, want 3", n)
	}
	mustNext(t, busy) // and is sending from here on
	closed.Close()
	w.apply(putReq("a", "2"))
	w.awaitNotifier()
	if n := w.hub.waking.Load(); n != 1 {
		t.Fatalf("%d senders wake, want the one that has not looked", n)
	}
	parked.Close()
	busy.Close()
	w.checkEmpty()
}

// TestAnswersAndEventsTakeTurns: a client that makes and cancels watches faster than it reads gets the events of its other watches, the answer
// to its request for progress and its notifications between the answers, and what it has cancelled is not kept.
func TestAnswersAndEventsTakeTurns(t *testing.T) {
	w := newWorld(t, Options{})
	s := w.hub.NewStream()
	s.Create(CreateRequest{Key: []byte("a")})
	s.Create(CreateRequest{Key: []byte("b"), ProgressNotify: true})
	mustNext(t, s)
	mustNext(t, s)
	if _, ok, _ := s.step(); ok {
		t.Fatal("there was something to send")
	}
	last := int64(1)
	more := func() {
		s.Create(CreateRequest{Key: []byte("a"), StartRevision: 1})
		last++
		s.Cancel(last)
	}
	for range controlQueueMax/2 - 1 {
		more()
	}
	w.apply(putReq("a", "1"))
	w.awaitNotifier()
	s.RequestProgress()
	s.Tick()
	var events, promises, notifications int
	for range 50 * controlQueueMax {
		more()
		for range 2 {
			switch b := mustNext(t, s); {
			case b.Kind == BatchEvents && b.WatchID == 0:
				events++
			case b.Kind == BatchProgress && b.WatchID == NoWatchID:
				promises++
			case b.Kind == BatchProgress:
				notifications++
			case b.Kind == BatchEvents:
				t.Fatalf("events of watch %d, which was cancelled", b.WatchID)
			}
		}
		for s.control.len() > controlQueueMax-2 { // as a client that reads a little faster now and then
			mustNext(t, s)
		}
	}
	if events != 1 || promises != 1 || notifications != 1 {
		t.Errorf("%d batches of events, %d promises, %d notifications, want one of each", events, promises, notifications)
	}
	if n := s.ready.len() + len(s.held); n > controlQueueMax {
		t.Errorf("%d cursors are kept, of 2 watches", n)
	}
	s.Close()
	w.checkEmpty()
}

// awaitNotifier returns once the watchers of all that was applied were woken.
func (w *world) awaitNotifier() {
	for w.hub.notifiedRev() != w.hub.Revision() {
		runtime.Gosched()
	}
}

// TestGapReadsHistory: a state which came from elsewhere is read from its history.
func TestGapReadsHistory(t *testing.T) {
	w := newWorld(t, Options{})
	s := w.hub.NewStream()
	defer s.Close()
	s.Create(CreateRequest{Key: []byte("a"), PrevKV: true})
	mustNext(t, s)
	w.apply(putReq("a", "1"))
	if b := mustNext(t, s); len(b.Events) != 1 {
		t.Fatalf("got %+v", b)
	}
	for i := range 5 { // applied, but never appended
		w.index++
		w.state.Apply(mvcc.Entry{Index: w.index, Term: 1, Request: putReq("a", fmt.Sprint(i))})
	}
	v := w.state.Publish()
	w.view.Store(v)
	w.hub.Append(v, nil)
	b := mustNext(t, s)
	if len(b.Events) != 5 || b.Revision != v.Revision() {
		t.Fatalf("got %d events at %d", len(b.Events), b.Revision)
	}
	w.apply(putReq("a", "live"))
	if b := mustNext(t, s); len(b.Events) != 1 {
		t.Fatalf("got %+v", b)
	}
}
