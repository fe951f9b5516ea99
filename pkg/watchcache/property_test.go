package watchcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// seen is one batch as a client decodes it.
type seen struct {
	Batch
	events []*mvccpb.Event
}

// client is one stream with everything it was sent. Its sender is slow by chance:
// it takes a batch only when it is given a token.
type client struct {
	s      *Stream
	tokens chan struct{}

	mu   sync.Mutex
	cond sync.Cond
	got  []seen
	err  error

	watches []*asked // in the order of Create; the receiver's own
}

// asked is one watch as it was asked for.
type asked struct {
	req       CreateRequest
	compacted mvcc.Revision // when it was asked for
	cancelled bool
	refused   bool
}

func newClient(h *Hub, tokens int) *client {
	c := &client{s: h.NewStream(), tokens: make(chan struct{}, tokens)}
	c.cond.L = &c.mu
	return c
}

func (c *client) run() {
	for range c.tokens {
		b, err := c.s.Next(context.Background())
		c.mu.Lock()
		if err == nil {
			var evs []*mvccpb.Event
			evs, err = decodeFrames(b.Events)
			b.Events = nil
			c.got = append(c.got, seen{b, evs})
		}
		c.err = err
		c.cond.Broadcast()
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

var propertyKeys = func() []string {
	keys := []string{"compact_rev_key", "a", "/", "/registry/", "/calico/x/y", "/registry/pods", "/registry/stable.example.com/crontabs/ns/n"}
	for _, r := range []string{"pods", "services/specs", "leases"} {
		for _, ns := range []string{"default", "kube-system", "n"} {
			for i := range 3 {
				keys = append(keys, fmt.Sprintf("/registry/%s/%s/%c", r, ns, 'a'+i))
			}
		}
	}
	return keys
}()

func randomRange(r *rand.Rand) (key, end []byte) {
	k := propertyKeys[r.IntN(len(propertyKeys))]
	switch r.IntN(6) {
	case 0:
		return []byte(k), nil
	case 1: // a prefix up to some slash, as apiservers watch
		b := []byte(k)
		if i := bytes.LastIndexByte(b[:r.IntN(len(b))+1], '/'); i >= 0 {
			b = b[:i+1]
		}
		return b, append(append([]byte{}, b[:len(b)-1]...), b[len(b)-1]+1)
	case 2: // any prefix
		b := []byte(k)[:1+r.IntN(len(k))]
		return b, append(append([]byte{}, b[:len(b)-1]...), b[len(b)-1]+1)
	case 3: // from a key on
		return []byte(k), []byte{0}
	case 4: // everything
		return nil, []byte{0}
	}
	return []byte(k), []byte(propertyKeys[r.IntN(len(propertyKeys))]) // often empty
}

// TestRandomStreams runs writes, compactions, watches, cancels and progress
// requests of several slow streams against the list of what happened (I5, I6).
func TestRandomStreams(t *testing.T) {
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	for range rounds {
		seed := uint64(time.Now().UnixNano())
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { randomStreams(t, seed) }) {
			return
		}
	}
}

func randomStreams(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	opts := Options{WindowEvents: 8 + r.IntN(60), BatchBytes: 200 + r.IntN(2000)}
	w := newWorld(t, opts)
	const steps = 1500
	clients := make([]*client, 5)
	var running sync.WaitGroup
	for i := range clients {
		clients[i] = newClient(w.hub, 100*steps)
		running.Go(clients[i].run)
	}
	for range steps {
		c := clients[r.IntN(len(clients))]
		switch n := r.IntN(100); {
		case n < 55:
			w.randomWrite(r)
		case n < 57:
			w.randomCompact(r)
		case n < 67:
			c.create(w, r)
		case n < 71:
			c.cancel(r)
		case n < 77:
			c.s.RequestProgress()
		case n < 80:
			c.s.Tick()
		default:
			for range r.IntN(8) {
				c.tokens <- struct{}{}
			}
		}
		if r.IntN(8) == 0 {
			runtime.Gosched()
		}
	}
	w.hub.Append(w.view.Load(), nil)
	for _, c := range clients {
		c.finish(t, w)
		c.s.Close()
	}
	running.Wait()
	for _, c := range clients {
		if !errors.Is(c.err, ErrClosed) {
			t.Fatalf("a stream ended with %v", c.err)
		}
		check(t, w, c)
	}
	w.checkEmpty()
}

func (w *world) randomWrite(r *rand.Rand) {
	key := func() string { return propertyKeys[r.IntN(len(propertyKeys))] }
	val := func() string { return string(bytes.Repeat([]byte{'v'}, r.IntN(100))) }
	if r.IntN(40) == 0 {
		w.applyUnseen(putReq(key(), val()), delReq(key()))
		if r.IntN(2) == 0 {
			w.hub.Append(w.view.Load(), nil)
		}
		return
	}
	switch r.IntN(5) {
	case 0:
		w.apply(delReq(key()))
	case 1:
		perm := r.Perm(len(propertyKeys))[:2+r.IntN(5)]
		var keys []string
		for _, i := range perm {
			keys = append(keys, propertyKeys[i])
		}
		w.apply(txnReq(val(), keys...))
	case 2: // several revisions in one append
		w.apply(putReq(key(), val()), delReq(key()), putReq(key(), val()))
	default:
		w.apply(putReq(key(), val()))
	}
}

func (w *world) randomCompact(r *rand.Rand) {
	v := w.view.Load()
	from, to := max(v.Compacted()+1, 1), v.Revision()
	if from > to {
		return
	}
	w.apply(compactReq(from + mvcc.Revision(r.Int64N(int64(to-from+1)))))
}

func (c *client) create(w *world, r *rand.Rand) {
	req := CreateRequest{
		PrevKV: r.IntN(2) == 0, Fragment: r.IntN(2) == 0, ProgressNotify: r.IntN(2) == 0,
		NoPut: r.IntN(10) == 0, NoDelete: r.IntN(10) == 0,
	}
	req.Key, req.RangeEnd = randomRange(r)
	rev := w.view.Load().Revision()
	switch r.IntN(8) {
	case 0:
		req.StartRevision = rev + mvcc.Revision(r.IntN(20))
	case 1:
		req.StartRevision = -1
	case 2, 3, 4:
		req.StartRevision = 1 + mvcc.Revision(r.Int64N(int64(rev)))
	case 5:
		req.StartRevision = max(1, rev-mvcc.Revision(r.IntN(20)))
	}
	if r.IntN(4) == 0 {
		req.ID = 1 + r.Int64N(20)
	}
	a := &asked{req: req, compacted: w.view.Load().Compacted()}
	c.watches = append(c.watches, a)
	for range 2 { // room for the answer, so that Create does not block on a client without tokens
		c.tokens <- struct{}{}
	}
	c.s.Create(req)
}

func (c *client) cancel(r *rand.Rand) {
	c.tokens <- struct{}{}
	c.s.Cancel(r.Int64N(20))
}

// finish cancels what can keep a progress request from being answered, then waits
// for the promise that everything was sent.
func (c *client) finish(t *testing.T, w *world) {
	for len(c.tokens) < cap(c.tokens) {
		c.tokens <- struct{}{}
	}
	rev := w.view.Load().Revision()
	c.s.mu.Lock()
	var ids []int64
	for id, x := range c.s.watchers {
		if x.first > rev {
			ids = append(ids, id)
		}
	}
	c.s.mu.Unlock()
	for _, id := range ids {
		c.s.Cancel(id)
	}
	// A stream without watches is promised nothing.
	c.s.Create(CreateRequest{Key: []byte("nobody")})
	c.watches = append(c.watches, &asked{req: CreateRequest{Key: []byte("nobody")}})
	for {
		c.mu.Lock()
		n := len(c.got)
		c.mu.Unlock()
		c.dropCompacted()
		c.s.RequestProgress()
		c.mu.Lock()
		for c.err == nil && !c.promised(rev) && !c.expiredLast(n) {
			c.cond.Wait()
		}
		done := c.promised(rev) || c.err != nil
		c.mu.Unlock()
		if done {
			return
		}
	}
}

// promised: the last progress of the whole stream is at rev or later.
func (c *client) promised(rev mvcc.Revision) bool {
	for i := len(c.got) - 1; i >= 0; i-- {
		if b := c.got[i]; b.Kind == BatchProgress && b.WatchID == NoWatchID {
			return b.Revision >= rev
		}
	}
	return false
}

// expiredLast: a watch was compacted since n, which drops the progress request.
func (c *client) expiredLast(n int) bool {
	for _, b := range c.got[n:] {
		if b.CompactRevision != 0 {
			return true
		}
	}
	return false
}

func (c *client) dropCompacted() {
	c.s.mu.Lock()
	var ids []int64
	for id, x := range c.s.watchers {
		if x.state == stateCompacted {
			ids = append(ids, id)
		}
	}
	c.s.mu.Unlock()
	for _, id := range ids {
		c.s.Cancel(id)
	}
}

// life is one watch while the transcript is read.
type life struct {
	*asked
	w       *watcher
	created mvcc.Revision
	from    mvcc.Revision // first revision it has to see
	pos     int           // in happens: everything before was seen or does not concern it
	over    bool
}

// check reads a client's transcript against the list of what happened.
func check(t *testing.T, w *world, c *client) {
	t.Helper()
	lives := map[int64]*life{}
	asks := c.watches
	last := mvcc.Revision(0)
	for i, b := range c.got {
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("answer %d %+v: %s", i, b, fmt.Sprintf(format, args...))
		}
		switch b.Kind {
		case BatchCreated:
			a := asks[0]
			asks = asks[1:]
			if err := wantRefusal(a, lives); !errors.Is(b.Err, err) || (b.Err == nil) != (err == nil) {
				fail("refused with %v, want %v", b.Err, err)
			} else if err != nil {
				if b.WatchID != NoWatchID {
					fail("a refusal names a watch")
				}
				continue
			}
			l := &life{asked: a, created: b.Revision, from: a.req.StartRevision}
			if l.from == 0 {
				l.from = b.Revision + 1
			}
			l.w = newWatcher(nil, a.req)
			lives[b.WatchID] = l
		case BatchEvents:
			l := lives[b.WatchID]
			if l == nil || l.over {
				fail("events of a watch that is not there")
			}
			if err := l.take(w, b); err != nil {
				fail("%v", err)
			}
		case BatchCancelled:
			l := lives[b.WatchID]
			if l == nil {
				fail("a watch that is not there is cancelled")
			}
			if b.CompactRevision == 0 {
				delete(lives, b.WatchID)
				continue
			}
			if next := l.nextMod(w); l.over || b.Revision != 0 || next >= b.CompactRevision && l.from >= b.CompactRevision {
				fail("compacted, but the next event is at %d and its start at %d", next, l.from)
			}
			l.over = true
		case BatchProgress:
			if b.WatchID != NoWatchID {
				if l := lives[b.WatchID]; l == nil || l.over || !l.req.ProgressNotify || l.nextMod(w) <= b.Revision {
					fail("progress of a watch which has not got it all")
				}
				continue
			}
			if b.Revision < last {
				fail("progress goes back from %d", last)
			}
			last = b.Revision
			for id, l := range lives {
				if l.created <= b.Revision && (l.over || l.nextMod(w) <= b.Revision) && !cancelled(c.got[i+1:], id) {
					fail("watch %d has its event at %d still to come", id, l.nextMod(w))
				}
			}
		}
	}
	checkComplete(t, w, lives)
}

// cancelled: the answer to a cancel is among what is left, so that it may have been asked for by now.
func cancelled(left []seen, id int64) bool {
	for _, b := range left {
		if b.Kind == BatchCancelled && b.WatchID == id && b.CompactRevision == 0 {
			return true
		}
	}
	return false
}

// checkComplete: every watch that is left got all it has to see.
func checkComplete(t *testing.T, w *world, lives map[int64]*life) {
	t.Helper()
	for id, l := range lives {
		if next := l.nextMod(w); !l.over && next < noLimit {
			t.Fatalf("watch %d (%+v) never got the event at %d", id, l.req, next)
		}
	}
}

func wantRefusal(a *asked, lives map[int64]*life) error {
	w := newWatcher(nil, a.req)
	if err := w.check(a.req); err != nil {
		return err
	}
	if lives[a.req.ID] != nil && a.req.ID != 0 {
		return ErrDuplicateID
	}
	return nil
}

// nextMod is the revision of the next event the watch has to see.
func (l *life) nextMod(w *world) mvcc.Revision {
	for ; l.pos < len(w.happens); l.pos++ {
		h := w.happens[l.pos]
		if mod := mvcc.Revision(h.kv.ModRevision); mod >= l.from && l.w.wants(h.kv.Key, h.typ == mvccpb.Event_DELETE) {
			return mod
		}
	}
	return noLimit
}

func (l *life) take(w *world, b seen) error {
	if len(b.events) == 0 {
		return errors.New("no events")
	}
	for _, ev := range b.events {
		next := l.nextMod(w)
		if next == noLimit || int64(next) != ev.Kv.ModRevision {
			return fmt.Errorf("event at %d, want the one at %d", ev.Kv.ModRevision, next)
		}
		h := w.happens[l.pos]
		l.pos++
		if ev.Type != h.typ || !proto.Equal(ev.Kv, h.kv) {
			return fmt.Errorf("event %v, want %v", ev, h)
		}
		switch {
		case ev.PrevKv == nil:
			// It may be gone if it was compacted when the watch was made or since.
			if l.req.PrevKV && h.prev != nil && w.view.Load().Compacted() < next {
				return fmt.Errorf("event %v without prev_kv %v", ev, h.prev)
			}
		case !l.req.PrevKV || !proto.Equal(ev.PrevKv, h.prev):
			return fmt.Errorf("event %v with prev_kv, want %v (%v)", ev, h.prev, l.req.PrevKV)
		case next <= l.compacted:
			return fmt.Errorf("event %v with a prev_kv that was compacted at %d", ev, l.compacted)
		}
	}
	lastMod := mvcc.Revision(b.events[len(b.events)-1].Kv.ModRevision)
	if l.nextMod(w) == lastMod {
		return fmt.Errorf("revision %d is cut in two", lastMod)
	}
	if b.Revision < lastMod {
		return fmt.Errorf("header revision is before the last event's %d", lastMod)
	}
	return nil
}

// checkEmpty: nothing is left of the streams.
func (w *world) checkEmpty() {
	h := w.hub
	st := h.Stats()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.groups) != 0 || len(h.topics) != 0 || len(h.root.single) != 0 || len(h.root.prefix) != 0 || h.root.odd.root != nil {
		w.t.Fatalf("groups %d, topics %d are left", len(h.groups), len(h.topics))
	}
	if st.Streams != 0 || st.Watchers != 0 || st.Slow != 0 || st.Pending != 0 {
		w.t.Fatalf("left: %+v", st)
	}
	if h.Waking() {
		w.t.Fatalf("%d senders are said to wake", h.waking.Load())
	}
}
